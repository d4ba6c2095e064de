"""The parts of a live view that need no other process: mosaic, kept frames, verdict, pictures."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ptycho_torch.config import ReadingOptions
from ptycho_torch.data.scan import Reconstruction
from ptycho_torch.evaluation.verdict import verdict_on
from ptycho_torch.inference.live import growing_mosaic, growing_scan
from ptycho_torch.inference.live.growing_mosaic import GrowingMosaic
from ptycho_torch.inference.live.growing_scan import GrowingScan
from ptycho_torch.inference.live.live_pictures import draw, with_legend
from ptycho_torch.inference.live.live_state import RATE_S, Lag, judge
from ptycho_torch.inference.live.source import Arrivals, Faults
from ptycho_torch.inference.stitching import Mosaic
from ptycho_torch.io.readers.raw_scan import RawScan


def canvases(seed=0):
    """Random canvases of several sizes that go to all sides of the first."""
    rng = np.random.default_rng(seed)
    for origin in ((0, 0), (10, 5), (-12, 3), (4, -30), (25, 25), (-40, -40)):
        shape = tuple(rng.integers(15, 25, 2))
        image = rng.normal(size=shape) + 1j * rng.normal(size=shape)
        weight = torch.from_numpy(rng.uniform(0.1, 1, shape)).float()
        yield torch.from_numpy(image).to(torch.complex64), weight, np.array(origin)


def test_a_growing_mosaic_is_the_mosaic_on_the_whole_canvas():
    whole, grown = Mosaic(np.array([-100.0, -100.0]), (250, 250)), GrowingMosaic()
    for one in canvases():
        whole.add(*one)
        grown.add([one])
    expected, weight = whole.finish()
    image, light, origin = grown.image()
    top, left = (origin + 100).astype(int)
    window = np.s_[top : top + image.shape[0], left : left + image.shape[1]]
    np.testing.assert_array_equal(image, expected.numpy()[window])
    np.testing.assert_array_equal(light, (weight / weight.max()).numpy()[window])
    assert light.sum() == pytest.approx(float((weight / weight.max()).sum()), rel=1e-6)


def arrivals(scan, rows, **changes):
    raw = RawScan(
        source="test",
        patterns=np.asarray(scan.counts)[rows],
        patterns_key="patterns",
        values="counts",
        positions=scan.positions_px[rows],
        positions_unit="px",
        probe=scan.probe,
        scan_index=np.asarray(rows),
    )
    return Arrivals(replace(raw, **changes), np.full(len(rows), 100.0))


@pytest.fixture
def faults():
    return Faults()


@pytest.fixture
def growing(faults):
    return GrowingScan(ReadingOptions(), faults, None)


def test_the_probe_has_the_photons_of_a_mean_frame(growing, simulation):
    scan = simulation.scan
    for start in range(0, 64, 10):
        growing.add(arrivals(scan, np.arange(start, min(start + 10, 64))))
    expected = np.asarray(scan.counts).sum() / 64
    assert growing.scan().photons == pytest.approx(expected, rel=1e-5)  # float32 of the probe


def test_kept_frames_are_bounded_and_the_newest(growing, simulation, faults, monkeypatch):
    monkeypatch.setattr(growing_scan, "MOST_KEPT", 16)
    monkeypatch.setattr(growing_scan, "LEAST_KEPT", 16)
    for start in range(0, 64, 8):
        growing.add(arrivals(simulation.scan, np.arange(start, start + 8)))
        growing.take_regions(100.0, everything=True)
    kept = growing.scan()
    assert sorted(kept.scan_index) == list(range(48, 64))
    for place, index in enumerate(kept.scan_index):
        np.testing.assert_array_equal(kept.counts[place], simulation.scan.counts[index])
    assert (growing.total, faults.discarded) == (64, 0)


def test_every_frame_goes_through_the_network_once(growing, simulation):
    cores = []
    for start in range(0, 64, 20):
        growing.add(arrivals(simulation.scan, np.arange(start, min(start + 20, 64))))
        for region in growing.take_regions(100.1, everything=start == 60):
            cores += growing.scan().scan_index[region.points[: region.n_core]].tolist()
    assert sorted(cores) == list(range(64))


def test_few_frames_wait_for_others_and_not_for_ever(growing, simulation):
    growing.add(arrivals(simulation.scan, np.arange(5)))
    assert growing.take_regions(100.1, everything=False) == []
    (region,) = growing.take_regions(100.0 + 2 * growing_scan.LONGEST_WAIT_S, everything=False)
    assert region.n_core == 5


def test_frames_that_cannot_be_used_are_counted(growing, simulation, faults):
    scan = simulation.scan
    far = scan.positions_px[:4].copy()
    far[2] = growing_mosaic.MAX_PIXELS
    broken = np.asarray(scan.counts)[:4].astype(np.float32)
    broken[1] = np.nan
    growing.add(arrivals(scan, np.arange(30, 50)))
    growing.take_regions(100.0, everything=True)
    growing.add(arrivals(scan, np.arange(4), positions=far, patterns=broken))
    assert growing.total == 22
    assert faults == Faults(out_of_order=4, damaged=1, misplaced=1)
    growing.add(arrivals(scan, np.arange(40, 52)))
    assert (faults.doubled, growing.total) == (10, 24)
    assert growing.lost(64) == 64 - 26


@pytest.mark.parametrize(
    ("spoil", "missing", "level"),
    [
        (1.0, 0.0, "trust it"),
        (1.0, 0.1, "look twice"),
        (0.0, 0.0, "do not trust it"),
    ],
)
def test_the_verdict_is_that_of_a_finished_image(simulation, spoil, missing, level):
    """The truth explains the newest frames, an object of which nothing is left does not."""
    truth = simulation.truth
    mean = np.full_like(truth.object, 1)
    result = replace(truth, object=spoil * truth.object + (1 - spoil) * mean)
    known = {"trained": {"steps": 100}, "beyond_training": [], "missing_share": missing}
    verdict, figures = judge(simulation.scan, result, 63, known)
    assert verdict == verdict_on(figures | known).to_dict()
    assert verdict["level"] == level


def test_there_is_no_verdict_before_a_frame_lies_in_the_image(simulation):
    away = replace(simulation.truth, origin_yx=simulation.truth.origin_yx + 1000)
    verdict, figures = judge(simulation.scan, away, 63, {})
    assert (verdict["level"], figures) == ("wait", {})


def image_with(phase, coverage, pixel_size_m=None):
    """A reconstruction with a phase in rad, (Y, X)."""
    return Reconstruction(
        object=np.exp(1j * phase).astype(np.complex64),
        coverage=coverage,
        origin_yx=np.zeros(2),
        probe=np.ones((1, 8, 8), dtype=np.complex64),
        positions_px=np.zeros((1, 2)),
        scan_index=np.zeros(1, dtype=np.int64),
        pixel_size_m=pixel_size_m,
    )


def test_the_lag_is_that_of_the_newest_picture_or_of_a_frame_that_waits_longer():
    lag = Lag()
    assert lag.at(100.0, (None, None)) == 0
    assert lag.at(101.0, (99.0, None)) == 2
    lag.drawn(101.5, oldest=98.5)
    assert lag.at(102.0, (101.0, 101.8)) == 3
    assert lag.at(105.0, (101.0, 101.8)) == 4
    silent = 101.5 + RATE_S
    assert lag.at(silent, (None, None)) == 0, "all frames are shown, and no more came"
    assert lag.at(silent, (silent + 1, None)) == 0, "a clock that was set back"
    assert lag.largest_s == 4


def opened(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def test_pictures_show_values_and_are_clear_where_no_light_fell():
    phase = np.zeros((40, 50))
    phase[10:] = np.linspace(-1, 1, 30)[:, None] ** 2
    coverage = np.ones((40, 50), dtype=np.float32)
    coverage[:10] = 0
    coverage[20, 20] = 0
    pictures = draw(image_with(phase + 0.02 * np.arange(50), coverage))  # and a ramp in x
    assert pictures.bar is None
    shown = pictures.by_name["phase"]
    assert np.subtract(*shown.span[::-1]) == pytest.approx(0.99, abs=0.05)  # of 0 to 1 rad
    image = opened(shown.png)
    assert image.shape == (30, 50, 4)  # the dark rows are left out
    assert image[10, 20, 3] == 0
    assert image[0, 0, 3] == 255
    light = opened(pictures.by_name["coverage"].png)
    assert (light[0, 0, :3] == 255).all()
    assert (light[..., 3] == image[..., 3]).all()
    brightness = image[:, 30, :3].astype(float).sum(axis=1)
    assert brightness[-1] > brightness[23] > brightness[15]
    assert np.ptp(image[5, :, :3].astype(int), axis=0).max() < 12, "the ramp is left out"


@pytest.mark.parametrize(("turns", "colours"), [(0.6, "magma"), (2.0, "twilight_shifted")])
def test_phases_that_wrap_have_cyclic_colours(turns, colours):
    waves = np.cos(2 * np.pi * np.arange(64) / 32)
    phase = np.pi * turns * np.outer(waves, waves)
    shown = draw(image_with(phase + 3, np.ones((64, 64), np.float32))).by_name["phase"]
    assert shown.colours == colours
    assert np.subtract(*shown.span[::-1]) == pytest.approx(2 * np.pi * min(turns, 1), rel=0.1)


@pytest.mark.parametrize(("width", "text"), [(70, "100 nm"), (900, "2 µm")])
def test_files_have_a_legend_and_a_bar_as_long_as_it_says(width, text):
    pixel_m = 1e-8
    pictures = draw(
        image_with(np.zeros((40, width)), np.ones((40, width), np.float32), (2e-8, pixel_m))
    )
    assert pictures.bar.text == text
    for name, picture in pictures.by_name.items():
        sheet = opened(with_legend(name, picture, pictures.bar))[..., :3]
        times = sheet.shape[1] // width
        below = sheet[40 * times :]
        assert len(below) > 30
        assert (below[-1] == 255).all(), "nothing is cut off"
        dark = (below == 0).all(axis=2)
        longest = max(len(run) for row in dark for run in runs(row))
        length_m = float(text.split()[0]) * {"nm": 1e-9, "µm": 1e-6}[text.split()[1]]
        assert longest * pixel_m / times == pytest.approx(length_m, rel=0.03)


def runs(row):
    """The groups of neighbours in a row that are true."""
    parts = np.split(row, np.flatnonzero(np.diff(row)) + 1)
    return [part for part in parts if part[0]]

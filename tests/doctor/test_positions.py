"""Positions that an encoder spoiled: named by the doctor, left out by runs."""

from dataclasses import replace

import numpy as np
import pytest

from ptycho_torch.config import ReadingOptions
from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.doctor.examination import examine, examine_quickly
from ptycho_torch.doctor.findings import ERROR, OK, WARNING, take_sample
from ptycho_torch.doctor.lost_positions import lost_positions
from ptycho_torch.doctor.open_scan import open_scan
from ptycho_torch.errors import InputError
from ptycho_torch.io.writers import write_scan


@pytest.fixture(scope="module")
def scan():
    return simulate_scan(photons=1e5, n_side=8, pattern_size=32, step_px=3.0, seed=1).scan


def moved(scan, number, by):
    positions = scan.positions_px.copy()
    positions[number] += by
    return replace(scan, positions_px=positions)


def verdicts(scan, look):
    return {one.check: one for one in look(scan, take_sample(scan, all_totals=True))}


@pytest.mark.parametrize("distance", [5000.0, 9999.0, 1e5, 1e9, 1e30, -1e30, 1e300])
@pytest.mark.parametrize("axes", [(1, 1), (1, 0)])
def test_a_wild_position_is_named_and_left_out(distance, axes, scan, tmp_path, caplog):
    wild = moved(scan, 17, np.array(axes) * distance)
    assert lost_positions(wild).tolist() == [17]
    found = verdicts(wild, examine_quickly)["lost"]
    assert found.verdict == WARNING
    assert "the position of pattern 17 lies" in found.text
    path = tmp_path / "wild.npz"
    write_scan(path, wild)
    with caplog.at_level("WARNING"):
        opened = open_scan(path, ReadingOptions())
    assert "pattern 17 lies" in caplog.text
    assert "the pattern is left out" in caplog.text
    kept = np.delete(np.arange(len(scan)), 17)
    assert opened.scan_index.tolist() == scan.scan_index[kept].tolist()
    np.testing.assert_allclose(opened.positions_px, scan.positions_px[kept], atol=1e-9)
    np.testing.assert_array_equal(opened.counts[:], scan.counts[kept])
    assert opened.canvas()[1] == scan.subset(kept).canvas()[1]


@pytest.mark.parametrize("distance", [1e13, 1e18, 1e300])
@pytest.mark.parametrize("axes", [(1, 1), (1, 0)])
def test_positions_too_far_from_zero_for_fractions_of_a_pixel_are_an_error(
    distance, axes, scan, tmp_path
):
    far = replace(scan, positions_px=scan.positions_px + np.array(axes) * distance)
    found = verdicts(far, examine)["lost"]
    assert found.verdict == ERROR
    assert "subtract their mean" in found.text
    path = tmp_path / "far.npz"
    write_scan(path, far)
    with pytest.raises(InputError, match=r"not exact to a thousandth of a pixel"):
        open_scan(path, ReadingOptions())
    with pytest.raises(InputError, match=r"not exact to a thousandth of a pixel"):
        far.canvas()


def test_positions_of_a_stage_far_from_its_zero_are_as_good(scan):
    far = replace(scan, positions_px=np.rint(scan.positions_px) + 1e11)
    assert verdicts(far, examine_quickly)["lost"].verdict == OK
    assert far.canvas()[1] == replace(scan, positions_px=np.rint(scan.positions_px)).canvas()[1]


@pytest.mark.parametrize("distance", [1e9, 1e12, 1e300])
def test_two_halves_of_a_scan_that_are_far_apart_are_an_error(distance, scan):
    half = replace(
        scan, positions_px=scan.positions_px + distance * (np.arange(len(scan)) % 2)[:, None]
    )
    assert verdicts(half, examine)["lost"].verdict == ERROR


def test_two_fields_of_one_scan_are_both_kept(scan):
    fields = scan.positions_px + np.where(np.arange(len(scan)) < 20, 0.0, 2000.0)[:, None]
    assert not len(lost_positions(replace(scan, positions_px=fields)))


def test_a_dark_canvas_is_refused_before_it_is_made(scan):
    spread = scan.positions_px + np.where(np.arange(len(scan)) < 20, 0.0, 1e5)[:, None]
    with pytest.raises(InputError, match=r"positions span 1.001e.05 x 1.001e.05 px"):
        replace(scan, positions_px=spread).canvas()


def test_an_encoder_that_stood_still_is_a_doubt(scan):
    positions = scan.positions_px.copy()
    positions[20:30] = positions[20]
    found = verdicts(replace(scan, positions_px=positions), examine_quickly)["order"]
    assert found.verdict == WARNING
    assert "patterns 20 to 29 are the same" in found.text


@pytest.mark.parametrize("late", [1, -1])
def test_positions_late_by_a_frame_are_a_doubt(late, scan):
    shifted = replace(scan, positions_px=np.roll(scan.positions_px, late, axis=0))
    part = shifted.subset(np.arange(1, len(scan) - 1))
    assert verdicts(part, examine)["timing"].verdict == WARNING
    assert verdicts(scan, examine)["timing"].verdict == OK

"""No consumer of a scan sees its bad pixels: with noise on them, all results have the same bits.

Nor is a bad pixel taken for a dark one: where the good pixels are explained, nothing is left to do.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from ptycho_torch.config import ReadingOptions
from ptycho_torch.config.registry import LOSSES, load
from ptycho_torch.data.augmentation import apply_symmetry, random_input_fraction, split_photons
from ptycho_torch.data.grouping import make_group
from ptycho_torch.data.scan import relative_photons
from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.doctor.examination import examine_quickly
from ptycho_torch.doctor.findings import take_sample
from ptycho_torch.doctor.orientation import neighbourhood
from ptycho_torch.evaluation.metrics.residuals import (
    empty_r_factor,
    noise_r_factor,
    pattern_residuals,
    predict_patterns,
    r_factor,
)
from ptycho_torch.evaluation.pattern_fit import fit_of_patterns
from ptycho_torch.inference.half_data import correlate_halves
from ptycho_torch.inference.live.growing_scan import GrowingScan
from ptycho_torch.inference.live.live_state import judge
from ptycho_torch.inference.live.source import Arrivals, Faults
from ptycho_torch.inference.tiling import reconstruct_scan, tile_sizes
from ptycho_torch.io.measurement_file import scan_hash
from ptycho_torch.io.readers.raw_scan import RawScan
from ptycho_torch.refinement import RefineOptions, mode_gain, refine
from ptycho_torch.refinement.measurement import refine_measurement
from ptycho_torch.refinement.measurement_refiner import MeasurementOptions
from ptycho_torch.refinement.probe_retrieval import mean_pattern, refine_from_uniform
from ptycho_torch.train.module import PtychoModule


@pytest.fixture(scope="module", params=[1e7, 3e3], ids=["many_photons", "few_photons"])
def made(request):
    """64 patterns, and their truth; few photons have another likelihood than many."""
    return simulate_scan(photons=request.param, n_side=8, step_px=3.0, pattern_size=32, seed=1)


@pytest.fixture(scope="module")
def scans(made):
    """The same scan twice, of which the second has noise on its bad pixels.

    They are a gap between modules beside the beam, and single pixels, one of them in the beam.
    """
    mask = np.ones((32, 32), dtype=bool)
    mask[9:11] = mask[16, 17] = mask[3, 5] = mask[30, 1] = False
    counts = made.scan.counts[:]
    noise = np.random.default_rng(0).integers(0, 10**6, counts.shape)
    dark, noisy = (np.where(mask, counts, bad).astype(counts.dtype) for bad in (0, noise))
    return tuple(replace(made.scan, mask=mask, counts=values) for values in (dark, noisy))


def trained_step(generator, loss):
    """A consumer: the gradient of a step of training, on photons that are drawn."""

    def consume(scan, made):
        torch.manual_seed(0)
        settings = {"group_size": 16, "width": 4} if generator == "unet" else {"width": 4}
        module = PtychoModule(
            generator=generator, settings=settings, loss=loss, learning_rate=1e-3,
            scheduler="constant", seed=0, about={},
        )  # fmt: skip
        rng = torch.Generator().manual_seed(0)
        group = apply_symmetry(make_group(scan, np.arange(16)), 5)
        shown, target = split_photons(group, random_input_fraction(group, rng), rng)
        module.group_loss(shown, target).sum().backward()
        return [one.grad for one in module.parameters() if one.grad is not None]

    return consume


def predicted(scan, made):
    torch.manual_seed(0)
    module = PtychoModule(
        generator="unrolled", settings={"width": 4}, loss="poisson", learning_rate=1e-3,
        scheduler="constant", seed=0, about={},
    )  # fmt: skip
    sizes = tile_sizes(module.generator, scan, None)
    return reconstruct_scan(module.generator, scan, sizes=sizes, batch_size=2).object


def start_of(made):
    return replace(made.truth, object=np.ones_like(made.truth.object))


def refined(scan, made):
    options = RefineOptions(epochs=3, update_probe=True, probe_modes=2)
    result = refine(scan, start_of(made), options)
    return result.reconstruction.object, result.reconstruction.probe, result.history


def refined_measurement(scan, made):
    wanted = MeasurementOptions(
        positions="on", flux="on", background="on", probe="on", probe_components=0, probe_modes=1
    )
    found = refine_measurement(scan, wanted)
    parts = ("positions_px", "flux", "background", "probe")
    return [getattr(found.scan, part) for part in parts], found.findings


def metrics(scan, made):
    residuals = pattern_residuals(made.truth, scan)
    figures = (
        r_factor(made.truth, scan),
        empty_r_factor(made.truth.probe, scan),
        noise_r_factor(scan),
        scan.pattern_totals(),
    )
    fit = fit_of_patterns(made.truth, scan, residuals, scan.positions_px)
    return figures, vars(residuals), vars(fit)


def ring_correlation(scan, made):
    options = RefineOptions(epochs=2)
    halves = correlate_halves(
        scan, lambda half: refine_from_uniform(half, options).reconstruction, seed=0
    )
    return vars(halves)


def examined(scan, made):
    return examine_quickly(scan, take_sample(scan, all_totals=True))


def growing(scan, made):
    """What a live view keeps of frames as they come from the detector, one of them damaged."""
    patterns = scan.counts.astype(np.float32)
    patterns[5, 20, 20] = np.nan
    raw = RawScan(
        source="frames", patterns=patterns, patterns_key="patterns",
        values="counts", positions=scan.positions_px, positions_unit="px", probe=scan.probe,
        mask=scan.mask, scan_index=scan.scan_index,
    )  # fmt: skip
    grown = GrowingScan(ReadingOptions(), Faults(), None)
    grown.add(Arrivals(raw, np.full(len(scan), 100.0)))
    kept = grown.scan()
    return kept.counts, kept.probe


# What a live view says of the network and of the frames, besides the R-factors.
KNOWN = {"trained": {"steps": 1}, "beyond_training": [], "missing_share": 0.0}

CONSUMERS = {
    "unrolled_poisson": trained_step("unrolled", "poisson"),
    "unrolled_amplitude": trained_step("unrolled", "amplitude"),
    "unet_poisson": trained_step("unet", "poisson"),
    "inference": predicted,
    "refinement": refined,
    "number_of_modes": lambda scan, made: mode_gain(scan, start_of(made), RefineOptions()),
    "measurement": refined_measurement,
    "probe_retrieval": lambda scan, made: mean_pattern(scan),
    "metrics": metrics,
    "ring_correlation": ring_correlation,
    "doctor": examined,
    "sample_of_the_doctor": lambda scan, made: vars(take_sample(scan, all_totals=True)),
    "orientation": lambda scan, made: neighbourhood(scan),
    "live_frames": growing,
    "live_verdict": lambda scan, made: judge(scan, made.truth, 3, KNOWN),
    "known_measurement": lambda scan, made: scan_hash(scan),
}


def bits(result):
    """All numbers and words of a result, in a form that compares bit by bit."""
    if isinstance(result, torch.Tensor):
        result = result.detach().numpy()
    if isinstance(result, np.ndarray):
        return result.dtype.str, result.shape, result.tobytes()
    if isinstance(result, dict):
        return {key: bits(value) for key, value in result.items()}
    if isinstance(result, list | tuple):
        return [bits(value) for value in result]
    return repr(result)


@pytest.fixture(scope="module")
def bits_of_dark(made, scans):
    """What each consumer makes of the scan whose bad pixels are dark; computed once."""
    return cache(lambda name: bits(CONSUMERS[name](scans[0], made)))


@pytest.mark.parametrize("name", CONSUMERS)
def test_noise_on_bad_pixels_changes_no_bit(name, scans, made, bits_of_dark):
    assert bits(CONSUMERS[name](scans[1], made)) == bits_of_dark(name)


@pytest.fixture(scope="module")
def explained(made, scans):
    """A scan whose good pixels the truth explains without noise, with zero on the bad ones."""
    scan = scans[0]
    expected, _ = predict_patterns(made.truth, scan, np.arange(len(scan)))
    return replace(scan, counts=np.where(scan.mask, expected.numpy(), 0).astype(np.float32))


ROUNDING = 1e-4  # of numbers near 1: float32 over some epochs, and interpolated sub-pixel shifts


def test_the_truth_is_a_perfect_fit(explained, made):
    residuals = pattern_residuals(made.truth, explained)
    assert residuals.misfit == pytest.approx(0, abs=ROUNDING)
    assert residuals.chi2 == pytest.approx(0, abs=ROUNDING)


def test_refinement_leaves_the_truth(explained, made):
    options = RefineOptions(epochs=2, update_probe=True, smoothness=0.0)
    result = refine(explained, made.truth, options)
    lit = made.truth.coverage > 0.1
    change = np.abs(result.reconstruction.object - made.truth.object)[lit]
    assert change.max() < 0.01  # a gap that is taken for dark moves it by more than 0.1
    largest = np.abs(made.truth.probe).max()
    moved = np.abs(result.reconstruction.probe - made.truth.probe).max()
    assert moved < 0.01 * largest
    assert max(entry.r_work for entry in result.history) < ROUNDING


@pytest.mark.parametrize("made", [1e7], ids=["many_photons"], indirect=True)
def test_what_is_refined_beside_object_and_probe_leaves_the_truth(explained, made):
    wanted = MeasurementOptions(
        positions="on", flux="on", background="on", probe="off", probe_components=0, probe_modes=1
    )
    found = refine_measurement(explained, wanted, start=made.truth).scan
    moved = found.positions_px - made.truth.positions_px
    assert np.abs(moved - moved.mean(axis=0)).max() < 0.05  # px; found with the object from nothing
    assert relative_photons(found) == pytest.approx(1, abs=0.01)
    assert found.background is None or found.background.sum() < 1e-3 * made.scan.photons


@pytest.mark.parametrize("loss", LOSSES)
def test_no_loss_falls_at_the_truth(loss, explained):
    counts = torch.from_numpy(explained.counts)[None]
    mask = torch.from_numpy(explained.mask)[None]
    bright = torch.where(mask[:, None], counts, 100.0)  # light falls on bad pixels, too
    intensity = bright.clone().requires_grad_()
    load(LOSSES[loss])(intensity, counts, mask).sum().backward()
    assert intensity.grad == pytest.approx(0, abs=ROUNDING)


@pytest.mark.parametrize("name", CONSUMERS)
def test_a_good_pixel_changes_the_result(name, scans, made, bits_of_dark):
    """So that none of the consumers is blind to everything."""
    scan = scans[0]
    counts = scan.counts.copy()
    counts[:, 18:21, 12:20] *= 3
    assert bits(CONSUMERS[name](replace(scan, counts=counts), made)) != bits_of_dark(name)

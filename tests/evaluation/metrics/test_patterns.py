"""Residuals of patterns, compared with direct sums and with Poisson statistics."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.evaluation.metrics.residuals import (
    amplitude_noise,
    empty_r_factor,
    noise_r_factor,
    pattern_residuals,
    r_factor,
)
from ptycho_torch.inference.half_data import to_dict


def predicted(result, scan, point):
    """Expected counts by NumPy: shift the probe, cut the patch, transform, add the modes."""
    height, width = scan.pattern_shape
    corner = scan.positions_px[point] - [height / 2, width / 2] - result.origin_yx
    whole = np.rint(corner).astype(int)
    fraction = corner - whole
    ramp = np.exp(
        -2j
        * np.pi
        * (fraction[0] * np.fft.fftfreq(height)[:, None] + fraction[1] * np.fft.fftfreq(width))
    )
    probe = np.fft.ifft2(np.fft.fft2(result.probe) * ramp)
    patch = result.object[whole[0] : whole[0] + height, whole[1] : whole[1] + width]
    waves = np.fft.fft2(probe * patch, norm="ortho")
    return np.fft.fftshift(np.sum(np.abs(waves) ** 2, axis=0))


def masked(scan):
    """The scan with a masked band of pixels, which hold wrong counts."""
    mask = np.ones(scan.pattern_shape, dtype=bool)
    mask[:, 10:14] = False
    return replace(scan, counts=np.where(mask, scan.counts[:], 10**6), mask=mask)


def test_r_factor_agrees_with_a_direct_sum(simulation):
    scan, result = (
        masked(simulation.scan),
        replace(simulation.truth, object=simulation.truth.object**2),
    )
    misfit = total = 0.0
    of_each = []
    for point in range(len(scan)):
        counts = np.asarray(scan.counts[point], dtype=np.float64)[scan.mask]
        squares = np.sum(
            (np.sqrt(predicted(result, scan, point)[scan.mask]) - np.sqrt(counts)) ** 2
        )
        of_each.append(squares / counts.sum())
        misfit, total = misfit + squares, total + counts.sum()
    assert r_factor(result, scan) == pytest.approx(misfit / total, rel=1e-4)  # float32 transforms
    found = pattern_residuals(result, scan)
    assert found.r_factor == pytest.approx(of_each, rel=1e-4)
    assert found.total_r_factor == pytest.approx(misfit / total, rel=1e-4)


def test_r_factor_of_the_truth_is_counting_noise(simulation):
    """Pixels that count many photons contribute 1/4 each, others less (Anscombe)."""
    counts = simulation.scan.counts[:].astype(float)
    many = (counts > 4).sum() / 4 / counts.sum()
    value = r_factor(simulation.truth, simulation.scan)
    assert 0.9 * many < value < 1.1 * (counts > 0).sum() / 4 / counts.sum() + 0.01
    empty = replace(simulation.truth, object=np.ones_like(simulation.truth.object))
    assert r_factor(empty, simulation.scan) > 10 * value


def test_the_r_factor_of_an_empty_object_needs_no_object(simulation):
    """Two modes, and positions between the pixels: a shift of the probe changes no intensity."""
    probe = np.concatenate([simulation.scan.probe, 0.3j * simulation.scan.probe[:, ::-1]]).astype(
        np.complex64
    )
    empty = replace(simulation.truth, object=np.ones_like(simulation.truth.object), probe=probe)
    scan = masked(simulation.scan)
    assert np.ptp(scan.positions_px % 1) > 0.5
    assert empty_r_factor(probe, scan) == pytest.approx(r_factor(empty, scan), rel=1e-4)  # float32


def test_r_free_is_the_r_factor_of_patterns_that_were_held_out(simulation):
    held_out = [3, 17, 40]
    parts = [r_factor(simulation.truth, simulation.scan.subset([point])) for point in held_out]
    photons = [float(simulation.scan.counts[point].sum()) for point in held_out]
    together = r_factor(simulation.truth, simulation.scan.subset(held_out))
    assert together == pytest.approx(np.average(parts, weights=photons))


def test_chi_squared_agrees_with_a_direct_sum(simulation):
    """The definition, pixel by pixel. A bright pixel is a cell; dark ones are added up along the
    rows until 5 photons are expected.
    """
    scan, result = masked(simulation.scan), simulation.truth
    found = pattern_residuals(result, scan)
    for point in (0, 30):
        model, counts = (
            predicted(result, scan, point)[scan.mask],
            np.asarray(scan.counts[point], dtype=float)[scan.mask],
        )
        terms, expected, counted, filled = [], 0.0, 0.0, 0.0
        for m, n in zip(model, counts, strict=True):
            if m >= 1:
                terms.append((n - m) ** 2 / m)
                continue
            expected, counted, filled = expected + m, counted + n, filled + m
            if filled >= 5 * (1 + int((filled - m) // 5)):
                terms.append((counted - expected) ** 2 / expected)
                expected = counted = 0.0
        assert found.dof[point] == len(terms)
        assert found.chi2[point] == pytest.approx(np.sum(terms), rel=1e-3)  # float32 intensities


@pytest.mark.parametrize("photons", [1e2, 1e3, 1e4, 1e6, 1e9])
def test_chi_squared_per_degree_of_freedom_of_the_truth_is_one_at_any_dose(photons):
    """The variance of a term is 2 + 1/I: at most 3 for a pixel, 2.25 for a cell; measured: within
    1.7 sigma.
    """
    made = simulate_scan(photons=photons, n_side=8, step_px=4, pattern_size=32, seed=11)
    found = pattern_residuals(made.truth, made.scan)
    assert found.chi2_per_dof == pytest.approx(1, abs=4 * np.sqrt(3 / found.dof.sum()))


def test_a_stray_photon_in_the_dark_does_not_outweigh_a_pattern(simulation):
    """A pixel with 1e-5 expected photons and 1 count would have a term of 1e5 on its own."""
    scan = simulation.scan
    dark = np.unravel_index(predicted(simulation.truth, scan, 20).argmin(), scan.pattern_shape)
    counts = scan.counts[:].copy()
    counts[20][dark] += 1
    before, after = (
        pattern_residuals(simulation.truth, replace(scan, counts=each))
        for each in (scan.counts, counts)
    )
    assert abs(after.chi2[20] - before.chi2[20]) < 5
    assert np.array_equal(np.delete(after.chi2, 20), np.delete(before.chi2, 20))


def test_chi_squared_sees_a_blurred_image_and_a_wrong_dose(simulation):
    truth, scan = simulation.truth, simulation.scan
    blurred = gaussian_filter(truth.object.real, 1) + 1j * gaussian_filter(truth.object.imag, 1)
    assert (
        pattern_residuals(replace(truth, object=blurred.astype(np.complex64)), scan).chi2_per_dof
        > 5
    )
    assert (
        pattern_residuals(replace(truth, probe=truth.probe * np.float32(1.05)), scan).chi2_per_dof
        > 2
    )


def test_the_pattern_that_is_wrong_stands_out(simulation):
    """The pattern of position 25 is replaced by that of another position."""
    counts = simulation.scan.counts[:].copy()
    counts[25] = counts[60]
    found = pattern_residuals(simulation.truth, replace(simulation.scan, counts=counts))
    assert found.r_factor.argmax() == 25
    assert found.chi2.argmax() == 25
    assert found.r_factor[25] > 10 * np.median(found.r_factor)


def test_patterns_too_dark_for_a_single_cell_have_no_degree_of_freedom(simulation):
    dim = replace(simulation.truth, probe=simulation.truth.probe * np.float32(1e-4))
    found = pattern_residuals(dim, simulation.scan)
    assert not found.dof.any()
    assert np.isnan(found.chi2_per_dof)


@pytest.mark.filterwarnings("error")
def test_a_pattern_without_a_photon_has_no_r_factor(simulation):
    """At a few photons a pattern some are empty, and 0 / 0 is no misfit."""
    counts = simulation.scan.counts[:].copy()
    counts[25] = 0
    scan = replace(simulation.scan, counts=counts)
    found = pattern_residuals(simulation.truth, scan)
    assert np.flatnonzero(np.isnan(found.r_factor)).tolist() == [25]
    assert found.total_r_factor == pytest.approx(r_factor(simulation.truth, scan))
    written = json.loads(json.dumps(to_dict(found, None, scan), allow_nan=False))
    assert [n for n, r in enumerate(written["positions"]["r_factor"]) if r is None] == [25]


def test_a_position_beyond_the_object_is_refused(simulation):
    outside = replace(simulation.scan, positions_px=simulation.scan.positions_px + 100)
    with pytest.raises(ValueError, match="beyond the canvas"):
        r_factor(simulation.truth, outside)


@pytest.mark.parametrize("expected", [0.01, 0.3, 1.0, 4.0, 29.0, 100.0])
def test_amplitude_noise_is_that_of_poisson_counts(expected):
    counts = np.random.default_rng(3).poisson(expected, 400_000)
    drawn = (np.sqrt(expected) - np.sqrt(counts)) ** 2
    margin = 5 * drawn.std() / np.sqrt(len(drawn)) + 0.01 * drawn.mean()  # above 30 it is 1/4
    assert amplitude_noise(np.array([expected]))[0] == pytest.approx(drawn.mean(), abs=margin)


@pytest.mark.parametrize("photons", [1e2, 1e3, 1e4, 1e6])
def test_noise_r_factor_is_about_what_the_truth_leaves(photons):
    made = simulate_scan(photons=photons, n_side=5, pattern_size=64, seed=7)
    assert noise_r_factor(made.scan) == pytest.approx(
        r_factor(made.truth, made.scan), rel=0.15
    )  # the estimate's own claim is some 10 %


def test_an_empty_object_shows_each_pattern_its_own_probe(simulation):
    flux = np.linspace(0.5, 1.5, len(simulation.scan))
    scan = masked(replace(simulation.scan, flux=flux))
    probe = scan.probe
    pattern = np.abs(np.fft.fftshift(np.fft.fft2(probe, norm="ortho"), axes=(1, 2))) ** 2
    expected = flux[:, None] * pattern.sum(axis=0)[scan.mask]
    counts = scan.counts[:][:, scan.mask].astype(np.float64)
    direct = np.sum((np.sqrt(expected) - np.sqrt(counts)) ** 2) / counts.sum()
    assert empty_r_factor(probe, scan) == pytest.approx(direct, rel=1e-4)  # float32 transforms
    assert empty_r_factor(probe, replace(scan, flux=None)) != pytest.approx(direct, rel=1e-2)

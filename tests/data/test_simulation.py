"""Simulated scans obey the statistics and the geometry that they claim."""

import numpy as np
import pytest
import torch

from ptycho_torch.data.probe import annular_probe
from ptycho_torch.data.simulation import random_object, setup_of, simulate_scan
from ptycho_torch.physics.forward import diffraction_intensity


def test_the_same_seed_gives_the_same_scan_and_another_seed_another():
    first, again, other = (
        simulate_scan(photons=1e5, n_side=3, pattern_size=32, seed=seed) for seed in (5, 5, 6)
    )
    assert np.array_equal(first.scan.counts[:], again.scan.counts[:])
    assert not np.array_equal(first.scan.counts[:], other.scan.counts[:])


def test_counts_have_the_mean_and_the_variance_of_a_poisson_process(simulation):
    """Compared with the intensity of patches cut by NumPy from the truth, with the probe shifted by
    NumPy.
    """
    scan, truth = simulation.scan, simulation.truth
    corners = scan.corners_px()
    patches = np.stack(
        [truth.object[y : y + 32, x : x + 32] for y, x in np.rint(corners).astype(int)]
    )
    fractions = corners - np.rint(corners)
    frequency = np.fft.fftfreq(32)
    ramps = np.exp(
        -2j
        * np.pi
        * (
            fractions[:, 0, None, None] * frequency[:, None]
            + fractions[:, 1, None, None] * frequency
        )
    )
    probes = np.fft.ifft2(np.fft.fft2(scan.probe[0]) * ramps)
    intensity = (
        np.abs(np.fft.fftshift(np.fft.fft2(patches * probes, norm="ortho"), axes=(1, 2))) ** 2
    )
    excess = (scan.counts[:] - intensity)[intensity > 20]
    expected = intensity[intensity > 20]
    standard = excess / np.sqrt(expected)
    assert abs(standard.mean()) < 5 / np.sqrt(standard.size)
    assert standard.var() == pytest.approx(
        1, abs=5 * np.sqrt(2 / standard.size) + 0.05
    )  # cut pixel of the probe's border


def test_the_object_is_a_transmission(simulation):
    image = random_object(100, np.random.default_rng(0))
    assert np.abs(image).min() > 0.4
    assert np.abs(image).max() <= 1.0 + 1e-6
    assert np.abs(np.angle(image)).max() < 1
    assert np.angle(image).std() > 0.2


def test_the_probe_is_dark_at_its_border_and_annular_on_the_detector():
    probe = annular_probe(64)
    intensity = np.abs(probe[0]) ** 2
    assert intensity.sum() == pytest.approx(1, rel=1e-5)
    border = intensity.sum() - intensity[4:-4, 4:-4].sum()
    assert border < 5e-3
    pattern = diffraction_intensity(torch.ones(1, 64, 64), torch.from_numpy(probe)[None])[0]
    assert pattern[32, 32] < 0.01 * pattern.max()  # the central stop
    assert pattern[:4].sum() < 0.01


@pytest.mark.parametrize("radiation", ["photons", "electrons"])
def test_a_near_field_setup_has_the_fresnel_number_of_its_pixel(radiation):
    setup = setup_of(radiation, 0.02)
    (pixel, other), instrument = setup.instrument.detector_pixel_m, setup.instrument
    assert pixel == other == setup.object_pixel_m((64, 64))[0]
    assert instrument.radiation == radiation
    number = pixel**2 / (instrument.wavelength_m * instrument.distance_m)
    assert number == pytest.approx(0.02)
    assert setup.fresnel_numbers == (0.02, 0.02)
    far = setup_of(radiation, None)
    assert far.fresnel_numbers is None
    assert far.instrument.radiation == radiation
    assert far.object_pixel_m((64, 32)) == far.instrument.object_pixel_m((64, 32))


def test_the_object_of_a_seed_stays_the_same_object():
    """Benchmarks and stored figures are of these objects; numbers of one, from this code."""
    image = random_object(48, np.random.default_rng(3))
    found = [*image[[3, 20, 40], [7, 33, 11]], image.mean(), np.abs(image).std()]
    expected = [
        0.980240 + 0.132782j, 0.508417 - 0.155247j, 0.446094 - 0.339438j, 0.635038 + 0.009198j,
        0.179064,
    ]  # fmt: skip
    assert np.allclose(found, expected, rtol=0, atol=1e-5)

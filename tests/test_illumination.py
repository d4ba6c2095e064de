"""A probe that the file lacks is made from the patterns."""

from dataclasses import replace

import numpy as np
import pytest

from ptycho_torch.config import ReadingOptions
from ptycho_torch.errors import InputError
from ptycho_torch.illumination import defocused, illuminate
from ptycho_torch.scan import focused_probe
from ptycho_torch.selection import open_scan
from ptycho_torch.simulate import annular_probe, simulate_scan


@pytest.fixture(scope="module")
def measured():
    return simulate_scan(photons=1e5, n_side=10, pattern_size=32, seed=4).scan


def bare(scan):
    """The scan as a file without a probe gives it."""
    return replace(scan, probe=focused_probe(scan.counts[:].mean(axis=0)), probe_known=False)


def similarity(a, b):
    """Largest correlation over all shifts, which object and probe share."""
    product = np.fft.ifft2(np.fft.fft2(a) * np.conj(np.fft.fft2(b)))
    return np.abs(product).max() / np.linalg.norm(a) / np.linalg.norm(b)


def test_a_focused_probe_has_the_photons_and_the_aperture_of_the_mean_pattern():
    pattern = np.zeros((16, 16))
    pattern[6:11, 6:11] = 4.0
    probe = focused_probe(pattern)
    far = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(probe[0]), norm="ortho"))
    assert np.sum(np.abs(probe) ** 2) == pytest.approx(100, rel=1e-6)
    assert np.abs(far) ** 2 == pytest.approx(pattern, abs=1e-4)
    assert np.unravel_index(np.abs(probe[0]).argmax(), (16, 16)) == (8, 8)


def test_defocus_moves_a_frequency_in_proportion_to_it_and_keeps_the_power():
    x = np.arange(64) - 32
    ray = np.exp(-np.square(x / 6.0)) * np.exp(2j * np.pi * 0.125 * x)  # a beam along x of frequency 1/8
    beam = (np.exp(-np.square(x / 6.0))[:, None] * ray).astype(np.complex64)[None]
    moved = defocused(beam, 80.0)
    power = np.abs(moved[0]) ** 2
    assert np.sum(power) == pytest.approx(np.sum(np.abs(beam) ** 2), rel=1e-5)
    assert np.sum(power * x) / np.sum(power) == pytest.approx(-80 * 0.125, abs=0.3)
    assert np.allclose(defocused(moved, -80.0), beam, atol=1e-5)


def test_the_probe_is_found_from_the_patterns_alone(measured):
    found = illuminate(bare(measured), seed=0, show=False)
    # the curvature alone reaches 0.9; an aperture without it 0.3
    assert similarity(found.probe[0], measured.probe[0]) > 0.98
    assert found.probe_known
    assert found.photons == pytest.approx(measured.counts[:].sum() / len(measured), rel=1e-4)
    assert "defoci" in found.decisions[-1]


def test_the_same_seed_finds_the_same_probe(measured):
    few = measured.subset(range(36))
    assert np.array_equal(*(illuminate(bare(few), seed=3, show=False).probe for _ in range(2)))


def test_patterns_that_no_probe_explains_are_refused(measured):
    order = np.random.default_rng(0).permutation(len(measured))
    shuffled = replace(bare(measured), counts=measured.counts[:][order])
    with pytest.raises(InputError, match="--probe FILE"):
        illuminate(shuffled, seed=0, show=False)


def test_a_file_without_a_probe_is_used(tmp_path, measured):
    np.savez(
        tmp_path / "bare.npz",
        diff3d=measured.counts[:],
        xcoords=measured.positions_px[:, 1],
        ycoords=measured.positions_px[:, 0],
    )
    scan = open_scan(tmp_path / "bare.npz", n_images=None, options=ReadingOptions())
    assert similarity(scan.probe[0], annular_probe(32)[0]) > 0.98

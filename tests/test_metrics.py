"""Image metrics against cases solved by hand and against independent programs."""

from dataclasses import astuple

import numpy as np
import pytest
from scipy.ndimage import fourier_shift, gaussian_filter

from ptycho_torch.metrics import align, compare, correlation, fourier_ring_correlation, r_factor, resolution
from ptycho_torch.scan import Reconstruction


@pytest.fixture
def image():
    """A smooth random object, 96x96."""
    rng = np.random.default_rng(0)
    amplitude, phase = (gaussian_filter(rng.standard_normal((96, 96)), 2) for _ in range(2))
    return (1 + amplitude) * np.exp(2j * phase)


def test_align_takes_away_what_ptychography_cannot_know(image):
    y, x = np.mgrid[:96, :96]
    moved = np.fft.ifft2(fourier_shift(np.fft.fft2(image), (0.6, -1.4)))
    disguised = 0.8 * moved * np.exp(1j * (1.1 + 0.01 * x - 0.02 * y))
    inner = (slice(8, -8), slice(8, -8))
    error = np.abs(align(disguised, image) - image)[inner]
    assert error.mean() < 0.01  # registration to 1/50 px of an object that varies by 0.1 a pixel


def test_align_leaves_a_different_image_different(image):
    assert correlation(align(image[::-1], image), image) < 0.3


def test_ring_correlation_of_an_image_with_itself_is_one_and_with_noise_is_none(image):
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((96, 96)) + 1j * rng.standard_normal((96, 96))
    assert np.allclose(fourier_ring_correlation(image, 3 * image), 1)
    assert np.abs(fourier_ring_correlation(image, noise)[8:]).mean() < 0.2  # 1 / sqrt(samples of a ring of radius 8)


def test_ring_correlation_falls_where_one_image_ends(image):
    """A sharp low-pass at 0.4 of Nyquist, known by construction; the window blurs it by a ring or two."""
    rng = np.random.default_rng(2)
    white = rng.standard_normal((96, 96)) + 1j * rng.standard_normal((96, 96))
    radius = np.hypot(np.fft.fftfreq(96)[:, None], np.fft.fftfreq(96)) / 0.5
    other = np.fft.fft2(rng.standard_normal((96, 96)))
    mixed = np.fft.ifft2(np.where(radius < 0.4, np.fft.fft2(white), other))
    assert resolution(fourier_ring_correlation(white, mixed)) == pytest.approx(0.4, abs=0.05)


def test_ring_correlation_agrees_with_a_direct_sum(image):
    """Ring 5, added up pixel by pixel."""
    other = image + gaussian_filter(np.random.default_rng(3).standard_normal((96, 96)), 1)
    window = np.outer(np.hanning(96), np.hanning(96))
    a, b = np.fft.fftshift(np.fft.fft2(image * window)), np.fft.fftshift(np.fft.fft2(other * window))
    cross = power_a = power_b = 0.0
    for i in range(96):
        for j in range(96):
            if round(np.hypot(i - 48, j - 48)) == 5:
                cross += (a[i, j] * np.conj(b[i, j])).real
                power_a += abs(a[i, j]) ** 2
                power_b += abs(b[i, j]) ** 2
    assert fourier_ring_correlation(image, other)[5] == pytest.approx(cross / np.sqrt(power_a * power_b))


def test_resolution_of_a_curve_by_hand():
    assert resolution(np.array([1, 0.9, 0.8, 0.4, 0.6, 0.1])) == pytest.approx(2.5 / 6)
    assert resolution(np.ones(8)) == 1.0


def test_compare_is_perfect_for_the_truth_and_names_a_mirrored_image(simulation):
    truth = simulation.truth
    perfect = astuple(compare(truth, truth))
    assert perfect == pytest.approx((1, 1, 1, 1), abs=1e-4)
    mirrored = Reconstruction(**{**vars(truth), "object": truth.object[::-1].copy()})
    assert compare(mirrored, truth).correlation < 0.5


def test_r_factor_of_the_truth_is_counting_noise(simulation):
    """Pixels that count many photons contribute 1/4 each, others less (Anscombe)."""
    counts = simulation.scan.counts[:].astype(float)
    many = (counts > 4).sum() / 4 / counts.sum()
    value = r_factor(simulation.truth, simulation.scan)
    assert 0.9 * many < value < 1.1 * (counts > 0).sum() / 4 / counts.sum() + 0.01
    empty = Reconstruction(**{**vars(simulation.truth), "object": np.ones_like(simulation.truth.object)})
    assert r_factor(empty, simulation.scan) > 10 * value

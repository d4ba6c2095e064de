"""Ring correlation and its threshold curves, compared with direct sums and published numbers."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ptycho_torch.evaluation.metrics.frc import (
    CRITERIA,
    fourier_ring_correlation,
    resolution,
    ring_curves,
    ring_samples,
    threshold_curve,
)

SIZE = 96


def noise(rng, shape=(SIZE, SIZE)):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


@pytest.fixture
def image():
    """A smooth random object, 96x96."""
    rng = np.random.default_rng(0)
    amplitude, phase = (gaussian_filter(rng.standard_normal((SIZE, SIZE)), 2) for _ in range(2))
    return (1 + amplitude) * np.exp(2j * phase)


@pytest.mark.parametrize("pair", ["half", "full", "truth"])
def test_ring_curves_are_the_correlation_and_the_thresholds_of_such_a_pair(image, pair):
    found = ring_curves(image, image[:, ::-1], pair=pair)
    assert np.array_equal(found.correlation, fourier_ring_correlation(image, image[:, ::-1]))
    samples = ring_samples(image.shape)
    assert found.pair == pair
    assert {name: curve.tolist() for name, curve in found.thresholds.items()} == {
        name: threshold_curve(samples, name, pair=pair).tolist() for name in CRITERIA
    }


def test_ring_correlation_of_an_image_with_itself_is_one_and_with_noise_is_none(image):
    other = noise(np.random.default_rng(1))
    assert np.allclose(fourier_ring_correlation(image, 3 * image), 1)
    assert (
        np.abs(fourier_ring_correlation(image, other)[8:]).mean() < 0.2
    )  # 1 / sqrt(samples of a ring of radius 8)


def test_ring_correlation_with_a_blank_image_is_zero(image):
    assert np.array_equal(fourier_ring_correlation(image, 0 * image), np.zeros(SIZE // 2))


def test_ring_correlation_falls_where_one_image_ends():
    """A sharp low-pass at 0.4 of Nyquist; the window blurs it by one or two rings."""
    rng = np.random.default_rng(2)
    white = noise(rng)
    radius = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.fftfreq(SIZE)) / 0.5
    other = np.fft.fft2(rng.standard_normal((SIZE, SIZE)))
    mixed = np.fft.ifft2(np.where(radius < 0.4, np.fft.fft2(white), other))
    assert resolution(fourier_ring_correlation(white, mixed)) == pytest.approx(0.4, abs=0.05)


def test_ring_correlation_agrees_with_a_direct_sum(image):
    """The sum over ring 5, pixel by pixel."""
    other = image + gaussian_filter(np.random.default_rng(3).standard_normal((SIZE, SIZE)), 1)
    window = np.outer(np.hanning(SIZE), np.hanning(SIZE))
    a, b = (
        np.fft.fftshift(np.fft.fft2(image * window)),
        np.fft.fftshift(np.fft.fft2(other * window)),
    )
    cross = power_a = power_b = 0.0
    for i in range(SIZE):
        for j in range(SIZE):
            if round(np.hypot(i - 48, j - 48)) == 5:
                cross += (a[i, j] * np.conj(b[i, j])).real
                power_a += abs(a[i, j]) ** 2
                power_b += abs(b[i, j]) ** 2
    assert fourier_ring_correlation(image, other)[5] == pytest.approx(
        cross / np.sqrt(power_a * power_b)
    )


def test_ring_correlation_of_noisy_images_is_the_signal_to_noise_ratio():
    """Two images of one white object with independent noise have FRC = s / (s + 1); an image and
    the object itself have sqrt(s / (s + 1)).
    """
    rng = np.random.default_rng(4)
    shape = (256, 256)
    truth = noise(rng, shape)
    for ratio in CRITERIA.values():
        first, second = (truth + noise(rng, shape) / np.sqrt(ratio) for _ in range(2))
        between, against = (
            fourier_ring_correlation(first, other)[32:].mean() for other in (second, truth)
        )
        assert between == pytest.approx(
            ratio / (ratio + 1), abs=0.02
        )  # 1 / sqrt(10^4 independent samples), twice
        assert against == pytest.approx(np.sqrt(ratio / (ratio + 1)), abs=0.02)


@pytest.mark.parametrize("shape", [(64, 64), (64, 90)])
def test_samples_of_a_ring_are_those_that_the_spread_of_noise_shows(shape):
    """The real part of the correlation of complex noise has the variance 1 / (2 n), which 400
    trials measure within 7 %.
    """
    rng = np.random.default_rng(5)
    trials = np.array(
        [fourier_ring_correlation(noise(rng, shape), noise(rng, shape)) for _ in range(400)]
    )
    counted = 1 / (2 * trials.var(axis=0))
    rings = slice(4, None)  # smaller ones are not Gaussian
    assert ring_samples(shape)[rings] == pytest.approx(counted[rings], rel=0.3)  # 4 sigma
    assert np.mean(ring_samples(shape)[rings] / counted[rings]) == pytest.approx(1, abs=0.05)


PUBLISHED = {  # van Heel and Schatz (2005): constants of (a + b / sqrt n) / (c + d / sqrt n)
    "one_bit": (0.5, 2.4142, 1.5, 1.4142),
    "half_bit": (0.2071, 1.9102, 1.2071, 0.9102),
    "one_seventh": (1 / 7, 0, 1, 0),
}


@pytest.mark.parametrize("criterion", CRITERIA)
def test_curves_for_halves_are_the_published_ones(criterion):
    samples = np.array([4.0, 30.0, 1000.0])
    a, b, c, d = PUBLISHED[criterion]
    published = (a + b / np.sqrt(samples)) / (c + d / np.sqrt(samples))
    assert threshold_curve(samples, criterion, pair="half") == pytest.approx(
        published, abs=1e-4
    )  # their four digits


def test_curves_for_full_sets_and_for_a_truth_by_hand():
    """One bit, s = 1, n = 4: (1 + 2/2 + 1/2) / (1 + 1 + 2/2), and (1 + 1/2) / sqrt(1 (2 + 2/2)).
    The limits for many samples are 1/2 and sqrt(1/2).
    """
    assert threshold_curve(np.array([4.0]), "one_bit", pair="full")[0] == pytest.approx(2.5 / 3)
    assert threshold_curve(np.array([4.0]), "one_bit", pair="truth")[0] == pytest.approx(
        1.5 / np.sqrt(3)
    )
    many = np.array([1e12])
    assert threshold_curve(many, "one_bit", pair="full")[0] == pytest.approx(1 / 2, abs=1e-5)
    assert threshold_curve(many, "one_bit", pair="truth")[0] == pytest.approx(
        np.sqrt(1 / 2), abs=1e-5
    )
    assert threshold_curve(many, "one_seventh", pair="full")[0] == pytest.approx(1 / 4)
    assert threshold_curve(many, "one_seventh", pair="truth")[0] == pytest.approx(1 / 2)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_three_forms_of_a_criterion_give_one_resolution(criterion):
    """A white object with noise that grows with frequency; the pair is two halves, two full sets,
    or a full set and the truth.
    """
    rng = np.random.default_rng(6)
    shape = (256, 256)
    radius = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256)) / 0.5
    truth = noise(rng, shape)

    def measured(share):
        """An image from a fraction of the data: its noise power is that of all data, divided by the
        fraction; that of all data equals the signal at 0.5.
        """
        return truth + np.fft.ifft2(
            np.fft.fft2(noise(rng, shape)) * 10 ** (2 * (radius - 0.5)) / np.sqrt(share)
        )

    samples = ring_samples(shape)
    pairs = {
        "half": (measured(0.5), measured(0.5)),
        "full": (measured(1), measured(1)),
        "truth": (measured(1), truth),
    }
    found = [
        resolution(
            fourier_ring_correlation(*images), threshold_curve(samples, criterion, pair=name)
        )
        for name, images in pairs.items()
    ]
    expected = 0.5 + np.log10(1 / CRITERIA[criterion]) / 4
    assert found == pytest.approx(
        [expected] * 3, abs=0.09
    )  # at n = 160 the half-bit curve is at 0.28, its limit at 0.17


def test_resolution_of_a_curve_by_hand():
    assert resolution(np.array([1, 0.9, 0.8, 0.4, 0.6, 0.1])) == pytest.approx(2.5 / 6)
    assert resolution(
        np.array([1, 0.9, 0.8, 0.4, 0.6, 0.1]), np.array([2, 0.5, 0.5, 0.3, 0.7, 0.3])
    ) == pytest.approx(3.5 / 6)
    assert resolution(np.ones(8)) == 1.0

"""What is made of a beam keeps its photons, its place and its size in metres."""

import numpy as np
import pytest

from ptycho_torch.data.probe import (
    defocused,
    diffuse_probe,
    focused_probe,
    resample_probe,
    ring_centroid,
    ring_offset,
    scaled_to,
)


def gaussian(shape, sigma, center=None):
    y, x = np.indices(shape)
    middle = [size // 2 for size in shape] if center is None else center
    away = [(a - m + n / 2) % n - n / 2 for a, m, n in zip((y, x), middle, shape, strict=True)]
    return np.exp(-(away[0] ** 2 + away[1] ** 2) / (2 * sigma**2))


def test_a_probe_is_scaled_to_its_photons():
    rng = np.random.default_rng(0)
    modes = rng.standard_normal((2, 8, 6)) + 1j * rng.standard_normal((2, 8, 6))
    scaled = scaled_to(modes, 50.0)
    assert np.sum(np.abs(scaled) ** 2) == pytest.approx(50)
    assert scaled / scaled[0, 0, 0] == pytest.approx(modes / modes[0, 0, 0])


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
    ray = np.exp(-np.square(x / 6.0)) * np.exp(
        2j * np.pi * 0.125 * x
    )  # a beam along x of frequency 1/8
    beam = (np.exp(-np.square(x / 6.0))[:, None] * ray).astype(np.complex64)[None]
    moved = defocused(beam, 80.0)
    power = np.abs(moved[0]) ** 2
    assert np.sum(power) == pytest.approx(np.sum(np.abs(beam) ** 2), rel=1e-5)
    assert np.sum(power * x) / np.sum(power) == pytest.approx(-80 * 0.125, abs=0.3)
    assert np.allclose(defocused(moved, -80.0), beam, atol=1e-5)


def test_cropping_makes_the_pixels_larger_and_binning_keeps_the_middle():
    """Of a beam (height, width) that neither cuts; the scale is open."""
    beam = gaussian((32, 48), 4.0)[None].astype(np.complex128)
    cropped = resample_probe(beam, (16, 24), (16, 24))[0]
    assert np.abs(cropped) / np.abs(cropped).max() == pytest.approx(
        gaussian((16, 24), 2.0),
        abs=1e-3,  # what the crop cuts of the spectrum
    )
    binned = resample_probe(beam, (32, 48), (16, 24))[0]
    assert binned / binned.max() == pytest.approx(beam[0, 8:24, 12:36], abs=1e-9)


def test_a_centroid_on_a_ring_is_found_across_the_border():
    for center in ((3.25, 30.0), (0.0, 17.5), (15.0, 0.5)):
        image = 7.0 + gaussian((16, 32), 2.0, center)
        found = ring_centroid(image)
        assert ring_offset(found, center, (16, 32)) == pytest.approx(0, abs=1e-3)


def test_an_offset_on_a_ring_goes_the_short_way():
    assert ring_offset((1, 2), (15, 5), (16, 32)) == pytest.approx([2, -3])
    assert ring_offset((15, 5), (1, 2), (16, 32)) == pytest.approx([-2, 3])
    assert ring_offset((5, 5), (5, 5), (16, 32)) == pytest.approx([0, 0])


def test_a_diffused_beam_has_unit_power_slow_structure_and_a_dark_border():
    beam = diffuse_probe(64, seed=1)
    assert beam.shape == (1, 64, 64)
    assert np.sum(np.abs(beam) ** 2) == pytest.approx(1, rel=1e-5)  # float32
    assert np.abs(beam[0, 0]).max() < 0.1 * np.abs(beam).max()
    assert np.std(np.abs(beam[0, 16:48, 16:48])) > 0.1 * np.mean(np.abs(beam[0, 16:48, 16:48]))
    spectrum = np.abs(np.fft.fft2(beam[0])) ** 2
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64))
    assert spectrum[frequency > 0.35].sum() < 1e-3 * spectrum.sum()
    assert not np.array_equal(beam, diffuse_probe(64, seed=2))
    assert np.array_equal(beam, diffuse_probe(64, seed=1))


def test_modes_are_resampled_one_by_one():
    modes = np.stack([gaussian((32, 48), 4.0), gaussian((32, 48), 3.0) * 1j])
    together = resample_probe(modes, (16, 24), (8, 12))
    for mode, expected in zip(modes, together, strict=True):
        assert np.allclose(resample_probe(mode[None], (16, 24), (8, 12))[0], expected)

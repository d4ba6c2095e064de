"""Detector images that are turned and cropped keep their frequencies; a raster has its steps."""

import itertools

import numpy as np
import pytest

from ptycho_torch.data.detector import Orientation, Window
from ptycho_torch.data.raster import raster_positions_m

ORIENTATIONS = [Orientation(*flags) for flags in itertools.product((False, True), repeat=3)]


def pattern_of(waves):
    """Intensity in the far field of waves (..., H, W), zero frequency at [H // 2, W // 2]."""
    return np.abs(np.fft.fftshift(np.fft.fft2(waves), axes=(-2, -1))) ** 2


def reversed_on_the_ring(waves, axis):
    """The waves at -r: index 0 stays."""
    return np.roll(np.flip(waves, axis), 1, axis)


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
@pytest.mark.parametrize("shape", [(6, 6), (5, 5), (6, 5), (5, 8)])
def test_a_turned_pattern_is_the_pattern_of_the_turned_waves(orientation, shape):
    rng = np.random.default_rng(0)
    waves = rng.standard_normal((3, *shape)) + 1j * rng.standard_normal((3, *shape))
    turned = np.swapaxes(waves, -2, -1) if orientation.transpose else waves
    for flipped, axis in ((orientation.flip_y, -2), (orientation.flip_x, -1)):
        turned = reversed_on_the_ring(turned, axis) if flipped else turned
    found = orientation.turn(pattern_of(waves))
    assert found == pytest.approx(pattern_of(turned), rel=1e-9)  # float64


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
def test_a_point_moves_with_the_image(orientation):
    image = np.zeros((5, 8))
    image[1, 6] = 1
    assert np.argwhere(orientation.apply(image)).tolist() == [
        list(orientation.move((1, 6), image.shape))
    ]
    assert orientation.swap((1, 6)) == ((6, 1) if orientation.transpose else (1, 6))


@pytest.mark.parametrize("size", [(4, 4), (5, 5), (4, 7), (9, 10), (12, 3)])
@pytest.mark.parametrize("full", [(8, 8), (9, 8), (7, 9)])
def test_a_central_window_holds_the_same_frequencies_and_zero_beyond(size, full):
    def frequencies(shape):
        y, x = np.indices(shape)
        return y - shape[0] // 2, x - shape[1] // 2

    def number(y, x):
        return 1 + (y + 20) * 100 + (x + 20)  # differs for each frequency, and is not zero

    found = Window.central(size, full).apply(number(*frequencies(full))[None])[0]
    y, x = frequencies(size)
    low, high = ([-(n // 2) for n in full], [n - n // 2 for n in full])
    there = (y >= low[0]) & (y < high[0]) & (x >= low[1]) & (x < high[1])
    assert np.array_equal(found, np.where(there, number(y, x), 0))


def test_a_nyquist_row_beyond_the_border_is_the_opposite_one():
    """Of an even size; -H/2 and +H/2 are one frequency."""
    even, odd = np.arange(1, 25).reshape(4, 6), np.arange(1, 16).reshape(5, 3)
    assert np.array_equal(Window((-1, -1), (4, 6)).apply(even), np.roll(even, 1, axis=(0, 1)))
    moved = Window((-1, -1), (5, 3)).apply(odd)
    assert not moved[0].any()
    assert not moved[:, 0].any()
    assert np.array_equal(moved[1:, 1:], odd[:-1, :-1])
    further = Window((-2, 0), (4, 6)).apply(even)
    assert not further[:2].any()
    assert not Window((-1, 0), (6, 6)).apply(even)[0].any(), "a larger window wraps nothing"


def test_a_raster_has_its_steps_row_by_row_around_its_middle():
    positions = raster_positions_m((3, 4), (2e-6, 1e-6))
    assert positions.shape == (12, 2)
    assert positions.mean(axis=0) == pytest.approx(0, abs=1e-12)
    assert np.diff(positions[:4], axis=0) == pytest.approx(np.array([[0, 1e-6]] * 3), abs=1e-12)
    assert np.diff(positions[::4], axis=0) == pytest.approx(np.array([[2e-6, 0]] * 2), abs=1e-12)


def test_a_raster_is_turned_counterclockwise_in_a_picture():
    """Whose y goes down: a step to the right then also goes up, one down also to the right."""
    positions = raster_positions_m((3, 4), (2e-6, 1e-6), 30)
    assert positions[1] - positions[0] == pytest.approx([-0.5e-6, 0.75**0.5 * 1e-6], abs=1e-12)
    assert positions[4] - positions[0] == pytest.approx([0.75**0.5 * 2e-6, 1e-6], abs=1e-12)

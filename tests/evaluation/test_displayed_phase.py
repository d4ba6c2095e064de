"""The phase of a picture: free of offset and ramp, on one branch, in colours that fit."""

import numpy as np
import pytest

from ptycho_torch.evaluation.displayed_phase import phase_range, without_ramp

ROUNDING = 1e-5  # rad; of complex64 numbers


@pytest.fixture
def image():
    """A rectangular object with a phase of about a radian, whose border is as bright as it."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:40, :56]
    phase = 0.8 * np.sin(y / 7) * np.cos(x / 5) + 0.1 * rng.standard_normal((40, 56))
    return ((0.6 + 0.3 * rng.random((40, 56))) * np.exp(1j * phase)).astype(np.complex64)


def lit_of(image):
    lit = np.ones(image.shape, dtype=bool)
    lit[:5, :9] = False
    return lit


@pytest.mark.parametrize("ramp", [(0.4, -0.1), (-1.5, 2.0)])  # rad per pixel: many turns
def test_a_ramp_and_an_offset_do_not_show(image, ramp):
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    tilted = image * np.exp(1j * (ramp[0] * y + ramp[1] * x + 2.0))
    plain, before = without_ramp(image, lit_of(image))
    flat, removed = without_ramp(tilted.astype(np.complex64), lit_of(image))
    assert np.abs(np.angle(flat * plain.conj())).max() < ROUNDING * sum(image.shape)
    assert removed - before == pytest.approx(np.array(ramp) * image.shape, abs=1e-3)


def test_dark_pixels_do_not_decide_about_the_ramp(image):
    spoiled = image.copy()
    spoiled[:5, :9] *= 100 * np.exp(1j * np.arange(9))
    plain, spoilt = (without_ramp(one, lit_of(image))[1] for one in (image, spoiled))
    assert plain == pytest.approx(spoilt)


@pytest.mark.parametrize("offset", np.linspace(-3, 3, 7))
def test_a_range_below_a_turn_is_found_wherever_it_begins(offset):
    phases = offset + np.linspace(-2.0, 2.5, 10_001)
    span = phase_range(np.angle(np.exp(1j * phases)))
    assert not span.wraps
    assert span.high - span.low == pytest.approx(0.99 * 4.5, abs=0.01)
    assert abs(span.low + span.high) / 2 <= np.pi
    drawn = span.on_branch(np.angle(np.exp(1j * phases)))
    assert np.ptp(np.diff(drawn)) < 1e-9, "no jump inside the range"


def test_phases_all_around_the_circle_wrap():
    span = phase_range(np.linspace(0, 12, 1000))
    assert (span.low, span.high, span.wraps) == (-np.pi, np.pi, True)


def test_few_outliers_do_not_widen_the_range():
    phases = np.concatenate([np.linspace(0, 1, 1000), [3.0, -3.0]])
    assert phase_range(phases).high < 1.01


def test_a_flat_phase_has_a_range():
    span = phase_range(np.zeros(10))
    assert span.low < span.high

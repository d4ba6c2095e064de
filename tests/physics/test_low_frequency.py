"""Slow phases are reached as fast as others: the law of the operator, cases solved by hand, and
what it is for.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.evaluation.metrics.agreement import compare
from ptycho_torch.physics import low_frequency
from ptycho_torch.physics.low_frequency import (
    LARGEST_GAIN,
    low_frequency_gain,
    precondition_phase,
    squared_widths,
)
from ptycho_torch.refinement import RefineOptions, refine

SHAPE = (20, 30)  # transforms of this size are fast, so that nothing is padded


def random_complex(*shape, seed):
    return torch.randn(shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def beam(width_y, width_x, size=64):
    """A Gaussian beam, standard deviations of its light in px, (1, size, size)."""
    x = torch.arange(size, dtype=torch.float64) - size / 2
    profile_y, profile_x = (torch.exp(-((x / (2 * width)) ** 2)) for width in (width_y, width_x))
    return (profile_y[:, None] * profile_x).to(torch.complex128)[None]


def inner(a, b):
    return torch.sum(a.conj() * b).real


def test_the_width_of_a_beam_is_that_of_its_light():
    along_y, along_x = squared_widths(torch.stack([beam(3.0, 5.0), beam(4.0, 2.0)]))
    assert along_y.tolist() == pytest.approx([9, 16], rel=1e-6)
    assert along_x.tolist() == pytest.approx([25, 4], rel=1e-6)


def test_modes_of_a_beam_count_by_their_light():
    both = torch.cat([beam(3.0, 3.0), 2 * beam(5.0, 5.0)])
    power = both.abs().square().sum((1, 2))
    expected = (power[0] * 9 + power[1] * 25) / power.sum()
    assert squared_widths(both)[0].item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(("turns_y", "turns_x"), [(0, 0), (1, 0), (0, 1), (2, 3)])
def test_a_wave_of_phase_goes_farther_by_its_gain(turns_y, turns_x):
    """d = i O w with a real plane wave w on an object of constant modulus becomes i O w (1 + g)."""
    y, x = torch.meshgrid(
        *(torch.arange(size, dtype=torch.float64) for size in SHAPE), indexing="ij"
    )
    wave_y, wave_x = 2 * torch.pi * turns_y / SHAPE[0], 2 * torch.pi * turns_x / SHAPE[1]
    wave = torch.cos(wave_y * y + wave_x * x)
    canvas = 0.7 * torch.polar(torch.ones(SHAPE, dtype=torch.float64), 0.3 * y)
    gain = 1 / (9 * wave_y**2 + 25 * wave_x**2 + 1 / LARGEST_GAIN)
    answer = precondition_phase(
        1j * canvas * wave, canvas, torch.ones(SHAPE), low_frequency_gain(beam(3.0, 5.0), SHAPE)
    )
    assert torch.allclose(answer, 1j * canvas * wave * (1 + gain), rtol=1e-6)


def test_a_change_of_amplitude_stays_as_it_is():
    canvas = random_complex(*SHAPE, seed=0)
    direction = canvas * torch.rand(
        SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    answer = precondition_phase(
        direction, canvas, torch.ones(SHAPE), low_frequency_gain(beam(3.0, 3.0), SHAPE)
    )
    assert torch.allclose(answer, direction)


@pytest.fixture(scope="module")
def operands():
    """Canvas, light and gain of two canvases of a size that is padded."""
    canvas = random_complex(2, 19, 23, seed=2)
    lit = (
        torch.rand(2, 19, 23, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) > 0.3
    ).double()
    return canvas, lit, low_frequency_gain(torch.stack([beam(3.0, 5.0), beam(4.0, 2.0)]), (19, 23))


def test_a_canvas_is_padded_to_sizes_whose_real_transforms_are_fast():
    """Products of 2, 3 and 5: 24 for 22, and 15 for 13, of which a real transform has 8."""
    probe = torch.ones(1, 4, 4, dtype=torch.complex64)
    assert low_frequency_gain(probe, (22, 13)).shape == (24, 8)
    assert low_frequency_gain(probe, (25, 16)).shape == (25, 9)


def test_nothing_changes_in_the_dark(operands):
    canvas, lit, gain = operands
    direction = random_complex(2, 19, 23, seed=4)
    changed = (precondition_phase(direction, canvas, lit, gain) - direction).abs() > 1e-12
    assert torch.equal(changed, lit > 0)


def test_the_operator_is_its_own_adjoint(operands):
    """As a real one, so that descent goes down: <a, L b> = <L a, b>, and <a, L a> is above <a,
    a>.
    """
    a, b = (random_complex(2, 19, 23, seed=seed) for seed in (5, 6))
    moved_a, moved_b = (precondition_phase(one, *operands) for one in (a, b))
    assert inner(a, moved_b).item() == pytest.approx(inner(moved_a, b).item(), rel=1e-12)
    assert inner(a, moved_a) > inner(a, a)


def test_derivatives_are_those_of_finite_differences(operands):
    """Along phases of the canvas, which leave its brightness as it is."""
    canvas, lit, gain = operands
    direction = random_complex(2, 19, 23, seed=7).requires_grad_()
    angle = torch.rand(
        2, 19, 23, dtype=torch.float64, generator=torch.Generator().manual_seed(8)
    ).requires_grad_()

    def moved(d, theta):
        return precondition_phase(d, canvas.abs() * torch.exp(1j * theta), lit, gain)

    assert torch.autograd.gradcheck(moved, (direction, angle), fast_mode=True)


def phase_after(epochs):
    """Phase SSIM of a wide object, from an empty one, at a dose where noise plays no part."""
    made = simulate_scan(photons=1e8, n_side=20, step_px=4.0, pattern_size=32, seed=4)
    empty = replace(made.truth, object=np.ones_like(made.truth.object))
    result = refine(made.scan, empty, RefineOptions(epochs=epochs))
    return compare(result.reconstruction, made.truth).phase_ssim


def test_few_passes_find_the_slow_phase(monkeypatch):
    found = phase_after(8)
    monkeypatch.setattr(low_frequency, "LARGEST_GAIN", 1e-9)
    without = phase_after(8)
    assert found > 0.998  # measured 0.9999
    assert 1 - found < 0.1 * (1 - without)  # measured 0.005


def test_a_gain_of_one_adds_the_phase_part_of_each_canvas_at_its_own_brightness():
    """``d + i O Im(conj(O) d) / b`` where there is light, also on a canvas of odd sizes."""
    rng = torch.Generator().manual_seed(0)
    shape = (2, 22, 13)
    canvas, direction = (torch.randn(shape, dtype=torch.complex128, generator=rng) for _ in "Od")
    canvas[1] *= 3
    lit = (torch.rand(shape, generator=rng) > 0.3).double()
    probe = torch.ones(1, 4, 4, dtype=torch.complex128)
    gain = torch.ones_like(low_frequency_gain(probe, shape[1:]))
    found = precondition_phase(direction, canvas, lit, gain)
    for d, o, light, one in zip(direction, canvas, lit, found, strict=True):
        brightness = o.abs().square()[light > 0].mean()
        expected = d + 1j * o * light * (o.conj() * d).imag / brightness
        torch.testing.assert_close(one, expected)

"""Preconditioning of the phase at low spatial frequencies.

A phase that varies over more than the beam changes a pattern only by its gradient: the pattern
moves a little. So the gradient of the misfit with respect to such a phase is small, by the square
of wave number times beam width, and gradient steps that are divided by the illumination reach slow
phases after hundreds of epochs, or never. The preconditioner multiplies the phase part of a step by
the inverse of that factor, in Fourier space, so that all spatial frequencies of the phase converge
alike. The gain is limited, since noise dominates the slowest phases. The phase part of a step d at
the object O is Im(conj(O) d) / |O|^2; only that part is changed, and only within the support. The
operator is symmetric and positive, so a preconditioned step still lowers the misfit.
"""

import torch
from scipy.fft import next_fast_len
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from ptycho_torch.physics.incoherent import incoherent_sum, squared_modulus

# Of the slowest phases; they converge in a few steps, and their noise is bounded.
LARGEST_GAIN = 20.0


def low_frequency_gain(probe: Tensor, canvas_shape: tuple[int, int]) -> Tensor:
    """The gain of the preconditioner for each spatial frequency.

    ::

        g(k) = 1 / (k_y^2 s_y^2 + k_x^2 s_x^2 + 1 / LARGEST_GAIN)
        s^2 = sum |P|^2 (x - <x>)^2 / sum |P|^2

    with k in radians per pixel and s the width of the beam along an axis.

    Args:
        probe: Illumination modes, complex, (..., M, H, W).
        canvas_shape: ``(Y, X)``.

    Returns:
        Real, (..., Y', X'), for `precondition_phase`; Y' and X' are those of a real transform of a
        canvas that is padded to a size for which transforms are fast.
    """
    parts = [_squared_wave_numbers(size, probe.real) for size in _padded(canvas_shape)]
    along_y, along_x = (variance[..., None, None] for variance in squared_widths(probe))
    half = parts[1][: len(parts[1]) // 2 + 1]  # of a real transform
    return 1 / (along_y * parts[0][:, None] + along_x * half + 1 / LARGEST_GAIN)


def squared_widths(probe: Tensor) -> tuple[Tensor, Tensor]:
    """Variance of the beam's light along y and x, in px^2, (..., M, H, W) -> real, (...)."""
    power = incoherent_sum(probe)
    along_y, along_x = (_variance(power.sum(dim=axis)) for axis in (-1, -2))
    return along_y, along_x


def _variance(profile: Tensor) -> Tensor:
    """Of the index of what is distributed like the profile, (..., N) -> (...)."""
    share = profile / profile.sum(dim=-1, keepdim=True)
    x = torch.arange(profile.shape[-1], dtype=profile.dtype, device=profile.device)
    mean = (share * x).sum(dim=-1, keepdim=True)
    return (share * (x - mean).square()).sum(dim=-1)


def precondition_phase(direction: Tensor, canvas: Tensor, lit: Tensor, gain: Tensor) -> Tensor:
    """A direction of descent with its phase part preconditioned.

    ::

        d' = d + i O F^-1[ g F[ Im(conj(O) d) / b ] ],   b = mean |O|^2

    Args:
        direction: d, what a step would add to the canvas, complex, (..., Y, X).
        canvas: O, complex, (..., Y, X).
        lit: 1 where there is light, 0 elsewhere, real, (..., Y, X).
        gain: g, from `low_frequency_gain`.

    Returns:
        Complex, (..., Y, X); the same as ``direction`` where there is no light. Its derivatives
        take b for a constant.
    """
    result: Tensor = _WithSlowPhase.apply(direction, canvas, lit, gain)
    return result


class _WithSlowPhase(torch.autograd.Function):
    """See `precondition_phase`. As a function of the direction it is its own adjoint."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, direction: Tensor, canvas: Tensor, lit: Tensor, gain: Tensor
    ) -> Tensor:
        brightness = (squared_modulus(canvas) * lit).sum(dim=(-2, -1), keepdim=True) / lit.sum(
            dim=(-2, -1), keepdim=True
        )
        weight = lit / brightness
        slow = _slow_part(_quadrature(canvas, direction) * weight, gain).mul_(lit)
        ctx.save_for_backward(direction, canvas, weight, lit, gain, slow)
        return _turned(canvas, slow).add_(direction)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, change: Tensor) -> tuple[Tensor, Tensor, None, None]:
        direction, canvas, weight, lit, gain, slow = ctx.saved_tensors  # type: ignore[attr-defined]
        back = _slow_part(_quadrature(canvas, change) * lit, gain).mul_(weight)
        return (
            change + _turned(canvas, back),
            -_turned(change, slow) - _turned(direction, back),
            None,
            None,
        )


def _quadrature(canvas: Tensor, direction: Tensor) -> Tensor:
    """``Im(conj(O) d)``, real."""
    return (canvas.conj() * direction).imag


def _turned(canvas: Tensor, phase: Tensor) -> Tensor:
    """``i O phase``."""
    return (canvas * phase).mul_(1j)


def _slow_part(image: Tensor, gain: Tensor) -> Tensor:
    """An image with its frequencies multiplied by the gain, real, (..., Y, X)."""
    rows, columns = image.shape[-2:]
    shape = _padded((rows, columns))
    return torch.fft.irfft2(torch.fft.rfft2(image, s=shape).mul_(gain), s=shape)[
        ..., :rows, :columns
    ]


def _padded(canvas_shape: tuple[int, int]) -> tuple[int, int]:
    """The next larger shape of which transforms are fast."""
    rows, columns = (next_fast_len(size, real=True) for size in canvas_shape)
    return rows, columns


def _squared_wave_numbers(size: int, like: Tensor) -> Tensor:
    """``k^2`` of a transform, in radians per pixel squared, (size,), as another tensor."""
    frequencies = torch.fft.fftfreq(size, dtype=like.dtype, device=like.device)
    return (2 * torch.pi * frequencies).square()

"""What the patterns leave open between probe and object, when another probe takes its place.

The patterns stay the same when a factor goes from the probe to the object, and so do they with a
phase ramp and, in the far field, with a shift of both; with a flux that is refined, also with the
slope of `flux`. Along these directions a refined probe may have moved away from a right one, and
the object with it.
"""

import torch
from torch import Tensor

from ptycho_torch.physics.least_squares import least_squares
from ptycho_torch.physics.probe_shift import frequencies
from ptycho_torch.physics.propagation import FarField
from ptycho_torch.refinement.flux import move_slope
from ptycho_torch.refinement.prepared_patterns import PreparedPatterns
from ptycho_torch.refinement.step import State, keep_photons

# Exponent, at the border of the window, of the growth that a first-order answer can be trusted for.
MOST_GROWTH = 0.5


def align_to_probe(patterns: PreparedPatterns, state: State, given: Tensor) -> None:
    """Move along the open directions until the probe is most like a given one, in place.

    To first order, by least squares, and for the first mode.

    Args:
        patterns: All patterns; none changes, but for its flux.
        state: Object, probe and components.
        given: Complex, (M, H, W), in sqrt(photons).
    """
    keep_photons(state, given)
    first = state.probe[0]
    like = first.real
    y, x = (_along(size, like) for size in first.shape)
    tilted = [y[:, None] * first, x * first]
    spectrum = torch.fft.fft2(first)
    along_y, along_x = frequencies(first.shape, like)
    slopes = [
        torch.fft.ifft2(2j * torch.pi * each * spectrum) for each in (along_y[:, None], along_x)
    ]
    steepness, ramp, shift = patterns.half.new_zeros(3, 2)
    directions = [first, 1j * first, *(1j * one for one in tilted)]
    if isinstance(patterns.propagator, FarField):
        directions += slopes
    if patterns.flux is not None:
        directions += tilted
    design = torch.stack([_as_real(one) for one in directions], dim=1)
    _, _, *found = least_squares(design, _as_real(given[0])).split(1)
    ramp = torch.cat(found[:2])
    if isinstance(patterns.propagator, FarField):
        shift, found = torch.cat(found[2:4]), found[2:]
    if patterns.flux is not None:
        steepness = torch.cat(found[2:4])
        if not bool((steepness.abs() @ patterns.half).le(MOST_GROWTH)):
            steepness = torch.zeros_like(steepness)
    _shift(state, shift)
    _tilt(patterns, state, ramp)
    if patterns.flux is not None:
        move_slope(patterns, state, -steepness)


def _shift(state: State, shift: Tensor) -> None:
    """Move probe and object by ``P(r + c)`` and ``O(x + c)``, periodically, in place."""

    def moved(waves: Tensor) -> Tensor:
        if not len(waves):  # of components; the transform of nothing fails
            return waves
        along_y, along_x = frequencies(waves.shape[-2:], shift)
        turns = shift[0] * along_y[:, None] + shift[1] * along_x
        return torch.fft.ifft2(torch.fft.fft2(waves) * _unit(turns).to(waves.dtype))

    state.restore(State(moved(state.obj), moved(state.probe), moved(state.components)))


def _tilt(patterns: PreparedPatterns, state: State, ramp: Tensor) -> None:
    """Multiply the probe with ``e^{i b.r}`` and the object with ``e^{-i b.x}``, in place."""

    def factor(height: int, width: int) -> Tensor:
        y, x = _along(height, ramp), _along(width, ramp)
        return _unit((ramp[0] * y[:, None] + ramp[1] * x) / (2 * torch.pi)).to(state.obj.dtype)

    height, width = state.obj.shape
    on_probe = factor(*patterns.shape)
    obj = state.obj * factor(height, width).conj()
    state.restore(State(obj, state.probe * on_probe, state.components * on_probe))


def _unit(turns: Tensor) -> Tensor:
    """``exp(2 pi i t)``."""
    return torch.polar(torch.ones_like(turns), 2 * torch.pi * turns)


def _along(size: int, like: Tensor) -> Tensor:
    """Distance of each pixel from the middle, (size,), as another tensor."""
    return torch.arange(size, dtype=like.dtype, device=like.device) - size / 2


def _as_real(waves: Tensor) -> Tensor:
    """Real and imaginary parts in one row, float64."""
    return torch.view_as_real(waves.contiguous()).reshape(-1).double()

"""The flux of each pattern: a beam flickers from one exposure to the next.

Where the probe is refined too, the patterns leave a part of it open: all of them stay the same
under, for any g and with c in the middle of the scan,

    flux[n] * e^{-2 g.(p_n - c)},   O(x) * e^{g.(x - c)},   P(r) * e^{-g.r}

A beam that flickers does not know where the sample is, so that the flux is the one whose logarithm
has no slope along the positions. A beam that decays along a raster is then part of the object.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ptycho_torch.physics.least_squares import least_squares
from ptycho_torch.refinement.prepared_patterns import PreparedPatterns
from ptycho_torch.refinement.step import Descent, State

STEP = 0.7  # of the Gauss-Newton step
SMALLEST = 1e-6  # flux whose logarithm is taken
MAX_RATIO = 1.4  # of the flux after a step to that before


class FluxObserver:
    """Changes the flux of the patterns of each batch, in place.

    The step minimises the misfit to second order in one number f a pattern, with c the expected
    photons that come through the sample and s the slope of the likelihood::

        df / f = sum s c / sum c^2 / (2 I)

    Args:
        patterns: All patterns; they must have a flux.
    """

    def __init__(self, patterns: PreparedPatterns) -> None:
        if patterns.flux is None:
            raise ValueError("the patterns have no flux that could be refined")
        self.patterns, self.flux = patterns, patterns.flux

    def add(self, descent: Descent) -> None:
        """Change the flux of these patterns."""
        background = self.patterns.background
        through = descent.intensity if background is None else descent.intensity - background
        curvature = through.square() / (2 * descent.intensity.clamp_min(1e-6))
        if self.patterns.mask is not None:
            curvature = curvature * self.patterns.mask
        step = (descent.slope * through).sum((1, 2)) / curvature.sum((1, 2)).clamp_min(1e-6)
        ratio = (1 + STEP * step).clamp(1 / MAX_RATIO, MAX_RATIO)
        self.flux[descent.index] *= ratio

    def finish_batch(self) -> None:
        """Nothing: each pattern has its own flux."""

    def finish_epoch(self, index: torch.Tensor) -> None:
        """Set the mean flux of some patterns to 1, so that the object's scale stays."""
        self.flux /= self.flux[index].mean()


def remove_open_slope(patterns: PreparedPatterns, state: State) -> None:
    """Give the slope of the flux along the positions to object and probe, in place.

    Args:
        patterns: All patterns; they must have a flux.
        state: Object, probe, components and their momentum; no pattern changes.
    """
    if patterns.flux is None:
        raise ValueError("the patterns have no flux")
    away = patterns.centres - patterns.centres.mean(0)
    design = torch.cat([away, away.new_ones(len(away), 1)], dim=1)
    logarithm = patterns.flux.double().clamp_min(SMALLEST).log()
    move_slope(patterns, state, least_squares(design, logarithm)[:2] / 2)


def move_slope(patterns: PreparedPatterns, state: State, slope: Tensor) -> None:
    """Move a slope g, (2,), as above, from the flux to object and probe, in place."""
    if patterns.flux is None:
        raise ValueError("the patterns have no flux")
    middle = patterns.centres.mean(0)
    patterns.flux.mul_(torch.exp(-2 * (patterns.centres - middle) @ slope).to(patterns.flux.dtype))
    on_object = _growth(slope, state.obj.shape, middle).to(state.obj.real.dtype)
    state.obj, state.obj_velocity = state.obj * on_object, state.obj_velocity * on_object
    on_probe = _growth(-slope, patterns.shape, patterns.half).to(state.obj.real.dtype)
    state.probe, state.components = state.probe * on_probe, state.components * on_probe
    state.probe_velocity = state.probe_velocity * on_probe


def _growth(slope: Tensor, shape: Sequence[int], middle: Tensor) -> Tensor:
    """``exp(g . (x - c))`` on a grid, (Y, X), of the dtype of the slope."""
    rows, columns = (
        torch.exp(slope[axis] * (torch.arange(size, device=slope.device) - middle[axis]))
        for axis, size in enumerate(shape)
    )
    return torch.outer(rows, columns)

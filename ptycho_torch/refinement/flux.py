"""The flux of each pattern: a beam flickers from one exposure to the next."""

import torch

from ptycho_torch.refinement.prepared_patterns import PreparedPatterns
from ptycho_torch.refinement.step import Descent

STEP = 0.7  # of the Gauss-Newton step
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

    def finish_epoch(self, index: torch.Tensor) -> None:
        """Set the mean flux of some patterns to 1, so that the object's scale stays."""
        self.flux /= self.flux[index].mean()

"""The background: light that comes past the sample, the same in every pattern.

A speckle of the sample goes dark and bright from pattern to pattern, and a background does not. So
the patterns in which a pixel is dark determine it. It is never negative.
"""

import torch
from torch import Tensor

from ptycho_torch.physics.gaussian_blur import gaussian_blur
from ptycho_torch.refinement.prepared_patterns import PreparedPatterns
from ptycho_torch.refinement.step import Descent

STEP = 0.7  # of the Gauss-Newton step
SMOOTHING_PX = 2.0  # width of the Gaussian that averages the background where light is low
FEW_PHOTONS = 400.0  # of the background of a pixel, in all patterns; with fewer it is averaged


class BackgroundObserver:
    """Changes the background after each epoch.

    The step minimises the misfit to second order in one number b a pixel, with s the slope of the
    likelihood: ``db = sum_n s / sum_n 1 / (2 I)``.

    Args:
        patterns: All patterns; they must have a background, which is changed in place.
    """

    def __init__(self, patterns: PreparedPatterns) -> None:
        if patterns.background is None:
            raise ValueError("the patterns have no background that could be refined")
        self.patterns, self.background = patterns, patterns.background
        self.slope = torch.zeros_like(self.background)
        self.curvature = torch.zeros_like(self.background)
        self.seen = self.slope.new_zeros(1)  # number of patterns

    def add(self, descent: Descent) -> None:
        """Add these patterns."""
        self.slope += descent.slope.sum(0)
        self.curvature += (0.5 / descent.intensity.clamp_min(1e-6)).sum(0)
        self.seen += len(descent.index)

    def finish_batch(self) -> None:
        """Nothing: all patterns of an epoch share the background."""

    def finish_epoch(self) -> None:
        """Take the step, and start anew."""
        self.patterns.comm.sum(self.slope, self.curvature, self.seen)
        moved = (self.background + STEP * self.slope / self.curvature).clamp_min(0)
        known = moved * self.seen
        share = known / (known + FEW_PHOTONS)
        mask = self.patterns.mask
        even = self._smoothed(moved, torch.ones_like(moved) if mask is None else mask.to(moved))
        self.background.copy_(share * moved + (1 - share) * even)
        if mask is not None:
            self.background.mul_(mask)
        self.slope.zero_()
        self.curvature.zero_()
        self.seen.zero_()

    def start_anew(self) -> None:
        """Forget the background."""
        self.background.zero_()

    def _smoothed(self, image: Tensor, weight: Tensor) -> Tensor:
        """The mean of the good pixels around each, on the detector, (H, W)."""
        propagator, widths = self.patterns.propagator, (SMOOTHING_PX, SMOOTHING_PX)
        blurred = [
            gaussian_blur(propagator.to_detector(part), widths, border="nearest")
            for part in (image * weight, weight)
        ]
        return propagator.from_detector(blurred[0] / blurred[1].clamp_min(1e-6))

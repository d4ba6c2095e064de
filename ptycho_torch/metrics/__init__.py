"""How good an image is: against another image, and against the patterns."""

from ptycho_torch.metrics.alignment import Alignment, align, find_alignment
from ptycho_torch.metrics.images import Agreement, Overlay, compare, correlation, judge, overlay, psnr, ssim
from ptycho_torch.metrics.patterns import Residuals, empty_r_factor, noise_r_factor, pattern_residuals, r_factor
from ptycho_torch.metrics.rings import (
    CRITERIA,
    Pair,
    RingCurves,
    fourier_ring_correlation,
    resolution,
    ring_curves,
    ring_samples,
    threshold_curve,
)

__all__ = [
    "CRITERIA",
    "Agreement",
    "Alignment",
    "Overlay",
    "Pair",
    "Residuals",
    "RingCurves",
    "align",
    "compare",
    "correlation",
    "empty_r_factor",
    "find_alignment",
    "fourier_ring_correlation",
    "judge",
    "noise_r_factor",
    "overlay",
    "pattern_residuals",
    "psnr",
    "r_factor",
    "resolution",
    "ring_curves",
    "ring_samples",
    "ssim",
    "threshold_curve",
]

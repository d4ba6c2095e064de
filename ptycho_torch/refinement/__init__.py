"""Refinement of object, probe and positions from any start, stopped by held-out patterns."""

from ptycho_torch.refinement.joint_refinement import (
    RefinementResult,
    mode_gain,
    refine,
    refine_reconstruction,
)
from ptycho_torch.refinement.loop import RefinementEpoch, draw_held_out
from ptycho_torch.refinement.refine_options import RefineOptions

__all__ = [
    "RefineOptions",
    "RefinementEpoch",
    "RefinementResult",
    "draw_held_out",
    "mode_gain",
    "refine",
    "refine_reconstruction",
]

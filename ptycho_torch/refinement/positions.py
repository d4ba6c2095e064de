"""Shifts of the scan positions that bring the predicted amplitudes closer to the measured ones."""

import torch
from torch import Tensor

from ptycho_torch.physics.incoherent import incoherent_sum
from ptycho_torch.physics.propagation import far_field
from ptycho_torch.refinement.prepared_patterns import (
    PreparedPatterns,
    cut,
    node_weights,
    probes_at,
    shift_basis,
)
from ptycho_torch.refinement.step import State

MAX_SHIFT_PX = 0.2  # largest shift of a position in one update
DERIVATIVE_STEP_PX = 1e-3  # of the central difference; the polynomial's error is its square


def gauss_newton_shifts(
    patterns: PreparedPatterns, state: State, index: Tensor, batch: int = 32
) -> Tensor:
    """Gauss-Newton shift ``(y, x)`` of each position of ``index``, (N, 2); 0 for the others.

    It minimises the squared difference of amplitudes of one pattern to first order::

        d|F| = Re(conj(F) dF) / |F|

    with dF the transform of the patch times the derivative of the shifted probe, which is the
    derivative of the polynomial in the fraction.
    """
    basis = shift_basis(patterns, state.probe)
    shifts = torch.zeros(len(patterns.corners), 2, dtype=torch.float64)
    for some in index.split(batch):
        # 1. prediction and its derivatives
        patches = cut(state.obj, patterns.corners[some], patterns.shape)[:, None]
        waves = far_field(patches * probes_at(patterns, patterns.weights[some], basis))
        amplitude = incoherent_sum(waves).add_(1e-6).sqrt_()
        slopes = []
        for axis in (0, 1):
            offset = torch.zeros(2, dtype=torch.float64)
            offset[axis] = DERIVATIVE_STEP_PX
            ahead, behind = (
                node_weights(patterns.fractions[some] + sign * offset) for sign in (1, -1)
            )
            derivative = ((ahead - behind) / (2 * DERIVATIVE_STEP_PX)).float()
            moved = far_field(patches * probes_at(patterns, derivative, basis))
            slopes.append(
                (torch.view_as_real(waves) * torch.view_as_real(moved)).sum((1, -1)) / amplitude
            )
        residual = patterns.amplitudes(some) - amplitude
        if patterns.mask is not None:
            residual = residual * patterns.mask
            slopes = [slope * patterns.mask for slope in slopes]
        # 2. normal equations, two unknowns a pattern
        jacobian = torch.stack(slopes, -1).reshape(len(some), -1, 2).double()
        normal = jacobian.mT @ jacobian
        trace = normal.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
        normal += 1e-6 * trace * torch.eye(2, dtype=torch.float64)
        right = jacobian.mT @ residual.reshape(len(some), -1, 1).double()
        shifts[some] = torch.linalg.solve(normal, right)[..., 0]
    return shifts.clamp(-MAX_SHIFT_PX, MAX_SHIFT_PX)


def without_affine(shifts: Tensor, centres: Tensor, index: Tensor) -> Tensor:
    """Shifts less the translation, rotation, scale and shear of the whole scan that is in them.

    The object can follow such a motion, and held-out patterns at their given positions would then
    be predicted at the wrong places.
    """
    design = torch.cat([torch.ones(len(index), 1, dtype=centres.dtype), centres[index]], 1)
    rest = shifts.clone()
    rest[index] -= design @ torch.linalg.lstsq(design, shifts[index]).solution
    return rest


def clamp_to_canvas(
    centres: Tensor, shape: tuple[int, int], canvas_shape: tuple[int, int]
) -> Tensor:
    """Positions whose patches are moved back onto the canvas."""
    half = torch.tensor(shape, dtype=centres.dtype) / 2
    return centres.clamp(half, torch.tensor(canvas_shape, dtype=centres.dtype) - half)

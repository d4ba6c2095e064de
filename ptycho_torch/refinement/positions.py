"""Shifts of the scan positions that bring the predicted amplitudes closer to the measured."""

import torch
from torch import Tensor

from ptycho_torch.physics.incoherent import incoherent_sum
from ptycho_torch.physics.propagate import far_field
from ptycho_torch.refinement.patterns import Patterns, cut, node_weights, probes_at, shift_basis
from ptycho_torch.refinement.steps import State

MAX_SHIFT_PX = 0.2  # of one position in one round


def shifts_towards(patterns: Patterns, state: State, index: Tensor, batch: int = 32) -> Tensor:
    """Gauss-Newton shift ``(y, x)`` of each of ``index`` that brings the amplitudes closest, (N, 2), 0 elsewhere.

    ``d|F| = Re(conj(F) dF) / |F|`` with dF the transform of the patch times the derivative of the
    probe, which is one of the polynomial in the fraction.
    """
    delta = 1e-3  # px; the polynomial's derivative by a central difference, exact to its square
    basis = shift_basis(patterns, state.probe)
    shifts = torch.zeros(len(patterns.corners), 2, dtype=torch.float64)
    for some in index.split(batch):
        patches = cut(state.obj, patterns.corners[some], patterns.shape)[:, None]
        waves = far_field(patches * probes_at(patterns, patterns.weights[some], basis))
        amplitude = incoherent_sum(waves).add_(1e-6).sqrt_()
        slopes = []
        for axis in (0, 1):
            offset = torch.zeros(2, dtype=torch.float64)
            offset[axis] = delta
            ahead, behind = (node_weights(patterns.fractions[some] + sign * offset) for sign in (1, -1))
            moved = far_field(patches * probes_at(patterns, ((ahead - behind) / (2 * delta)).float(), basis))
            slopes.append((torch.view_as_real(waves) * torch.view_as_real(moved)).sum((1, -1)) / amplitude)
        residual = patterns.amplitudes(some) - amplitude
        if patterns.good is not None:
            residual = residual * patterns.good
            slopes = [slope * patterns.good for slope in slopes]
        jacobian = torch.stack(slopes, -1).reshape(len(some), -1, 2).double()
        normal = jacobian.mT @ jacobian
        normal += 1e-6 * normal.diagonal(dim1=1, dim2=2).sum(1)[:, None, None] * torch.eye(2, dtype=torch.float64)
        right = jacobian.mT @ residual.reshape(len(some), -1, 1).double()
        shifts[some] = torch.linalg.solve(normal, right)[..., 0]
    return shifts.clamp(-MAX_SHIFT_PX, MAX_SHIFT_PX)


def without_affine(shifts: Tensor, centres: Tensor, index: Tensor) -> Tensor:
    """Shifts less what a translation, rotation, scale or shear of the whole scan explains.

    The object could follow such a motion, and patterns at their given positions would then miss it.
    """
    design = torch.cat([torch.ones(len(index), 1, dtype=centres.dtype), centres[index]], 1)
    left = shifts.clone()
    left[index] -= design @ torch.linalg.lstsq(design, shifts[index]).solution
    return left


def inside(centres: Tensor, shape: tuple[int, int], canvas_shape: tuple[int, int]) -> Tensor:
    """Positions with patches moved back onto the canvas."""
    half = torch.tensor(shape, dtype=centres.dtype) / 2
    return centres.clamp(half, torch.tensor(canvas_shape, dtype=centres.dtype) - half)

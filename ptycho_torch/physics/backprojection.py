"""The gradient of the likelihood with respect to the object, as a differentiable operator."""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from ptycho_torch.physics.forward import ForwardModel, ScanLayout, object_gradient
from ptycho_torch.physics.incoherent import incoherent_product
from ptycho_torch.physics.patches import extract_patches, place_patches


def backproject_residual(
    canvas: Tensor, counts: Tensor, softening: Tensor, mask: Tensor, layout: ScanLayout
) -> Tensor:
    """The gradient of the likelihood on the canvas, before it is divided by the illumination.

    ::

        g = sum_n place_n( sum_m conj(P_nm) D^-1[ r_n Psi_nm ] ),   Psi_nm = D[P_nm patch_n]
        r_n = (n - I) / (I + s),   I = sum_m |Psi_nm|^2 + background

    With s = 0 this is the gradient of the Poisson likelihood [1]_. The softening s bounds the
    residual of a few photons on a dark pixel, and leaves the expectation zero at the truth at any
    dose, unlike a residual of amplitudes.

    Args:
        canvas: Object, complex, (B, Y, X).
        counts: Measured photons, real, (B, C, H, W), in the order of the propagator.
        softening: s, in photons, real, above 0, broadcast with ``counts``.
        mask: Good pixels, bool, broadcast with ``counts``; others contribute nothing.
        layout: From `scan_layout`.

    Returns:
        Complex, (B, Y, X), in photons.

    References:
        .. [1] P. Thibault and M. Guizar-Sicairos, "Maximum-likelihood refinement for coherent
           diffractive imaging", New J. Phys. 14, 063004 (2012), doi:10.1088/1367-2630/14/6/063004.
    """
    arguments = (canvas, counts, softening, mask, layout.indices, layout.probe, layout.model)
    result: Tensor = _BackprojectedResidual.apply(*arguments)
    return result


class _BackprojectedResidual(torch.autograd.Function):
    """See `backproject_residual`.

    The operator is the gradient of a real function of the canvas, so its Jacobian is symmetric as
    a real matrix: the backward pass is the derivative in the direction that comes in, which takes
    two Fourier transforms a pattern where automatic differentiation would take four.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        canvas: Tensor,
        counts: Tensor,
        softening: Tensor,
        mask: Tensor,
        indices: Tensor,
        probe: Tensor,
        model: ForwardModel,
    ) -> Tensor:
        waves = model.detector_waves(extract_patches(canvas, indices), probe)
        intensity = model.expected_counts(waves)
        inverse = (intensity + softening).reciprocal_().mul_(mask)
        residual = (counts - intensity).mul_(inverse)
        ctx.save_for_backward(waves, residual, inverse, indices, probe)
        ctx.canvas_shape = canvas.shape[-2:]  # type: ignore[attr-defined]
        ctx.model = model  # type: ignore[attr-defined]
        back = model.exit_wave_gradient(waves.clone(), residual)
        shape = (canvas.shape[-2], canvas.shape[-1])
        return place_patches(object_gradient(back, probe), indices, shape)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: FunctionCtx, direction: Tensor
    ) -> tuple[Tensor, None, None, None, None, None, None]:
        waves, residual, inverse, indices, probe = ctx.saved_tensors  # type: ignore[attr-defined]
        model, shape = ctx.model, ctx.canvas_shape  # type: ignore[attr-defined]
        change = model.detector_waves(extract_patches(direction, indices), probe)
        rise = incoherent_product(waves, change).mul_(2)  # of the intensity
        slope = (residual + 1).mul_(inverse).mul_(rise)  # minus the change of r
        back = model.propagator.adjoint(
            change.mul_(residual[:, :, None]).sub_(waves * slope[:, :, None]), model.fraction_px
        )
        placed = place_patches(object_gradient(back, probe), indices, shape)
        return placed, None, None, None, None, None, None

"""The unrolled generator: physics steps that the data ask for, each corrected by a small network."""

import torch
from torch import Tensor, nn

from ptycho_torch.generators.base import Generator
from ptycho_torch.physics import (
    Geometry,
    extract_patches,
    far_field,
    far_field_adjoint,
    illumination,
    locate,
    photons_per_exposure,
    place_patches,
)
from ptycho_torch.scan import Group

EPS = 1e-8  # of a photon per pixel at one photon per exposure; keeps the root differentiable at 0
DARKEST = 0.05  # of the brightest illumination; below it, steps fade instead of amplifying noise


class Unrolled(Generator):
    """A fixed number of stages, each a preconditioned gradient step and a learned correction.

    It knows the probe and the geometry, so it carries over to other objects, doses and scans.

    Args:
        stages: Number of stages.
        width: Channels of the correcting networks.
    """

    gridsize = 7
    tile = 1024
    any_size = True

    def __init__(self, stages: int = 4, width: int = 24) -> None:
        super().__init__()
        self.settings = {"stages": stages, "width": width}
        self.stages = nn.ModuleList(Stage(width) for _ in range(stages))

    def forward(self, group: Group) -> Tensor:
        """See `Generator.forward`."""
        photons = photons_per_exposure(group.probe)[:, None, None, None]
        geometry = locate(group.corners_px, group.probe / photons.sqrt(), group.canvas_shape())
        amplitude = torch.fft.ifftshift((group.counts / photons).sqrt(), dim=(-2, -1))
        mask = torch.fft.ifftshift(group.mask, dim=(-2, -1))
        light = illumination(geometry)
        preconditioner = light + DARKEST * light.amax(dim=(-2, -1), keepdim=True)
        canvas = torch.ones_like(light, dtype=geometry.probe.dtype)
        for stage in self.stages:
            residual = backproject_residual(canvas, geometry, amplitude, mask)
            canvas = stage(canvas, residual / preconditioner, light)
        return canvas


def backproject_residual(canvas: Tensor, geometry: Geometry, amplitude: Tensor, mask: Tensor) -> Tensor:
    """The descent direction of the amplitude error on the canvas.

    ::

        g = sum_n place_n( sum_m conj(P_nm) F^-1[ Psi_nm (A_n / |Psi_n| - 1) ] )

    Args:
        canvas: Complex, (B, Y, X).
        geometry: From `locate`.
        amplitude: Root of the counts, real, (B, C, H, W), zero frequency at ``[0, 0]``.
        mask: Good pixels, bool, (B, H, W), zero frequency at ``[0, 0]``; others have no residual.

    Returns:
        Complex, (B, Y, X).
    """
    waves = far_field(extract_patches(canvas, geometry.indices)[:, :, None] * geometry.probe)  # (B, C, M, H, W)
    modulus = ((waves.real.square() + waves.imag.square()).sum(dim=2) + EPS).sqrt()
    ratio = (amplitude / modulus - 1) * mask[:, None]
    exit_residual = far_field_adjoint(waves * ratio[:, :, None])
    patches = (geometry.probe.conj() * exit_residual).sum(dim=2)
    return place_patches(patches, geometry.indices, geometry.canvas_shape)


class Stage(nn.Module):
    """One step along the residual, and a correction by a network that sees canvas, step and light.

    Args:
        width: Channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.step = nn.Parameter(torch.tensor(0.9))
        self.correct = nn.Sequential(
            nn.Conv2d(5, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=2, dilation=2),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=2, dilation=2),
            nn.GELU(),
            nn.Conv2d(width, 2, 3, padding=1),
        )

    def forward(self, canvas: Tensor, step: Tensor, light: Tensor) -> Tensor:
        """The next canvas, complex, (B, Y, X)."""
        features = torch.stack([canvas.real - 1, canvas.imag, step.real, step.imag, torch.log1p(light)], dim=1)
        correction = 0.01 * self.correct(features).float()
        return canvas + self.step * step + torch.complex(correction[:, 0], correction[:, 1])

"""The forward model: from an object and an illumination to expected photon counts."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ptycho_torch.physics.incoherent import incoherent_sum
from ptycho_torch.physics.patches import (
    add_patch,
    extract_patches,
    patch_indices,
    place_patches,
    split_corners,
)
from ptycho_torch.physics.probe_shift import shift_probe
from ptycho_torch.physics.propagation import far_field


@dataclass(frozen=True)
class ScanLayout:
    """Where each patch of a group lies on its canvas, and the probe as it falls there.

    Attributes:
        indices: Flat canvas index of every patch pixel, int64, (B, C, H, W).
        probe: Illumination shifted by the sub-pixel part of each position, in sqrt(photons),
            complex, (B, C, M, H, W).
        canvas_shape: ``(Y, X)`` of one canvas.
    """

    indices: Tensor
    probe: Tensor
    canvas_shape: tuple[int, int]


def scan_layout(corners_px: Tensor, probe: Tensor, canvas_shape: tuple[int, int]) -> ScanLayout:
    """The `ScanLayout` of groups of patches.

    Args:
        corners_px: Minimum corners ``(y, x)`` of the patches on their canvas, real, (B, C, 2).
        probe: Illumination modes, complex, (B, M, H, W), in sqrt(photons).
        canvas_shape: ``(Y, X)`` of one canvas.

    Returns:
        Indices and shifted probes.

    Raises:
        ValueError: If a patch reaches beyond its canvas.
    """
    whole, fraction = split_corners(corners_px)
    height, width = probe.shape[-2:]
    return ScanLayout(
        indices=patch_indices(whole, (height, width), canvas_shape),
        probe=shift_probe(probe[:, None], fraction),
        canvas_shape=canvas_shape,
    )


def diffraction_intensity(patches: Tensor, probe: Tensor) -> Tensor:
    """Expected photon counts on the far-field detector, one pattern per patch.

    Each probe mode passes the patch, propagates with a unitary Fourier transform, and the
    modes add incoherently [1]_::

        I[n, q] = sum_m | F(probe[m] * patches[n])[q] |^2

    Args:
        patches: Object transmission seen by the probe, complex, (..., H, W). Dimensionless;
            modulus 1 and phase 0 is empty space.
        probe: Illumination modes, complex, (..., M, H, W), in sqrt(photons), so that the sum
            of ``probe.abs().square()`` is the photons per exposure. Its leading axes
            broadcast with those of ``patches``.

    Returns:
        Real, (..., H, W), in photons per detector pixel, zero frequency at
        ``[H // 2, W // 2]``. The sum over pixels equals the photons that leave the object
        (Parseval). Independent of the global phase of ``patches``.

    Raises:
        ValueError: If ``patches`` and ``probe`` differ in (H, W).

    References:
        .. [1] P. Thibault and A. Menzel, "Reconstructing state mixtures from diffraction
           measurements", Nature 494, 68 (2013), doi:10.1038/nature11806.
    """
    if patches.shape[-2:] != probe.shape[-2:]:
        raise ValueError(
            f"patches are {tuple(patches.shape[-2:])} pixels but probe is "
            f"{tuple(probe.shape[-2:])}; crop or pad the probe first"
        )
    waves = far_field(patches[..., None, :, :] * probe)  # (..., M, H, W)
    return torch.fft.fftshift(incoherent_sum(waves), dim=(-2, -1))


def predict_counts(canvas: Tensor, geometry: ScanLayout) -> Tensor:
    """Expected photon counts of every pattern of a group.

    Args:
        canvas: Object under the group, complex, (B, Y, X).
        geometry: From `scan_layout`.

    Returns:
        Real, (B, C, H, W), in photons, zero frequency at ``[H // 2, W // 2]``.
    """
    return diffraction_intensity(extract_patches(canvas, geometry.indices), geometry.probe)


def illumination(geometry: ScanLayout) -> Tensor:
    """Photons that fell on each canvas pixel, summed over the patterns of the group.

    Args:
        geometry: From `scan_layout`.

    Returns:
        Real, (B, Y, X), in photons.
    """
    return place_patches(incoherent_sum(geometry.probe), geometry.indices, geometry.canvas_shape)


def illumination_nearest_pixel(
    corners_px: Tensor, probe: Tensor, canvas_shape: tuple[int, int]
) -> Tensor:
    """As `illumination`, with each pattern at its nearest whole pixel and no shifted probes.

    Args:
        corners_px: Minimum corners ``(y, x)`` of the patches on their canvas, (B, C, 2).
        probe: Illumination modes, complex, (B, M, H, W), in sqrt(photons).
        canvas_shape: ``(Y, X)`` of one canvas, which must hold all patches.

    Returns:
        Real, (B, Y, X), in photons.
    """
    power = incoherent_sum(probe)
    light = power.new_zeros(len(power), *canvas_shape)
    for canvas, patch, corners in zip(
        light, power, corners_px.round().long().tolist(), strict=True
    ):
        for corner in corners:
            add_patch(canvas, patch, corner)
    return light

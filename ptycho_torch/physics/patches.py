"""Patches of a canvas at the scan positions, and their adjoint: the sum of patches on a canvas.

A position is split into a whole pixel, at which the patch is cut, and a fraction, by which the
probe is shifted (`ptycho_torch.physics.probe_shift.shift_probe`). Both shifts act on the product
probe x patch alone, and the far-field intensity does not change when that product moves, so
this is exact as long as the probe is dark at the border of its window.
"""

import math

import torch
from torch import Tensor


def split_corners(corners_px: Tensor) -> tuple[Tensor, Tensor]:
    """Whole-pixel corners and sub-pixel remainders of patch corners.

    Args:
        corners_px: Minimum corners ``(y, x)`` of the patches on their canvas, real, (..., 2).

    Returns:
        Corners rounded to the nearest pixel, int64, (..., 2), and what is left, within
        [-0.5, 0.5] px, of the dtype of ``corners_px``.
    """
    whole = corners_px.round()
    return whole.long(), corners_px - whole


def patch_indices(
    corners: Tensor, patch_shape: tuple[int, int], canvas_shape: tuple[int, int]
) -> Tensor:
    """Flat canvas index of every pixel of every patch.

    Args:
        corners: Whole-pixel minimum corners ``(y, x)``, int64, (B, C, 2).
        patch_shape: ``(H, W)`` of a patch.
        canvas_shape: ``(Y, X)`` of one canvas.

    Returns:
        Indices into the B canvases laid end to end, int64, (B, C, H, W).

    Raises:
        ValueError: If a patch reaches beyond its canvas.
    """
    height, width = patch_shape
    rows, columns = canvas_shape
    last = corners.new_tensor([rows - height, columns - width])
    if bool(((corners < 0) | (corners > last)).any()):
        raise ValueError(
            f"patches of {patch_shape} pixels reach beyond the canvas of {canvas_shape} pixels"
        )
    y = corners[..., 0, None, None] + torch.arange(height, device=corners.device)[:, None]
    x = corners[..., 1, None, None] + torch.arange(width, device=corners.device)
    canvas = torch.arange(corners.shape[0], device=corners.device)[:, None, None, None]
    return (canvas * rows + y) * columns + x


def extract_patches(canvas: Tensor, indices: Tensor) -> Tensor:
    """Patches cut from canvases.

    Args:
        canvas: Complex, (B, Y, X).
        indices: From `patch_indices`, int64, (B, C, H, W).

    Returns:
        Patches, complex, (B, C, H, W).
    """
    return canvas.reshape(-1).gather(0, indices.reshape(-1)).reshape(indices.shape)


def place_patches(patches: Tensor, indices: Tensor, canvas_shape: tuple[int, int]) -> Tensor:
    """Sum of patches on canvases, each where `extract_patches` would cut it: its adjoint.

    Args:
        patches: Complex or real, (B, C, H, W).
        indices: From `patch_indices` with the same ``canvas_shape``, int64, (B, C, H, W).
        canvas_shape: ``(Y, X)`` of one canvas.

    Returns:
        Canvases of the dtype of ``patches``, (B, Y, X), zero where no patch lies.
    """
    shape = (indices.shape[0], *canvas_shape)
    total = patches.new_zeros(math.prod(shape))
    return total.scatter_add_(0, indices.reshape(-1), patches.reshape(-1)).reshape(shape)


def add_patch(canvas: Tensor, patch: Tensor, corner: tuple[int, int]) -> None:
    """Add one patch to a contiguous canvas in place.

    Args:
        canvas: (Y, X).
        patch: (H, W).
        corner: Whole-pixel minimum corner ``(y, x)``; the patch must lie within the canvas.
    """
    rows = canvas.stride(0)
    canvas.as_strided(
        patch.shape, (rows, 1), canvas.storage_offset() + corner[0] * rows + corner[1]
    ).add_(patch)

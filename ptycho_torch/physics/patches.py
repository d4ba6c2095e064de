"""Patches of a canvas at the scan positions, and their adjoint: the sum of patches on a canvas.

A position is split into a whole pixel, at which the patch is cut, and a fraction, by which the
probe is shifted (`ptycho_torch.physics.probe_shift.shift_probe`). Both shifts act on the product
probe x patch alone, and the far-field intensity does not change when that product moves, so
this is exact as long as the probe is dark at the border of its window.
"""

import math

import torch
from torch import Tensor

from ptycho_torch.physics.exact_sums import sums_at, values_at

INDEXED_PIXELS = 2**24  # whose indices are in memory at once, 128 MB


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
        ValueError: On the CPU, if a patch reaches beyond its canvas. On other devices that is not
            tested, since the host would wait for it.
    """
    if corners.device.type == "cpu":
        _check_within(corners, patch_shape, canvas_shape)
    rows, columns = canvas_shape
    canvas = torch.arange(corners.shape[0], device=corners.device)[:, None, None, None]
    return canvas * rows * columns + _pixels_of(corners, patch_shape, columns)


def _check_within(
    corners: Tensor, patch_shape: tuple[int, int], canvas_shape: tuple[int, int]
) -> None:
    """Raise `ValueError` if a patch reaches beyond its canvas."""
    last = corners.new_tensor(canvas_shape) - corners.new_tensor(patch_shape)
    if bool(((corners < 0) | (corners > last)).any()):
        raise ValueError(
            f"patches of {patch_shape} pixels reach beyond the canvas of {canvas_shape} pixels"
        )


def _pixels_of(corners: Tensor, patch_shape: tuple[int, int], columns: int) -> Tensor:
    """Index of every pixel of every patch in a canvas laid out row by row, (..., H, W)."""
    height, width = patch_shape
    y = corners[..., 0, None, None] + torch.arange(height, device=corners.device)[:, None]
    x = corners[..., 1, None, None] + torch.arange(width, device=corners.device)
    return y * columns + x


def extract_patches(canvas: Tensor, indices: Tensor) -> Tensor:
    """Patches cut from canvases.

    Args:
        canvas: Complex, (B, Y, X).
        indices: From `patch_indices`, int64, (B, C, H, W).

    Returns:
        Patches, complex, (B, C, H, W).
    """
    flat = indices.reshape(-1)
    return values_at(canvas.reshape(-1), flat, indices.shape[1]).reshape(indices.shape)


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
    total = sums_at(patches.reshape(-1), indices.reshape(-1), math.prod(shape), indices.shape[1])
    return total.reshape(shape)


def add_patches(canvas: Tensor, patches: Tensor, corners: Tensor) -> None:
    """Add patches to a contiguous canvas in place, each at its corner.

    On the CPU patch after patch, which is several times faster than by an index of every pixel. On
    other devices by such an index, in a few launches.

    Args:
        canvas: (Y, X).
        patches: (B, H, W), of the same dtype; may be an expanded view.
        corners: Whole-pixel minimum corners ``(y, x)``, int64, (B, 2); the patches must lie within
            the canvas.

    Raises:
        ValueError: On the CPU, if a patch reaches beyond the canvas. On other devices that is not
            tested, since the host would wait for it.
    """
    columns = canvas.stride(0)
    if canvas.device.type == "cpu":
        shape, strides = (patches.shape[-2], patches.shape[-1]), (columns, 1)
        _check_within(corners, shape, (len(canvas), columns))
        first, offsets = canvas.storage_offset(), corners[:, 0] * columns + corners[:, 1]
        for offset, patch in zip(offsets.tolist(), patches.unbind(), strict=True):
            canvas.as_strided(shape, strides, first + offset).add_(patch)
        return
    height, width = patches.shape[-2:]
    flat = canvas.view(-1)
    at_once = max(1, INDEXED_PIXELS // (height * width))
    for some, placed in zip(corners.split(at_once), patches.split(at_once), strict=True):
        pixels = _pixels_of(some, (height, width), columns)
        flat += sums_at(placed.reshape(-1), pixels.reshape(-1), len(flat), len(some))

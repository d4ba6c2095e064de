"""Convolution of an image with a Gaussian, on the device of the image."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

REACH = 4.0  # widths at which the Gaussian is cut; 6e-5 of it lies beyond


def gaussian_blur(
    image: Tensor, widths_px: Sequence[float], *, border: Literal["zero", "nearest"]
) -> Tensor:
    """An image convolved with a normalised Gaussian along both axes.

    Args:
        image: Real or complex, (Y, X).
        widths_px: Standard deviations ``(y, x)``, in pixels.
        border: What lies beyond the image: zeros, or the nearest pixel.

    Returns:
        Of the shape, dtype and device of the image. Beside zeros, light is lost at the border.
    """
    if image.is_complex():
        parts = torch.view_as_real(image).unbind(dim=-1)
        return torch.complex(*(gaussian_blur(one, widths_px, border=border) for one in parts))
    blurred = image[None, None]
    for axis, width in zip((-2, -1), widths_px, strict=True):
        reach = math.floor(REACH * width + 0.5)
        offsets = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
        weights = torch.exp(-0.5 * (offsets / width).square())
        shape = (1, 1, -1, 1) if axis == -2 else (1, 1, 1, -1)
        padding = (0, 0, reach, reach) if axis == -2 else (reach, reach, 0, 0)
        padded = functional.pad(blurred, padding, mode=PADDING[border])
        blurred = functional.conv2d(padded, (weights / weights.sum()).reshape(shape))
    return blurred[0, 0]


PADDING = {"zero": "constant", "nearest": "replicate"}  # names of torch

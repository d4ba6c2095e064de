"""How detector images are turned and cropped."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Orientation:
    """One of the eight orientations of a detector: first transposed, then flipped."""

    transpose: bool = False
    flip_y: bool = False
    flip_x: bool = False

    def apply(self, images: NDArray) -> NDArray:
        """Images (..., H, W) in this orientation."""
        if self.transpose:
            images = np.swapaxes(images, -2, -1)
        if self.flip_y:
            images = images[..., ::-1, :]
        return images[..., ::-1] if self.flip_x else images

    def move(self, center: tuple[float, float], shape: tuple[int, int]) -> tuple[float, float]:
        """Place ``(y, x)`` to which a point of an image of ``shape`` moves."""
        y, x = center
        height, width = shape
        if self.transpose:
            y, x, height, width = x, y, width, height
        return height - 1 - y if self.flip_y else y, width - 1 - x if self.flip_x else x

    def swap(self, pair: tuple[float, float]) -> tuple[float, float]:
        """A quantity of rows and one of columns in this orientation."""
        return (pair[1], pair[0]) if self.transpose else pair


@dataclass(frozen=True)
class Window:
    """A part of the detector, which may reach beyond it.

    Attributes:
        corner: First row and column.
        size: ``(H, W)``.
    """

    corner: tuple[int, int]
    size: tuple[int, int]

    def apply(self, images: NDArray) -> NDArray:
        """The part of images (..., H, W); zero beyond the detector."""
        result = np.zeros((*images.shape[:-2], *self.size), dtype=images.dtype)
        inside, there = [], []
        for corner, size, full in zip(self.corner, self.size, images.shape[-2:], strict=True):
            start, stop = max(corner, 0), min(corner + size, full)
            inside.append(slice(start, stop))
            there.append(slice(start - corner, stop - corner))
        result[..., there[0], there[1]] = images[..., inside[0], inside[1]]
        return result

    @classmethod
    def central(cls, size: tuple[int, int], full: tuple[int, ...]) -> "Window":
        """The window of ``size`` whose zero frequency is that of an image of the shape ``full``."""
        return cls((full[0] // 2 - size[0] // 2, full[1] // 2 - size[1] // 2), size)

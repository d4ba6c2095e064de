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

    def turn(self, images: NDArray) -> NDArray:
        """Images (..., H, W) in this orientation, zero frequency at ``[H // 2, W // 2]`` again.

        An even axis that is flipped is rolled by one pixel. So its Nyquist frequency comes to the
        border where it was, since -H/2 and +H/2 are the same frequency of a discrete transform.
        """
        turned = self.apply(images)
        by = [
            int(flipped and size % 2 == 0)
            for flipped, size in zip((self.flip_y, self.flip_x), turned.shape[-2:], strict=True)
        ]
        return np.roll(turned, by, axis=(-2, -1)) if any(by) else turned

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

    The first row and column of an even size are Nyquist frequencies, whose sign is arbitrary. If
    only they lie beyond the detector, the row or column at the opposite border is taken for them.

    Attributes:
        corner: First row and column.
        size: ``(H, W)``.
    """

    corner: tuple[int, int]
    size: tuple[int, int]

    def apply(self, images: NDArray) -> NDArray:
        """The part of images (..., H, W); zero beyond the detector."""
        rows, columns = (
            self._sources(corner, size, full)
            for corner, size, full in zip(self.corner, self.size, images.shape[-2:], strict=True)
        )
        there = (rows >= 0)[:, None] & (columns >= 0)
        return np.where(there, images[..., rows[:, None], columns], images.dtype.type(0))

    @staticmethod
    def _sources(corner: int, size: int, full: int) -> NDArray[np.int64]:
        """The row or column of the detector for each of the window, -1 beyond the detector."""
        places = np.arange(corner, corner + size)
        sources = np.where((places >= 0) & (places < full), places, -1)
        if corner == -1 and size == full and size % 2 == 0:
            sources[0] = full - 1
        return sources

    @classmethod
    def central(cls, size: tuple[int, int], full: tuple[int, ...]) -> "Window":
        """The window of ``size`` whose zero frequency is that of an image of the shape ``full``."""
        return cls((full[0] // 2 - size[0] // 2, full[1] // 2 - size[1] // 2), size)

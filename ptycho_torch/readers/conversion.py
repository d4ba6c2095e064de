"""What turns stored patterns into counts as the package keeps them, each step a view that acts when it is read."""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptycho_torch.patterns import Counts, PatternView


@dataclass(frozen=True)
class Conversion(PatternView):
    """Patterns of another set, each changed in the same way."""

    source: Counts

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(n, H, W)``."""
        n, height, width = self.source.shape
        return n, height, width

    @property
    def dtype(self) -> np.dtype:
        """Of the set."""
        return self.source.dtype

    def read(self, indices: NDArray[np.int64]) -> NDArray:
        """See `PatternView.read`."""
        return self.convert(self.source[indices])

    @abstractmethod
    def convert(self, patterns: NDArray) -> NDArray:
        """The changed patterns, of the dtype and the (H, W) of this view."""


@dataclass(frozen=True)
class Positive(Conversion):
    """Negative values set to zero."""

    def convert(self, patterns: NDArray) -> NDArray:
        """See `Conversion.convert`."""
        return np.maximum(patterns, 0)


@dataclass(frozen=True)
class WithoutDark(Conversion):
    """A dark frame subtracted, nothing below zero, float32."""

    dark: NDArray

    @property
    def dtype(self) -> np.dtype:
        """float32: a mean dark frame is no whole number."""
        return np.dtype(np.float32)

    def convert(self, patterns: NDArray) -> NDArray:
        """See `Conversion.convert`."""
        return np.maximum(patterns - self.dark.astype(np.float32), 0, dtype=np.float32)


@dataclass(frozen=True)
class WithoutBad(Conversion):
    """Zero at the pixels that are not to be trusted, whatever the detector wrote there."""

    mask: NDArray[np.bool_]

    def convert(self, patterns: NDArray) -> NDArray:
        """See `Conversion.convert`."""
        return np.where(self.mask, patterns, patterns.dtype.type(0))


@dataclass(frozen=True)
class Squares(Conversion):
    """Photons from amplitudes: squares divided by that of one photon, float32.

    Attributes:
        unit: Square of the amplitude of one photon.
        whole: Whether the photons are whole numbers.
    """

    unit: float
    whole: bool

    @property
    def dtype(self) -> np.dtype:
        """float32."""
        return np.dtype(np.float32)

    def convert(self, patterns: NDArray) -> NDArray:
        """See `Conversion.convert`."""
        counts = np.square(patterns, dtype=np.float64) / self.unit
        return (np.rint(counts) if self.whole else counts).astype(np.float32)


@dataclass(frozen=True)
class Orientation:
    """One of the eight ways to lay a detector's rows and columns: first transposed, then flipped."""

    transpose: bool = False
    flip_y: bool = False
    flip_x: bool = False

    def apply(self, images: NDArray) -> NDArray:
        """Images (..., H, W) as they are to be."""
        if self.transpose:
            images = np.swapaxes(images, -2, -1)
        if self.flip_y:
            images = images[..., ::-1, :]
        return images[..., ::-1] if self.flip_x else images

    def move(self, center: tuple[float, float], shape: tuple[int, int]) -> tuple[float, float]:
        """Where a point of an image of ``shape`` comes to lie, ``(y, x)``."""
        y, x = center
        height, width = shape
        if self.transpose:
            y, x, height, width = x, y, width, height
        return height - 1 - y if self.flip_y else y, width - 1 - x if self.flip_x else x

    def swap(self, pair: tuple[float, float]) -> tuple[float, float]:
        """A quantity of rows and one of columns as they are to be."""
        return (pair[1], pair[0]) if self.transpose else pair


@dataclass(frozen=True)
class Oriented(Conversion):
    """Patterns turned over."""

    orientation: Orientation

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(n, H, W)``."""
        n, height, width = self.source.shape
        return (n, width, height) if self.orientation.transpose else (n, height, width)

    def convert(self, patterns: NDArray) -> NDArray:
        """See `Conversion.convert`."""
        return self.orientation.apply(patterns)


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


@dataclass(frozen=True)
class Cropped(Conversion):
    """A part of each pattern."""

    window: Window

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(n, H, W)``."""
        return self.source.shape[0], *self.window.size

    def convert(self, patterns: NDArray) -> NDArray:
        """See `Conversion.convert`."""
        return self.window.apply(patterns)


@dataclass(frozen=True)
class Binned(Conversion):
    """Squares of ``factor`` x ``factor`` pixels added up."""

    factor: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(n, H, W)``."""
        n, height, width = self.source.shape
        return n, height // self.factor, width // self.factor

    @property
    def dtype(self) -> np.dtype:
        """float32, or what holds the sum of whole numbers."""
        return np.dtype(np.float32) if self.source.dtype.kind == "f" else np.dtype(np.int64)

    def convert(self, patterns: NDArray) -> NDArray:
        """See `Conversion.convert`."""
        return fold(patterns, self.factor).sum(axis=(-3, -1), dtype=self.dtype)


def fold(images: NDArray, factor: int) -> NDArray:
    """Images (..., H, W) as (..., H / factor, factor, W / factor, factor)."""
    *leading, height, width = images.shape
    return images.reshape(*leading, height // factor, factor, width // factor, factor)

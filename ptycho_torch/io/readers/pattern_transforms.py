"""Transforms from stored patterns to counts; each acts when patterns are read."""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptycho_torch.data.detector import Orientation, Window
from ptycho_torch.data.lazy_patterns import LazyPatterns, PatternArray


@dataclass(frozen=True)
class PatternTransform(LazyPatterns):
    """Patterns of another set, each changed in the same way."""

    source: PatternArray

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
        """See `LazyPatterns.read`."""
        return self.convert(self.source[indices])

    @abstractmethod
    def convert(self, patterns: NDArray) -> NDArray:
        """The changed patterns, of the dtype and the (H, W) of this view."""


@dataclass(frozen=True)
class ClipNegative(PatternTransform):
    """Negative values set to zero."""

    def convert(self, patterns: NDArray) -> NDArray:
        """See `PatternTransform.convert`."""
        return np.maximum(patterns, 0)


@dataclass(frozen=True)
class SubtractDark(PatternTransform):
    """A dark frame subtracted, nothing below zero, float32."""

    dark: NDArray

    @property
    def dtype(self) -> np.dtype:
        """float32: a mean dark frame is no whole number."""
        return np.dtype(np.float32)

    def convert(self, patterns: NDArray) -> NDArray:
        """See `PatternTransform.convert`."""
        return np.maximum(patterns - self.dark.astype(np.float32), 0, dtype=np.float32)


@dataclass(frozen=True)
class ZeroBadPixels(PatternTransform):
    """Zero at the pixels that are not to be trusted, whatever the detector wrote there."""

    mask: NDArray[np.bool_]

    def convert(self, patterns: NDArray) -> NDArray:
        """See `PatternTransform.convert`."""
        return np.where(self.mask, patterns, patterns.dtype.type(0))


@dataclass(frozen=True)
class AmplitudesToCounts(PatternTransform):
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
        """See `PatternTransform.convert`."""
        counts = np.square(patterns, dtype=np.float64) / self.unit
        with np.errstate(over="ignore"):  # infinite counts are refused
            return (np.rint(counts) if self.whole else counts).astype(np.float32)


@dataclass(frozen=True)
class Orient(PatternTransform):
    """Patterns turned over."""

    orientation: Orientation

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(n, H, W)``."""
        n, height, width = self.source.shape
        return (n, width, height) if self.orientation.transpose else (n, height, width)

    def convert(self, patterns: NDArray) -> NDArray:
        """See `PatternTransform.convert`."""
        return self.orientation.apply(patterns)


@dataclass(frozen=True)
class Crop(PatternTransform):
    """A part of each pattern."""

    window: Window

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(n, H, W)``."""
        return self.source.shape[0], *self.window.size

    def convert(self, patterns: NDArray) -> NDArray:
        """See `PatternTransform.convert`."""
        return self.window.apply(patterns)


@dataclass(frozen=True)
class Bin(PatternTransform):
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
        """See `PatternTransform.convert`."""
        return fold(patterns, self.factor).sum(axis=(-3, -1), dtype=self.dtype)


def fold(images: NDArray, factor: int) -> NDArray:
    """Images (..., H, W) as (..., H / factor, factor, W / factor, factor)."""
    *leading, height, width = images.shape
    return images.reshape(*leading, height // factor, factor, width // factor, factor)

"""A mosaic whose canvas grows with the scan."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptycho_torch.inference.stitching import EMPTY, Mosaic

logger = logging.getLogger(__name__)

MARGIN = 0.5  # of the canvas, added on the side on which it is too small, so that it grows seldom
# Pixels; 128 million take 1.5 GB. A position farther away than such a canvas is a wrong one.
MAX_PIXELS = 2**27


class GrowingMosaic:
    """A `Mosaic` of a scan whose extent is not known yet."""

    def __init__(self) -> None:
        self._mosaic: Mosaic | None = None

    def add(self, canvases: Sequence[tuple[Tensor, Tensor, NDArray[np.int64]]]) -> None:
        """Add canvases: image, weight and origin of each, as `Mosaic.add` takes them."""
        for canvas, weight, origin in canvases:
            if not torch.isfinite(canvas).all():
                logger.warning(
                    "a part of the image is not finite, and is left out of the live view"
                )
                continue
            self._mosaic = self._holding(origin, origin + np.array(canvas.shape))
            self._mosaic.add(canvas, weight, origin)

    def image(self) -> tuple[NDArray[np.complex64], NDArray[np.float32], NDArray[np.float64]]:
        """The image so far, the light on it, and its origin, cropped to where there is light.

        Returns:
            Object, complex, (Y, X), 1 where no light fell; light as a fraction of the largest,
            (Y, X); coordinates of element [0, 0], (2,).

        Raises:
            ValueError: If no canvas was added.
        """
        mosaic = self._mosaic
        if mosaic is None or not mosaic.weight.any():
            raise ValueError("no canvas was added")
        rows, columns = (extent(mosaic.weight.amax(dim=axis)) for axis in (1, 0))
        window = (rows, columns)
        weight = mosaic.weight[window]
        image = mosaic.total[window] / weight.clamp_min(torch.finfo(torch.float32).tiny)
        image.masked_fill_(weight == 0, EMPTY)
        origin = mosaic.corner_yx + np.array([rows.start, columns.start])
        return image.numpy(), (weight / weight.max()).numpy(), origin.astype(np.float64)

    def _holding(self, first: NDArray[np.int64], stop: NDArray[np.int64]) -> Mosaic:
        """The mosaic, on a canvas that holds a rectangle."""
        old = self._mosaic
        if old is None:
            return Mosaic(
                first.astype(np.float64), (int(stop[0] - first[0]), int(stop[1] - first[1]))
            )
        corner, size = old.corner_yx, np.array(old.weight.shape)
        end = corner + size
        if (first >= corner).all() and (stop <= end).all():
            return old
        margin = (MARGIN * size).astype(np.int64)
        if np.prod(np.maximum(stop, end) - np.minimum(first, corner) + margin) > MAX_PIXELS:
            margin = 0 * margin
        low = np.where(first < corner, first - margin, corner)
        high = np.where(stop > end, stop + margin, end)
        new = Mosaic(low.astype(np.float64), (int(high[0] - low[0]), int(high[1] - low[1])))
        top, left = (int(value) for value in corner - low)
        window = (slice(top, top + int(size[0])), slice(left, left + int(size[1])))
        new.total[window], new.weight[window] = old.total, old.weight
        return new


def extent(values: Tensor) -> slice:
    """From the first to the last value that is not 0."""
    places = values.nonzero()[:, 0]
    return slice(int(places[0]), int(places[-1]) + 1)

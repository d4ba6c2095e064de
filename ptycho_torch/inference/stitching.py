"""Stitch overlapping canvases into one object.

Two things decide how canvases are joined. Phase: the patterns of a canvas fix its object up to a
global phase, so two canvases of the same place differ by a constant factor exp(i phi). Canvases are
therefore added one after the other, the one in the middle of the scan first, so that each overlaps
those before it; its phase is turned to the one at which it correlates best with what is there.
Weight: a network sees more patterns around a region than belong to it, and is good where these
light the sample. Each canvas counts by the photons that the region's own patterns brought to a
pixel. So every pattern counts once, and a canvas ends softly where its light ends, without seams.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

EMPTY = 1.0  # transmission of empty space, where nothing was measured


class Mosaic:
    """The weighted mean of canvases, each turned to the global phase of those before it.

    ::

        O = sum_k w_k e^{-i phi_k} c_k / sum_k w_k,   phi_k = arg sum conj(O_before) w_k c_k

    Args:
        corner_yx: Coordinates of the first pixel, in the frame of the scan's positions, (2,).
        shape: ``(Y, X)``.
    """

    def __init__(self, corner_yx: NDArray[np.float64], shape: tuple[int, int]) -> None:
        self.corner_yx = corner_yx
        self.total = torch.zeros(shape, dtype=torch.complex64)
        self.weight = torch.zeros(shape)

    def add(self, canvas: Tensor, weight: Tensor, origin_yx: NDArray[np.int64]) -> None:
        """Add a canvas.

        Args:
            canvas: Complex, (Y, X).
            weight: Weight of each of its pixels, real, at least 0, (Y, X).
            origin_yx: Coordinates of its first pixel, whole numbers, (2,).
        """
        top, left = (int(value) for value in origin_yx - self.corner_yx)
        rows = min(canvas.shape[0], self.weight.shape[0] - top)
        columns = min(canvas.shape[1], self.weight.shape[1] - left)
        window = (slice(top, top + rows), slice(left, left + columns))
        canvas, weight = canvas[:rows, :columns], weight[:rows, :columns]
        turn = torch.sum(self.total[window].conj() * canvas * weight).angle()
        self.total[window] += canvas * weight * torch.polar(torch.ones(()), -turn)
        self.weight[window] += weight

    def finish(self) -> tuple[Tensor, Tensor]:
        """The object, complex, (Y, X), 1 where no canvas lies, and the weight, real, (Y, X).

        Computed in place, since it may be large: nothing can be added afterwards.
        """
        image = self.total.div_(self.weight.clamp_min(torch.finfo(torch.float32).tiny))
        return image.masked_fill_(self.weight == 0, EMPTY), self.weight

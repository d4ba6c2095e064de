"""Overlapping canvases into one object."""

import numpy as np
import torch
from torch import Tensor

EMPTY = 1.0  # transmission of empty space, where nothing was measured


class Mosaic:
    """The weighted mean of canvases, each turned to the global phase of those before it.

    ::

        O = sum_k w_k e^{-i phi_k} c_k / sum_k w_k,   phi_k = arg sum conj(O_before) w_k c_k

    A canvas is known up to a global phase; where it overlaps what is there, the two must agree.

    Args:
        corner_yx: Coordinates of the first pixel, in the frame of the scan's positions, (2,).
        shape: ``(Y, X)``.
    """

    def __init__(self, corner_yx: np.ndarray, shape: tuple[int, int]) -> None:
        self.corner_yx = corner_yx
        self.total = torch.zeros(shape, dtype=torch.complex64)
        self.weight = torch.zeros(shape)

    def add(self, canvas: Tensor, weight: Tensor, origin_yx: np.ndarray) -> None:
        """Lay a canvas on the mosaic.

        Args:
            canvas: Complex, (Y, X).
            weight: How much each of its pixels counts, real, at least 0, (Y, X).
            origin_yx: Coordinates of its first pixel, whole numbers, (2,).
        """
        top, left = (int(value) for value in origin_yx - self.corner_yx)
        rows, columns = canvas.shape
        rows, columns = min(rows, self.weight.shape[0] - top), min(columns, self.weight.shape[1] - left)
        window = (slice(top, top + rows), slice(left, left + columns))
        canvas, weight = canvas[:rows, :columns], weight[:rows, :columns]
        turn = torch.sum(self.total[window].conj() * canvas * weight).angle()
        self.total[window] += canvas * weight * torch.polar(torch.ones(()), -turn)
        self.weight[window] += weight

    def finish(self) -> tuple[Tensor, Tensor]:
        """The object, complex, (Y, X), 1 where nothing was laid, and the weight there, real, (Y, X).

        Nothing can be added afterwards.
        """
        image = self.total.div_(self.weight.clamp_min(torch.finfo(torch.float32).tiny))  # in place: it may be large
        return image.masked_fill_(self.weight == 0, EMPTY), self.weight

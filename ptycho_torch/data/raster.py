"""The positions of a raster scan from its shape, step and rotation."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Raster:
    """A raster, as far as it is known.

    Attributes:
        step_m: Distance of neighbouring points ``(y, x)``, in metres.
        shape: Points ``(rows, columns)``; the columns of a row follow each other in time.
        rotation_deg: Angle by which rows and columns are turned against those of the detector,
            counterclockwise in a picture.
    """

    step_m: tuple[float, float] | None = None
    shape: tuple[int, int] | None = None
    rotation_deg: float = 0.0


def raster_positions_m(
    shape: tuple[int, int], step_m: tuple[float, float], rotation_deg: float = 0.0
) -> NDArray[np.float64]:
    """Positions ``(y, x)`` row by row, (rows * columns, 2), in metres, around (0, 0)."""
    y, x = (
        step * (np.arange(count) - (count - 1) / 2)
        for step, count in zip(step_m, shape, strict=True)
    )
    rows, columns = np.meshgrid(y, x, indexing="ij")
    cosine, sine = np.cos(np.radians(rotation_deg)), np.sin(np.radians(rotation_deg))
    turned = [cosine * rows - sine * columns, sine * rows + cosine * columns]
    return np.stack(turned, axis=-1).reshape(-1, 2)

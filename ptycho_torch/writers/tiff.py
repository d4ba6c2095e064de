"""TIFF pictures with the values themselves, in 32-bit floats."""

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from ptycho_torch.run_dir import atomic_write
from ptycho_torch.scan import Reconstruction
from ptycho_torch.writers.metric import say_left_out

CENTIMETRE = 0.01  # m; the unit of resolution in TIFF


def write_amplitude(path: Path, result: Reconstruction) -> None:
    """Write the amplitude of the object."""
    _write(path, np.abs(result.object), result.pixel_size_m)
    say_left_out("a TIFF file", "the place on the sample, the coverage, the probe and the positions")


def write_phase(path: Path, result: Reconstruction) -> None:
    """Write the phase of the object, in rad."""
    _write(path, np.angle(result.object), result.pixel_size_m)


def _write(path: Path, image: NDArray, pixel_m: tuple[float, float] | None) -> None:
    """Write an image with its resolution, where that is known."""
    resolution = None if pixel_m is None else (CENTIMETRE / pixel_m[1], CENTIMETRE / pixel_m[0])
    with atomic_write(path) as temporary:
        tifffile.imwrite(
            temporary,
            image.astype(np.float32),
            photometric="minisblack",
            resolution=resolution,
            resolutionunit=None if resolution is None else "CENTIMETER",
        )

"""Write TIFF images of 32-bit floats."""

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from ptycho_torch.data.scan import Reconstruction
from ptycho_torch.io.files import atomic_write
from ptycho_torch.io.run_dir import RunDir
from ptycho_torch.io.writers.si_geometry import log_omitted

CENTIMETRE = 0.01  # m; the unit of resolution in TIFF


def write_result(run: RunDir, result: Reconstruction) -> None:
    """Write amplitude and phase, in rad, of the object."""
    _write(run.amplitude_tiff, np.abs(result.object), result.pixel_size_m)
    _write(run.phase_tiff, np.angle(result.object), result.pixel_size_m)
    log_omitted("a TIFF file", "the place on the sample, the coverage, the probe and the positions")


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

"""The project's own reconstruction files."""

from pathlib import Path

import numpy as np

from ptycho_torch.errors import InputError
from ptycho_torch.readers.npz import DAMAGE
from ptycho_torch.scan import Reconstruction

REQUIRED = ("object", "coverage", "origin_yx", "probe", "positions_px", "scan_index")


def read_reconstruction(path: Path) -> Reconstruction:
    """The reconstruction in an NPZ file that this package wrote.

    Raises:
        InputError: If the file is missing, damaged, or not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in REQUIRED if key not in archive.files]
            if missing:
                raise InputError(f"{path}: key '{missing[0]}' is missing; expected a reconstruction.npz of this package")
            fields = {key: archive[key] for key in REQUIRED}
            pixel_size_m = float(archive["pixel_size_m"]) if "pixel_size_m" in archive.files else None
    except DAMAGE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a readable reconstruction ({error})") from error
    return Reconstruction(**fields, pixel_size_m=pixel_size_m)

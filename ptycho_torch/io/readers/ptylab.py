"""Read PtyLab's HDF5 files: lengths in metres, positions ``(row, column)``."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from ptycho_torch.data.detector import Orientation
from ptycho_torch.data.scan import Instrument
from ptycho_torch.data.wavelength import energy_of
from ptycho_torch.errors import InputError
from ptycho_torch.io.readers.checks import check_real
from ptycho_torch.io.readers.hdf5 import (
    find_dataset,
    lengths,
    need_dataset,
    need_patterns,
    open_hdf5,
    quantity,
    read_array,
)
from ptycho_torch.io.readers.pattern_transforms import Orient
from ptycho_torch.io.readers.raw_scan import Format, RawScan


def read_ptylab(paths: Sequence[Path]) -> RawScan:
    """The raw in a file with ``ptychogram`` and ``encoder``.

    Raises:
        InputError: If something is missing or cannot be what it should, or the file is of Fourier
            ptychography.
    """
    (path,) = paths
    with open_hdf5(path) as file:
        if find_dataset(file, "zo") is None and find_dataset(file, "zled") is not None:
            raise InputError(
                f"{path}: is a scan of Fourier ptychography (key 'zled'); expected one with a "
                "sample distance 'zo'"
            )
        patterns = need_patterns(need_dataset(file, "ptychogram"), path)
        encoder = lengths(need_dataset(file, "encoder"), "m")
        if (
            encoder.ndim == 2
            and encoder.shape[0] == 2
            and encoder.shape[1] == patterns.shape[0] != 2
        ):
            encoder = encoder.T
        wavelength = quantity(need_dataset(file, "wavelength"), "m")
        pixel = quantity(need_dataset(file, "dxd"), "m")
        orientation = detector_orientation(path, file)
        return RawScan(
            source=str(path),
            patterns=patterns if orientation == Orientation() else Orient(patterns, orientation),
            patterns_key="ptychogram",
            values="counts",
            positions=check_real(f"{path}: encoder", encoder, (None, 2)),
            positions_unit="m",
            instrument=Instrument(
                None if wavelength is None else energy_of(wavelength),
                quantity(need_dataset(file, "zo"), "m"),
                None if pixel is None else (pixel, pixel),
            ),
            wavelength_stated=True,
            negative_is_zero=True,
        )


def detector_orientation(path: Path, file: h5py.File) -> Orientation:
    """How the patterns are turned before they are used: ptypy's numbers 0 to 7."""
    item = find_dataset(file, "orientation")
    if item is None:
        return Orientation()
    numbers = np.unique(read_array(item))
    if len(numbers) != 1 or numbers[0] not in range(8):
        found = numbers.tolist()[:3]
        raise InputError(f"{path}: orientation is {found}; expected a whole number from 0 to 7")
    number = int(numbers[0])
    return Orientation(transpose=bool(number & 4), flip_y=bool(number & 2), flip_x=bool(number & 1))


FORMAT = Format(
    name="PtyLab HDF5",
    container="hdf5",
    recognises=lambda file: "ptychogram" in file,
    read=read_ptylab,
)

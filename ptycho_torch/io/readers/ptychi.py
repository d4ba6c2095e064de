"""Read Pty-Chi's pair: a file of patterns (``*_dp``) and one of parameters (``*_para``)."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from ptycho_torch.errors import InputError
from ptycho_torch.io.readers.checks import check_real
from ptycho_torch.io.readers.hdf5 import (
    PROBE_KINDS,
    find_dataset,
    need_dataset,
    need_patterns,
    open_hdf5,
    read_array,
    read_optional,
)
from ptycho_torch.io.readers.ptychodus import POSITIONS, object_pixel, order_pair
from ptycho_torch.io.readers.raw_scan import Format, RawScan


def is_patterns(file: h5py.File) -> bool:
    """Whether an HDF5 file holds patterns as Pty-Chi keeps them."""
    return isinstance(file.get("dp"), h5py.Dataset)


def is_parameters(file: h5py.File) -> bool:
    """Whether an HDF5 file holds parameters of Pty-Chi; a product of Ptychodus has indices too."""
    return {"object", "probe", *POSITIONS} <= set(file) and "probe_position_indexes" not in file


def read_ptychi(paths: Sequence[Path]) -> RawScan:
    """The raw in a pair of files.

    Args:
        paths: The two, in any order.

    Raises:
        InputError: If one is missing, or what they hold does not fit together.
    """
    patterns_path, parameters_path = order_pair(
        paths, (is_patterns, "file of patterns"), (is_parameters, "file of parameters")
    )
    with open_hdf5(patterns_path) as file, open_hdf5(parameters_path) as parameters:
        patterns = need_patterns(need_dataset(file, "dp"), patterns_path)
        coordinates = [
            check_real(
                f"{parameters_path}: {key}",
                read_array(need_dataset(parameters, key)).ravel(),
                (None,),
            )
            for key in POSITIONS
        ]
        if len(coordinates[0]) != len(coordinates[1]):
            raise InputError(
                f"{parameters_path}: {POSITIONS[1]} has {len(coordinates[1])} values but "
                f"{POSITIONS[0]} has "
                f"{len(coordinates[0])}; expected equal lengths"
            )
        pixel = object_pixel(parameters)
        if pixel is None:
            raise InputError(
                f"{parameters_path}: object has no attributes pixel_height_m and pixel_width_m "
                "above 0; expected metres"
            )
        probe = find_dataset(parameters, "probe")
        return RawScan(
            source=f"{patterns_path} and {parameters_path}",
            patterns=patterns,
            patterns_key="dp",
            values="counts",
            positions=np.stack(coordinates, axis=1),
            positions_unit="m",
            probe=read_optional(probe, PROBE_KINDS),
            probe_key="probe",
            object_pixel_m=pixel,
        )


FORMAT = Format(
    name="Pty-Chi patterns and parameters",
    container="hdf5",
    recognises=lambda file: is_patterns(file) or is_parameters(file),
    read=read_ptychi,
    pair=True,
)

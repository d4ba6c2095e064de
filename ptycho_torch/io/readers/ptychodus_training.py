"""Ptychodus's file of training data: patterns, positions, probe and object of one scan in HDF5."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from ptycho_torch.data.scan import Instrument
from ptycho_torch.errors import InputError
from ptycho_torch.io.readers.checks import check_real
from ptycho_torch.io.readers.hdf5 import (
    PROBE_KINDS,
    find_dataset,
    need_dataset,
    need_patterns,
    open_hdf5,
    quantity,
    read_array,
    read_optional,
)
from ptycho_torch.io.readers.ptychodus import ENERGY
from ptycho_torch.io.readers.raw_scan import Format, RawScan

POSITIONS = ("probe_position_y_px", "probe_position_x_px")


def is_training_data(file: h5py.File) -> bool:
    """Whether an HDF5 file holds training data as Ptychodus exports them."""
    return {"patterns", *POSITIONS} <= set(file)


def read_training_data(paths: Sequence[Path]) -> RawScan:
    """The raw in a file.

    The file keeps the object pixel and not the detector pixel, which follows from it in the far
    field. It does not keep where the object lies in metres, nor the indices of the exposures.

    Raises:
        InputError: If a dataset is missing or its content cannot be what it should.
    """
    (path,) = paths
    with open_hdf5(path) as file:
        patterns = need_patterns(need_dataset(file, "patterns"), path)
        columns = [
            check_real(f"{path}: {key}", read_array(need_dataset(file, key)), (None,))
            for key in POSITIONS
        ]
        if len(columns[0]) != len(columns[1]):
            raise InputError(
                f"{path}: {POSITIONS[1]} has {len(columns[1])} values but {POSITIONS[0]} has "
                f"{len(columns[0])}; expected equal lengths"
            )
        probe, bad = find_dataset(file, "probe"), find_dataset(file, "bad_pixels")
        height = quantity(find_dataset(file, "object_pixel_height_m"), "m")
        width = quantity(find_dataset(file, "object_pixel_width_m"), "m")
        pixel = None if height is None or width is None else (height, width)
        return RawScan(
            source=str(path),
            patterns=patterns,
            patterns_key="patterns",
            values="counts",
            positions=np.stack(columns, axis=1),
            positions_unit="px",
            positions_from="center",
            probe=read_optional(probe, PROBE_KINDS),
            probe_key="probe",
            mask=None if bad is None else ~read_array(bad).astype(bool),
            instrument=_instrument(file, pixel, (patterns.shape[1], patterns.shape[2])),
            object_pixel_m=pixel,
        )


def _instrument(
    file: h5py.File, pixel_m: tuple[float, float] | None, shape: tuple[int, int]
) -> Instrument:
    """Energy and distance, and the detector pixel that makes the object pixel of them."""
    known = Instrument(
        quantity(find_dataset(file, *ENERGY), "eV"),
        quantity(find_dataset(file, "detector_object_distance_m"), "m"),
    )
    reach = known.reach_m2
    if reach is None or pixel_m is None:
        return known
    return replace(
        known,
        detector_pixel_m=(reach / (shape[0] * pixel_m[0]), reach / (shape[1] * pixel_m[1])),
    )


FORMAT = Format(
    name="Ptychodus training data",
    container="hdf5",
    recognises=is_training_data,
    read=read_training_data,
)

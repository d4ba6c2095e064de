"""Keep the frames of a live view in an HDF5 file that every command reads with its map.

HDF5 does not survive a full disk. So the room for each addition is reserved in the file before HDF5
writes into it: a disk without that room is noticed while the file is whole.
"""

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml
from numpy.typing import NDArray

from ptycho_torch.errors import InputError, RunError
from ptycho_torch.io.files import write_text
from ptycho_torch.io.readers.raw_scan import RawScan
from ptycho_torch.io.readers.to_scan import FROM_CORNER
from ptycho_torch.io.run_dir import RunDir

SLACK = 2**18  # bytes, more than positions, indices and HDF5's own tables need for an addition


class Recording:
    """``recorded.h5`` and ``recorded.yaml`` of a run.

    The frames lie in the order in which they came, with their indices, and are flushed with every
    `add`, so that a killed run leaves what it had.

    Args:
        run: Where they are written.
    """

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._file: h5py.File | None = None
        self._shape: tuple[int, ...] = ()

    def add(self, raw: RawScan) -> None:
        """Append frames.

        Raises:
            InputError: If they have another shape than those before.
            RunError: If the disk is full.
        """
        patterns = np.asarray(raw.patterns[:])
        if raw.negative_is_zero and patterns.dtype.kind != "u":
            patterns = np.maximum(patterns, 0)
        positions = np.asarray(raw.positions, dtype=np.float64)
        if raw.positions_unit == "px":
            positions = positions + FROM_CORNER[raw.positions_from]
        try:
            reserve(self._run.recorded, sum(part.nbytes for part in self._parts(raw, patterns)))
            if self._file is None:
                self._file = self._start(raw, patterns)
            if patterns.shape[1:] != self._shape:
                raise InputError(
                    f"{raw.source}: patterns of {patterns.shape[1:]} pixels; those before have "
                    f"{self._shape}"
                )
            append(self._file["patterns"], patterns)
            append(self._file["positions"], positions)
            append(self._file["index"], np.asarray(raw.scan_index, dtype=np.int64))
            self._file.flush()
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise RunError(
                f"{self._run.recorded}: cannot be written ({reason}); the frames before are kept"
            ) from error

    def finish(self) -> tuple[Path, Path]:
        """Close the file, and return it and its map.

        Raises:
            RunError: If no frame ever came.
        """
        if self._file is None:
            raise RunError("no complete frame came, so that there is nothing to reconstruct")
        self._file.close()
        return self._run.recorded, self._run.recorded_map

    def _parts(self, raw: RawScan, patterns: NDArray) -> list[NDArray]:
        """The arrays that are going to be written."""
        known = [raw.probe, raw.mask, raw.dark] if self._file is None else []
        return [patterns, *(np.asarray(one) for one in known if one is not None)]

    def _start(self, raw: RawScan, patterns: NDArray) -> h5py.File:
        """The file with all that is known of the scan, and no frame yet."""
        self._shape = patterns.shape[1:]
        file = h5py.File(self._run.recorded, "w")
        file.create_dataset(
            "patterns",
            shape=(0, *self._shape),
            maxshape=(None, *self._shape),
            chunks=(1, *self._shape),
            dtype=patterns.dtype,
        )
        file.create_dataset("positions", (0, 2), "f8", maxshape=(None, 2), chunks=(1024, 2))
        file.create_dataset("index", (0,), "i8", maxshape=(None,), chunks=(1024,))
        arrays = {"probe": raw.probe, "mask": raw.mask, "dark": raw.dark}
        for name, values in arrays.items():
            if values is not None:
                file[name] = values
        write_text(self._run.recorded_map, yaml.safe_dump(layout(raw), sort_keys=False))
        return file


def reserve(path: Path, n_bytes: int) -> None:
    """Make room in a file, which is made if it is not there, for more bytes at its end.

    Raises:
        OSError: If the disk, the quota or the largest size of a file does not allow it.
    """
    with open(path, "ab") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size + n_bytes + SLACK)


def append(dataset: h5py.Dataset, values: NDArray) -> None:
    """Add rows to a dataset."""
    before = len(dataset)
    dataset.resize(before + len(values), axis=0)
    dataset[before:] = values


def layout(raw: RawScan) -> dict[str, Any]:
    """What a map of the recorded file says."""
    known = raw.instrument
    pixel = known.detector_pixel_m
    entries: dict[str, Any] = {
        "patterns": "/patterns",
        "values": None if raw.values == "unknown" else raw.values,
        f"positions_{raw.positions_unit}": "/positions",
        "index": "/index",
        "probe": None if raw.probe is None else "/probe",
        "mask": None if raw.mask is None else "/mask",
        "dark": None if raw.dark is None else "/dark",
        "center_px": None if raw.center is None else [float(value) for value in raw.center],
        "radiation": None if known.radiation == "photons" else known.radiation,
        "energy_ev": known.energy_ev,
        "distance_m": known.distance_m,
        "detector_pixel_m": None if pixel is None else [float(value) for value in pixel],
        "pixel_size_m": None
        if raw.object_pixel_m is None
        else [float(value) for value in raw.object_pixel_m],
    }
    return {key: value for key, value in entries.items() if value is not None}

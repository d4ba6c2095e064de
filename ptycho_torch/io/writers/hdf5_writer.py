"""Write HDF5 files whole or not at all; patterns pass through memory in blocks."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ptycho_torch.data.lazy_patterns import PatternArray, blocks
from ptycho_torch.io.files import atomic_write
from ptycho_torch.io.writers.si_geometry import SiGeometry


@contextlib.contextmanager
def new_hdf5(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file to fill, which takes its place when the block ends without error."""
    with atomic_write(path) as temporary, PatientFile(temporary) as raw:
        try:
            with h5py.File(raw, "w") as file:
                yield file
        finally:
            if raw.error is not None:
                raise raw.error


class PatientFile(io.FileIO):
    """A file that keeps the error of a write for later; HDF5 crashes when its disk is full."""

    error: OSError | None = None

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")

    def write(self, data: Any) -> int:
        """Write all of the data, or nothing after the first error."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view) and self.error is None:
            try:
                done += super().write(view[done:])
            except OSError as error:
                self.error = error
        return len(view)


def mark_near_field(item: h5py.HLObject, geometry: SiGeometry) -> None:
    """Say, in attributes of our own, that patterns are near-field ones, and of which pixel.

    Formats without a place for it leave a reader to guess, and the magnification unknown.
    """
    if not geometry.is_far_field:
        item.attrs["far_field"] = False
        item.attrs["object_pixel_m"] = geometry.pixel_m


def store_patterns(group: h5py.Group, name: str, counts: PatternArray) -> h5py.Dataset:
    """Patterns as a dataset of one chunk a pattern, compressed, of the dtype that they have."""
    dtype = np.dtype(np.float32) if counts.dtype.kind == "f" else counts.dtype
    settings = {
        "chunks": (1, *counts.shape[1:]),
        "compression": "gzip",
        "compression_opts": 1,
        "shuffle": True,
    }
    dataset = group.create_dataset(name, shape=counts.shape, dtype=dtype, **settings)
    for window, block in blocks(counts):
        dataset[window] = block
    return dataset

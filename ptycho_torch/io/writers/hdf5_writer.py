"""Write HDF5 files whole or not at all; patterns pass through memory in blocks."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from ptycho_torch.data.lazy_patterns import PatternArray, blocks
from ptycho_torch.io.files import atomic_write


@contextlib.contextmanager
def new_hdf5(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file to fill, which takes its place when the block ends without error."""
    with atomic_write(path) as temporary, h5py.File(temporary, "w") as file:
        yield file


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

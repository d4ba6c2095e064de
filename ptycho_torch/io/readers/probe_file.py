"""Read a probe from a file of its own, for scans that are stored without one."""

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ptycho_torch.errors import InputError, memory_for
from ptycho_torch.io.readers.file_kind import kind_of_file
from ptycho_torch.io.readers.hdf5 import PROBE_KINDS, find_dataset, names_in, open_hdf5, read_array
from ptycho_torch.io.readers.npz import DAMAGE, load_arrays, plain_reason

NPY = b"\x93NUMPY"  # first bytes of a single array
KEYS = ("probeGuess", "probe")  # in NPZ files; a reconstruction of this package is one
PLACES = (
    "probe",
    "entry_1/image_1/data",
    "entry_1/instrument_1/source_1/illumination",
)  # in HDF5 files


def read_probe(path: Path) -> tuple[NDArray, str]:
    """The probe in an NPY, NPZ or HDF5 file, at any scale, and where it was found.

    Raises:
        InputError: If there is none.
    """
    if not path.is_file():
        raise InputError(f"--probe {path}: no such file")
    if h5py.is_hdf5(path):
        with open_hdf5(path) as file:
            found = find_dataset(file, *PLACES)
            if found is None:
                raise InputError(
                    f"--probe {path}: key '{PLACES[0]}' is missing; found {names_in(file)}"
                )
            return read_array(found, PROBE_KINDS), f"{path}: {found.name}"
    with open(path, "rb") as opened:
        head = opened.read(6)
    if head.startswith(b"PK"):
        arrays = load_arrays(path, set(KEYS))
        for key in KEYS:
            array = arrays.get(key)
            if array is not None:
                return array, f"{path}: {key}"
        raise InputError(f"--probe {path}: key '{KEYS[0]}' is missing")
    try:
        with memory_for(f"--probe {path}: {path.name}"):
            return np.load(path, allow_pickle=False), str(path)
    except InputError:
        raise
    except DAMAGE as error:
        reason = plain_reason(error) if head == NPY else f"it is {kind_of_file(path)}"
        raise InputError(
            f"--probe {path}: not a readable NPY, NPZ or HDF5 file; {reason}"
        ) from error

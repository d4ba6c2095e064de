"""Access to HDF5 files for the readers; a failure is a sentence with file and key."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  registers Blosc, Bitshuffle and LZ4 with HDF5
import numpy as np
from numpy.typing import NDArray

from ptycho_torch.data.hdf5_access import is_read_while_written, open_read_only
from ptycho_torch.data.lazy_patterns import Hdf5Patterns
from ptycho_torch.errors import InputError

UNITS = {  # to metres and to electronvolts
    "m": 1.0, "meter": 1.0, "metre": 1.0, "meters": 1.0, "metres": 1.0,
    "dm": 1e-1, "cm": 1e-2, "mm": 1e-3, "um": 1e-6, "µm": 1e-6, "μm": 1e-6,
    "micron": 1e-6, "microns": 1e-6, "micrometer": 1e-6, "micrometers": 1e-6,
    "nm": 1e-9, "nanometer": 1e-9, "nanometers": 1e-9, "pm": 1e-12, "angstrom": 1e-10, "å": 1e-10,
    "ev": 1.0, "kev": 1e3, "mev": 1e6, "gev": 1e9,
    "j": 1 / 1.602176634e-19, "joule": 1 / 1.602176634e-19,
}  # fmt: skip


@contextlib.contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file, read-only.

    Raises:
        InputError: If it is damaged, also where the damage shows while the block reads it.
    """
    try:
        with open_read_only(path, growing=is_read_while_written()) as file:
            yield file
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{path}: not a readable HDF5 file ({' '.join(str(error).split())}); is it complete?"
        ) from error


def find_dataset(file: h5py.Group, *keys: str) -> h5py.Dataset | None:
    """The first of some datasets that is there and is not the string 'None'."""
    for key in keys:
        found = file.get(key)
        if isinstance(found, h5py.Dataset) and not (found.shape == () and text(found) == "None"):
            return found
    return None


def need_dataset(file: h5py.Group, *keys: str) -> h5py.Dataset:
    """The first of some datasets that is there.

    Raises:
        InputError: If none is.
    """
    found = find_dataset(file, *keys)
    if found is None:
        prefix = "" if file.name == "/" else f"{file.name}/"
        rest = f" (nor {', '.join(prefix + key for key in keys[1:])})" if len(keys) > 1 else ""
        raise InputError(
            f"{file.file.filename}: key '{prefix}{keys[0]}' is missing{rest}; found "
            f"{', '.join(file) or 'nothing'}"
        )
    return found


def need_group(file: h5py.Group, key: str) -> h5py.Group:
    """A group.

    Raises:
        InputError: If it is not there.
    """
    found = file.get(key)
    if not isinstance(found, h5py.Group):
        raise InputError(
            f"{file.file.filename}: group '{file.name.rstrip('/')}/{key}' is missing; found "
            f"{', '.join(file) or 'nothing'}"
        )
    return found


def need_patterns(dataset: h5py.Dataset, path: Path) -> Hdf5Patterns:
    """A dataset as patterns.

    Raises:
        InputError: If it is no stack of images.
    """
    if dataset.ndim not in (3, 4) or dataset.dtype.kind not in "biuf" or 0 in dataset.shape:
        raise InputError(
            f"{path}: {dataset.name} is {dataset.dtype} of shape {dataset.shape}; expected real "
            "numbers of shape (n, H, W)"
        )
    return Hdf5Patterns(dataset, path)


def text(dataset: h5py.Dataset) -> str:
    """The string in a dataset, empty if it holds none."""
    value = dataset[()]
    value = value[0] if isinstance(value, np.ndarray) and value.size == 1 else value
    return (
        value.decode(errors="replace")
        if isinstance(value, bytes)
        else value
        if isinstance(value, str)
        else ""
    )


def attribute(item: h5py.HLObject, name: str) -> str | None:
    """A text attribute."""
    value = item.attrs.get(name)
    value = value[0] if isinstance(value, np.ndarray) and value.size == 1 else value
    return (
        value.decode(errors="replace")
        if isinstance(value, bytes)
        else str(value)
        if value is not None
        else None
    )


def unit_factor(dataset: h5py.Dataset, default: str) -> float:
    """Factor from a dataset's unit to metres or electronvolts; ``@units`` comes first.

    Raises:
        InputError: If the unit is unknown.
    """
    unit = (attribute(dataset, "units") or attribute(dataset, "unit") or default).strip()
    key = unit if unit in UNITS else unit.lower()
    if key not in UNITS:
        raise InputError(
            f"{dataset.file.filename}: {dataset.name} is in '{unit}'; expected one of "
            f"{', '.join(UNITS)}"
        )
    return UNITS[key]


def quantity(dataset: h5py.Dataset | None, default: str) -> float | None:
    """A single positive number in metres or electronvolts; None where there is no dataset.

    Raises:
        InputError: If it is not one finite number above 0.
    """
    if dataset is None:
        return None
    values = np.unique(np.asarray(dataset[()]))
    if (
        values.dtype.kind not in "iuf"
        or len(values) != 1
        or not np.isfinite(values[0])
        or values[0] <= 0
    ):
        found = values.tolist() if len(values) < 4 else f"{len(values)} different values"
        raise InputError(
            f"{dataset.file.filename}: {dataset.name} is {found}; expected one number above 0"
        )
    return float(values[0]) * unit_factor(dataset, default)


def lengths(dataset: h5py.Dataset, default: str) -> NDArray[np.float64]:
    """Numbers in metres.

    Raises:
        InputError: If they are no numbers.
    """
    values = np.asarray(dataset[()])
    if values.dtype.kind not in "iuf":
        raise InputError(
            f"{dataset.file.filename}: {dataset.name} is {values.dtype} of shape {values.shape}; "
            "expected real numbers"
        )
    return values.astype(np.float64) * unit_factor(dataset, default)


def children_of_class(group: h5py.Group, name: str) -> list[h5py.Group]:
    """Groups below one whose ``NX_class`` is that, by name."""
    return [
        item
        for item in group.values()
        if isinstance(item, h5py.Group) and attribute(item, "NX_class") == name
    ]

"""Access to HDF5 files for the readers; a failure is a sentence with file and key."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  registers Blosc, Bitshuffle and LZ4 with HDF5
import numpy as np
from numpy.typing import NDArray

from ptycho_torch.data.hdf5_access import (
    check_whole,
    hdf5_reason,
    is_read_while_written,
    open_read_only,
    unreadable,
)
from ptycho_torch.data.lazy_patterns import Hdf5Patterns
from ptycho_torch.data.scan import Instrument
from ptycho_torch.data.wavelength import RADIATIONS, energy_of
from ptycho_torch.errors import InputError, is_lack_of_memory
from ptycho_torch.io.readers.checks import check_size

UNITS = {  # to metres and to electronvolts
    "m": 1.0, "meter": 1.0, "metre": 1.0, "meters": 1.0, "metres": 1.0,
    "dm": 1e-1, "cm": 1e-2, "mm": 1e-3, "um": 1e-6, "µm": 1e-6, "μm": 1e-6,
    "micron": 1e-6, "microns": 1e-6, "micrometer": 1e-6, "micrometers": 1e-6,
    "nm": 1e-9, "nanometer": 1e-9, "nanometers": 1e-9, "pm": 1e-12, "angstrom": 1e-10, "å": 1e-10,
    "ev": 1.0, "kev": 1e3, "mev": 1e6, "gev": 1e9,
    "j": 1 / 1.602176634e-19, "joule": 1 / 1.602176634e-19,
}  # fmt: skip


MOST_NAMES = 20  # of a group, in a message
MAX_HOPS = 16  # links that lead to links
LONGEST_WORD = 256  # characters of a unit, a class, a definition
UNREADABLE = (MemoryError, OSError, TypeError, ValueError)  # what h5py raises when it reads values
PROBE_KINDS = "biufc"  # kinds of numbers of a probe


@contextlib.contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file, read-only.

    Raises:
        InputError: If it is damaged, also where the damage shows while the block reads it.
    """
    try:
        with open_read_only(path, growing=is_read_while_written()) as file:
            yield file
            check_whole(file)
    except (OSError, RuntimeError, KeyError) as error:  # h5py has no class of its own
        if is_lack_of_memory(error):
            raise
        raise InputError(
            f"{path}: not a readable HDF5 file ({hdf5_reason(error)}); is it complete?"
        ) from error


def find_dataset(file: h5py.Group, *keys: str) -> h5py.Dataset | None:
    """The first of some datasets that is there and is not the string 'None'.

    Raises:
        InputError: If it is a link whose target is gone, or virtual and a source of it is gone.
    """
    for key in keys:
        found = find_item(file, key)
        if isinstance(found, h5py.Dataset):
            check_sources(found)
        if isinstance(found, h5py.Dataset) and not (found.shape == () and text(found) == "None"):
            return found
    return None


def names_in(group: h5py.Group) -> str:
    """The first names in a group, for a message; "nothing" where it is empty."""
    names = [
        name.decode(errors="backslashreplace") if isinstance(name, bytes) else name
        for name in islice(group, MOST_NAMES)
    ]
    more = f" and {len(group) - MOST_NAMES} more" if len(group) > MOST_NAMES else ""
    return (", ".join(names) or "nothing") + more


def find_item(
    file: h5py.Group, key: str, *, hops: int = MAX_HOPS
) -> h5py.Group | h5py.Dataset | None:
    """What a group holds under a path, or None.

    Raises:
        InputError: If a link on the way leads nowhere; names the file or the key that is gone.
    """
    item: h5py.HLObject = file["/"] if key.startswith("/") else file
    for name in key.strip("/").split("/"):
        if not isinstance(item, h5py.Group):
            return None
        found = item.get(name)
        if found is None:
            _refuse_broken_link(item, name, hops)
            return None
        item = found
    return item if isinstance(item, h5py.Group | h5py.Dataset) else None


def _refuse_broken_link(group: h5py.Group, name: str, hops: int) -> None:
    """Raise `InputError` if a name in a group is a link; h5py hides one that leads nowhere."""
    link = group.get(name, getlink=True)
    if not isinstance(link, h5py.ExternalLink | h5py.SoftLink):
        return
    place = f"{group.file.filename}: {group.name.rstrip('/')}/{name} is a link to"
    if isinstance(link, h5py.SoftLink):
        if hops:  # the end of a chain of links says more
            find_item(group, link.path, hops=hops - 1)
        raise InputError(f"{place} {link.path}, which is not in the file")
    other = _beside(group.file, link.filename)
    if other.is_file():
        raise InputError(f"{place} {link.path} in {other}, which cannot be read there")
    raise InputError(f"{place} {link.path} in {other}, and that file is not there")


def _beside(file: h5py.File, name: str) -> Path:
    """The file of a name that another file states: in its folder, else in the working folder."""
    beside = Path(file.filename).parent / name
    return beside if beside.is_file() or not Path(name).is_file() else Path(name)


def check_sources(
    dataset: h5py.Dataset, *, within: frozenset[tuple[str, str]] = frozenset()
) -> None:
    """Raise `InputError` where a source of a virtual dataset is gone; HDF5 would read zeros."""
    if not dataset.is_virtual:
        return
    place = f"{dataset.file.filename}: {dataset.name}"
    this = (str(Path(dataset.file.filename).resolve()), dataset.name)
    if this in within:
        raise InputError(f"{place} is a virtual dataset that is made of itself")
    for source in {(part.file_name, part.dset_name) for part in dataset.virtual_sources()}:
        name, key = source
        if "%b" in name or "%b" in key:  # a series of files that may still grow
            continue
        other = Path(dataset.file.filename) if name == "." else _beside(dataset.file, name)
        if not other.is_file():
            raise InputError(f"{place} is made of {key} in {other}, and that file is not there")
        with contextlib.nullcontext(dataset.file) if name == "." else open_hdf5(other) as file:
            found = find_item(file, key)
            if not isinstance(found, h5py.Dataset):
                raise InputError(f"{place} is made of {key} in {other}, which is not there")
            check_sources(found, within=within | {this})


def read_array(dataset: h5py.Dataset, kinds: str = "biuf") -> NDArray:
    """The whole of a dataset, which is no stack of patterns and so is small.

    Args:
        dataset: To be read.
        kinds: Accepted kinds of numbers, letters of NumPy; "c" for complex ones.

    Raises:
        InputError: If it holds something else, or declares more than `MAX_ARRAY_BYTES`.
    """
    where = f"{dataset.file.filename}: {dataset.name}"
    if dataset.shape is None:
        raise InputError(f"{where} is empty; expected numbers")
    if dataset.dtype.kind not in kinds:
        raise InputError(f"{where} is {dataset.dtype} of shape {dataset.shape}; expected numbers")
    check_size(where, dataset.dtype, dataset.shape)
    try:
        values = np.asarray(dataset[()])
    except UNREADABLE as error:
        raise unreadable(where, error) from error
    if values.dtype in (np.longdouble, np.clongdouble):  # which torch does not have
        return values.astype(np.complex128 if values.dtype.kind == "c" else np.float64)
    return values


def read_optional(dataset: h5py.Dataset | None, kinds: str = "biuf") -> NDArray | None:
    """As `read_array`; None where there is no dataset."""
    return None if dataset is None else read_array(dataset, kinds)


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
            f"{names_in(file)}"
        )
    return found


def need_group(file: h5py.Group, key: str) -> h5py.Group:
    """A group.

    Raises:
        InputError: If it is not there.
    """
    found = find_item(file, key)
    if not isinstance(found, h5py.Group):
        raise InputError(
            f"{file.file.filename}: group '{file.name.rstrip('/')}/{key}' is missing; found "
            f"{names_in(file)}"
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
    height, width = dataset.shape[-2:]
    check_size(f"{path}: one pattern of {dataset.name}", dataset.dtype, (height, width))
    return Hdf5Patterns(dataset, path)


def text(dataset: h5py.Dataset) -> str:
    """The string in a dataset, empty if it holds none.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        value = dataset[()] if dataset.size == 1 and dataset.dtype.kind in "OSU" else None
    except UNREADABLE as error:
        raise unreadable(f"{dataset.file.filename}: {dataset.name}", error) from error
    value = value[0] if isinstance(value, np.ndarray) and value.size == 1 else value
    return (
        value.decode(errors="replace")
        if isinstance(value, bytes)
        else value
        if isinstance(value, str)
        else ""
    )


def attribute(item: h5py.HLObject, name: str) -> str | None:
    """A text attribute; None where there is none, or an empty one.

    Raises:
        InputError: If it is something else than one text.
    """
    value = stored_attribute(item, name)
    value = value.flat[0] if isinstance(value, np.ndarray) and value.size == 1 else value
    if value is None or isinstance(value, h5py.Empty):
        return None
    word = value.decode(errors="replace") if isinstance(value, bytes) else value
    if not isinstance(word, str) or len(word) > LONGEST_WORD:
        raise InputError(
            f"{item.file.filename}: attribute {name} of {item.name} is no text, or a long one; "
            "expected a word"
        )
    return word


def stored_attribute(item: h5py.HLObject, name: str) -> Any:
    """An attribute as h5py reads it; None where there is none.

    Raises:
        InputError: If it is of a type that cannot be read.
    """
    try:
        return item.attrs.get(name)
    except UNREADABLE as error:
        where = f"{item.file.filename}: attribute {name} of {item.name}"
        raise unreadable(where, error) from error


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
    values = np.unique(read_array(dataset))
    if len(values) != 1 or not np.isfinite(values[0]) or values[0] <= 0:
        found = values.tolist() if len(values) < 4 else f"{len(values)} different values"
        raise InputError(
            f"{dataset.file.filename}: {dataset.name} is {found}; expected one number above 0"
        )
    value = float(values[0]) * unit_factor(dataset, default)
    if not 0 < value < np.inf:  # beyond the range of numbers in this unit
        raise InputError(
            f"{dataset.file.filename}: {dataset.name} is {values[0]}, no such quantity"
        )
    return value


def with_radiation(item: h5py.HLObject, known: Instrument) -> Instrument:
    """The experiment of a program that knows photons alone, in a file that this package wrote.

    For electrons it holds the energy of a photon of their wavelength, and the attribute
    ``radiation``.

    Raises:
        InputError: If the attribute is another word.
    """
    word = attribute(item, "radiation")
    if word is None or word == "photons" or known.wavelength_m is None:
        return known
    if word == "electrons":
        energy_ev = energy_of(known.wavelength_m, "electrons")
        return replace(known, energy_ev=energy_ev, radiation="electrons")
    raise InputError(
        f"{item.file.filename}: radiation is {word}; expected {' or '.join(RADIATIONS)}"
    )


def marked_near_field(item: h5py.HLObject) -> tuple[float, float] | None:
    """Object pixel ``(y, x)`` in metres of near-field patterns that this package wrote, else None.

    Raises:
        InputError: If it is not two numbers above 0.
    """
    if number_attribute(item, "far_field") in (None, 1.0):
        return None
    pixel = np.ravel(np.asarray(item.attrs.get("object_pixel_m", ())))
    if (
        pixel.shape != (2,)
        or pixel.dtype.kind not in "iuf"
        or not np.all(np.isfinite(pixel) & (pixel > 0))
    ):
        raise InputError(
            f"{item.file.filename}: attribute object_pixel_m of {item.name} is {pixel.tolist()}; "
            "expected two numbers above 0"
        )
    return float(pixel[0]), float(pixel[1])


def lengths(dataset: h5py.Dataset, default: str) -> NDArray[np.float64]:
    """Numbers in metres.

    Raises:
        InputError: If they are no numbers.
    """
    return read_array(dataset).astype(np.float64) * unit_factor(dataset, default)


def number_attribute(item: h5py.HLObject, name: str) -> float | None:
    """A single finite number in an attribute; None where there is none.

    Raises:
        InputError: If it is something else.
    """
    found = stored_attribute(item, name)
    if found is None:
        return None
    value = np.ravel(np.asarray(found))
    if value.size != 1 or value.dtype.kind not in "biuf" or not np.isfinite(value[0]):
        raise InputError(
            f"{item.file.filename}: attribute {name} of {item.name} is {value.dtype} of "
            f"{value.size} values; expected one number"
        )
    return float(value[0])


def children_of_class(group: h5py.Group, name: str) -> list[h5py.Group]:
    """Groups below one whose ``NX_class`` is that, by name."""
    return [
        item
        for item in group.values()
        if isinstance(item, h5py.Group) and attribute(item, "NX_class") == name
    ]

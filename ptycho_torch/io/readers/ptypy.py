"""Read ptypy's prepared data (``.ptyd``): chunks of patterns, positions in metres, keV."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ptycho_torch.data.lazy_patterns import ConcatenatedPatterns, select
from ptycho_torch.data.scan import Instrument
from ptycho_torch.errors import InputError
from ptycho_torch.io.readers.checks import check_index, check_quantity, check_real
from ptycho_torch.io.readers.hdf5 import (
    find_dataset,
    lengths,
    marked_near_field,
    need_dataset,
    need_patterns,
    open_hdf5,
    quantity,
    read_array,
    text,
    with_radiation,
)
from ptycho_torch.io.readers.raw_scan import Format, RawScan


def is_ptyd(file: h5py.File) -> bool:
    """Whether an HDF5 file is ptypy's."""
    return isinstance(file.get("chunks"), h5py.Group) and isinstance(file.get("meta"), h5py.Group)


def read_ptyd(paths: Sequence[Path]) -> RawScan:
    """The raw in a ``.ptyd`` file, whose chunks may lie in other files.

    Raises:
        InputError: If something is missing or cannot be what it should.
    """
    (path,) = paths
    with open_hdf5(path) as file:
        meta, chunks = file["meta"], find_chunks(path, file["chunks"])
        data = [
            need_patterns(need_dataset(chunk, "data"), Path(chunk.file.filename))
            for chunk in chunks
        ]
        sizes = {part.shape[1:] for part in data}
        if len(sizes) > 1:
            raise InputError(
                f"{path}: chunks hold patterns of different sizes {sorted(sizes)}; expected one"
            )
        positions = [
            check_real(
                f"{path}: {c.name}/positions", lengths(need_dataset(c, "positions"), "m"), (None, 2)
            )
            for c in chunks
        ]
        for chunk, part, place in zip(chunks, data, positions, strict=True):
            if len(place) != part.shape[0]:
                raise InputError(
                    f"{path}: {chunk.name} has {part.shape[0]} patterns but {len(place)} "
                    "positions; expected equal numbers"
                )
        mask, notes = chunk_mask(file, chunks, sizes.pop())
        index = exposure_index(path, chunks, [len(place) for place in positions])
        order = np.argsort(index, kind="stable")
        joined = data[0] if len(data) == 1 else ConcatenatedPatterns(tuple(data))
        kind = find_dataset(meta, "propagation")
        return RawScan(
            source=str(path),
            patterns=joined
            if np.array_equal(order, np.arange(len(order)))
            else select(joined, order),
            patterns_key="chunks/*/data",
            values="counts",
            positions=np.concatenate(positions)[order],
            positions_unit="m",
            mask=mask,
            center=center(path, meta),
            scan_index=index[order],
            instrument=with_radiation(
                meta,
                Instrument(
                    quantity(find_dataset(meta, "energy"), "keV"),
                    quantity(find_dataset(meta, "distance"), "m"),
                    detector_pixel(path, meta),
                ),
            ),
            wavelength_stated="radiation" in meta.attrs,
            far_field=None if kind is None else "near" not in text(kind),
            object_pixel_m=marked_near_field(meta),
            notes=tuple(notes),
        )


def find_chunks(path: Path, group: h5py.Group) -> list[h5py.Group]:
    """The chunks in the order of their numbers.

    Raises:
        InputError: If there is none, or one is a link to a file that is not there.
    """
    names = sorted(group, key=lambda name: (len(name), name))
    chunks = [group.get(name) for name in names]
    for name, chunk in zip(names, chunks, strict=True):
        if not isinstance(chunk, h5py.Group):
            link = group.get(name, getlink=True)
            other = f" in {link.filename}" if isinstance(link, h5py.ExternalLink) else ""
            raise InputError(
                f"{path}: chunks/{name}{other} cannot be read; is the file it links to there?"
            )
    if not chunks:
        raise InputError(f"{path}: chunks is empty; expected groups with data and positions")
    return chunks


def exposure_index(path: Path, chunks: list[h5py.Group], sizes: list[int]) -> NDArray[np.int64]:
    """Identifiers of the exposures of all chunks; 0, 1, 2, ... where one has none."""
    stored = [find_dataset(chunk, "indices") for chunk in chunks]
    if any(found is None for found in stored):
        return np.arange(sum(sizes))
    parts = [
        check_index(f"{path}: {found.name}", read_array(found), size)
        for found, size in zip(stored, sizes, strict=True)
        if found is not None
    ]
    return np.concatenate(parts)


def chunk_mask(
    file: h5py.File, chunks: list[h5py.Group], shape: tuple[int, ...]
) -> tuple[NDArray[np.bool_], list[str]]:
    """Pixels that every weight has for good, and what was concluded."""
    mask, notes = np.ones(shape, dtype=bool), []
    varies = False
    for holder, keys in (
        (file, ("meta/weight2d", "common/weight2d")),
        *((chunk, ("weights",)) for chunk in chunks),
    ):
        weights = find_dataset(holder, *keys)
        if weights is None or not weights.size:  # null, or without numbers
            continue
        if weights.shape[-2:] != shape:
            notes.append(f"{weights.name} has shape {weights.shape} and was left out")
            continue
        good = read_array(weights).reshape(-1, *shape) > 0
        varies |= bool((good != good[0]).any())
        mask &= good.all(axis=0)
    if varies:
        notes.append("weights differ between exposures; a pixel is good where all have it for good")
    return mask, notes


def pair(path: Path, item: h5py.Dataset | None) -> tuple[float, float] | None:
    """One number or two, as two."""
    if item is None:
        return None
    values = np.ravel(read_array(item))
    if values.dtype.kind not in "iuf" or len(values) not in (1, 2) or not np.isfinite(values).all():
        raise InputError(f"{path}: {item.name} is {values.tolist()}; expected one number or two")
    return float(values[0]), float(values[-1])


def center(path: Path, meta: h5py.Group) -> tuple[float, float] | None:
    """Zero frequency ``(y, x)`` in pixels."""
    return pair(path, find_dataset(meta, "center"))


def detector_pixel(path: Path, meta: h5py.Group) -> tuple[float, float] | None:
    """Detector pixel ``(y, x)`` in metres."""
    size = pair(path, find_dataset(meta, "psize"))
    for side in size or ():
        check_quantity(f"{path}: meta/psize", side)
    return size


FORMAT = Format(name="ptypy .ptyd", container="hdf5", recognises=is_ptyd, read=read_ptyd)

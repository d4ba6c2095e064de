"""CXI 1.6 files, as CXIDB, cdtools, SHARP and Ptychodus write them.

Translations are those of the sample, in metres ``[x, y, z]``: the illumination moves by their
negative, projected on the detector's basis, whose default columns are (0, -py, 0) and (-px, 0, 0).
"""

import math
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ptycho_torch.config.options import LARGEST_SIZE
from ptycho_torch.data.scan import Instrument
from ptycho_torch.data.wavelength import Radiation, energy_of
from ptycho_torch.errors import InputError
from ptycho_torch.io.readers.checks import check_quantity, check_real
from ptycho_torch.io.readers.hdf5 import (
    PROBE_KINDS,
    find_dataset,
    lengths,
    marked_near_field,
    need_dataset,
    need_group,
    need_patterns,
    open_hdf5,
    quantity,
    read_array,
    read_optional,
    text,
)
from ptycho_torch.io.readers.raw_scan import Format, RawScan

ENTRY = "entry_1"
PIXEL_HAS_SIGNAL = 0x00001000  # the one bit of a CXI mask that does not make a pixel bad
DATA = ("data_1/data", "instrument_1/detector_1/data")
TRANSLATION = (
    "data_1/translation",
    "sample_1/geometry_1/translation",
    "instrument_1/detector_1/translation",
)


def is_cxi(file: h5py.File) -> bool:
    """Whether an HDF5 file is a CXI file."""
    entry = file.get(ENTRY)
    return isinstance(entry, h5py.Group) and "instrument_1" in entry


def read_cxi(paths: Sequence[Path]) -> RawScan:
    """The raw in a CXI file.

    Raises:
        InputError: If something is missing or cannot be what it should.
    """
    (path,) = paths
    with open_hdf5(path) as file:
        entry = file[ENTRY]
        data = need_dataset(entry, *DATA)
        patterns = need_patterns(data, path)
        detector = need_group(entry, "instrument_1/detector_1")
        basis, stated = detector_basis(detector)
        pixel = (math.hypot(*basis[:, 0]), math.hypot(*basis[:, 1]))
        source = entry.get("instrument_1/source_1")
        radiation = radiation_of([source] if isinstance(source, h5py.Group) else [])
        energy, wavelength_stated = source_energy(entry, radiation)
        instrument = Instrument(energy, distance(detector, basis), pixel, radiation)
        translation = need_dataset(entry, *TRANSLATION)
        moved = check_real(f"{path}: {translation.name}", lengths(translation, "m"), (None, None))
        probe = find_probe(entry, patterns.shape[1:])
        near_field_pixel = marked_near_field(entry)
        mask, dark = find_dataset(detector, "mask"), find_dataset(detector, "data_dark")
        return RawScan(
            source=str(path),
            patterns=patterns,
            patterns_key=data.name,
            values="counts",
            positions=probe_positions(path, moved, basis),
            positions_unit="m",
            probe=read_optional(probe, PROBE_KINDS),
            probe_key="" if probe is None else probe.name,
            mask=None if mask is None else good_pixels(read_array(mask)),
            dark=mean_frame(dark, patterns.shape[1:]),
            negative_is_zero=True,
            center=beam_center(detector, basis, patterns.shape[1:]),
            instrument=instrument,
            far_field=None if near_field_pixel is None else False,
            object_pixel_m=near_field_pixel,
            wavelength_stated=wavelength_stated,
            notes=("the detector's basis vectors give the direction of the positions",)
            if stated
            else (),
        )


def radiation_of(sources: Sequence[h5py.Group]) -> Radiation:
    """What sources give: ``probe`` of NeXus's NXsource is "electron" in an electron microscope."""
    probes = [find_dataset(source, "probe") for source in sources]
    electrons = any(
        probe is not None and text(probe).strip().lower().startswith("electron") for probe in probes
    )
    return "electrons" if electrons else "photons"


def source_energy(entry: h5py.Group, radiation: Radiation) -> tuple[float | None, bool]:
    """Energy in eV, and whether it is from the wavelength, which comes first.

    CXI has energies in joules.
    """
    wavelength = quantity(find_dataset(entry, "instrument_1/source_1/wavelength"), "m")
    if wavelength is not None:
        return energy_of(wavelength, radiation), True
    return quantity(find_dataset(entry, "instrument_1/source_1/energy"), "J"), False


def detector_basis(detector: h5py.Group) -> tuple[NDArray[np.float64], bool]:
    """Vectors of one pixel along rows and columns, (3, 2) in metres; whether they are stated."""
    path = detector.file.filename
    basis = find_dataset(detector, "basis_vectors")
    if basis is not None:
        vectors = lengths(basis, "m")
        vectors = vectors.T if vectors.shape == (2, 3) else vectors
        vectors = check_real(f"{path}: {basis.name}", vectors, (3, 2))
        for side in np.abs(vectors).max(axis=0):
            check_quantity(f"{path}: a vector of {basis.name}", float(side))
        if np.linalg.matrix_rank(vectors) < 2:
            raise InputError(
                f"{path}: {basis.name} holds parallel vectors; expected those of a detector's rows "
                "and columns"
            )
        return vectors, True
    x, y = (quantity(find_dataset(detector, f"{axis}_pixel_size"), "m") for axis in "xy")
    if x is None and y is None:
        raise InputError(
            f"{path}: key '{detector.name}/x_pixel_size' is missing; expected it, or "
            "basis_vectors, in metres"
        )
    rows, columns = y or x, x or y  # where one is missing, pixels are square
    return np.array([[0.0, -float(columns or 0)], [-float(rows or 0), 0.0], [0.0, 0.0]]), False


def distance(detector: h5py.Group, basis: NDArray[np.float64]) -> float | None:
    """Distance from sample to detector, in metres: stated, or from the position of the corner."""
    stated = quantity(find_dataset(detector, "distance"), "m")
    corner = find_dataset(detector, "corner_position")
    if stated is not None or corner is None:
        return stated
    for vector in basis.T:
        check_quantity(f"{corner.file.filename}: the pixel of {detector.name}", math.hypot(*vector))
    normal = np.cross(basis[:, 0], basis[:, 1])
    away = float(abs(corner_of(corner) @ normal) / np.linalg.norm(normal))
    return check_quantity(f"{detector.file.filename}: the distance of {corner.name}", away)


def corner_of(corner: h5py.Dataset) -> NDArray[np.float64]:
    """The position of a detector's corner, ``(x, y, z)`` in metres."""
    where = f"{corner.file.filename}: {corner.name}"
    place = check_real(where, lengths(corner, "m").ravel(), (3,))
    if np.abs(place).max() > LARGEST_SIZE:
        raise InputError(f"{where} is {place.tolist()}; expected metres")
    return place


def beam_center(
    detector: h5py.Group, basis: NDArray[np.float64], shape: tuple[int, int]
) -> tuple[float, float] | None:
    """Pixel ``(y, x)`` on the beam along z; None if it is unknown or outside the detector."""
    corner = find_dataset(detector, "corner_position")
    if corner is None:
        return None
    y, x = np.linalg.lstsq(basis[:2], -corner_of(corner)[:2], rcond=None)[0]
    return (float(y), float(x)) if 0 <= y < shape[0] and 0 <= x < shape[1] else None


def probe_positions(
    path: Path, translation: NDArray[np.float64], basis: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Displacement of the illumination along the object's rows and columns, (N, 2), in metres."""
    if translation.shape[1] not in (2, 3):
        raise InputError(
            f"{path}: translations have shape {translation.shape}; expected (n, 3), [x, y, z] in "
            "metres"
        )
    sizes = np.array([math.hypot(*vector) for vector in basis.T])
    if not sizes.all():
        raise InputError(
            f"{path}: the pixels of the detector are {sizes} m; expected sizes above 0"
        )
    unit = basis / sizes
    return -translation[:, :2] @ np.linalg.pinv(unit[:2]).T


def good_pixels(mask: NDArray) -> NDArray[np.bool_]:
    """Mask of pixels to trust from CXI's bits."""
    with np.errstate(invalid="ignore"):  # a number that is no set of bits marks a bad pixel
        bits = np.asarray(mask).astype(np.uint32)
    return (bits == 0) | (bits == PIXEL_HAS_SIGNAL)


def mean_frame(dark: h5py.Dataset | None, shape: tuple[int, int]) -> NDArray | None:
    """The mean of one or several dark frames, (H, W); NaN where none of them has a number.

    Raises:
        InputError: If they are not of the size of the patterns.
    """
    if dark is None:
        return None
    frames = read_array(dark)
    if frames.size == 0 or frames.shape[-2:] != shape:
        raise InputError(
            f"{dark.file.filename}: {dark.name} has shape {frames.shape}; expected dark frames of "
            f"{shape[0]}x{shape[1]} pixels"
        )
    frames = frames.reshape(-1, *shape)
    known = np.isfinite(frames)
    with np.errstate(invalid="ignore"):
        return np.where(known, frames, 0.0).sum(axis=0) / known.sum(axis=0)


def find_probe(entry: h5py.Group, shape: tuple[int, int]) -> h5py.Dataset | None:
    """The illumination, as Ptychodus keeps it in the first image, else as the source has it."""
    for key in ("image_1/data", "instrument_1/source_1/illumination"):
        found = find_dataset(entry, key)
        if found is not None and found.dtype.kind == "c" and found.shape[-2:] == shape:
            return found
    return None


FORMAT = Format(name="CXI", container="hdf5", recognises=is_cxi, read=read_cxi)

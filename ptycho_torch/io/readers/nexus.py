"""Read NXcxi_ptycho files: a CXI tree whose groups are found by ``NX_class``, not by name."""

import math
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ptycho_torch.data.scan import Instrument
from ptycho_torch.errors import InputError
from ptycho_torch.io.readers.checks import check_real
from ptycho_torch.io.readers.cxi import (
    beam_center,
    detector_basis,
    distance,
    good_pixels,
    mean_frame,
    probe_positions,
    radiation_of,
)
from ptycho_torch.io.readers.hdf5 import (
    attribute,
    children_of_class,
    find_dataset,
    lengths,
    names_in,
    need_dataset,
    need_patterns,
    open_hdf5,
    quantity,
    read_array,
    text,
)
from ptycho_torch.io.readers.raw_scan import Format, RawScan

ENERGY = ("energy", "incident_beam_energy", "incident_energy")
DEFINITION = "NXcxi_ptycho"


def find_entry(file: h5py.File) -> h5py.Group | None:
    """The entry that names the definition, or is built like one."""
    for entry in (
        *children_of_class(file, "NXentry"),
        *(file[name] for name in ("entry_1", "entry") if name in file),
    ):
        definition = find_dataset(entry, "definition")
        instruments = children_of_class(entry, "NXinstrument")
        detectors = [
            item
            for instrument in instruments
            for item in children_of_class(instrument, "NXdetector")
        ]
        named = definition is not None and text(definition).startswith(DEFINITION)
        if named or (
            detectors
            and any(
                find_axis(sample, "x") is not None
                for sample in children_of_class(entry, "NXsample")
            )
        ):
            return entry
    return None


def read_nexus(paths: Sequence[Path]) -> RawScan:
    """The raw in an NXcxi_ptycho file.

    Raises:
        InputError: If something is missing or cannot be what it should.
    """
    (path,) = paths
    with open_hdf5(path) as file:
        entry = find_entry(file)
        if entry is None:
            raise InputError(f"{path}: no entry of definition {DEFINITION}")
        instrument = need_class(entry, "NXinstrument")
        detector = need_class(instrument, "NXdetector")
        patterns = need_patterns(find_patterns(entry, detector), path)
        basis, _ = detector_basis(detector)
        pixel = (math.hypot(*basis[:, 0]), math.hypot(*basis[:, 1]))
        sample = need_class(entry, "NXsample")
        x, y = (coordinates(path, sample, axis) for axis in "xy")
        if len(x) != len(y):
            raise InputError(
                f"{path}: {sample.name} has {len(x)} positions along x but {len(y)} along y; "
                "expected equal numbers"
            )
        translation = np.stack([x, y], axis=1)
        mask = find_dataset(detector, "mask", "pixel_mask")
        dark = find_dataset(detector, "data_dark", "darkfield")
        return RawScan(
            source=str(path),
            patterns=patterns,
            patterns_key=patterns.key,
            values="counts",
            positions=probe_positions(path, translation, basis),
            positions_unit="m",
            mask=None if mask is None else good_pixels(read_array(mask)),
            dark=mean_frame(dark, patterns.shape[1:]),
            negative_is_zero=True,
            center=stated_center(detector) or beam_center(detector, basis, patterns.shape[1:]),
            instrument=Instrument(
                beam_energy(entry, instrument),
                distance(detector, basis),
                pixel,
                radiation_of(children_of_class(instrument, "NXsource")),
            ),
        )


def need_class(group: h5py.Group, name: str) -> h5py.Group:
    """The first group below one of a class.

    Raises:
        InputError: If there is none.
    """
    found = children_of_class(group, name)
    if not found:
        raise InputError(
            f"{group.file.filename}: {group.name} has no group of class {name}; found "
            f"{names_in(group)}"
        )
    return found[0]


def find_patterns(entry: h5py.Group, detector: h5py.Group) -> h5py.Dataset:
    """The patterns: in the data group, where they are of rank 3, else in the detector."""
    for group in children_of_class(entry, "NXdata"):
        found = find_dataset(group, attribute(group, "signal") or "data", "data")
        if found is not None and found.ndim in (3, 4):
            return found
    return need_dataset(detector, "data")


def find_axis(sample: h5py.Group, axis: str) -> h5py.Dataset | None:
    """One coordinate of the sample's translation."""
    groups = children_of_class(sample, "NXtransformations") or [
        sample[name] for name in ("transformations",) if name in sample
    ]
    for group in groups:
        found = find_dataset(group, axis, f"{axis}_translation", f"translation_{axis}")
        if found is not None:
            return found
    return None


def coordinates(path: Path, sample: h5py.Group, axis: str) -> NDArray[np.float64]:
    """One coordinate of every exposure, (n,), in metres; a raster is flattened."""
    found = find_axis(sample, axis)
    if found is None:
        raise InputError(
            f"{path}: key '{sample.name}/transformations/{axis}' is missing; found "
            f"{', '.join(sample) or 'nothing'}"
        )
    return check_real(f"{path}: {found.name}", lengths(found, "m").ravel(), (None,))


def beam_energy(entry: h5py.Group, instrument: h5py.Group) -> float | None:
    """Of the beam; that of the source is the machine's."""
    beams = [
        *children_of_class(instrument, "NXbeam"),
        *(
            beam
            for sample in children_of_class(entry, "NXsample")
            for beam in children_of_class(sample, "NXbeam")
        ),
    ]
    for beam in beams:
        found = quantity(find_dataset(beam, *ENERGY), "eV")
        if found is not None:
            return found
    return None


def stated_center(detector: h5py.Group) -> tuple[float, float] | None:
    """Beam centre ``(y, x)`` in detector pixels."""
    y, x = (find_dataset(detector, f"beam_center_{axis}") for axis in "yx")
    if y is None or x is None:
        return None
    path = detector.file.filename
    found = [
        check_real(f"{path}: {axis.name}", np.unique(read_array(axis)), (1,)) for axis in (y, x)
    ]
    return float(found[0][0]), float(found[1][0])


FORMAT = Format(
    name="NXcxi_ptycho",
    container="hdf5",
    recognises=lambda file: find_entry(file) is not None,
    read=read_nexus,
)

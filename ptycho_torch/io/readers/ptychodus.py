"""Read Ptychodus' pair: a diffraction file and a product, joined by the exposure index."""

from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ptycho_torch.data.lazy_patterns import select
from ptycho_torch.data.scan import Instrument
from ptycho_torch.errors import InputError
from ptycho_torch.io.readers.checks import check_index, check_quantity, check_real
from ptycho_torch.io.readers.hdf5 import (
    PROBE_KINDS,
    find_dataset,
    need_dataset,
    need_patterns,
    number_attribute,
    open_hdf5,
    read_array,
    read_optional,
    stored_attribute,
    with_radiation,
)
from ptycho_torch.io.readers.raw_scan import Format, RawScan

ENERGY = ("photon_energy_eV", "probe_energy_eV")
POSITIONS = ("probe_position_y_m", "probe_position_x_m")


def is_diffraction(file: h5py.File) -> bool:
    """Whether an HDF5 file holds patterns as Ptychodus keeps them."""
    return {"patterns", "indexes"} <= set(file)


def is_product(file: h5py.File) -> bool:
    """Whether an HDF5 file is a product of Ptychodus."""
    return {"probe_position_indexes", POSITIONS[0], POSITIONS[1]} <= set(file)


def read_ptychodus(paths: Sequence[Path]) -> RawScan:
    """The raw in a pair of files.

    Args:
        paths: The two, in any order.

    Raises:
        InputError: If one is missing, or what they hold does not fit together.
    """
    patterns_path, product_path = order_pair(
        paths, (is_diffraction, "diffraction file"), (is_product, "product")
    )
    with open_hdf5(patterns_path) as file, open_hdf5(product_path) as product:
        data = need_dataset(file, "patterns")
        patterns = need_patterns(data, patterns_path)
        exposures = check_index(
            f"{patterns_path}: indexes",
            read_array(need_dataset(file, "indexes")),
            patterns.shape[0],
        )
        index, positions = mean_positions(product_path, product)
        common, chosen, places = np.intersect1d(exposures, index, return_indices=True)
        if not len(common):
            raise InputError(
                f"{product_path}: no position has the index of a pattern in {patterns_path}; are "
                "they of one scan?"
            )
        notes = []
        if len(common) < len(exposures) or len(common) < len(index):
            notes.append(
                f"{len(common)} of {len(exposures)} patterns and {len(index)} positions have a "
                "partner; others were left out"
            )
        whole = len(common) == len(exposures) and np.array_equal(chosen, np.arange(len(exposures)))
        sizes = [positive(data, f"detector_pixel_{side}_m") or 0.0 for side in ("height", "width")]
        bad = find_dataset(file, "bad_pixels")
        probe = find_dataset(product, "probe")
        weights = find_dataset(product, "opr_weights")
        stored_weights = None
        if weights is not None:
            stored_weights = read_array(weights)
        elif probe is not None and "opr_weights" in probe.attrs:
            stored_weights = np.asarray(stored_attribute(probe, "opr_weights"))
        if stored_weights is not None:
            stored_weights = check_weights(product_path, stored_weights, len(index))[places]
        return RawScan(
            source=f"{patterns_path} and {product_path}",
            patterns=patterns if whole else select(patterns, chosen),
            patterns_key="patterns",
            values="counts",
            positions=positions[places],
            positions_unit="m",
            probe=read_optional(probe, PROBE_KINDS),
            probe_weights=stored_weights,
            probe_key="probe",
            mask=None if bad is None else ~read_array(bad).astype(bool),
            scan_index=common,
            instrument=with_radiation(
                product,
                Instrument(
                    energy_ev=positive(product, *ENERGY),
                    distance_m=positive(product, "detector_object_distance_m"),
                    detector_pixel_m=(sizes[0], sizes[1]) if min(sizes) > 0 else None,
                ),
            ),
            wavelength_stated="radiation" in product.attrs,
            object_pixel_m=object_pixel(product),
            far_field=number_attribute(product, "far_field") != 0,
            notes=tuple(notes),
        )


def check_weights(path: Path, weights: NDArray, count: int) -> NDArray[np.float64]:
    """The weights of the parts of a probe, (n, C).

    Raises:
        InputError: If they are no finite real numbers, or not as many as the positions.
    """
    if weights.dtype.kind not in "iuf" or weights.ndim != 2 or len(weights) != count:
        raise InputError(
            f"{path}: opr_weights is {weights.dtype} of shape {weights.shape}; expected real "
            f"numbers of shape ({count}, C)"
        )
    if not np.isfinite(weights).all():
        raise InputError(f"{path}: opr_weights holds values that are not finite")
    return weights.astype(np.float64)


Recognises = Callable[[h5py.File], bool]


def order_pair(
    paths: Sequence[Path], first: tuple[Recognises, str], second: tuple[Recognises, str]
) -> tuple[Path, Path]:
    """The two files of a pair, each recognised by its content.

    Args:
        paths: One or two files.
        first: What recognises the first of the pair, and what it is called.
        second: The same for the other.

    Raises:
        InputError: If one of them is not there.
    """
    found: dict[str, Path] = {}
    for path in paths:
        with open_hdf5(path) as file:
            found |= {name: path for recognises, name in (first, second) if recognises(file)}
    for (_, name), (_, other) in ((first, second), (second, first)):
        if name not in found:
            raise InputError(
                f"{paths[0]}: is a {other}; the {name} of the same scan is needed too: "
                "give both, joined by a comma, or the folder that holds the two"
            )
    return found[first[1]], found[second[1]]


def mean_positions(path: Path, product: h5py.File) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Indices of the exposures, ascending, and the mean position ``(y, x)`` of each, in metres."""
    coordinates = [
        check_real(f"{path}: {key}", read_array(need_dataset(product, key)), (None,))
        for key in POSITIONS
    ]
    n = len(coordinates[0])
    if len(coordinates[1]) != n:
        raise InputError(
            f"{path}: {POSITIONS[1]} has {len(coordinates[1])} values but {POSITIONS[0]} has {n}; "
            "expected equal lengths"
        )
    stored = check_index(
        f"{path}: probe_position_indexes",
        read_array(need_dataset(product, "probe_position_indexes")),
        n,
    )
    index, place, times = np.unique(stored, return_inverse=True, return_counts=True)
    mean = np.stack([np.bincount(place, weights=values) / times for values in coordinates], axis=1)
    return index, mean


def positive(item: h5py.HLObject, *names: str) -> float | None:
    """The first of some attributes that is there and above 0."""
    for name in names:
        value = number_attribute(item, name)
        if value is not None and value > 0:
            where = f"{item.file.filename}: attribute {name} of {item.name}"
            return check_quantity(where, value)
    return None


def object_pixel(product: h5py.File) -> tuple[float, float] | None:
    """Object pixel ``(y, x)`` in metres, as the object has it, else the probe."""
    for key in ("object", "probe"):
        item = find_dataset(product, key)
        if item is not None:
            height, width = positive(item, "pixel_height_m"), positive(item, "pixel_width_m")
            if height is not None and width is not None:
                return height, width
    return None


FORMAT = Format(
    name="Ptychodus diffraction file and product",
    container="hdf5",
    recognises=lambda file: is_diffraction(file) or is_product(file),
    read=read_ptychodus,
    pair=True,
)

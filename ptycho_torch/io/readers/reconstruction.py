"""Read the reconstruction files of this package."""

import contextlib
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptycho_torch.data.scan import FARTHEST_PX, Reconstruction
from ptycho_torch.errors import InputError
from ptycho_torch.io.readers.file_kind import kind_of_file
from ptycho_torch.io.readers.npz import (
    DAMAGE,
    SIZE_KEYS,
    plain_reason,
    read_members,
    stated_far_field,
    stated_instrument,
    stated_pair,
)

REQUIRED = ("object", "coverage", "origin_yx", "probe", "positions_px", "scan_index")
MEASUREMENT = ("flux", "background", "probe_components", "probe_weights")
LARGEST_MODULUS = 1e15  # of an object, whose square float32 holds; the smallest is one over it
OPTIONAL = (*SIZE_KEYS, "radiation", "far_field")


def read_reconstruction(path: Path) -> Reconstruction:
    """The reconstruction in an NPZ file that this package wrote.

    Raises:
        InputError: If the file is missing, damaged, or not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in REQUIRED if key not in archive.files]
            if missing:
                raise InputError(
                    f"{path}: key '{missing[0]}' is missing; it is {kind_of_file(path)}, not a "
                    "reconstruction.npz of this package"
                )
            arrays = read_members(path, archive, {*REQUIRED, *MEASUREMENT, *OPTIONAL})
    except DAMAGE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: not a readable reconstruction ({why_not(path, error)})"
        ) from error
    fields = {key: arrays[key] for key in (*REQUIRED, *MEASUREMENT) if key in arrays}
    _check_shapes(path, fields)
    _check_object(path, fields["object"])
    _check_measurement(path, fields)
    return Reconstruction(
        **fields,
        pixel_size_m=stated_pair(path, arrays, "pixel_size_m"),
        instrument=stated_instrument(path, arrays),
        is_far_field=stated_far_field(path, arrays.get("far_field")) is not False,
    )


def why_not(path: Path, error: Exception) -> str:
    """Why NumPy does not read a file: what it is, else what NumPy says."""
    with contextlib.suppress(OSError):
        if not zipfile.is_zipfile(path):
            return f"it is {kind_of_file(path)}"
    return plain_reason(error)


def _check_shapes(path: Path, fields: dict[str, NDArray]) -> None:
    """Raise `InputError` for arrays that are no numbers, or do not fit each other."""
    image, count = fields["object"].shape, len(np.atleast_1d(fields["positions_px"]))
    probe = fields["probe"].shape
    for key, kinds, expected in (
        ("object", "biufc", image if len(image) == 2 and 0 not in image else ("Y", "X")),
        ("coverage", "biuf", image),
        ("origin_yx", "iuf", (2,)),
        ("probe", "biufc", probe if len(probe) == 3 and 0 not in probe else ("M", "H", "W")),
        ("positions_px", "iuf", (count or "N", 2)),
        ("scan_index", "iu", (count,)),
    ):
        found = fields[key]
        if found.shape != expected or found.dtype.kind not in kinds:
            wanted = ", ".join(str(size) for size in expected) + "," * (len(expected) == 1)
            raise InputError(
                f"{path}: {key} is {found.dtype} of shape {found.shape}; expected numbers of shape "
                f"({wanted})"
            )
    for key in ("origin_yx", "positions_px"):
        if not (np.abs(fields[key]) <= FARTHEST_PX).all():
            raise InputError(f"{path}: {key} holds no places; expected object pixels")


def _check_object(path: Path, image: NDArray) -> None:
    """Raise `InputError` for an object of numbers that float32 does not hold."""
    with np.errstate(over="ignore"):
        largest = np.abs(image).max()
    if np.isfinite(image).all() and largest and not 1 / LARGEST_MODULUS < largest < LARGEST_MODULUS:
        raise InputError(
            f"{path}: the largest modulus of object is {largest:.3g}; expected about 1"
        )


def _check_measurement(path: Path, fields: dict[str, NDArray]) -> None:
    """Raise `InputError` for what was found about the measurement, if its shapes are not right."""
    for key, other in (
        ("probe_components", "probe_weights"),
        ("probe_weights", "probe_components"),
    ):
        if key not in fields and other in fields:
            raise InputError(f"{path}: key '{key}' is missing beside '{other}'")
    patterns, probe = len(fields["positions_px"]), fields["probe"].shape
    count = len(fields.get("probe_components", np.empty(0)))
    for key, expected in (
        ("flux", (patterns,)),
        ("background", probe[-2:]),
        ("probe_weights", (patterns, count)),
        ("probe_components", (count, *probe)),
    ):
        if key in fields and fields[key].shape != expected:
            raise InputError(f"{path}: '{key}' has shape {fields[key].shape}; expected {expected}")

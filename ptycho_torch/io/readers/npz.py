"""Read NPZ files of PtychoPINN, as Ptychodus exports them, always without pickle."""

import math
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from ptycho_torch.config.options import LARGEST_SIZE, SMALLEST_SIZE
from ptycho_torch.data.scan import Instrument
from ptycho_torch.data.wavelength import RADIATIONS, Radiation
from ptycho_torch.errors import InputError, is_lack_of_memory, memory_for, too_little_memory
from ptycho_torch.io.readers.checks import MAX_ARRAY_BYTES, check_mask, check_real
from ptycho_torch.io.readers.file_kind import is_reconstruction
from ptycho_torch.io.readers.raw_scan import Format, RawScan

PATTERN_KEYS = ("diff3d", "diffraction")
POSITION_KEYS = ("ycoords", "xcoords")
SIZE_KEYS = {"pixel_size_m": 2, "detector_pixel_m": 2, "energy_ev": 1, "distance_m": 1}  # values
PYTHON_OBJECTS = "it holds Python objects, which are never loaded"
DAMAGE = (  # what damaged bytes make NumPy and zipfile raise
    OSError,
    ArithmeticError,
    ValueError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    SyntaxError,
    TypeError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)

CENTRED_PX = 1e-3  # by which rounding moves an object that is centred on its scan
HEADERS = {  # version of the NPY format -> function that reads the header of an array
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

Arrays = dict[str, NDArray | None]


def read_npz(paths: Sequence[Path]) -> RawScan:
    """The raw in an NPZ file with ``diff3d``, ``xcoords``, ``ycoords`` and ``probeGuess``.

    Raises:
        InputError: If a key is missing or its content cannot be what it should.
    """
    (path,) = paths
    if is_reconstruction(array_names(path)):
        raise InputError(
            f"{path}: is a reconstruction or a simulated truth, not a scan; expected the file of "
            "the measured patterns"
        )
    arrays = load_arrays(
        path,
        {
            *PATTERN_KEYS,
            *POSITION_KEYS,
            *SIZE_KEYS,
            "probeGuess",
            "scan_index",
            "bad_pixels",
            "radiation",
            "far_field",
        },
    )
    positions = np.stack([_positions(path, arrays, key) for key in POSITION_KEYS], axis=1)
    patterns, key, notes = _patterns(path, arrays, len(positions))
    origin, origin_notes = _positions_from(path, arrays, positions)
    index, same = arrays.get("scan_index"), None
    if (
        index is not None
        and index.shape == (len(positions),)
        and len(index) > 1
        and np.all(index == index[0])
        and index.dtype.kind in "iuf"
        and np.isfinite(index[0])
    ):
        same = (
            f"scan_index is {index[0]} everywhere: it numbers the object, and the exposures were "
            "numbered from 0"
        )
        index = None
    return RawScan(
        source=str(path),
        patterns=patterns,
        patterns_key=key,
        values="unknown",
        positions=positions,
        positions_unit="px",
        positions_from=origin,
        probe=arrays.get("probeGuess"),
        probe_key="probeGuess",
        mask=_mask(path, arrays, patterns.shape[1:]),
        scan_index=index,
        instrument=stated_instrument(path, arrays),
        object_pixel_m=stated_pair(path, arrays, "pixel_size_m"),
        far_field=stated_far_field(path, arrays.get("far_field")),
        notes=(*notes, *origin_notes, *([same] if same else ())),
    )


def array_names(path: Path) -> set[str]:
    """Names of the arrays in an NPZ file.

    Raises:
        InputError: If it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return set(archive.files)
    except DAMAGE as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> InputError:
    """The error for an NPZ file that NumPy refuses."""
    if is_lack_of_memory(error):
        return too_little_memory(str(path))
    reason = plain_reason(error)
    advice = "" if reason == PYTHON_OBJECTS else "; is it complete?"
    return InputError(f"{path}: not a readable NPZ file ({reason}){advice}")


def plain_reason(error: Exception) -> str:
    """What NumPy says about a file, without its advice to load Python objects from it."""
    reason = " ".join(str(error).split())
    if "malformed node" in reason:
        return "the header of an array is no header"
    return PYTHON_OBJECTS if "pickle" in reason else reason


def load_arrays(path: Path, wanted: set[str]) -> Arrays:
    """The wanted arrays of an NPZ file, and None for its metadata, which is a pickled object.

    Raises:
        InputError: If it is damaged.
    """
    try:
        check_members(path, wanted)
        with np.load(path, allow_pickle=False) as archive:
            metadata: Arrays = {key: None for key in archive.files if key == "_metadata"}
            return metadata | read_members(path, archive, wanted)
    except InputError:
        raise
    except DAMAGE as error:
        raise unreadable(path, error) from error


def read_members(path: Path, archive: NpzFile, wanted: set[str]) -> dict[str, NDArray]:
    """The wanted arrays of an open NPZ file.

    Raises:
        InputError: If one declares more than it holds, or does not fit into memory.
    """
    check_declared(path, wanted)
    arrays = {}
    for key in wanted.intersection(archive.files):
        with memory_for(f"{path}: {key}"):
            # NumPy gives the bytes of a member that is no array
            arrays[key] = np.asarray(archive[key])
    return arrays


def check_members(path: Path, wanted: set[str]) -> None:
    """Raise `InputError` for a member that is too large to be what its key says, before reading."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    for item in members:
        key = item.filename.removesuffix(".npy")
        if key in wanted - set(PATTERN_KEYS) and item.file_size > MAX_ARRAY_BYTES:
            raise InputError(
                f"{path}: {key} has {item.file_size / 2**30:.3g} GiB; expected at most "
                f"{MAX_ARRAY_BYTES / 2**30:g} GiB"
            )


def check_declared(path: Path, wanted: set[str]) -> None:
    """Raise `InputError` for an array that declares more numbers than the file holds."""
    with zipfile.ZipFile(path) as archive:
        for item in archive.infolist():
            key = item.filename.removesuffix(".npy")
            declared = declared_array(archive, item.filename) if key in wanted else None
            if declared is None:
                continue
            shape, dtype = declared
            if not dtype.hasobject and math.prod(shape) * dtype.itemsize > item.file_size:
                raise InputError(
                    f"{path}: {key} declares {dtype} of shape {shape}, but has {item.file_size} "
                    "bytes; is it complete?"
                )


def declared_array(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype] | None:
    """Shape and type in the header of a member; None where it is no array that is known."""
    with archive.open(name) as member:
        try:
            version = np.lib.format.read_magic(member)
        except ValueError:
            return None
        if version not in HEADERS:
            return None
        shape, _, dtype = HEADERS[version](member)
        return shape, dtype


def need_array(path: Path, arrays: Arrays, key: str) -> NDArray:
    """One array.

    Raises:
        InputError: If it is missing; says what the file holds instead.
    """
    array = arrays.get(key)
    if array is None:
        raise InputError(
            f"{path}: key '{key}' is missing; found "
            f"{', '.join(sorted(array_names(path))) or 'none of the known keys'}"
        )
    return array


def _positions(path: Path, arrays: Arrays, key: str) -> NDArray[np.float64]:
    """One coordinate of the patch centres, (n,), in object pixels."""
    values = check_real(f"{path}: {key}", need_array(path, arrays, key), (None,))
    expected = len(need_array(path, arrays, POSITION_KEYS[0]))
    if len(values) != expected:
        raise InputError(
            f"{path}: {key} has {len(values)} values but {POSITION_KEYS[0]} has {expected}; "
            "expected equal lengths"
        )
    return values


def stated_size(
    path: Path, arrays: Mapping[str, NDArray | None], key: str
) -> list[float] | list[None]:
    """Positive numbers that this package writes, `SIZE_KEYS` of them; None for each if missing."""
    values, count = arrays.get(key), SIZE_KEYS[key]
    if values is None:
        return [None] * count
    if values.dtype.kind not in "iuf" or values.size not in (1, count):
        raise InputError(
            f"{path}: {key} is {values.dtype} of shape {values.shape}; expected {count} positive "
            f"number{'s' if count > 1 else ''}"
        )
    if not ((values >= SMALLEST_SIZE) & (values <= LARGEST_SIZE)).all():
        raise InputError(
            f"{path}: {key} is {values.ravel()}; expected positive numbers, from {SMALLEST_SIZE:g} "
            f"to {LARGEST_SIZE:g}"
        )
    return np.broadcast_to(values.ravel(), count).astype(float).tolist()


def stated_instrument(path: Path, arrays: Mapping[str, NDArray | None]) -> Instrument:
    """The facts about the experiment that this package writes."""
    return Instrument(
        energy_ev=stated_size(path, arrays, "energy_ev")[0],
        distance_m=stated_size(path, arrays, "distance_m")[0],
        detector_pixel_m=stated_pair(path, arrays, "detector_pixel_m"),
        radiation=stated_radiation(path, arrays.get("radiation")),
    )


def stated_far_field(path: Path, value: NDArray | None) -> bool | None:
    """Whether the patterns are far-field ones; None where nothing is said.

    Raises:
        InputError: If it is neither True nor False.
    """
    if value is None:
        return None
    if value.dtype.kind not in "bi" or value.size != 1:
        raise InputError(
            f"{path}: far_field is {value.dtype} of shape {value.shape}; expected True or False"
        )
    return bool(value.ravel()[0])


def stated_radiation(path: Path, value: NDArray | None) -> Radiation:
    """What was diffracted, as this package writes it; photons where nothing is said.

    Raises:
        InputError: If it is another word.
    """
    if value is None:
        return "photons"
    word = str(value.ravel()[0]) if value.dtype.kind == "U" and value.size == 1 else repr(value)
    for radiation in RADIATIONS:
        if word == radiation:
            return radiation
    raise InputError(f"{path}: radiation is {word}; expected {' or '.join(RADIATIONS)}")


def stated_pair(
    path: Path, arrays: Mapping[str, NDArray | None], key: str
) -> tuple[float, float] | None:
    """A length ``(y, x)``, in metres."""
    height, width = stated_size(path, arrays, key)
    return None if height is None or width is None else (height, width)


def _positions_from(
    path: Path, arrays: Arrays, positions: NDArray[np.float64]
) -> tuple[Literal["corner", "center"], list[str]]:
    """Whether position 0 is the corner of pixel 0 or its center, and a sentence on the latter.

    Ptychodus counts from the corner up to version 1.5 and from the center since 1.6, and no key of
    its files names the version. Two things differ. Its own objects are centred on the scan, so that
    the extremes of the positions add up to the size of the object, less one where they count from
    the center. And since 1.7 its files have a mask. All other programs count from the corner.
    """
    size = _exported_object_shape(path)
    if size is None or len(size) != 2:
        return "corner", []
    extremes = positions.min(axis=0) + positions.max(axis=0)
    rest = np.array(size) - extremes
    if np.allclose(rest, 0, rtol=0, atol=CENTRED_PX):
        return "corner", []
    if arrays.get("bad_pixels") is None and not np.allclose(rest, 1, rtol=0, atol=CENTRED_PX):
        return "corner", []
    return "center", [
        "positions are counted from the center of pixel 0, as Ptychodus 1.6 and later export them"
    ]


def _exported_object_shape(path: Path) -> tuple[int, ...] | None:
    """Shape of the object in a file as Ptychodus exports it, without reading it; None in others."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not {"xcoords_start", "objectGuess"} <= set(archive.files):
                return None
            declared = declared_array(archive.zip, "objectGuess.npy")
            return declared and declared[0]
    except DAMAGE:
        return None


def _patterns(path: Path, arrays: Arrays, n: int) -> tuple[NDArray, str, list[str]]:
    """The patterns as stored, (n, H, W), the key that held them, and what was concluded."""
    key = next((key for key in PATTERN_KEYS if arrays.get(key) is not None), PATTERN_KEYS[0])
    patterns = need_array(path, arrays, key)
    if patterns.ndim == 4 and patterns.shape[0] * patterns.shape[1] == n:
        patterns = patterns.reshape(n, *patterns.shape[2:])  # a raster, row by row
    notes = ["_metadata holds a pickled object and was left out"] if "_metadata" in arrays else []
    if patterns.ndim != 3 or patterns.dtype.kind not in "iuf":
        raise InputError(
            f"{path}: {key} is {patterns.dtype} of shape {patterns.shape}; expected real numbers "
            "of shape (n, N, N)"
        )
    if n == 0:
        raise InputError(f"{path}: {POSITION_KEYS[0]} is empty; expected n > 0 scan points")
    first, second, third = patterns.shape
    if first == n and second != third and n in (second, third):
        raise InputError(
            f"{path}: {key} has shape {patterns.shape}, so its axes cannot be told apart; expected "
            "(n, N, N)"
        )
    if first == n:
        return patterns, key, notes
    if third == n and first == second and key == "diffraction":  # as older files store it
        return (
            np.moveaxis(patterns, -1, 0),
            key,
            [*notes, f"{key} has axes (N, N, n) and was read as (n, N, N)"],
        )
    if n in (second, third):
        raise InputError(
            f"{path}: {key} has shape {patterns.shape} but there are {n} positions, so its axes "
            "are in the wrong order; "
            f"expected ({n}, N, N): store numpy.moveaxis({key}, {patterns.shape.index(n)}, 0)"
        )
    raise InputError(
        f"{path}: {key} has {first} patterns but there are {n} positions; expected equal numbers"
    )


def _mask(path: Path, arrays: Arrays, shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    """Good detector pixels."""
    bad = arrays.get("bad_pixels")
    if bad is None:
        return None
    if bad.dtype.kind not in "biu":
        raise InputError(
            f"{path}: bad_pixels is {bad.dtype} of shape {bad.shape}; expected bool of shape "
            f"{shape}, True = bad"
        )
    return check_mask(f"{path}: bad_pixels", ~bad.astype(bool), shape)


FORMAT = Format(
    name="NPZ (PtychoPINN, Ptychodus)",
    container="npz",
    recognises=lambda names: (
        not {"reciprocal", "scan"} <= names
    ),  # any NPZ file but that of PtychoNN: the error names the key
    read=read_npz,
)

"""NPZ files of PtychoPINN, as Ptychodus exports them. Opened without pickle, always."""

import zipfile
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ptycho_torch.errors import InputError
from ptycho_torch.scan import Scan

PATTERN_KEYS = ("diff3d", "diffraction")
POSITION_KEYS = ("ycoords", "xcoords")
DAMAGE = (  # what damaged bytes make NumPy and zipfile raise
    OSError,
    ValueError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    SyntaxError,
    zipfile.BadZipFile,
    zlib.error,
)

LARGEST_SMALL_COUNT = 1000  # float32 amplitudes tell squares of neighbouring integers apart well beyond it
INTEGER_TOLERANCE = 1e-2  # of a count; float32 rounding of sqrt(1000) is 60 times smaller
INTEGER_SHARE = 0.999  # of the pixels; random numbers come to 2 % of them


def is_npz(head: bytes) -> bool:
    """Whether a file that begins so is a zip archive, which an NPZ file is."""
    return head.startswith(b"PK\x03\x04")


def read_npz(path: Path, diffraction: Literal["auto", "counts", "amplitude"]) -> Scan:
    """The scan in an NPZ file with ``diff3d``, ``xcoords``, ``ycoords`` and ``probeGuess``.

    Args:
        path: The file.
        diffraction: What the patterns are; "auto" decides by their values.

    Returns:
        The scan.

    Raises:
        InputError: If a key is missing or its content cannot be what it should.
    """
    arrays = _load(path)
    positions = np.stack([_positions(path, arrays, key) for key in POSITION_KEYS], axis=1)
    patterns, key, notes = _patterns(path, arrays, len(positions))
    mask = _mask(path, arrays, patterns.shape[1:])
    counts, note = _counts(f"{path}: {key}", patterns, mask, diffraction)
    photons = _photons_per_exposure(f"{path}: {key}", counts, mask)
    probe, scale = _probe(path, arrays, patterns.shape[1:], photons)
    notes += [note, f"probeGuess was multiplied by {scale:.6g}, so that it carries the {photons:.6g} photons of a mean pattern"]
    if "_metadata" in arrays:
        notes.append("_metadata holds a pickled object and was left out")
    return Scan(
        counts=counts,
        positions_px=positions,
        probe=probe,
        mask=mask,
        scan_index=_scan_index(path, arrays, len(positions)),
        source=str(path),
        decisions=tuple(notes),
    )


def _load(path: Path) -> dict[str, NDArray | None]:
    """The arrays of the file that the project reads; None where the file holds a pickled object."""
    wanted = {*PATTERN_KEYS, *POSITION_KEYS, "probeGuess", "scan_index", "bad_pixels"}
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays: dict[str, NDArray | None] = {key: archive[key] for key in archive.files if key in wanted}
            return arrays | {key: None for key in archive.files if key == "_metadata"}
    except DAMAGE as error:
        raise InputError(f"{path}: not a readable NPZ file ({error}); is it complete?") from error


def _array(path: Path, arrays: dict[str, NDArray | None], key: str) -> NDArray:
    """One array, or an error that says what the file holds instead."""
    array = arrays.get(key)
    if array is None:
        raise InputError(f"{path}: key '{key}' is missing; found {', '.join(sorted(arrays)) or 'none of the known keys'}")
    return array


def _positions(path: Path, arrays: dict[str, NDArray | None], key: str) -> NDArray[np.float64]:
    """One coordinate of the patch centres, (n,), in object pixels."""
    values = _array(path, arrays, key)
    if values.ndim != 1 or values.dtype.kind not in "iuf":
        raise InputError(f"{path}: {key} is {values.dtype} of shape {values.shape}; expected real numbers of shape (n,)")
    if not np.isfinite(values).all():
        raise InputError(f"{path}: {key} holds {np.sum(~np.isfinite(values))} values that are not finite")
    expected = len(_array(path, arrays, POSITION_KEYS[0]))
    if len(values) != expected:
        raise InputError(f"{path}: {key} has {len(values)} values but {POSITION_KEYS[0]} has {expected}; expected equal lengths")
    return values.astype(np.float64)


def _patterns(path: Path, arrays: dict[str, NDArray | None], n: int) -> tuple[NDArray, str, list[str]]:
    """The patterns as stored, (n, H, W), the key that held them, and what was concluded."""
    key = next((key for key in PATTERN_KEYS if arrays.get(key) is not None), PATTERN_KEYS[0])
    patterns = _array(path, arrays, key)
    if patterns.ndim != 3 or patterns.dtype.kind not in "iuf":
        raise InputError(f"{path}: {key} is {patterns.dtype} of shape {patterns.shape}; expected real numbers of shape (n, N, N)")
    if n == 0:
        raise InputError(f"{path}: {POSITION_KEYS[0]} is empty; expected n > 0 scan points")
    first, second, third = patterns.shape
    if first == n and second != third and n in (second, third):
        raise InputError(f"{path}: {key} has shape {patterns.shape}, so its axes cannot be told apart; expected (n, N, N)")
    if first == n:
        return patterns, key, []
    if third == n and first == second and key == "diffraction":  # as older files store it
        return np.moveaxis(patterns, -1, 0), key, [f"{key} has axes (N, N, n) and was read as (n, N, N)"]
    if n in (second, third):
        raise InputError(
            f"{path}: {key} has shape {patterns.shape} but there are {n} positions, so its axes are in the wrong order; "
            f"expected ({n}, N, N): store numpy.moveaxis({key}, {patterns.shape.index(n)}, 0)"
        )
    raise InputError(f"{path}: {key} has {first} patterns but there are {n} positions; expected equal numbers")


def _mask(path: Path, arrays: dict[str, NDArray | None], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Good detector pixels."""
    bad = arrays.get("bad_pixels")
    if bad is None:
        return np.ones(shape, dtype=bool)
    if bad.shape != shape or bad.dtype.kind not in "biu":
        raise InputError(f"{path}: bad_pixels is {bad.dtype} of shape {bad.shape}; expected bool of shape {shape}, True = bad")
    if bad.all():
        raise InputError(f"{path}: bad_pixels marks every pixel; expected True where a pixel is bad")
    return ~bad.astype(bool)


def _counts(
    where: str, patterns: NDArray, mask: NDArray[np.bool_], diffraction: Literal["auto", "counts", "amplitude"]
) -> tuple[NDArray, str]:
    """Photon counts, and how it was decided what the stored values are."""
    if patterns.dtype.kind == "f" and not np.isfinite(patterns).all():
        raise InputError(f"{where} holds {np.sum(~np.isfinite(patterns))} values that are not finite (NaN or infinite)")
    if patterns.dtype.kind != "u" and patterns.min() < 0:
        raise InputError(f"{where} holds {np.sum(patterns < 0)} negative values; expected photon counts or amplitudes")
    empty = np.flatnonzero(~(patterns * mask).any(axis=(1, 2)))
    if len(empty):
        raise InputError(
            f"{where}: {len(empty)} of {len(patterns)} patterns are all zero (the first is number {empty[0]}); remove them"
        )
    if diffraction == "counts":
        return patterns, "patterns were read as photon counts, as told"
    if diffraction == "auto" and (patterns.dtype.kind in "iu" or np.array_equal(patterns, np.rint(patterns))):
        return patterns, "patterns are whole numbers: read as photon counts"
    squares = np.square(patterns, dtype=np.float64)
    unit = _count_unit(squares)
    if unit is not None:
        counts = np.rint(squares / unit).astype(np.float32)
        return counts, f"squares of the patterns are whole multiples of {unit:.4g}: read as amplitudes of photon counts"
    if diffraction == "amplitude":
        return squares.astype(np.float32), "patterns were read as amplitudes, as told; their squares are taken for photons"
    raise InputError(
        f"{where} is neither whole numbers nor roots of whole numbers, so it cannot be told whether it holds counts or "
        "amplitudes; say which with --diffraction counts or --diffraction amplitude"
    )


def _count_unit(squares: NDArray[np.float64]) -> float | None:
    """The value of one photon if all values are whole multiples of the smallest one, else None."""
    positive = squares[squares > 0]
    unit = float(positive.min())
    ratio = positive[positive < LARGEST_SMALL_COUNT * unit] / unit
    unit *= float(np.sum(ratio) / np.sum(np.rint(ratio)))  # mean over many pixels: free of the rounding of one
    ratio = positive[positive < LARGEST_SMALL_COUNT * unit] / unit
    whole = np.mean(np.abs(ratio - np.rint(ratio)) < INTEGER_TOLERANCE)
    return unit if whole > INTEGER_SHARE and np.rint(ratio).max() > 1 else None


def _photons_per_exposure(where: str, counts: NDArray, mask: NDArray[np.bool_]) -> float:
    """Photons on the good pixels of a mean pattern."""
    total = sum(float(np.sum(pattern, where=mask, dtype=np.float64)) for pattern in counts)
    if not np.isfinite(total):
        raise InputError(f"{where}: the sum of the counts is not finite")
    return total / len(counts)


def _probe(
    path: Path, arrays: dict[str, NDArray | None], shape: tuple[int, ...], photons: float
) -> tuple[NDArray[np.complex64], float]:
    """Probe modes (M, H, W) that carry ``photons``, and the factor that was applied."""
    probe = _array(path, arrays, "probeGuess")
    if probe.ndim == 3 and probe.shape[:2] == shape and probe.shape[2] == 1:
        probe = probe[..., 0]
    if probe.dtype.kind not in "iufc" or probe.ndim not in (2, 3) or probe.shape[-2:] != shape:
        raise InputError(
            f"{path}: probeGuess is {probe.dtype} of shape {probe.shape}; expected {shape} or (modes, {shape[0]}, {shape[1]}), "
            "the size of the patterns"
        )
    modes = probe.reshape(-1, *shape).astype(np.complex128)
    power = float(np.sum(np.abs(modes) ** 2))
    if not np.isfinite(power) or power == 0:
        raise InputError(f"{path}: probeGuess has a total power of {power}; expected finite values that are not all zero")
    scale = np.sqrt(photons / power)
    return (modes * scale).astype(np.complex64), float(scale)


def _scan_index(path: Path, arrays: dict[str, NDArray | None], n: int) -> NDArray[np.int64]:
    """Identifiers of the exposures; 0, 1, 2, ... where the file has none."""
    index = arrays.get("scan_index")
    if index is None:
        return np.arange(n)
    if index.shape != (n,) or index.dtype.kind not in "iu":
        raise InputError(f"{path}: scan_index is {index.dtype} of shape {index.shape}; expected {n} whole numbers")
    return index.astype(np.int64)

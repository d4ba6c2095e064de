"""Checks that all readers share; a failure names file, key, what was found and what is right."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ptycho_torch.config.options import LARGEST_SIZE, SMALLEST_SIZE
from ptycho_torch.data.hdf5_access import is_read_while_written
from ptycho_torch.data.lazy_patterns import PatternArray, blocks
from ptycho_torch.errors import InputError

# Float32 amplitudes tell squares of neighbouring integers apart well beyond it.
LARGEST_SMALL_COUNT = 1000
INTEGER_TOLERANCE = 1e-2  # of a count; float32 rounding of sqrt(1000) is 60 times smaller
INTEGER_SHARE = 0.999  # of the pixels; random numbers come to 2 % of them
# Of positions, a mask, a probe, or one pattern. A million positions have 16 MiB, a hundred modes
# of 512 x 512 pixels 400 MiB.
MAX_ARRAY_BYTES = 2**29
LARGEST_COUNT = 1e30  # of a pattern, and below one over it the smallest; float32 holds both
LARGEST_AMPLITUDE = math.sqrt(LARGEST_COUNT)
SAMPLE = 256  # patterns that show what the values are


def check_patterns(
    where: str, patterns: PatternArray, *, largest: float = LARGEST_COUNT
) -> NDArray[np.float64]:
    """Sums of all patterns, (N,), which are finite, not negative, and not all zero.

    Args:
        where: Names the patterns.
        patterns: Real, (N, H, W); passed through once, in blocks.
        largest: Sum of a pattern, and one over the smallest.

    Raises:
        InputError: If a value is not finite or negative, or all patterns are empty.
    """
    totals = np.zeros(patterns.shape[0])
    endless = negative = 0
    for window, block in blocks(patterns):
        if block.dtype.kind == "f":
            endless += int(np.sum(~np.isfinite(block)))
        if block.dtype.kind != "u":
            negative += int(np.sum(block < 0))
        totals[window] = block.sum(axis=(1, 2), dtype=np.float64)
    if endless:
        raise InputError(f"{where} holds {endless} values that are not finite (NaN or infinite)")
    if negative:
        raise InputError(
            f"{where} holds {negative} negative values; expected photon counts or amplitudes "
            "(--clip_negative sets negative values to zero)"
        )
    if not totals.any():
        raise InputError(f"{where}: all patterns are all zero; expected some photons")
    if not 1 / largest < totals.max() < largest:
        raise InputError(f"{where}: the sum of a pattern is {totals.max():.3g}; expected photons")
    return totals


@dataclass(frozen=True)
class Values:
    """What stored patterns are.

    Attributes:
        unit: Square of the amplitude of one photon; None where the patterns are counts.
        whole: Whether squares are whole numbers of photons.
        reason: A sentence.
    """

    unit: float | None
    whole: bool
    reason: str


def decide_values(
    where: str,
    patterns: PatternArray,
    *,
    stated: Literal["counts", "amplitude", "unknown"],
    told: Literal["auto", "counts", "amplitude"],
) -> Values:
    """Whether patterns are counts or amplitudes: by the flag, the format, or their values.

    Raises:
        InputError: If the values leave it open.
    """
    if told == "counts" or (told == "auto" and stated == "counts"):
        return Values(
            None,
            True,
            "patterns were read as photon counts, as "
            f"{'told' if told == 'counts' else 'the format has them'}",
        )
    n = patterns.shape[0]
    sample = np.asarray(patterns[np.unique(np.linspace(0, n - 1, min(n, SAMPLE)).astype(int))])
    undecided = told == "auto" and stated == "unknown"
    if undecided and (sample.dtype.kind in "iub" or np.array_equal(sample, np.rint(sample))):
        return Values(None, True, "patterns are whole numbers: read as photon counts")
    if LARGEST_AMPLITUDE <= np.max(sample) < np.inf:
        raise InputError(f"{where} holds {np.max(sample):.3g}; expected amplitudes of photons")
    unit = count_unit(np.square(sample, dtype=np.float64))
    if unit is not None:
        reason = (
            f"squares of the patterns are whole multiples of {unit:.4g}: read as amplitudes of "
            "photon counts"
        )
        return Values(unit, True, reason)
    if undecided:
        raise InputError(
            f"{where} is neither whole numbers nor roots of whole numbers, so it cannot be told "
            "whether it holds counts or "
            "amplitudes; say which with --diffraction counts or --diffraction amplitude"
        )
    who = "told" if told == "amplitude" else "the format has them"
    return Values(
        1.0,
        False,
        f"patterns were read as amplitudes, as {who}; their squares are taken for photons",
    )


def count_unit(squares: NDArray[np.float64]) -> float | None:
    """The value of one photon if all values are whole multiples of the smallest one, else None."""
    positive = squares[(squares > 0) & np.isfinite(squares)]
    if not len(positive):
        return None
    unit = float(positive.min())
    ratio = positive[positive < LARGEST_SMALL_COUNT * unit] / unit
    unit *= float(
        np.sum(ratio) / np.sum(np.rint(ratio))
    )  # mean over many pixels: free of the rounding of one
    ratio = positive[positive < LARGEST_SMALL_COUNT * unit] / unit
    whole = np.mean(np.abs(ratio - np.rint(ratio)) < INTEGER_TOLERANCE)
    return unit if whole > INTEGER_SHARE and np.rint(ratio).max() > 1 else None


def check_real(where: str, values: NDArray, shape: tuple[int | None, ...]) -> NDArray[np.float64]:
    """Finite real numbers of a shape, whose None is any length; NaN while a file is written.

    Raises:
        InputError: If they are something else.
    """
    fits = values.ndim == len(shape) and all(
        want in (None, size) for want, size in zip(shape, values.shape, strict=False)
    )
    if not fits or values.dtype.kind not in "iuf":
        wanted = (
            "("
            + ", ".join("n" if size is None else str(size) for size in shape)
            + ("," if len(shape) == 1 else "")
            + ")"
        )
        raise InputError(
            f"{where} is {values.dtype} of shape {values.shape}; expected real numbers of shape "
            f"{wanted}"
        )
    if not np.isfinite(values).all() and not is_read_while_written():
        raise InputError(f"{where} holds {np.sum(~np.isfinite(values))} values that are not finite")
    return values.astype(np.float64)


def check_quantity(where: str, value: float) -> float:
    """A length in metres or an energy in electronvolts that can be one.

    Raises:
        InputError: If it is not between `SMALLEST_SIZE` and `LARGEST_SIZE`.
    """
    if not SMALLEST_SIZE <= value <= LARGEST_SIZE:
        raise InputError(
            f"{where} is {value:g} in metres or electronvolts; expected a number from "
            f"{SMALLEST_SIZE:g} to {LARGEST_SIZE:g}"
        )
    return value


def check_size(where: str, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    """Raise `InputError` for an array of more than `MAX_ARRAY_BYTES`, before it is read."""
    size = dtype.itemsize * math.prod(shape)
    if size > MAX_ARRAY_BYTES:
        raise InputError(
            f"{where} is {dtype} of shape {shape}, {size / 2**30:.3g} GiB; expected at most "
            f"{MAX_ARRAY_BYTES / 2**30:g} GiB"
        )


def check_mask(where: str, mask: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """A mask of good pixels that fits the patterns and leaves some.

    Raises:
        InputError: If it does not.
    """
    if mask.shape != shape:
        raise InputError(
            f"{where} is {mask.dtype} of shape {mask.shape}; expected shape {shape}, that of the "
            "patterns"
        )
    if not mask.any():
        raise InputError(f"{where} marks every pixel; expected some that are good")
    return mask


def check_index(where: str, index: NDArray | None, n: int) -> NDArray[np.int64]:
    """Identifiers of the exposures, 0, 1, 2, ... where there are none.

    Raises:
        InputError: If they are not n whole numbers.
    """
    if index is None:
        return np.arange(n)
    if (
        index.shape != (n,)
        or index.dtype.kind not in "iuf"
        or not np.array_equal(index, np.rint(index))
        or not np.all(np.abs(index.astype(np.float64)) < 2.0**63)
    ):
        raise InputError(
            f"{where} is {index.dtype} of shape {index.shape}; expected {n} whole numbers"
        )
    return index.astype(np.int64)

"""What a live view reads: a scan that grows, and the faults that were met in it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptycho_torch.data.lazy_patterns import PatternArray
from ptycho_torch.io.readers.raw_scan import RawScan

MAX_AT_ONCE = 512  # frames that a source hands over at once, so that it never fills the memory


@dataclass
class Faults:
    """What went wrong in a source, in frames.

    Attributes:
        doubled: Came again, and were left out.
        out_of_order: Came after one with a larger index.
        damaged: Could not be read, or cannot be patterns.
        misplaced: Have a position that no canvas can hold.
        discarded: Came without a position for too long, or in a message that cannot be understood.
    """

    doubled: int = 0
    out_of_order: int = 0
    damaged: int = 0
    misplaced: int = 0
    discarded: int = 0


@dataclass(frozen=True)
class Arrivals:
    """Frames that are complete: pattern, position and index.

    Attributes:
        raw: In the units of the source; its patterns are in memory and its indices are given.
        seen_s: When each was first seen, seconds since the epoch, (k,).
    """

    raw: RawScan
    seen_s: NDArray[np.float64]


@dataclass
class Source(ABC):
    """A scan that grows; it is only ever read.

    Attributes:
        name: For messages.
        ended: Whether its writer has said that nothing more comes.
        waiting: Frames that wait: for their position, or to be read.
        faults: Met so far.
        trouble: Why nothing could be read the last time; empty if it could.
        expected: Frames of the whole scan, where its writer says so.
    """

    name: str
    ended: bool = False
    waiting: int = 0
    faults: Faults = field(default_factory=Faults)
    trouble: str = ""
    expected: int | None = None

    @abstractmethod
    def poll(self) -> Arrivals | None:
        """The frames that became complete, `MAX_AT_ONCE` at most; None if there are none."""

    @abstractmethod
    def finished(self) -> tuple[Path, Path | None]:
        """The whole scan as a file that inference reads, and the map that it needs, if any."""

    def close(self) -> None:  # noqa: B027  a file that is only read needs nothing
        """Free what is held."""


def take(raw: RawScan, rows: NDArray[np.intp], patterns: PatternArray, index: NDArray) -> RawScan:
    """Some frames of a scan, with patterns and indices of their own."""
    return replace(raw, patterns=patterns, positions=raw.positions[rows], scan_index=index)

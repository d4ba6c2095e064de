"""The frames of a live scan that are kept in memory, and the neighbourhoods among them.

The newest frames are kept, up to `KEPT_BYTES`, so that the memory of a scan of any length is
bounded. A region is the frames that are not in the image yet; as soon as there are enough of them,
or the oldest has waited long enough, it is completed by the nearest of the kept frames, as in an
ordinary inference. A slow computer gets larger regions, which cost less for each frame, and so
keeps up.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ptycho_torch.config import ReadingOptions
from ptycho_torch.data.grouping import Neighbourhood, compact_regions, complete
from ptycho_torch.data.scan import Scan
from ptycho_torch.errors import InputError
from ptycho_torch.inference.live.growing_mosaic import MAX_PIXELS
from ptycho_torch.inference.live.source import Arrivals, Faults
from ptycho_torch.inference.tiling import TOTAL_PER_CORE
from ptycho_torch.io.readers.raw_scan import RawScan
from ptycho_torch.io.readers.to_scan import to_scan

KEPT_BYTES = 256 * 2**20  # of frames, as float32
MOST_KEPT = 8192  # frames; finding neighbours among more of them takes longer than the network
LEAST_KEPT = 64  # frames, however large they are
SMALLEST_REGION = 48  # frames; of fewer, a network without context makes a poor canvas
LARGEST_REGION = 512  # frames; computed in about half a second on a core
LONGEST_WAIT_S = 0.6  # of a frame for others of its region


class GrowingScan:
    """Frames that came, in the units of the package.

    Args:
        options: How the source is read.
        faults: Counted here where a frame cannot be used.
        group_size: Frames of a group where the network takes no other number; else None.
    """

    def __init__(
        self,
        options: ReadingOptions,
        faults: Faults,
        group_size: int | None,
    ) -> None:
        self._options, self._faults = options, faults
        self._group_size = group_size
        self._first: Scan | None = None
        self._counts = np.zeros((0, 0, 0), dtype=np.float32)
        self._positions = np.zeros((0, 2))
        self._arrived_s = np.zeros(0)
        self._number = np.zeros(0, dtype=np.int64)
        self._indices: set[int] = set()
        self._largest = -1
        self._low = self._high = np.full(2, np.nan)  # of the positions that the canvas holds
        self._photons = 0.0
        self.total = 0
        self._pending: list[int] = []  # places in the arrays, by time

    def __len__(self) -> int:
        return min(self.total, len(self._counts))

    def lost(self, expected: int | None) -> int:
        """Frames that never came.

        Args:
            expected: Of the whole scan, once it has ended; None to go by gaps between the indices.
        """
        if not self._indices:
            return expected or 0
        gaps = self._largest - min(self._indices) + 1 - len(self._indices)
        return max(gaps, (expected or 0) - len(self._indices))

    @property
    def pending(self) -> int:
        """Frames that are not in the image yet."""
        return len(self._pending)

    def oldest_pending_s(self) -> float | None:
        """When the frame came that waits longest, seconds since the epoch."""
        return float(self._arrived_s[self._pending].min()) if self._pending else None

    def add(self, arrivals: Arrivals) -> None:
        """Take frames; those that cannot be used are counted.

        Raises:
            InputError: If not even the first frames can be used.
        """
        raw, seen_s = self._without_doubles(arrivals)
        if not len(seen_s):
            return
        scan, seen_s = self._convert(raw, seen_s)
        if scan is None:
            return
        if self._first is None:
            self._begin(scan)
        photons = float(np.asarray(scan.counts).sum(dtype=np.float64))
        self._photons += (
            (photons / len(scan) - self._photons) * len(scan) / (self.total + len(scan))
        )
        for n in range(len(scan)):
            position = scan.positions_px[n]
            if self._extend(position, scan.pattern_shape):
                self._keep(scan.counts[n], position, int(scan.scan_index[n]), float(seen_s[n]))
            else:
                self._faults.misplaced += 1

    def scan(self) -> Scan:
        """The kept frames, with the probe at the photons of a mean frame of all that came.

        Raises:
            ValueError: If there is none.
        """
        if self._first is None:
            raise ValueError("no frame came")
        probe = self._first.need_probe()
        scale = np.float32(np.sqrt(self._photons / self._first.photons))
        n = len(self)
        return replace(
            self._first,
            counts=self._counts[:n],
            positions_px=self._positions[:n],
            scan_index=self._number[:n],
            probe=probe * scale,
        )

    def take_regions(self, now: float, *, everything: bool) -> list[Neighbourhood]:
        """Neighbourhoods that became complete; their frames are pending no more.

        Args:
            now: Seconds since the epoch.
            everything: Whether no more frames come, so that none has to wait.
        """
        oldest = self.oldest_pending_s()
        least = self._group_size or SMALLEST_REGION
        waited = oldest is not None and now - oldest > LONGEST_WAIT_S
        if oldest is None or not (len(self._pending) >= least or waited or everything):
            return []
        if self._group_size and len(self) < self._group_size:
            return []
        chosen = np.array(self._pending[: LARGEST_REGION if not self._group_size else None])
        n_core = self._group_size or LARGEST_REGION
        parts = compact_regions(self._positions[chosen], -(-len(chosen) // n_core))
        n_total = self._group_size or max(
            round(TOTAL_PER_CORE * len(chosen)), len(chosen) + SMALLEST_REGION // 2
        )
        self._pending = self._pending[len(chosen) :]
        return complete(self._positions[: len(self)], [chosen[part] for part in parts], n_total)

    def _without_doubles(self, arrivals: Arrivals) -> tuple[RawScan, NDArray[np.float64]]:
        """The frames whose indices are new."""
        index = np.asarray(arrivals.raw.scan_index).astype(np.int64)
        fresh = np.zeros(len(index), dtype=bool)
        for n, one in enumerate(index.tolist()):
            fresh[n] = one not in self._indices
            self._faults.doubled += int(not fresh[n])
            if fresh[n]:
                self._faults.out_of_order += int(one < self._largest)
                self._indices.add(one)
                self._largest = max(self._largest, one)
        return part_of(arrivals.raw, fresh), arrivals.seen_s[fresh]

    def _convert(
        self, raw: RawScan, seen_s: NDArray[np.float64]
    ) -> tuple[Scan | None, NDArray[np.float64]]:
        """Frames in the units of the package; those that cannot be read are left out."""
        try:
            return to_scan(raw, self._options), seen_s
        except InputError:
            patterns = np.asarray(raw.patterns)
            if raw.mask is not None:
                patterns = np.where(raw.mask, patterns, 0)
            sums = patterns.sum(axis=(1, 2), dtype=np.float64)
            good = np.isfinite(sums) & (sums > 0) & (patterns.min(axis=(1, 2)) >= 0)
            if good.all():
                raise
        self._faults.damaged += int(np.sum(~good))
        if not good.any():
            return None, seen_s[:0]
        return to_scan(part_of(raw, good), self._options), seen_s[good]

    def _begin(self, scan: Scan) -> None:
        """Make room for the frames that are kept."""
        scan.need_probe()
        height, width = scan.pattern_shape
        room = max(LEAST_KEPT, min(MOST_KEPT, KEPT_BYTES // (4 * height * width)))
        self._first = scan
        self._counts = np.zeros((room, height, width), dtype=np.float32)
        self._positions = np.zeros((room, 2))
        self._arrived_s = np.zeros(room)
        self._number = np.zeros(room, dtype=np.int64)

    def _extend(self, position: NDArray[np.float64], shape: tuple[int, int]) -> bool:
        """Let the canvas hold a position; False if it would have more than `MAX_PIXELS` then."""
        low, high = np.fmin(self._low, position), np.fmax(self._high, position)
        if np.prod(high - low + shape) > MAX_PIXELS:
            return False
        self._low, self._high = low, high
        return True

    def _keep(self, counts: NDArray, position: NDArray, number: int, seen_s: float) -> None:
        """Keep a frame in the place of the oldest."""
        place = self.total % len(self._counts)
        if place in self._pending[:1]:
            self._pending.pop(0)  # the computer is too slow: it is in the final image only
            self._faults.discarded += 1
        self._counts[place], self._positions[place] = counts, position
        self._number[place], self._arrived_s[place] = number, seen_s
        self._pending.append(place)
        self.total += 1


def part_of(raw: RawScan, chosen: NDArray[np.bool_]) -> RawScan:
    """Some frames of a scan whose patterns are in memory."""
    return replace(
        raw,
        patterns=raw.patterns[chosen],
        positions=raw.positions[chosen],
        scan_index=np.asarray(raw.scan_index)[chosen],
    )

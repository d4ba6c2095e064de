"""A scan in an HDF5 file that another program is writing.

Frames and positions may come at different times, and both may have their final size from the
start: a frame that is all zero and a position that is NaN are not there yet, and so are positions
(0, 0) at the end. Every format of the package is read as it grows, through its ordinary reader.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptycho_torch.config import ReadingOptions
from ptycho_torch.data.hdf5_access import read_while_written
from ptycho_torch.errors import InputError
from ptycho_torch.inference.live.recording import Recording
from ptycho_torch.inference.live.source import MAX_AT_ONCE, Arrivals, Source, take
from ptycho_torch.io.readers import read_scan
from ptycho_torch.io.readers.detect import read_raw_scan
from ptycho_torch.io.readers.raw_scan import RawScan
from ptycho_torch.io.run_dir import RunDir

LOOK_AGAIN = 64  # missing frames that are looked for again at each poll
STALLED_S = 1.0  # without a frame, after which those far behind the last one are looked for
# What a reader may raise for a file of which only a part has reached the disk.
HALF_WRITTEN = (InputError, OSError, KeyError, ValueError, IndexError, TypeError, RuntimeError)
SUPERBLOCK = 12  # bytes: signature (8), version, two sizes, and the flags of an open file
SIGNATURE = b"\x89HDF\r\n\x1a\n"
FIRST_WITH_FLAGS = 3  # version of the superblock


class GrowingFile(Source):
    """An HDF5 file that grows.

    Args:
        path: It may not be there yet. Of a scan in a pair of files both, joined by a comma.
        options: How it is read.
        run: Where frames are copied to if the file is never finished.
    """

    def __init__(self, path: Path, options: ReadingOptions, run: RunDir) -> None:
        super().__init__(name=str(path))
        self._path, self._options, self._run = path, options, run
        self._files = files_of(path)
        self._done = np.zeros(0, dtype=bool)  # rows that were handed over
        self._frontier = 0  # row after the last that was handed over
        self._seen: list[tuple[int, float]] = []  # rows that were there, and since when
        self._last_s = time.time()
        self._was_open = False

    def poll(self) -> Arrivals | None:
        """See `Source.poll`."""
        if not all(file.is_file() for file in self._files):
            return None  # it has not come yet
        was_open = is_open_for_writing(self._files)
        try:
            arrivals = self._read()
            self.trouble = ""
        except HALF_WRITTEN as error:
            self.trouble = " ".join(str(error).split())
            return None
        silent = time.time() - self._last_s > STALLED_S
        self.ended = arrivals is None and silent and self._was_open and was_open is False
        self._was_open = self._was_open or was_open is True
        return arrivals

    def finished(self) -> tuple[Path, Path | None]:
        """The file itself; a copy of its complete frames if it does not read as a whole scan."""
        try:
            read_scan(self._path, options=self._options)
        except InputError:
            return self._copy()
        return self._path, self._options.map

    def _read(self) -> Arrivals | None:
        """Frames that became complete."""
        now = time.time()
        with read_while_written():
            raw = read_raw_scan(self._path, options=self._options)
            usable = complete_rows(raw)
            self._note_growth(len(usable), raw.patterns.shape[0], now)
            rows, patterns = self._find(raw, usable, everything=now - self._last_s > STALLED_S)
        unread = int(usable[self._frontier :].sum()) - len(rows)
        without_position = raw.patterns.shape[0] - len(raw.positions)
        self.waiting = max(without_position, 0) + (unread if len(rows) >= MAX_AT_ONCE else 0)
        if not len(rows):
            return None
        self._done[rows] = True
        self._frontier = max(self._frontier, int(rows[-1]) + 1)
        self._last_s = now
        index = rows if raw.scan_index is None else np.asarray(raw.scan_index)[rows]
        known, since = np.array(self._seen).T
        seen_s = since[np.minimum(np.searchsorted(known, rows, side="right"), len(known) - 1)]
        return Arrivals(take(raw, rows, patterns, index), seen_s)

    def _note_growth(self, usable: int, patterns: int, now: float) -> None:
        """Note how many rows are there."""
        grown = max(usable, patterns)
        if grown > len(self._done):
            self._done = np.concatenate([self._done, np.zeros(grown - len(self._done), dtype=bool)])
        if not self._seen or usable > self._seen[-1][0]:
            self._seen = [entry for entry in self._seen if entry[0] > self._frontier]
            self._seen.append((usable, now))

    def _find(
        self, raw: RawScan, usable: NDArray[np.bool_], *, everything: bool
    ) -> tuple[NDArray[np.intp], NDArray]:
        """Rows that are new and whole, ascending, and their patterns."""
        wanted = np.flatnonzero(usable & ~self._done[: len(usable)])
        holes = wanted[wanted < self._frontier][:LOOK_AGAIN]
        ahead = wanted[wanted >= self._frontier]
        found = np.concatenate([holes, ahead[: MAX_AT_ONCE - len(holes)]])
        patterns = raw.patterns[found]
        whole = patterns.any(axis=(1, 2)) & np.isfinite(patterns.sum(axis=(1, 2)))
        for start in range(MAX_AT_ONCE - len(holes), len(ahead), MAX_AT_ONCE):
            if whole.any() or not everything:
                break
            found = ahead[start : start + MAX_AT_ONCE]
            patterns = raw.patterns[found]
            whole = patterns.any(axis=(1, 2)) & np.isfinite(patterns.sum(axis=(1, 2)))
        return found[whole], patterns[whole]

    def _copy(self) -> tuple[Path, Path]:
        """The frames that are complete, in a file of the run."""
        recording = Recording(self._run)
        rows = np.flatnonzero(self._done)
        with read_while_written():
            raw = read_raw_scan(self._path, options=self._options)
            index = np.arange(len(self._done)) if raw.scan_index is None else raw.scan_index
            for start in range(0, len(rows), MAX_AT_ONCE):
                part = rows[start : start + MAX_AT_ONCE]
                recording.add(take(raw, part, raw.patterns[part], np.asarray(index)[part]))
        return recording.finish()


def complete_rows(raw: RawScan) -> NDArray[np.bool_]:
    """Rows that have a pattern's place and a position, (n,)."""
    positions = np.asarray(raw.positions, dtype=np.float64)
    n = min(raw.patterns.shape[0], len(positions))
    there: NDArray[np.bool_] = np.asarray(np.isfinite(positions).all(axis=1))
    written = np.flatnonzero(positions.any(axis=1))
    there[int(written[-1]) + 1 if len(written) else 0 :] = False
    return there[:n]


def files_of(path: Path) -> list[Path]:
    """The file of a path, or the two of a pair that is joined by a comma."""
    if "," in str(path) and not path.exists():
        return [Path(part) for part in str(path).split(",")]
    return [path]


def is_open_for_writing(files: Sequence[Path]) -> bool | None:
    """Whether one of some HDF5 files says that a program has it open for writing.

    None if none of them says it, and one does not say anything about it.
    """
    said = [says_open(file) for file in files]
    return True if True in said else None if None in said else False


def says_open(path: Path) -> bool | None:
    """Whether an HDF5 file says that a program has it open for writing; None if it does not say."""
    try:
        with open(path, "rb") as file:
            head = file.read(SUPERBLOCK)
    except OSError:
        return None
    if len(head) < SUPERBLOCK or head[:8] != SIGNATURE or head[8] < FIRST_WITH_FLAGS:
        return None
    return bool(head[11])

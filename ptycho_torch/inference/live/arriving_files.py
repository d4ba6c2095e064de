"""A scan of which parts arrive in a folder, each a file of any format of the package."""

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ptycho_torch.config import ReadingOptions
from ptycho_torch.errors import InputError
from ptycho_torch.inference.live.recording import Recording
from ptycho_torch.inference.live.source import MAX_AT_ONCE, Arrivals, Source, take
from ptycho_torch.io.readers.detect import read_raw_scan
from ptycho_torch.io.readers.raw_scan import RawScan
from ptycho_torch.io.run_dir import RunDir

UNFINISHED = (".part", ".tmp", ".temp", ".filepart", ".crdownload")  # ends of names of copies
GIVE_UP_S = 10.0  # for which an unreadable file has not changed, until it is called damaged


class Unreadable(NamedTuple):
    """A file that could not be read: size and time of change then, when that was, and why."""

    version: tuple[int, int]
    since_s: float
    reason: str


class ArrivingFiles(Source):
    """A folder into which the files of a scan arrive; each holds some of its frames.

    A file that cannot be read yet is tried again until it stops changing. The frames of a file
    without indices are numbered in the order in which they came.

    Args:
        folder: Files that are there already are read first, by name.
        options: How they are read.
        run: Where the frames are recorded as one scan.
    """

    def __init__(self, folder: Path, options: ReadingOptions, run: RunDir) -> None:
        super().__init__(name=str(folder))
        self._folder, self._options = folder, options
        self._recording = Recording(run)
        self._read: set[Path] = set()
        self._unreadable: dict[Path, Unreadable] = {}
        self._open: tuple[RawScan, int, float] | None = None  # a file, and its frames handed over
        self._indices: set[int] = set()
        self._next = 0

    def poll(self) -> Arrivals | None:
        """See `Source.poll`."""
        self._open = self._open or self._next_file()
        if self._open is None:
            return None
        raw, start, seen_s = self._open
        rows = np.arange(start, min(start + MAX_AT_ONCE, raw.patterns.shape[0]))
        self._open = (raw, int(rows[-1]) + 1, seen_s)
        if self._open[1] == raw.patterns.shape[0]:
            self._open = None
        index = np.asarray(raw.scan_index)[rows].astype(np.int64)
        fresh = np.array([int(one) not in self._indices for one in index])
        self.faults.doubled += int(np.sum(~fresh))
        if not fresh.any():
            return None
        rows, index = rows[fresh], index[fresh]
        part = take(raw, rows, np.asarray(raw.patterns[rows]), index)
        self._recording.add(part)
        self._indices.update(index.tolist())
        return Arrivals(part, np.full(len(rows), seen_s))

    def finished(self) -> tuple[Path, Path | None]:
        """The recorded frames."""
        return self._recording.finish()

    def _next_file(self) -> tuple[RawScan, int, float] | None:
        """The next file by name that can be read."""
        waiting = [path for path in sorted(self._folder.iterdir()) if self._is_new(path)]
        self.waiting = len(waiting)
        found = None
        for path in waiting:
            raw = self._try(path)
            if raw is not None:
                self._read.add(path)
                self.waiting -= 1
                found = (raw, 0, path.stat().st_mtime)
                break
        self.trouble = "; ".join(one.reason for one in self._unreadable.values())
        return found

    def _is_new(self, path: Path) -> bool:
        """Whether a file may be a part of the scan that was not read yet."""
        hidden = path.name.startswith(".") or path.name.lower().endswith(UNFINISHED)
        return path not in self._read and not hidden and path.is_file()

    def _try(self, path: Path) -> RawScan | None:
        """The content of a file with an index for each frame; None if it cannot be read yet."""
        state = path.stat()
        version = (state.st_size, state.st_mtime_ns)
        before = self._unreadable.get(path)
        unchanged = before is not None and before.version == version
        if before is not None and unchanged and time.time() - before.since_s < GIVE_UP_S:
            return None  # it has not changed since it could not be read
        try:
            raw = read_raw_scan(path, options=self._options)
            if raw.patterns.shape[0] != len(raw.positions) or not len(raw.positions):
                raise InputError(f"{path}: frames and positions differ in number")
        except InputError as error:
            self._unreadable[path] = Unreadable(version, time.time(), str(error))
            if unchanged:
                self.faults.damaged += 1
                self._read.add(path)
            return None
        self._unreadable.pop(path, None)
        index = raw.scan_index
        if index is None:
            index = np.arange(self._next, self._next + len(raw.positions))
        self._next = max(self._next, int(np.max(index)) + 1)
        return take(raw, np.arange(len(raw.positions)), raw.patterns, np.asarray(index))

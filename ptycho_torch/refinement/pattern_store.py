"""Where the patterns of a refinement are while it runs: in memory, or in a scratch file.

A batch takes patterns from all over the scan, in another order in each epoch. Files of detectors
are made to be read one pattern after another: each is packed, often with others in one chunk, so
that reading a batch would take longer than the step with it. Patterns of a file that would fill the
memory are therefore unpacked once to a scratch file, from which any of them is read in some
microseconds. It lies in the folder of temporary files and has no name there, so that it vanishes
with the process, however that ends. An epoch announces what it will read, and threads read ahead of
it while it computes.
"""

import math
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import IO, Protocol

import torch
from torch import Tensor

from ptycho_torch.distributed.device import trim_malloc
from ptycho_torch.errors import RunError

IN_MEMORY_BYTES = 2**29  # of patterns from a file that stay in the host's memory
PARTS_AHEAD = 4  # of those that are computed at once, read by as many threads
TRIM_EVERY = 32  # parts, since steps of many sizes leave gaps in the memory
DEVICE_SHARE = 0.5  # of the free memory of a GPU that they may take there


class PatternStore(Protocol):
    """Patterns, real, (n, H, W), that are read by their row."""

    def read(self, rows: Tensor) -> Tensor:
        """A copy of the patterns of some rows, int64, (B,), real, (B, H, W)."""

    def announce(self, parts: Iterable[Tensor]) -> None:
        """Say which rows will be read next, part after part; other reads may come between."""

    def prepared(self, prepare: Callable[[Tensor], Tensor]) -> "PatternStore":
        """The same patterns as a function makes them, which may overwrite its argument."""


@dataclass(frozen=True)
class PatternsInMemory:
    """Patterns in the memory of their device.

    Attributes:
        values: Real, (n, H, W).
    """

    values: Tensor

    def read(self, rows: Tensor) -> Tensor:
        """See `PatternStore.read`."""
        return self.values[rows]

    def announce(self, parts: Iterable[Tensor]) -> None:
        """See `PatternStore.announce`; nothing is to be done."""

    def prepared(self, prepare: Callable[[Tensor], Tensor]) -> "PatternsInMemory":
        """See `PatternStore.prepared`."""
        return PatternsInMemory(prepare(self.values))


@dataclass(frozen=True)
class PatternsInFile:
    """Patterns in a scratch file.

    Attributes:
        reader: Of the file.
        device: To which patterns are read.
        prepare: Function of the patterns as they were written, which may overwrite them.
    """

    reader: "ReaderAhead"
    device: torch.device
    prepare: Callable[[Tensor], Tensor] = torch.Tensor.contiguous

    def read(self, rows: Tensor) -> Tensor:
        """See `PatternStore.read`."""
        return self.prepare(self.reader.read(rows.cpu()).to(self.device, non_blocking=True))

    def announce(self, parts: Iterable[Tensor]) -> None:
        """See `PatternStore.announce`."""
        self.reader.announce([rows.cpu() for rows in parts])

    def prepared(self, prepare: Callable[[Tensor], Tensor]) -> "PatternsInFile":
        """See `PatternStore.prepared`."""
        return replace(self, prepare=prepare)


class ReaderAhead:
    """Reads rows of a file, and those that were announced before they are asked for.

    Args:
        file: Open, with one pattern after another.
        like: Tensor of the shape of a pattern and of their dtype, on the device where they are
            used, (..., H, W).
    """

    def __init__(self, file: IO[bytes], like: Tensor) -> None:
        self.file = file
        self.shape, self.dtype = like.shape[-2:], like.dtype
        self.pinned = like.device.type == "cuda"  # memory that a GPU reads while it computes
        self.threads = ThreadPoolExecutor(PARTS_AHEAD)
        self.upcoming: deque[Tensor] = deque()
        self.begun: deque[tuple[Tensor, Future[Tensor]]] = deque()
        self.given = 0  # parts that had been announced

    def announce(self, parts: Iterable[Tensor]) -> None:
        """Begin to read the first parts, each (B,), instead of what was announced before."""
        self.upcoming = deque(parts)
        self.begun.clear()
        self._begin()

    def _begin(self) -> None:
        """Read ahead as far as memory is meant for it."""
        while self.upcoming and len(self.begun) < PARTS_AHEAD:
            rows = self.upcoming.popleft()
            self.begun.append((rows, self.threads.submit(self._read, rows, self._empty(rows))))

    def read(self, rows: Tensor) -> Tensor:
        """The patterns of some rows, (B,), on the host, (B, H, W)."""
        if not (self.begun and torch.equal(self.begun[0][0], rows)):
            return self._read(rows, self._empty(rows))
        _, patterns = self.begun.popleft()
        self._begin()
        self.given += 1
        if self.given % TRIM_EVERY == 0:
            trim_malloc()
        return patterns.result()

    def _empty(self, rows: Tensor) -> Tensor:
        """Room for the patterns of some rows.

        It is asked for by the thread that computes and gives it back: what threads ask for, the C
        library keeps for each of them.
        """
        shape = (len(rows), *self.shape)
        return torch.empty(shape, dtype=self.dtype, pin_memory=self.pinned)

    def _read(self, rows: Tensor, found: Tensor) -> Tensor:
        """Read the patterns of some rows into a tensor, and return it."""
        size = math.prod(self.shape) * found.element_size()
        for row, pattern in zip(rows.tolist(), found.numpy(), strict=True):
            os.preadv(self.file.fileno(), [pattern], row * size)
        return found


def in_memory(blocks: Iterable[Tensor], count: int, like: Tensor) -> PatternsInMemory:
    """Patterns in memory.

    Args:
        blocks: Of them, one after another, (b, H, W).
        count: Their number.
        like: Tensor of their dtype, on the device where they are kept, (..., H, W).
    """
    values, filled = like.new_empty(count, *like.shape[-2:]), 0
    for block in blocks:
        values[filled : filled + len(block)] = block
        filled += len(block)
    return PatternsInMemory(values)


def in_file(blocks: Iterable[Tensor], like: Tensor) -> PatternsInFile:
    """Patterns in a scratch file; see `in_memory`.

    Raises:
        RunError: If there is no room for the file.
    """
    file = tempfile.TemporaryFile()  # noqa: SIM115  # it is open as long as it is read
    written = 0
    for block in blocks:
        try:
            file.write(block.contiguous().numpy(force=True).data)
            file.flush()
        except OSError as error:
            raise RunError(
                f"the patterns do not fit into {tempfile.gettempdir()} ({error.strerror} after "
                f"{written / 1e9:.3g} GB); name a larger folder by the variable TMPDIR"
            ) from error
        written += block.nbytes
    return PatternsInFile(ReaderAhead(file, like), like.device)


def fits_in_memory(size_bytes: int, device: torch.device) -> bool:
    """Whether patterns of a file are kept in the memory of a device."""
    if device.type == "cuda":
        return size_bytes <= DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]
    return size_bytes <= IN_MEMORY_BYTES

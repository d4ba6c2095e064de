"""Diffraction patterns that are read by index, from HDF5 or through a transform.

They have the shape ``(n, H, W)`` and give single patterns, slices, or arrays of indices in any
order. Patterns are computed when they are read, so a file of them takes no memory.
"""

import os
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from ptycho_torch.data.hdf5_access import (
    check_whole,
    is_read_while_written,
    open_read_only,
    unreadable,
)
from ptycho_torch.errors import InputError

CACHE_BYTES = 128 * 2**20  # of each file; some thousand patterns, more than a neighbourhood needs
BLOCK_BYTES = 64 * 2**20  # read at once where a whole scan is passed through


class PatternArray(Protocol):
    """Patterns that are read by index: a NumPy array, an HDF5 dataset, a view."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n, H, W)``."""

    @property
    def dtype(self) -> np.dtype:
        """Any real number type."""

    def __getitem__(self, key: Any, /) -> Any:
        """Patterns by an index, a slice, or a sequence of indices."""


class LazyPatterns(ABC):
    """Patterns that are made when they are read."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """``(n, H, W)``."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype:
        """Of what is read."""

    @abstractmethod
    def read(self, indices: NDArray[np.int64]) -> NDArray:
        """The patterns of some indices, from 0 to n - 1 and in any order, (k, H, W)."""

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: int | slice | Sequence[int] | NDArray) -> NDArray:
        if isinstance(key, int | np.integer):
            return self[np.array([key])][0]
        n = self.shape[0]
        indices = np.arange(n)[key] if isinstance(key, slice) else np.asarray(key)
        if indices.dtype == bool:
            indices = np.flatnonzero(indices)
        indices = indices.astype(np.int64)
        if len(indices) and (indices.min() < -n or indices.max() >= n):
            raise IndexError(f"pattern {indices.max()} of {n}")
        return self.read(indices % n)


class Hdf5Patterns(LazyPatterns):
    """A dataset of an HDF5 file, of rank 3, or of rank 4 for a raster, flattened to rank 3.

    The file is opened when it is first read, in each process anew. Chunks that were decompressed
    are kept, the least recently read ones making way. A file that is still written
    (`read_while_written`) is opened for each reading, so that its growth is seen.

    Args:
        dataset: In an open file, which may be closed afterwards.
        path: Of the file.
        cache_bytes: That are kept at most, and one chunk at least.
    """

    def __init__(
        self, dataset: h5py.Dataset, path: Path, *, cache_bytes: int = CACHE_BYTES
    ) -> None:
        self.path = path
        self.key: str = dataset.name
        self.cache_bytes = cache_bytes
        self._shape: tuple[int, ...] = dataset.shape
        self._dtype: np.dtype = dataset.dtype
        self._chunk: int = dataset.chunks[0] if dataset.chunks and dataset.ndim == 3 else 1
        self._growing = is_read_while_written()
        self._sources = source_files(dataset)
        self._opened: tuple[int, h5py.File] | None = None
        self._cache: OrderedDict[int, NDArray] = OrderedDict()

    @property
    def dtype(self) -> np.dtype:
        """As stored."""
        return self._dtype

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(n, H, W)``."""
        *scan, height, width = self._shape
        return int(np.prod(scan)), height, width

    def read(self, indices: NDArray[np.int64]) -> NDArray:
        """See `LazyPatterns.read`.

        Raises:
            InputError: If the file is damaged there, or became shorter.
        """
        try:
            if not self._growing:
                return self._read_from(self._dataset(), indices)
            with open_read_only(self.path, growing=True) as file:
                self._cache.clear()
                return self._read_from(file[self.key], indices)
        except (MemoryError, OSError) as error:
            raise unreadable(f"{self.path}: {self.key}", error) from error

    def _read_from(self, dataset: h5py.Dataset, indices: NDArray[np.int64]) -> NDArray:
        """The patterns of some indices in an open file."""
        read = self._read_runs if self._chunk == 1 else self._read_chunks
        patterns = read(dataset, indices)
        check_whole(dataset.file)
        self._check_sources()
        return patterns

    def _check_sources(self) -> None:
        """Raise `InputError` if a file of a virtual dataset was removed; HDF5 would read zeros."""
        for source in self._sources:
            if not source.is_file():
                raise InputError(f"{self.path}: {source}, of which {self.key} is made, was removed")

    def _read_runs(self, dataset: h5py.Dataset, indices: NDArray[np.int64]) -> NDArray:
        """Patterns that are stored one by one: each stretch of neighbours at once."""
        result = np.empty((len(indices), *self.shape[1:]), dtype=self.dtype)
        order = np.argsort(indices, kind="stable")
        ascending = indices[order]
        for start, run in _runs(ascending):
            patterns = self._slice(dataset, start, int(ascending[run][-1]) + 1)
            result[order[run]] = patterns[ascending[run] - start]
        return result

    def _read_chunks(self, dataset: h5py.Dataset, indices: NDArray[np.int64]) -> NDArray:
        """Patterns of which several are stored together: each chunk once."""
        result = np.empty((len(indices), *self.shape[1:]), dtype=self.dtype)
        for number in np.unique(indices // self._chunk):
            inside = np.flatnonzero(indices // self._chunk == number)
            result[inside] = self._block(dataset, int(number))[
                indices[inside] - number * self._chunk
            ]
        return result

    def _slice(self, dataset: h5py.Dataset, start: int, stop: int) -> NDArray:
        """Consecutive patterns."""
        if len(self._shape) == 3:
            return dataset[start:stop]
        columns = self._shape[1]
        rows = dataset[start // columns : -(-stop // columns)].reshape(-1, *self.shape[1:])
        first = start // columns * columns
        return rows[start - first : stop - first]

    def _block(self, dataset: h5py.Dataset, number: int) -> NDArray:
        """The patterns of one chunk, from the cache where it is there."""
        if number in self._cache:
            self._cache.move_to_end(number)
            return self._cache[number]
        patterns = self._slice(
            dataset, number * self._chunk, min((number + 1) * self._chunk, self.shape[0])
        )
        self._cache[number] = patterns
        while len(self._cache) > 1 and len(self._cache) * patterns.nbytes > self.cache_bytes:
            self._cache.popitem(last=False)
        return patterns

    def _dataset(self) -> h5py.Dataset:
        """The dataset, in a file that this process opened."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), open_read_only(self.path, growing=False)
            self._cache.clear()
        return self._opened[1][self.key]

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_opened": None, "_cache": OrderedDict()}


def source_files(dataset: h5py.Dataset) -> list[Path]:
    """The other files that a virtual dataset is made of, where they are beside it."""
    if not dataset.is_virtual:
        return []
    folder = Path(dataset.file.filename).parent
    files = {folder / part.file_name for part in dataset.virtual_sources() if part.file_name != "."}
    return sorted(file for file in files if file.is_file())


def _runs(ascending: NDArray[np.int64]) -> Iterator[tuple[int, slice]]:
    """The first index of each stretch of consecutive indices, and where it lies in the array."""
    breaks = np.flatnonzero(np.diff(ascending) > 1) + 1
    for start, stop in zip([0, *breaks], [*breaks, len(ascending)], strict=True):
        if stop > start:
            yield int(ascending[start]), slice(start, stop)


@dataclass(frozen=True)
class ConcatenatedPatterns(LazyPatterns):
    """Several sets of patterns of one size, one after another."""

    parts: tuple[PatternArray, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(n, H, W)``."""
        _, height, width = self.parts[0].shape
        return sum(part.shape[0] for part in self.parts), height, width

    @property
    def dtype(self) -> np.dtype:
        """That holds the values of all parts."""
        return np.result_type(*(part.dtype for part in self.parts))

    def read(self, indices: NDArray[np.int64]) -> NDArray:
        """See `LazyPatterns.read`."""
        result = np.empty((len(indices), *self.shape[1:]), dtype=self.dtype)
        start = 0
        for part in self.parts:
            inside = np.flatnonzero((indices >= start) & (indices < start + part.shape[0]))
            if len(inside):
                wanted, place = np.unique(indices[inside] - start, return_inverse=True)
                result[inside] = part[wanted][place]
            start += part.shape[0]
        return result


@dataclass(frozen=True)
class SelectedPatterns(LazyPatterns):
    """Some patterns of a set, in an order of their own."""

    source: PatternArray
    chosen: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(n, H, W)``."""
        return len(self.chosen), *self.source.shape[1:]  # type: ignore[return-value]

    @property
    def dtype(self) -> np.dtype:
        """Of the set."""
        return self.source.dtype

    def read(self, indices: NDArray[np.int64]) -> NDArray:
        """See `LazyPatterns.read`."""
        wanted, place = np.unique(self.chosen[indices], return_inverse=True)
        return self.source[wanted][place]


def select(patterns: PatternArray, chosen: NDArray[np.integer]) -> PatternArray:
    """Some patterns: a copy of those in memory, a view of those in a file."""
    if isinstance(patterns, np.ndarray):
        return patterns[chosen]
    return SelectedPatterns(patterns, np.asarray(chosen, dtype=np.int64))


def blocks(patterns: PatternArray) -> Iterator[tuple[slice, NDArray]]:
    """All patterns in turn, in blocks of `BLOCK_BYTES` in double precision, with their slices."""
    n, height, width = patterns.shape
    at_once = max(1, BLOCK_BYTES // (8 * height * width))
    for start in range(0, n, at_once):
        window = slice(start, min(start + at_once, n))
        yield window, patterns[window]

"""Patterns that are read by index: views agree with the array they stand for, and the cache is
bounded.
"""

import pickle

import h5py
import numpy as np
import pytest

from ptycho_torch.data import lazy_patterns
from ptycho_torch.data.lazy_patterns import (
    ConcatenatedPatterns,
    Hdf5Patterns,
    SelectedPatterns,
    blocks,
    select,
)


@pytest.fixture(params=[None, (1, 6, 7), (4, 6, 7), (5, 3, 7)], ids=str)
def stored(request, tmp_path):
    array = np.random.default_rng(0).integers(0, 1000, (23, 6, 7)).astype(np.uint16)
    path = tmp_path / "patterns.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=array, chunks=request.param)
        return array, Hdf5Patterns(file["data"], path)


KEYS = [
    0,
    -1,
    slice(None),
    slice(3, 9),
    slice(20, 2, -3),
    [4, 4, 1],
    np.array([22, 0, 7]),
    np.arange(23) % 2 == 0,
    [],
]


@pytest.mark.parametrize("key", KEYS, ids=lambda key: str(key).replace("\n", ""))
def test_a_view_reads_what_the_array_has(stored, key):
    array, view = stored
    same = np.asarray(key, dtype=int) if isinstance(key, list) else key
    assert np.array_equal(view[key], array[same])
    assert np.array_equal(SelectedPatterns(view, np.arange(23)[::-1])[key], array[::-1][same])


def test_joined_patterns_are_one_after_another(stored):
    array, view = stored
    both = ConcatenatedPatterns((view, array[:5]))
    assert both.shape == (28, 6, 7)
    assert np.array_equal(both[[27, 2, 23]], np.concatenate([array, array[:5]])[[27, 2, 23]])


def test_an_index_beyond_the_end_is_an_error(stored):
    _, view = stored
    with pytest.raises(IndexError):
        view[[23]]
    with pytest.raises(IndexError):
        view[-24]


def test_a_view_travels_to_another_process(stored):
    array, view = stored
    view[3]
    assert np.array_equal(pickle.loads(pickle.dumps(view))[3], array[3])


def test_blocks_cover_all_patterns(stored):
    array, view = stored
    together = np.zeros_like(array)
    for window, block in blocks(view):
        together[window] = block
    assert np.array_equal(together, array)


def test_selecting_copies_arrays_and_not_files(stored):
    array, view = stored
    assert isinstance(select(array, np.array([1, 2])), np.ndarray)
    assert not isinstance(select(view, np.array([1, 2])), np.ndarray)


def test_the_cache_is_bounded(tmp_path):
    path = tmp_path / "patterns.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "data", data=np.ones((64, 8, 8), dtype=np.float64), chunks=(8, 8, 8), compression="gzip"
        )
        view = Hdf5Patterns(file["data"], path, cache_bytes=3 * 8 * 8 * 8 * 8)
    view[:]
    assert len(view._cache) == 3


def test_a_raster_of_rank_four_is_flat(tmp_path):
    array = np.arange(3 * 4 * 2 * 2).reshape(3, 4, 2, 2)
    path = tmp_path / "raster.h5"
    with h5py.File(path, "w") as file:
        file["data"] = array
        view = Hdf5Patterns(file["data"], path)
    assert view.shape == (12, 2, 2)
    assert np.array_equal(view[[11, 0, 6]], array.reshape(12, 2, 2)[[11, 0, 6]])
    assert np.array_equal(view[2:11], array.reshape(12, 2, 2)[2:11])


@pytest.mark.parametrize("at_once", [1, 5, 23, 100])
def test_blocks_are_all_patterns_in_turn_with_their_slices(at_once, monkeypatch):
    array = np.random.default_rng(0).integers(0, 1000, (23, 6, 7))
    monkeypatch.setattr(lazy_patterns, "BLOCK_BYTES", 8 * 6 * 7 * at_once)
    parts = list(blocks(array))
    starts = list(range(0, 23, at_once))
    expected = [slice(start, min(start + at_once, 23)) for start in starts]
    assert [window for window, _ in parts] == expected
    assert np.array_equal(np.concatenate([block for _, block in parts]), array)

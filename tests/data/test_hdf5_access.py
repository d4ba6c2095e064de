"""Errors of HDF5 in plain words, and files that are read while they are written."""

import contextlib

import pytest

from ptycho_torch.data.hdf5_access import (
    REASONS,
    hdf5_reason,
    is_read_while_written,
    read_while_written,
    unreadable,
)


@pytest.mark.parametrize("words", REASONS)
def test_the_words_of_hdf5_are_said_plainly(words):
    error = OSError(f"Unable to synchronously open file ({words}, errno = 2)")
    assert hdf5_reason(error) == REASONS[words]
    assert str(unreadable("a.h5: /data", error)) == (
        f"a.h5: /data cannot be read ({REASONS[words]}); is it complete?"
    )


def test_other_words_mean_damage_and_too_little_memory_is_none():
    assert hdf5_reason(OSError("wrong B-tree signature")) == "it is damaged"
    assert "memory" in str(unreadable("a.h5: /data", MemoryError()))
    assert str(unreadable("a.h5: /data", MemoryError())).startswith("a.h5: /data")


def test_files_are_read_while_they_are_written_within_the_block_alone():
    assert not is_read_while_written()
    with contextlib.suppress(ZeroDivisionError), read_while_written():
        assert is_read_while_written()
        _ = 1 / 0
    assert not is_read_while_written()

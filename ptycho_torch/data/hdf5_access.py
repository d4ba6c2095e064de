"""How HDF5 files are opened: a finished one under a shared lock, a growing one without any.

A lock would stop a writer that closes and opens its file again, so a scan that is still measured is
read without one. What is read then may be half there; who reads it has to expect that.
"""

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

import h5py

from ptycho_torch.errors import InputError, is_lack_of_memory, too_little_memory

REASONS = {  # words in the errors of HDF5 -> what they mean to a user
    "truncated file": "it is truncated",
    "file signature not found": "it is no HDF5 file, or its start is damaged",
    "external raw data file": "the raw file that holds its numbers is not there",
    "filter": "its compressed numbers are damaged, or of a compression that is not known",
    "checksum": "a checksum is wrong",
    "too many links": "its links lead in a circle",
    "too many soft links": "its links lead in a circle",
    "Is a directory": "it is a folder",
    "Permission denied": "it may not be read",
    "No such file": "it is not there",
    "doesn't exist": "a part is missing",
}
IN_USE = ("unable to lock file", "already open for write")  # in the errors of HDF5

_growing = ContextVar("growing", default=False)


def hdf5_reason(error: Exception) -> str:
    """Why HDF5 does not read a file, in words that do not need its source code."""
    said = str(error)
    return next((plain for words, plain in REASONS.items() if words in said), "it is damaged")


def unreadable(where: str, error: Exception) -> InputError:
    """The error for what HDF5 cannot read: where it is, and why."""
    if is_lack_of_memory(error):
        return too_little_memory(where)
    return InputError(f"{where} cannot be read ({hdf5_reason(error)}); is it complete?")


@contextlib.contextmanager
def read_while_written() -> Iterator[None]:
    """Files that are opened in the block may still be written by another process."""
    token = _growing.set(True)
    try:
        yield
    finally:
        _growing.reset(token)


def is_read_while_written() -> bool:
    """Whether the caller runs in a block of `read_while_written`."""
    return _growing.get()


def _open_finished(path: Path) -> h5py.File:
    """An open file; one that is being written in SWMR mode too, as it is now."""
    try:
        return h5py.File(path, "r")
    except OSError as error:
        if not any(words in str(error) for words in IN_USE):
            raise
    try:
        return h5py.File(path, "r", swmr=True)
    except OSError as error:
        raise InputError(
            f"{path}: another program is writing this file; wait until it has closed it, or let "
            "it write in SWMR mode"
        ) from error


def check_whole(file: h5py.File) -> None:
    """Raise `InputError` if a file became shorter while it is open; HDF5 would read zeros there.

    Not for a file that is written meanwhile, whose announced size runs ahead of it.
    """
    if file.swmr_mode or is_read_while_written():
        return
    lost = file.id.get_filesize() - os.fstat(file.id.get_vfd_handle()).st_size
    if lost > 0:
        raise InputError(
            f"{file.filename}: another program cut off its last {lost} bytes while it was read"
        )


def open_read_only(path: Path, *, growing: bool) -> h5py.File:
    """An open file that is never written.

    Args:
        path: Of the file.
        growing: Whether another process may write it: no lock is taken, and single-writer
            multiple-reader access (SWMR) is used where the writer uses it.

    Raises:
        InputError: If another process is writing it in a mode that lets nobody read it.
        OSError: If it cannot be opened.
    """
    if not growing:
        return _open_finished(path)
    try:
        return h5py.File(path, "r", locking=False)
    except OSError:
        return h5py.File(path, "r", locking=False, swmr=True)

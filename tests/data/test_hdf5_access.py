"""Errors of HDF5 in plain words, and files that are read while another process writes them."""

import contextlib
import fcntl
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from ptycho_torch.data.hdf5_access import (
    REASONS,
    check_whole,
    hdf5_reason,
    is_read_while_written,
    open_read_only,
    read_while_written,
    unreadable,
)
from ptycho_torch.errors import InputError

# Another program, which carries out the lines that it is sent and answers each.
WRITER = """
import sys, h5py
path = sys.argv[1]
for line in sys.stdin:
    try:
        exec(line)
        answer = "done"
    except OSError as error:
        answer = f"{error}"
    print(" ".join(answer.split()), flush=True)
"""
CREATE = "file = h5py.File(path, 'w', libver={libver!r}); " + (
    "file.create_dataset('data', (0,), 'i4', maxshape=(None,), chunks=(1,))"
)
START_SWMR = "file.swmr_mode = True"
APPEND = "; ".join(
    ["data = file['data']", "n = len(data)", "data.resize(n + 1, 0)", "data[n] = n", "data.flush()"]
)
FLUSH = "file.flush()"
CLOSE = "file.close()"
OPEN_AGAIN = "file = h5py.File(path, 'r+')"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "scan.h5"


@pytest.fixture
def write(path):
    """A function that has another process carry out some lines; returns its last answer."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def send(*lines):
        for line in lines:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            answer = process.stdout.readline().strip()
        return answer

    yield send
    process.communicate()


@pytest.fixture(params=["swmr", "plain"])
def growing(request, write):
    """A file that another process holds open and has begun to fill, and how it does that."""
    swmr = request.param == "swmr"
    lines = (CREATE.format(libver="latest" if swmr else "earliest"), APPEND, FLUSH)
    assert write(*lines, *([START_SWMR] if swmr else [])) == "done"
    return request.param


def write_finished(path):
    with h5py.File(path, "w", libver="latest") as file:
        file["data"] = np.arange(3)


def is_free(path):
    """Whether a program could lock the file for itself alone."""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def cut_off(path, count):
    os.truncate(path, path.stat().st_size - count)


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


def test_a_growing_file_is_read_at_each_length_while_another_process_writes_it(
    path, write, growing
):
    for length in (1, 2, 3):
        with open_read_only(path, growing=True) as file:
            assert file["data"][:].tolist() == list(range(length))
            assert file.swmr_mode == (growing == "swmr")
        assert write(APPEND, FLUSH) == "done"


def test_a_file_in_swmr_mode_grows_while_it_is_open(path, write):
    write(CREATE.format(libver="latest"), START_SWMR, APPEND)
    with open_read_only(path, growing=True) as file:
        data = file["data"]
        write(APPEND, APPEND)
        data.refresh()
        assert data[:].tolist() == [0, 1, 2]


def test_who_reads_a_growing_file_does_not_keep_its_writer_from_opening_it_again(
    path, write, growing
):
    with open_read_only(path, growing=True):
        assert is_free(path) == (growing == "swmr")  # a plain writer has the lock itself
        assert write(CLOSE, OPEN_AGAIN, APPEND, CLOSE) == "done"
    with open_read_only(path, growing=True) as file:
        assert file["data"][:].tolist() == [0, 1]


def test_a_growing_file_is_read_also_while_its_writer_has_a_lock(path, growing):
    """In SWMR mode a writer has it only while it opens the file."""
    with path.open() as locked:
        if growing == "swmr":
            fcntl.flock(locked, fcntl.LOCK_EX)
        assert not is_free(path)
        with open_read_only(path, growing=True) as file:
            assert file["data"][:].tolist() == [0]


def test_a_finished_file_is_read_by_many_and_written_by_none_meanwhile(path, write):
    write_finished(path)
    command = f"import h5py; print(h5py.File({str(path)!r}, 'r')['data'][:])"
    with open_read_only(path, growing=False) as file:
        assert file["data"][:].tolist() == [0, 1, 2]
        assert not file.swmr_mode
        assert not is_free(path)
        other = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
        assert other.stdout.split() == ["[0", "1", "2]"]
        assert "unable to lock file" in write(OPEN_AGAIN)
    assert write(OPEN_AGAIN, CLOSE) == "done"


def test_a_file_written_in_swmr_mode_is_read_as_it_is_now_without_being_called_growing(path, write):
    write(CREATE.format(libver="latest"), START_SWMR, APPEND, APPEND)
    with open_read_only(path, growing=False) as file:
        assert file["data"][:].tolist() == [0, 1]
        assert (file.mode, file.swmr_mode) == ("r", True)


def test_a_file_written_for_one_alone_is_said_to_be_in_use(path, write):
    write(CREATE.format(libver="latest"))
    with pytest.raises(InputError) as caught:
        open_read_only(path, growing=False)
    assert str(caught.value) == (
        f"{path}: another program is writing this file; wait until it has closed it, or let it "
        "write in SWMR mode"
    )
    write(CLOSE)
    with open_read_only(path, growing=False) as file:
        assert len(file["data"]) == 0


@pytest.mark.parametrize("growing", [True, False])
def test_a_damaged_or_missing_file_is_not_called_one_in_use(path, growing):
    with pytest.raises(FileNotFoundError, match=r"scan\.h5"):
        open_read_only(path, growing=growing)
    path.write_bytes(b"no HDF5" * 99)
    with pytest.raises(OSError, match="file signature not found"):
        open_read_only(path, growing=growing)


@pytest.mark.parametrize("growing", [True, False])
def test_a_file_is_never_written(path, growing):
    write_finished(path)
    before = path.read_bytes()
    with open_read_only(path, growing=growing) as file:
        assert file.mode == "r"
        with pytest.raises((OSError, ValueError, TypeError)):
            file["data"][0] = 7
        with pytest.raises((OSError, ValueError, TypeError)):
            file["other"] = 7
    assert path.read_bytes() == before


@pytest.mark.parametrize("lost", [1, 5])
def test_a_file_that_loses_its_last_bytes_while_it_is_open_is_named(path, lost):
    write_finished(path)
    with open_read_only(path, growing=False) as file:
        check_whole(file)
        cut_off(path, lost)
        with pytest.raises(InputError) as caught:
            check_whole(file)
    assert str(caught.value) == (
        f"{path}: another program cut off its last {lost} bytes while it was read"
    )


def test_a_file_that_is_written_meanwhile_may_be_shorter_than_it_says(path):
    write_finished(path)
    with h5py.File(path, "r") as file:
        cut_off(path, 1)
        with read_while_written():
            check_whole(file)
        with pytest.raises(InputError):
            check_whole(file)
    write_finished(path)
    with h5py.File(path, "r", swmr=True) as file:
        cut_off(path, 1)
        check_whole(file)

"""A file that another program holds open for writing: it is read as it is, or that is said."""

import multiprocessing

import h5py
import numpy as np
import pytest

from ptycho_torch.config import ReadingOptions
from ptycho_torch.errors import InputError
from ptycho_torch.io.readers import read_scan

MAP = "patterns: /data\npositions_px: /positions\n"
COUNTS = np.random.default_rng(0).poisson(5, (36, 32, 32)).astype(np.uint16)
context = multiprocessing.get_context("forkserver")


def write_and_wait(path, swmr, written, done) -> None:
    """Runs in the other process: as a beamline does, with the file open until the end."""
    with h5py.File(path, "w", libver="latest") as file:
        file["positions"] = np.stack(np.divmod(np.arange(36), 6), axis=1) * 3.0
        data = file.create_dataset("data", COUNTS.shape, "u2", chunks=(1, 32, 32))
        if swmr:
            file.swmr_mode = True
        data[:] = COUNTS
        data.flush()
        written.set()
        done.wait(60)


@pytest.fixture
def open_elsewhere(tmp_path):
    """A function that has another process hold a file open, and returns its path."""
    written, done = context.Event(), context.Event()
    started = []

    def start(*, swmr):
        path = tmp_path / "live.h5"
        started.append(context.Process(target=write_and_wait, args=(path, swmr, written, done)))
        started[0].start()
        assert written.wait(60)
        return path

    yield start
    done.set()
    for process in started:
        process.join()


def options(tmp_path):
    (tmp_path / "map.yaml").write_text(MAP)
    return ReadingOptions(map=tmp_path / "map.yaml")


def test_a_file_that_is_written_with_many_readers_is_read(open_elsewhere, tmp_path):
    scan = read_scan(open_elsewhere(swmr=True), options=options(tmp_path))
    assert np.array_equal(scan.counts[:], COUNTS)


def test_a_file_that_is_written_for_one_alone_is_said_to_be_in_use(open_elsewhere, tmp_path):
    path = open_elsewhere(swmr=False)
    with pytest.raises(InputError, match=f"{path}: another program is writing this file; wait"):
        read_scan(path, options=options(tmp_path))

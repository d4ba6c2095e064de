"""Processes that share a refinement find what one process finds, each with a part of the patterns.

Double precision, in which the order of sums is all that differs: 1e-14 after three epochs.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from shared_refinement import refined

from ptycho_torch.distributed.communicator import SingleProcess
from ptycho_torch.io.run_dir import RunDir

PROGRAM = Path(__file__).with_name("shared_refinement.py")
EPOCHS = 3
ROUND_OFF = 1e-11
START_S = 150.0  # more than two processes need to start on a busy machine
END_S = 30.0  # more than a process needs to notice that another is gone

pytestmark = pytest.mark.timeout(300)


class Threads(SingleProcess):
    """Threads of one process in the place of processes; sums are in the order of the ranks."""

    def __init__(self, rank, together):
        super().__init__(torch.device("cpu"))
        self.rank, self.world_size = rank, together.parties
        self.together, self.given = together, together.given

    def sum(self, *parts):
        for part in parts:
            self.given[self.rank] = part.clone()
            self.together.wait()
            total = sum(self.given[1:], start=self.given[0].clone())
            self.together.wait()
            part.copy_(total)


def by_threads(count):
    """The result of each of some threads that share a refinement."""
    together, results = threading.Barrier(count), [None] * count
    together.given = [None] * count

    def work(rank):
        try:
            results[rank] = refined(Threads(rank, together), EPOCHS)
        finally:
            together.abort() if results[rank] is None else None

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.fixture(scope="module")
def alone():
    return refined(SingleProcess(torch.device("cpu")), EPOCHS)


def assert_shared(alone, parts):
    """All processes have the same bits, those of one process but for round-off."""
    kept = [int(part["kept"]) for part in parts]
    assert sum(kept) == alone["kept"] == 81
    assert max(kept) - min(kept) <= 1
    for name in set(alone) - {"kept"}:
        assert all(np.array_equal(part[name], parts[0][name]) for part in parts), name
        error = np.abs(parts[0][name] - alone[name]).max()
        assert error < ROUND_OFF * np.abs(alone[name]).max(), name


def test_two_processes_find_what_one_finds(alone, tmp_path):
    command = [sys.executable, PROGRAM, tmp_path, "2", str(EPOCHS)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=START_S)
    assert said.returncode == 0, said.stderr
    assert_shared(alone, [np.load(tmp_path / f"{rank}.npz") for rank in (0, 1)])


def test_more_processes_than_a_batch_has_patterns_find_it_too(alone):
    """Batches of eight to nine patterns, of which most processes own none."""
    assert_shared(alone, by_threads(13))


def wait_until(condition, limit_s):
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s} s"
        time.sleep(0.05)


def children(pid):
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks into /proc")
def test_a_process_that_ends_during_the_refinement_ends_the_other(trained, scan_file, tmp_path):
    """The sentence of the one that stays, and no image."""
    out = RunDir(tmp_path / "image")
    words = ["--model_path", trained.path, "--test_data", scan_file, "--output_dir", out.path]
    words += ["--refine", "100000", "--devices", "2", "--accelerator", "cpu", "--quiet"]
    with open(tmp_path / "said", "w") as said:
        run = subprocess.Popen(
            [sys.executable, "-m", "ptycho_torch.inference", *words], stdout=said, stderr=said
        )
    try:
        wait_until(
            lambda: (
                (out.inference_log.is_file() and "epoch 2:" in out.inference_log.read_text())
                or run.poll() is not None
            ),
            START_S,
        )
        (other,) = children(run.pid)
        os.kill(other, signal.SIGKILL)
        status = run.wait(timeout=END_S)
    finally:
        run.kill()
    text = (tmp_path / "said").read_text()
    assert status == 1, text
    assert "of this run was ended by SIGKILL, and the others cannot go on without it" in text
    assert "Traceback" not in text
    assert not out.reconstruction.exists()
    assert not out.metrics.exists()

"""Training and refinement compute in the memory that they have, instead of asking for it anew."""

import ctypes
import platform
import resource
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from child import context

from ptycho_torch.config import TrainingConfig
from ptycho_torch.data.simulation import Simulation, simulate_scan
from ptycho_torch.distributed.device import keep_freed_memory, trim_malloc
from ptycho_torch.io.writers import write_scan
from ptycho_torch.refinement.prepared_patterns import prepare
from ptycho_torch.train.fit import fit

ARRAYS, SIZE_MB = 30, 250  # of 2^21 numbers each, and of all


def refined(made: Simulation, folder: Path) -> None:
    prepare(made.scan, torch.from_numpy(made.truth.origin_yx), made.truth.object.shape)


def trained(made: Simulation, folder: Path) -> None:
    file = folder / "scan.npz"
    write_scan(file, made.scan)
    fit(TrainingConfig(train_data_file=[file], output_dir=folder / "run", max_epochs=1, quiet=True))


def asked_mb() -> float:
    """What the system gives this process while it fills and frees some arrays."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [torch.ones(2**21) for _ in range(ARRAYS)]
    held.clear()
    pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return pages * resource.getpagesize() / 1e6


def send_asked_mb(
    connection: Connection, work: Callable[[Simulation, Path], None], folder: Path
) -> None:
    """Send what the arrays ask for after some work: twice, and after a trim."""
    work(simulate_scan(photons=1e5, n_side=4, pattern_size=16, seed=1), folder)
    asked_mb()
    again = asked_mb()
    trim_malloc()
    connection.send((again, asked_mb()))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs the C library of GNU")
@pytest.mark.parametrize("work", [refined, trained])
def test_freed_memory_is_kept_until_it_is_trimmed(work, tmp_path):
    """Left to itself the library returns all of the arrays and asks for them again. That took a
    fifth of an epoch of the refinement, and a seventh of a training step.
    """
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=send_asked_mb, args=(sender, work, tmp_path))
    process.start()
    sender.close()
    assert receiver.poll(60)
    again, trimmed = receiver.recv()
    process.join()
    assert again < 0.1 * SIZE_MB
    assert trimmed > 0.8 * SIZE_MB


@pytest.mark.parametrize("reason", [OSError, TypeError, AttributeError])
def test_without_these_functions_of_the_c_library_nothing_happens(reason, monkeypatch):
    """Windows gives no C library by this call, and those of others lack the functions."""

    def missing(name):
        raise reason

    monkeypatch.setattr(ctypes, "CDLL", missing)
    keep_freed_memory()
    trim_malloc()

"""The residuals of a large scan leave no gaps in the memory."""

import sys
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from child import context

from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.evaluation.metrics.residuals import pattern_residuals

TIMES = 200  # 12,800 patterns of 32 x 32, in 200 chunks


def own_memory_mb() -> float:
    """Memory of this process that belongs to no file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("RssAnon"))


def send_growth_mb(connection: Connection) -> None:
    """Send by how much the memory grew from a small scan to one of many chunks."""
    made = simulate_scan(photons=1e5, n_side=8, pattern_size=32, seed=1)
    scan = replace(
        made.scan,
        counts=np.tile(made.scan.counts[:], (TIMES, 1, 1)),
        positions_px=np.tile(made.scan.positions_px, (TIMES, 1)),
        scan_index=np.arange(64 * TIMES),
    )
    pattern_residuals(made.truth, made.scan)
    before = own_memory_mb()
    pattern_residuals(made.truth, scan)
    connection.send(own_memory_mb() - before)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc/self/status")
def test_memory_does_not_grow_with_the_number_of_chunks():
    """A small tensor that was kept of each chunk cost 53 MB: half a megabyte of gaps a chunk. Now
    it is 3 MB, and the numbers of all patterns are 0.4 MB.
    """
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=send_growth_mb, args=(sender,))
    process.start()
    sender.close()
    assert receiver.poll(60)
    assert receiver.recv() < 20
    process.join()

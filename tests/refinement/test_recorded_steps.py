"""Recorded steps: each batch is taken once, in order, whichever of them are replayed.

That a replay has the bits of a step is a test of `test_device.py`, which needs a GPU.
"""

import pytest
import torch

from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.refinement import recorded_steps
from ptycho_torch.refinement.prepared_patterns import prepare
from ptycho_torch.refinement.recorded_steps import FEW, can_be_recorded
from ptycho_torch.refinement.step import Batch


class Replayed:
    """A step that was recorded, on a device without graphs."""

    def __init__(self, step, batch, keeper):
        assert keeper == "memory"
        self.step, self.size = step, len(batch.own)
        recordings.append(self.size)

    def replay(self, batch):
        assert len(batch.own) == self.size, "a graph has the shapes with which it was recorded"
        self.step(batch)


recordings: list[int] = []


@pytest.mark.parametrize(
    ("sizes", "recorded"),
    [
        ([3] * 6 + [2] * (FEW - 1), [3]),
        ([3, 2] * (FEW + 1), [3, 2]),
        ([4], []),
        ([4] * FEW, []),  # the first of them prepares, and the others are too few
        ([], []),
    ],
)
def test_every_batch_is_taken_once_and_in_order(sizes, recorded, monkeypatch):
    recordings.clear()
    monkeypatch.setattr(recorded_steps, "_RecordedStep", Replayed)
    taken = []
    numbers = iter(range(100))
    batches = [Batch(torch.tensor([next(numbers) for _ in range(n)]), n) for n in sizes]
    recorded_steps._replay(lambda batch: taken.append(batch.own.tolist()), batches, "memory")
    assert taken == [batch.own.tolist() for batch in batches]
    assert recordings == recorded


def test_steps_on_the_cpu_are_not_recorded(monkeypatch):
    """Also by a torch that knows of GPUs."""
    made = simulate_scan(photons=1e4, n_side=3, step_px=3.0, pattern_size=16, seed=4)
    patterns = prepare(made.scan, torch.zeros(2).double(), made.truth.object.shape)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert not can_be_recorded(patterns)

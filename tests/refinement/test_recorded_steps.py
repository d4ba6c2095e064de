"""Recorded steps: each batch is taken once, in order, whichever of them are replayed.

That a replay has the bits of a step is a test of `test_device.py`, which needs a GPU.
"""

import pytest
import torch

from ptycho_torch.refinement import recorded_steps
from ptycho_torch.refinement.recorded_steps import FEW
from ptycho_torch.refinement.step import Batch


class Replayed:
    """A step that was recorded, on a device without graphs."""

    def __init__(self, step, batch, _keeper):
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
    recorded_steps._replay(lambda batch: taken.append(batch.own.tolist()), batches, None)
    assert taken == [batch.own.tolist() for batch in batches]
    assert recordings == recorded

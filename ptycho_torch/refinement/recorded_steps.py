"""Steps on an NVIDIA GPU that are recorded once and replayed: CUDA graphs.

A step consists of more than a hundred small operations. To launch them one by one from Python takes
several times longer than to compute them. A CUDA graph holds the launches of a step with the
addresses of its tensors, and one call launches all of them again [1]_. The steps of an epoch differ
in their patterns alone, if their batches are of one size; so a step of each size is recorded once
an epoch, and its result is that of the step itself, bit by bit.

References:
----------
.. [1] "CUDA semantics: CUDA graphs", documentation of PyTorch,
   https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache

import torch

from ptycho_torch.refinement.pattern_store import PatternsInMemory
from ptycho_torch.refinement.prepared_patterns import PreparedPatterns
from ptycho_torch.refinement.step import Batch

FEW = 4  # batches of one size below which recording takes longer than it saves

Step = Callable[[Batch], None]


def can_be_recorded(patterns: PreparedPatterns) -> bool:
    """Whether steps on some patterns wait neither for the host nor for another process."""
    on_gpu = patterns.like.device.type == "cuda" and torch.version.cuda is not None
    in_memory = isinstance(patterns.measured, PatternsInMemory)
    return on_gpu and in_memory and patterns.comm.world_size == 1


def replay_steps(step: Step, batches: Sequence[Batch], device: torch.device) -> None:
    """Take a step on each batch in turn.

    Args:
        step: Changes tensors in place, keeps none of its own, and depends on the batch by its
            patterns and their number alone.
        batches: In their order.
        device: A GPU that holds everything.
    """
    stream, keeper = _stream_and_keeper(device)
    here = torch.cuda.current_stream(device)
    stream.wait_stream(here)
    with torch.cuda.stream(stream):
        _replay(step, batches, keeper)
    here.wait_stream(stream)


def _replay(step: Step, batches: Sequence[Batch], keeper: torch.cuda.CUDAGraph) -> None:
    """Take the steps on the current stream."""
    left = Counter(len(batch.own) for batch in batches)
    prepared: set[int] = set()  # sizes for which the libraries have their plans and work space
    recorded: dict[int, _RecordedStep] = {}
    for batch in batches:
        size = len(batch.own)
        if size in prepared and size not in recorded and left[size] >= FEW:
            recorded[size] = _RecordedStep(step, batch, keeper)
        left[size] -= 1
        if size in recorded:
            recorded[size].replay(batch)
        else:
            step(batch)
            prepared.add(size)


@cache
def _stream_and_keeper(device: torch.device) -> tuple[torch.cuda.Stream, torch.cuda.CUDAGraph]:
    """The stream on which a device records, and a graph that keeps the memory of recorded steps.

    Work space of the libraries belongs to a stream, and memory to the graphs that share it: another
    stream in each epoch would take more and more of one, and without a graph that stays the other
    would be given up and asked for again.
    """
    stream, keeper = torch.cuda.Stream(device), torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        keeper.capture_begin(capture_error_mode="thread_local")
        torch.zeros(1, device=device)
        keeper.capture_end()
    return stream, keeper


class _RecordedStep:
    """The launches of a step on batches of one size.

    Args:
        step: To record.
        batch: Any of them; no step is taken on it.
        keeper: Holds the memory for what the step computes.
    """

    def __init__(self, step: Step, batch: Batch, keeper: torch.cuda.CUDAGraph) -> None:
        self.own = batch.own.clone()
        self.graph = torch.cuda.CUDAGraph()
        self.graph.capture_begin(keeper.pool(), capture_error_mode="thread_local")
        try:
            step(Batch(self.own, batch.size))
        finally:
            self.graph.capture_end()

    def replay(self, batch: Batch) -> None:
        """Take the step on a batch of the same size."""
        self.own.copy_(batch.own)
        self.graph.replay()

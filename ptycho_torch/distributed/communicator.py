"""One process, or several that share the work; rank zero keeps the run folder and logs."""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

import torch
from torch import Tensor

Part = TypeVar("Part")
Result = TypeVar("Result")


class SingleProcess:
    """A process that does all the work.

    Attributes:
        device: Where it computes.
        rank: Its number, from 0.
        world_size: Number of processes.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rank = 0
        self.world_size = 1

    @property
    def is_global_zero(self) -> bool:
        """Whether this is the process that writes and logs."""
        return self.rank == 0

    def launch(self) -> AbstractContextManager[None]:
        """Start and connect the processes; a block in which the methods below work."""
        return contextlib.nullcontext()

    def gather(self, part: Part) -> list[Part]:
        """The parts of all processes in order on rank zero; nothing on the others."""
        return [part]

    def sum(self, *parts: Tensor) -> None:
        """Replace tensors, in place, by their sums over the processes, the same bits on each.

        All processes must call it, with tensors of the same shapes.
        """

    def run_on_rank_zero(self, work: Callable[[], Result]) -> Result:
        """The result of a function that rank zero alone calls, on all processes."""
        return work()

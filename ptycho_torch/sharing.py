"""Who does the work: one process, or several that share it; the first keeps the run folder and does the talking."""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")


class OneProcess:
    """A process that does everything by itself.

    Attributes:
        device: Where it computes.
        rank: Its number, from 0.
        count: How many there are.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rank = 0
        self.count = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def connected(self) -> AbstractContextManager[None]:
        """Start what is not there yet, and find each other; a block in which the methods below work."""
        return contextlib.nullcontext()

    def gather(self, part: Part) -> list[Part]:
        """The parts of all processes in order, for the first; nothing for the others."""
        return [part]

    def by_first(self, work: Callable[[], Result]) -> Result:
        """What the first process makes of some work, for all."""
        return work()

"""Several processes that share a run, on one machine or more.

Lightning, torchrun or SLURM starts them, and Lightning connects them.
"""

import contextlib
import logging
import signal
import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.strategies.ddp import DDPStrategy
from lightning.fabric.strategies.strategy import Strategy as FabricStrategy
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.strategies import Strategy

from ptycho_torch.errors import InputError, RunError
from ptycho_torch.sharing import OneProcess, Part, Result

GLOO = "gloo"  # in what it says when a connection breaks, which is a plain RuntimeError
PATIENCE = timedelta(days=7)  # of processes that wait while the first refines; one that is lost is noticed by its connection
PARTING_S = 1.0  # in which a process is gone whose connection broke

package_logger = logging.getLogger("ptycho_torch")


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """What Lightning says about devices and strategies that are not there, as an `InputError`."""
    try:
        yield
    except (MisconfigurationException, ValueError) as error:
        raise InputError(f"--devices, --num_nodes or --strategy: {' '.join(str(error).split())}") from error


def check_number(devices: int, num_nodes: int) -> None:
    """Raise `InputError` if torchrun started another number of processes than was asked for."""
    if not TorchElasticEnvironment.detect():
        return
    found, asked = TorchElasticEnvironment().world_size(), devices * num_nodes
    if found != asked:
        raise InputError(
            f"torchrun started {found} processes, but --devices {devices} and --num_nodes {num_nodes} make {asked}; "
            "give the numbers of torchrun"
        )


def let_the_first_speak() -> None:
    """Silence the package in the other processes, up to errors."""
    if getattr(rank_zero_only, "rank", 0) != 0:
        package_logger.setLevel(logging.ERROR)


@contextlib.contextmanager
def end_together(strategy: Strategy | FabricStrategy) -> Iterator[None]:
    """A process that others have left ends with a `RunError` that says so; waiting for them would take for ever."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.distributed.DistError) and GLOO not in str(error):
            raise
        raise RunError(
            f"{_who_left(strategy)}, and the others cannot go on without it; what was finished before is kept"
        ) from error


def _who_left(strategy: Strategy | FabricStrategy) -> str:
    """The process that ended, as far as this one can know: the first has started those on its machine."""
    for process in getattr(strategy.launcher, "procs", ()):
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = process.wait(timeout=PARTING_S)
            how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
            return f"process {process.pid} of this run {how}"
    return "another process of this run ended"


class SeveralProcesses(OneProcess):
    """Processes that share an inference.

    Args:
        accelerator: As `--accelerator`.
        devices: Processes on each machine.
        num_nodes: Machines.

    Raises:
        InputError: If this machine has no such devices, or torchrun started another number of processes.
    """

    def __init__(self, accelerator: str, devices: int, num_nodes: int) -> None:
        check_number(devices, num_nodes)
        with refusals():
            strategy = DDPStrategy(timeout=PATIENCE)
            self._fabric = Fabric(accelerator=accelerator, devices=devices, num_nodes=num_nodes, strategy=strategy)
        super().__init__(self._fabric.device)
        self.rank = self._fabric.global_rank
        self.count = self._fabric.world_size
        let_the_first_speak()

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """See `OneProcess.connected`."""
        with end_together(self._fabric.strategy):
            self._fabric.launch()
            yield

    def gather(self, part: Part) -> list[Part]:
        """See `OneProcess.gather`."""
        parts: list = [None] * self.count if self.first else []
        torch.distributed.gather_object(part, parts or None)
        return parts

    def by_first(self, work: Callable[[], Result]) -> Result:
        """See `OneProcess.by_first`."""
        return self._fabric.broadcast(work() if self.first else None)  # type: ignore[return-value]

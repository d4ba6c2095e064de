"""Several processes on one or more machines, which Lightning, torchrun or SLURM starts."""

import contextlib
import logging
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.strategies.ddp import DDPStrategy
from lightning.fabric.strategies.strategy import Strategy as FabricStrategy
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.strategies import Strategy
from torch import Tensor

from ptycho_torch.distributed.communicator import Part, Result, SingleProcess
from ptycho_torch.errors import InputError, RunError

GLOO = "gloo"  # is in the message of a broken connection, which is a plain RuntimeError
# The other processes wait while rank zero writes; a lost process breaks its connection at once.
TIMEOUT = timedelta(days=7)
MAX_REASON = 300  # characters of a reason of Lightning, which may hold a traceback
EXIT_S = 1.0  # seconds until a process has ended whose connection broke

package_logger = logging.getLogger("ptycho_torch")


@contextlib.contextmanager
def as_input_error() -> Iterator[None]:
    """Turn Lightning's errors about the machine and its use into an `InputError`."""
    try:
        yield
    except (
        MisconfigurationException,
        ImportError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        reason = " ".join(str(error).split())[:MAX_REASON]
        raise InputError(f"--devices, --num_nodes, --strategy or --precision: {reason}") from error


def environment_plugins() -> list[ClusterEnvironment]:
    """The plugin that starts processes itself, in a SLURM job whose script does not call srun."""
    in_script = SLURMEnvironment.detect() and "SLURM_STEP_ID" not in os.environ
    return [LightningEnvironment()] if in_script else []


def check_world_size(devices: int, num_nodes: int) -> None:
    """Raise `InputError` if torchrun started another number of processes than the options say."""
    if not TorchElasticEnvironment.detect():
        return
    found, asked = TorchElasticEnvironment().world_size(), devices * num_nodes
    if found != asked:
        raise InputError(
            f"torchrun started {found} processes, but --devices {devices} and "
            f"--num_nodes {num_nodes} make {asked}; give the numbers of torchrun"
        )


def is_global_zero() -> bool:
    """Whether this process is rank zero, before any process was started."""
    return getattr(rank_zero_only, "rank", 0) == 0


def silence_other_ranks() -> None:
    """Let the package log errors only on ranks other than zero."""
    if not is_global_zero():
        package_logger.setLevel(logging.ERROR)


@contextlib.contextmanager
def raise_on_lost_rank(strategy: Strategy | FabricStrategy) -> Iterator[None]:
    """End with a `RunError` when another process has ended; waiting for it would take for ever."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.distributed.DistError) and GLOO not in str(error):
            raise
        raise RunError(
            f"{_lost_process(strategy)}, and the others cannot go on without it; "
            "what was finished before is kept"
        ) from error


def _lost_process(strategy: Strategy | FabricStrategy) -> str:
    """The process that ended; this one can tell only if it started that one."""
    for process in getattr(strategy.launcher, "procs", ()):
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = process.wait(timeout=EXIT_S)
            how = (
                f"was ended by {signal.Signals(-status).name}"
                if status < 0
                else f"ended with status {status}"
            )
            return f"process {process.pid} of this run {how}"
    return "another process of this run ended"


class FabricProcesses(SingleProcess):
    """Processes that share an inference and its refinement.

    Args:
        accelerator: As `--accelerator`.
        devices: Processes on each machine.
        num_nodes: Machines.

    Raises:
        InputError: If this machine has no such devices, or torchrun started another number of
            processes.
    """

    def __init__(self, accelerator: str, devices: int, num_nodes: int) -> None:
        check_world_size(devices, num_nodes)
        with as_input_error():
            strategy = DDPStrategy(timeout=TIMEOUT)
            self._fabric = Fabric(
                accelerator=accelerator,
                devices=devices,
                num_nodes=num_nodes,
                strategy=strategy,
                plugins=[*environment_plugins()],
            )
        super().__init__(self._fabric.device)
        self.rank = self._fabric.global_rank
        self.world_size = self._fabric.world_size
        silence_other_ranks()

    @contextlib.contextmanager
    def launch(self) -> Iterator[None]:
        """See `SingleProcess.launch`."""
        with raise_on_lost_rank(self._fabric.strategy):
            self._fabric.launch()
            yield

    def gather(self, part: Part) -> list[Part]:
        """See `SingleProcess.gather`."""
        parts: list = [None] * self.world_size if self.is_global_zero else []
        torch.distributed.gather_object(part, parts or None)
        return parts

    def sum(self, *parts: Tensor) -> None:
        """See `SingleProcess.sum`."""
        for part in parts:
            torch.distributed.all_reduce(part)

    def run_on_rank_zero(self, work: Callable[[], Result]) -> Result:
        """See `SingleProcess.run_on_rank_zero`."""
        result = work() if self.is_global_zero else None
        return self._fabric.broadcast(result)  # type: ignore[return-value]

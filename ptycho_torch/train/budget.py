"""Default length of a training: epochs from the number of scan points and the dose."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ptycho_torch.config import TrainingConfig
from ptycho_torch.data.conditions import conditions_of
from ptycho_torch.data.scan import Scan
from ptycho_torch.train.datamodule import count_groups


@dataclass(frozen=True)
class TrainingBudget:
    """Numbers of epochs and steps after which more of them improve an unseen object little.

    Measured with `benchmarks/generality.py` on scans of 256 to 10,000 positions at 10^4 to 10^9
    photons.

    Attributes:
        usual_epochs: Epochs of a scan with some sixteen groups.
        max_steps: Steps for each scan that has many groups; ten to twenty minutes on a laptop.
        min_steps: Steps for each scan, however few its groups are.
        min_steps_at_low_fluence: The same at low fluence, where more steps fit the noise.
        low_fluence: Photons on an object pixel; scans of 13 and 44 learn best with 160 steps, of
            440 and 4400 with 320.
    """

    usual_epochs: int = 40
    max_steps: int = 4000
    min_steps: int = 320
    min_steps_at_low_fluence: int = 160
    low_fluence: float = 100.0


BUDGET = TrainingBudget()


def steps_in_epoch(config: TrainingConfig, scans: Sequence[Scan], group_size: int) -> int:
    """Steps that each process takes in an epoch."""
    world_size = config.devices * config.num_nodes
    groups = sum(count_groups(len(scan), group_size, world_size) for scan in scans)
    return -(-groups // (config.batch_size * world_size))


def default_epochs(scans: Sequence[Scan], *, steps: int) -> int:
    """Epochs that train a generator well, from the steps in one of them."""
    fewest = math.ceil(sum(map(min_steps, scans)) / steps)
    most = math.ceil(BUDGET.max_steps * len(scans) / steps)
    return max(fewest, min(BUDGET.usual_epochs, most))


def min_steps(scan: Scan) -> int:
    """Steps to take for a scan, however few its groups are."""
    conditions = conditions_of(scan)
    fluence = conditions.photons / max(conditions.step_px, 1) ** 2
    return BUDGET.min_steps if fluence > BUDGET.low_fluence else BUDGET.min_steps_at_low_fluence

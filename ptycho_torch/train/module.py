"""The training step, the same for every generator: group, canvas, expected counts, loss."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from ptycho_torch.config.registry import LOSSES, load
from ptycho_torch.data.augmentation import (
    apply_symmetry,
    random_input_fraction,
    random_symmetry,
    split_photons,
)
from ptycho_torch.data.grouping import join_groups, split_groups
from ptycho_torch.data.scan import Group
from ptycho_torch.generators import build_generator
from ptycho_torch.train.group_loss import common_canvas_shape, group_loss
from ptycho_torch.train.recorded_loss import RecordedLoss, can_be_recorded

# Loss per pixel that counting noise leaves; the gradient of log(loss + NOISE_LOSS) is relative.
NOISE_LOSS = 0.5
WARM_UP_STEPS = 20  # optimiser steps in which the learning rate rises to its value


class PtychoModule(LightningModule):
    """A generator that is trained on the measured counts.

    Args:
        generator: Name of the generator.
        settings: Arguments of its constructor.
        loss: Name of the loss.
        learning_rate: Largest learning rate.
        scheduler: "cosine" or "constant".
        seed: Seed of the random numbers of every step.
        about: Plain facts about the run, kept in the checkpoint.
    """

    def __init__(
        self,
        *,
        generator: str,
        settings: dict[str, Any],
        loss: str,
        learning_rate: float,
        scheduler: str,
        seed: int,
        about: dict[str, Any],
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.generator = build_generator(generator, settings)
        self.loss = load(LOSSES[loss])
        self.learning_rate = learning_rate
        self.scheduler = scheduler
        self.seed = seed
        self.recorded_loss = RecordedLoss(self.generator, self.loss)
        self.stepped = False  # whether a step of this process was finished

    def group_loss(self, shown: Group, target: Group) -> Tensor:
        """Loss of each group, (B,): reconstruct from ``shown``, predict ``target``, compare.

        Both hold the same scan points, with different photons.
        """
        canvas_shape = common_canvas_shape(shown, target)
        return group_loss(self.generator, self.loss, shown, target, canvas_shape)

    def step_loss(self, shown: Group, target: Group) -> Tensor:
        """As `group_loss`; on an NVIDIA GPU recorded, on larger canvases."""
        if can_be_recorded(self.generator, shown):
            return self.recorded_loss(shown, target)
        return self.group_loss(shown, target)

    def iter_groups(self, batch: Group, batch_idx: int) -> Iterator[tuple[Group, torch.Generator]]:
        """The groups of a batch, each with a random generator of its own.

        It depends on the seed, the number of the step or batch, and the place of the group in it
        over all processes, so that one process and several train alike.
        """
        for i, group in enumerate(split_groups(batch)):
            place = self.trainer.global_rank + i * self.trainer.world_size
            entropy = np.random.SeedSequence((self.seed, batch_idx, place)).generate_state(
                1, np.uint64
            )
            yield group, torch.Generator(group.counts.device).manual_seed(int(entropy[0]))

    def training_step(self, batch: Group, _batch_idx: int) -> Tensor:
        """Mean logarithm of the losses of the groups, on photons that the generator did not get.

        The mean over groups is the same number whether they lie in one batch or in the batches of
        several processes, whose gradients are averaged.
        """
        pairs = []
        for group, rng in self.iter_groups(batch, self.global_step):
            turned = apply_symmetry(group, random_symmetry(group, rng))
            pairs.append(split_photons(turned, random_input_fraction(turned, rng), rng))
        losses = self.step_loss(*map(join_groups, zip(*pairs, strict=True)))
        self._log_mean("train_loss", losses)
        return torch.log(losses + NOISE_LOSS).mean()

    def on_train_end(self) -> None:
        """Give the memory of what was recorded back."""
        self.recorded_loss = RecordedLoss(self.generator, self.loss)

    def on_train_batch_end(self, *_: Any) -> None:
        """Remember that a step was finished."""
        self.stepped = True

    def validation_step(self, batch: Group, batch_idx: int) -> None:
        """Log the loss of a batch: one half of its photons predicts the other, alike each epoch."""
        pairs = [
            split_photons(group, 0.5, rng) for group, rng in self.iter_groups(batch, batch_idx)
        ]
        self._log_mean("val_loss", self.group_loss(*map(join_groups, zip(*pairs, strict=True))))

    def fixed_loss(self, groups: Sequence[Group]) -> Tensor:
        """Mean loss of some groups: one half of their photons predicts the other, always alike.

        The training goes on with the same bits: the random numbers are its own.
        """
        was_training = self.training
        self.eval()
        losses = []
        with torch.no_grad():
            for number, group in enumerate(groups):
                group = Group._make(
                    None if part is None else part.to(self.device) for part in group
                )
                rng = torch.Generator(self.device).manual_seed(self.seed + number)
                losses.append(self.group_loss(*split_photons(group, 0.5, rng)))
        self.train(was_training)
        return torch.cat(losses).mean()

    def _log_mean(self, name: str, losses: Tensor) -> None:
        """Log the mean of an epoch over the groups of all processes."""
        mean = losses.detach().mean()
        common: dict[str, Any] = {
            "on_step": False,
            "on_epoch": True,
            "prog_bar": True,
            "sync_dist": True,
        }
        self.log(name, mean, batch_size=len(losses), **common)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Adam, and its learning rate: a short warm-up, then constant or along a cosine to zero."""
        optimizer = torch.optim.Adam(self.parameters(), lr=self.learning_rate, betas=(0.9, 0.99))
        total = int(self.trainer.estimated_stepping_batches)

        def lr_lambda(step: int) -> float:
            fall = (
                0.5 + 0.5 * math.cos(math.pi * min(1, step / total))
                if self.scheduler == "cosine"
                else 1.0
            )
            return min(1.0, (step + 1) / WARM_UP_STEPS) * fall

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_lambda)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

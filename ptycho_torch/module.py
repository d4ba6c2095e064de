"""The training step, the same for every generator: group, canvas, expected counts, loss."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from ptycho_torch.augmentation import mirrored, random_share, random_symmetry, thinned
from ptycho_torch.generators import build_generator
from ptycho_torch.grouping import join_groups, split_groups
from ptycho_torch.physics import LOSSES, locate, predict_counts
from ptycho_torch.scan import Group

NOISE = 0.5  # of the loss that counting noise leaves; added before the logarithm, which makes the gradient a relative one
RISE_STEPS = 20  # in which the learning rate rises to its value


class PtychoModule(LightningModule):
    """A generator that learns from the measured counts.

    Args:
        generator: Name of the generator.
        settings: What its constructor takes.
        loss: Name of the loss.
        learning_rate: At its largest.
        scheduler: "cosine" or "constant".
        seed: Of what is drawn in a step.
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
        self.loss = LOSSES[loss]
        self.learning_rate = learning_rate
        self.scheduler = scheduler
        self.seed = seed

    def mismatch(self, seen: Group, judged: Group) -> Tensor:
        """Loss, on some patterns, of the canvases that the generator makes of others on the same canvases, (B,)."""
        (rows, columns), (other_rows, other_columns) = seen.canvas_shape(), judged.canvas_shape()
        canvas_shape = max(rows, other_rows), max(columns, other_columns)
        canvas = self.generator(seen, canvas_shape)
        geometry = locate(judged.corners_px, judged.probe, canvas_shape)
        return self.loss(predict_counts(canvas, geometry), judged.counts, judged.mask)

    def split(self, batch: Group, number: int) -> Iterator[tuple[Group, torch.Generator]]:
        """The groups of a batch, each with randomness of its own.

        It depends on the seed, the number of the step or batch, and the place of the group in it over
        all processes, so that one process and several train alike.
        """
        for i, group in enumerate(split_groups(batch)):
            place = self.trainer.global_rank + i * self.trainer.world_size
            entropy = np.random.SeedSequence((self.seed, number, place)).generate_state(1, np.uint64)
            yield group, torch.Generator(group.counts.device).manual_seed(int(entropy[0]))

    def training_step(self, batch: Group, _number: int) -> Tensor:
        """Mean relative loss of the groups of a batch, each on photons that the generator did not see.

        A mean over groups of what each says alone is the same number whether they lie in one batch
        or in those of several processes, whose gradients are averaged.
        """
        pairs = []
        for group, generator in self.split(batch, self.global_step):
            turned = mirrored(group, random_symmetry(group, generator))
            pairs.append(thinned(turned, random_share(turned, generator), generator))
        losses = self.mismatch(*map(join_groups, zip(*pairs, strict=True)))
        self._tell("train_loss", losses)
        return torch.log(losses + NOISE).mean()

    def validation_step(self, batch: Group, number: int) -> None:
        """Log the loss on a batch, on the half of its photons that the generator did not see, the same at each epoch."""
        pairs = [thinned(group, 0.5, generator) for group, generator in self.split(batch, number)]
        self._tell("val_loss", self.mismatch(*map(join_groups, zip(*pairs, strict=True))))

    def _tell(self, name: str, losses: Tensor) -> None:
        """Log the mean of an epoch over the groups of all processes."""
        mean = losses.detach().mean()
        self.log(name, mean, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(losses), sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Adam, and the course of its step: a short rise, then constant or along a cosine to zero."""
        optimizer = torch.optim.Adam(self.parameters(), lr=self.learning_rate, betas=(0.9, 0.99))
        total = int(self.trainer.estimated_stepping_batches)

        def course_of(step: int) -> float:
            fall = 0.5 + 0.5 * math.cos(math.pi * min(1, step / total)) if self.scheduler == "cosine" else 1.0
            return min(1.0, (step + 1) / RISE_STEPS) * fall

        course = torch.optim.lr_scheduler.LambdaLR(optimizer, course_of)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": course, "interval": "step"}}

"""The training step, the same for every generator: group, canvas, expected counts, loss."""

from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from ptycho_torch.generators import build_generator
from ptycho_torch.physics import LOSSES, locate, predict_counts
from ptycho_torch.scan import Group


class PtychoModule(LightningModule):
    """A generator that learns from the measured counts.

    Args:
        generator: Name of the generator.
        settings: What its constructor takes.
        loss: Name of the loss.
        learning_rate: At its largest.
        scheduler: "cosine" or "constant".
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
        about: dict[str, Any],
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.generator = build_generator(generator, settings)
        self.loss = LOSSES[loss]
        self.learning_rate = learning_rate
        self.scheduler = scheduler

    def mismatch(self, group: Group) -> Tensor:
        """Loss of the canvases that the generator makes of a batch of groups, scalar."""
        canvas = self.generator(group)
        geometry = locate(group.corners_px, group.probe, group.canvas_shape())
        return self.loss(predict_counts(canvas, geometry), group.counts, group.mask)

    def training_step(self, group: Group, _batch: int) -> Tensor:
        """Loss on a batch."""
        loss = self.mismatch(group)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(group.counts))
        return loss

    def validation_step(self, group: Group, _batch: int) -> None:
        """Log the loss on a batch."""
        loss = self.mismatch(group)
        self.log("val_loss", loss, prog_bar=True, batch_size=len(group.counts), sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig | torch.optim.Optimizer:
        """Adam, and the course of its step."""
        optimizer = torch.optim.Adam(self.parameters(), lr=self.learning_rate)
        if self.scheduler == "constant":
            return optimizer
        course = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": course, "interval": "step"}}

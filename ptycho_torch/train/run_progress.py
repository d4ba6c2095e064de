"""A progress bar of a whole training: the epoch from 1, the loss, and the time that is left."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

# Losses that compare between epochs, the first that is there is shown.
SHOWN = {"val_loss": "validation loss", "fixed_loss": "loss"}


class RunProgress(Callback):
    """One bar over all steps of a training, on rank zero."""

    def __init__(self) -> None:
        self.bar: Progress | None = None
        self.task = TaskID(0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the bar; that of a resumed training begins where the training was."""
        if not trainer.is_global_zero:
            return
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("left{task.fields[loss]}"),
        )
        total = int(trainer.estimated_stepping_batches)
        description = _epoch(trainer)
        self.task = self.bar.add_task(
            description, total=total, completed=trainer.global_step, loss=""
        )
        self.bar.start()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the number of the epoch."""
        if self.bar is not None:
            self.bar.update(self.task, description=_epoch(trainer))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        """Advance by a step."""
        if self.bar is not None:
            self.bar.update(self.task, completed=trainer.global_step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the loss of the epoch."""
        found = trainer.callback_metrics
        name = next((name for name in SHOWN if name in found), None)
        if self.bar is not None and name is not None:
            self.bar.update(self.task, loss=f", {SHOWN[name]} {float(found[name]):.4g}")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the last state on the screen, also after an error."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def _epoch(trainer: Trainer) -> str:
    """The number of the epoch, from 1."""
    return f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"

"""Lightning callbacks of a training: checkpoints, the history of the losses, SIGTERM."""

import io
import logging
import os
import signal
import threading
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from ptycho_torch.config import TrainingConfig
from ptycho_torch.errors import RunError
from ptycho_torch.io.files import atomic_write, write_text
from ptycho_torch.io.run_dir import RunDir

logger = logging.getLogger(__name__)


class BestCheckpoint(ModelCheckpoint):
    """`best.ckpt`: the epoch with the smallest validation loss; without validation, the last."""


class LastCheckpoint(ModelCheckpoint):
    """`last.ckpt`: the latest epoch."""


def checkpoint_callbacks(
    config: TrainingConfig, run: RunDir, *, has_validation: bool
) -> list[Callback]:
    """The callbacks that write last.ckpt, best.ckpt and, on request, further checkpoints.

    The training losses of two epochs cannot be compared: each epoch has its own groups and its own
    split of the photons. Without validation data the last epochs are the best, at the end of a
    falling learning rate.
    """
    monitor, mode = ("val_loss", "min") if has_validation else ("step", "max")
    common: dict[str, Any] = {
        "dirpath": run.checkpoints,
        "save_on_train_epoch_end": True,
        "enable_version_counter": False,
    }
    callbacks: list[Callback] = [
        LastCheckpoint(filename=run.last_checkpoint.stem, **common),
        BestCheckpoint(filename=run.best_checkpoint.stem, monitor=monitor, mode=mode, **common),
    ]
    if config.checkpoint_save_top_k > 1:
        name = "{epoch:04d}-{val_loss:.6f}" if has_validation else "{epoch:04d}"
        keep = config.checkpoint_save_top_k
        callbacks.append(
            ModelCheckpoint(filename=name, monitor=monitor, mode=mode, save_top_k=keep, **common)
        )
    return callbacks


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that appear whole or not at all, also when the process is killed in between."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None
    ) -> None:
        """Write beside the place, then move.

        Serialised in memory first, so that a full disk raises `OSError` and not an error of torch.
        """
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with atomic_write(target) as temporary:
            temporary.write_bytes(content.getbuffer())


class RestoreSigterm(Callback):
    """SIGTERM ends a process at once, as it did before the training began.

    Lightning's own handler first waits for the other processes to agree, which by then wait for
    this one in the middle of a step: none would ever end.
    """

    def __init__(self) -> None:
        self.handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace the handler that Lightning has just set."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.handler)


class CsvHistory(Callback):
    """The losses of every epoch, in `metrics.csv` and, for a resumed run, in the checkpoint.

    Args:
        run: Where to write.
        write: Whether to write `metrics.csv`.
    """

    def __init__(self, run: RunDir, *, write: bool) -> None:
        self.run = run
        self.write = write
        self.rows: list[dict[str, float]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save a first checkpoint, so that a run can be resumed however early it is ended."""
        if not self.run.last_checkpoint.is_file():
            trainer.save_checkpoint(self.run.last_checkpoint)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the epoch; end a run whose loss is no longer a number."""
        row: dict[str, float] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        row |= {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.rows.append(row)
        logger.debug("epoch %s", row)
        if self.write and trainer.is_global_zero:
            columns = ["epoch", "step", *sorted(set(row) - {"epoch", "step"})]
            lines = [",".join(repr(entry[name]) for name in columns) for entry in self.rows]
            write_text(self.run.metrics_csv, "\n".join([",".join(columns), *lines]) + "\n")
        if not all(value == value for value in row.values()):
            epoch = trainer.current_epoch
            raise RunError(f"the loss became NaN in epoch {epoch}; use a smaller --learning_rate")

    def state_dict(self) -> dict[str, Any]:
        """The rows, for the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue after the rows of a checkpoint."""
        self.rows = list(state_dict["rows"])

"""Lightning callbacks of a training: checkpoints, the history of the losses, SIGTERM."""

import io
import logging
import math
import os
import signal
import threading
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer, callbacks
from lightning.pytorch.callbacks import Checkpoint

from ptycho_torch.data.scan import Group
from ptycho_torch.errors import RunError
from ptycho_torch.io.files import atomic_write, write_text
from ptycho_torch.io.run_dir import RunDir

logger = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that appear whole or not at all, also when the process is killed in between."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None
    ) -> None:
        """Write beside the place, then move.

        Serialised in memory first, so that a full disk raises `OSError` and not an error of torch.
        """
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with atomic_write(Path(path)) as temporary:
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


class ComparableLoss(Callback):
    """Logs the loss of the same few training groups after every epoch, with the same photons.

    The training losses of two epochs are of other groups and other photons; these compare, and show
    whether a training has come to its end. It must come before `CsvHistory`.
    """

    def __init__(self) -> None:
        self.groups: list[Group] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the groups."""
        data = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it
        self.groups = data.fixed_groups()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the loss of the groups."""
        loss = pl_module.fixed_loss(self.groups)  # type: ignore[operator]  # of PtychoModule
        pl_module.log("fixed_loss", loss, sync_dist=True, batch_size=1)


class CsvHistory(Callback):
    """Losses and learning rate of every epoch, in `metrics.csv` and, to resume, in the checkpoint.

    Args:
        run: Where to write.
        write: Whether to write `metrics.csv`.
    """

    def __init__(self, run: RunDir, *, write: bool) -> None:
        self.run = run
        self.write = write
        self.rows: list[dict[str, float]] = []

    @property
    def state_key(self) -> str:
        """Key in a checkpoint, which earlier versions chose."""
        return "History"

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the epoch; end a run whose loss is no longer a number."""
        row: dict[str, float] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        row["learning_rate"] = float(trainer.optimizers[0].param_groups[0]["lr"])
        row |= {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.rows.append(row)
        logger.debug("epoch %s", row)
        if self.write and trainer.is_global_zero:
            columns = ["epoch", "step", *sorted(set(row) - {"epoch", "step"})]
            lines = [
                ",".join(repr(entry.get(name, math.nan)) for name in columns) for entry in self.rows
            ]
            write_text(self.run.metrics_csv, "\n".join([",".join(columns), *lines]) + "\n")
        if not all(value == value for value in row.values()):
            epoch = trainer.current_epoch
            raise RunError(f"the loss became NaN in epoch {epoch}; use a smaller --learning_rate")

    def state_dict(self) -> dict[str, Any]:
        """The rows, for the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue after the rows of a checkpoint; a value that is no number raises `TypeError`."""
        self.rows = [
            {str(name): row[name] + 0 for name in ("epoch", "step", *row)}
            for row in state_dict["rows"]
        ]


class EpochCheckpoints(Checkpoint):
    """`last.ckpt`, `best.ckpt` and, on request, the K best epochs, saved after each epoch.

    The ranking follows from the losses in `CsvHistory`, without paths, so that a run folder can be
    renamed. `last.ckpt` is saved last: a run that is killed in between repeats its epoch, with the
    same bits and the same ranking.

    The training losses of two epochs cannot be compared: each epoch has its own groups and its own
    split of the photons. Without validation data the last epochs are the best, at the end of a
    falling learning rate.

    Args:
        run: Where to write.
        history: The losses; it must come before this callback.
        keep: K, the number of epochs to keep; 1 keeps `best.ckpt` alone.
        has_validation: Whether the validation loss ranks the epochs.
    """

    NAME = "epoch={}.ckpt"

    def __init__(
        self, run: RunDir, history: CsvHistory, *, keep: int, has_validation: bool
    ) -> None:
        self.run = run
        self.history = history
        self.keep = keep
        self.has_validation = has_validation
        self.first = 0  # number of the first epoch whose checkpoints are in this folder

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save a first checkpoint, so that a run can be resumed however early it is ended."""
        last, best = trainer.strategy.broadcast(
            (self.run.last_checkpoint.is_file(), self.run.best_checkpoint.is_file())
        )
        if not best:
            self.first = len(self.history.rows)
        if not last:
            trainer.save_checkpoint(self.run.last_checkpoint)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the epoch as the last and, if it is one of them, among the best."""
        ranked = sorted(self.history.rows[self.first :], key=self._rank)
        latest, chosen = self.history.rows[-1], ranked[: self.keep]
        if ranked[0] is latest:
            trainer.save_checkpoint(self.run.best_checkpoint)
        if self.keep > 1:
            if any(row is latest for row in chosen):
                trainer.save_checkpoint(self.run.checkpoints / self._name(latest))
            if trainer.is_global_zero:
                names = {self._name(row) for row in chosen}
                for path in self.run.checkpoints.glob(self.NAME.format("*")):
                    if path.name not in names:
                        path.unlink()
        trainer.save_checkpoint(self.run.last_checkpoint)

    @property
    def best_epoch(self) -> int | None:
        """Number, from 0, of the epoch that `best.ckpt` holds; None before the first one ended."""
        rows = self.history.rows[self.first :]
        return int(min(rows, key=self._rank)["epoch"]) if rows else None

    def _name(self, row: dict[str, float]) -> str:
        """File of an epoch."""
        loss = f"-val_loss={row['val_loss']:.6f}" if "val_loss" in row else ""
        return self.NAME.format(f"{int(row['epoch']):04d}{loss}")

    def _rank(self, row: dict[str, float]) -> float:
        """The smaller, the better; the first of equals counts."""
        return row.get("val_loss", math.inf) if self.has_validation else -row["epoch"]

    def state_dict(self) -> dict[str, Any]:
        """Where this folder begins, for the checkpoint."""
        return {"first": self.first}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the ranking of a checkpoint."""
        self.first = int(state_dict["first"])


def best_epoch(trainer: Trainer) -> int | None:
    """Number, from 0, of the epoch that `best.ckpt` holds; None before the first one ended."""
    own = (one for one in trainer.checkpoint_callbacks if isinstance(one, EpochCheckpoints))
    return next(own).best_epoch


class EarlyStopping(callbacks.EarlyStopping):
    """Early stopping with the patience of the options, and a run that it ended stays ended."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue to count."""
        super().load_state_dict(state_dict | {"patience": self.patience})

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop before the first epoch if the patience was at its end before."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True
            logger.info("the run was ended by --early_stop_patience %d", self.patience)


class EpochLog(Callback):
    """A line in the log for each epoch, for programs that show the log and no progress bar."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the number of the epoch and its losses."""
        losses = ", ".join(
            f"{name} {float(value):.4g}" for name, value in trainer.callback_metrics.items()
        )
        logger.info("epoch %d of %s: %s", trainer.current_epoch + 1, trainer.max_epochs, losses)

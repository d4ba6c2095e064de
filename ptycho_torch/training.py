"""Training: scans in, a run folder with checkpoints and history out."""

import contextlib
import io
import logging
import math
import os
import re
import signal
import threading
import warnings
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger
from numpy.typing import NDArray

from ptycho_torch.accelerator import choose_device
from ptycho_torch.checkpoint import read_checkpoint
from ptycho_torch.command import log_to
from ptycho_torch.conditions import conditions_of
from ptycho_torch.config import TrainingConfig, plain, to_yaml
from ptycho_torch.data import ScanDataModule, count_groups
from ptycho_torch.errors import InputError, RunError
from ptycho_torch.generators import GENERATORS
from ptycho_torch.illumination import with_refined_probe
from ptycho_torch.module import PtychoModule
from ptycho_torch.plots import save_history
from ptycho_torch.processes import check_number, end_together, let_the_first_speak, refusals
from ptycho_torch.readers import scans_in
from ptycho_torch.run_dir import RunDir, atomic_write, provenance, write_text
from ptycho_torch.scan import Scan
from ptycho_torch.selection import members_of_a_group, open_scan

logger = logging.getLogger(__name__)

TRACKERS = {"tensorboard": "tensorboard", "mlflow": "'ptycho_torch[mlflow]'"}  # what to install for each
EPOCHS = 40  # after which more of them improve an unseen object little
LEAST_STEPS = 320  # the same, for each scan, where it has few groups
LEAST_STEPS_AT_LOW_FLUENCE = 160  # more, and a network knows such a scan by heart
LOW_FLUENCE = 100  # photons on a pixel of the object; scans of 13 and 44 learn best by 160 steps, of 440 and 4400 by 320
MOST_STEPS = 4000  # for each scan, where it has many groups; ten to twenty minutes on a laptop
GRADIENT_NORM = 1.0  # larger gradients are shortened; a rare group must not undo what was learned


def fit(config: TrainingConfig) -> RunDir:
    """Train a generator on scans; see `ptycho_torch.train.train`."""
    let_the_first_speak()
    check_options(config)
    judge = [config.test_data_file] if config.test_data_file else []
    train, validation = (
        [open_scan(path, n_images=config.n_images, options=config, seed=config.seed, show=not config.quiet) for path in paths]
        for paths in ([path for given in config.train_data_file for path in scans_in(given)], judge)
    )
    generator = GENERATORS[config.generator]
    members = members_of_a_group(train + validation, config.gridsize, generator.gridsize, any_size=generator.any_size)
    check_shapes(train + validation)
    check_enough(train + validation, config.devices * config.num_nodes)
    run = RunDir(config.output_dir)
    start = find_start(config, run)
    module = build_module(config, members)
    if start is not None:
        check_same_network(start, module)
    history = History(run, write=config.logger != "none")
    epochs = config.max_epochs or enough_epochs(train, steps=steps_in_epoch(config, train, members))
    trainer = build_trainer(config, epochs, run, history, validated=bool(validation))
    with held_by_the_first(config, run, trainer), end_together(trainer.strategy):
        if config.probe_trainable:
            train = [improve_probe(scan, run.probe_file(i), config, write=trainer.is_global_zero) for i, scan in enumerate(train)]
        module.hparams["about"]["conditions"] = [asdict(conditions_of(scan)) for scan in train]
        data = ScanDataModule(
            train,
            validation,
            members=members,
            any_size=generator.any_size,
            batch_size=config.batch_size,
            num_workers=config.num_workers,
            seed=config.seed,
        )
        lightning.seed_everything(config.seed, workers=True, verbose=False)
        _announce(module, train, members, trainer)
        trainer.fit(module, data, ckpt_path=start, weights_only=True)
        logger.debug("CUDA initialised: %s", torch.cuda.is_initialized())
        if trainer.is_global_zero:
            save_history(run.history, history.rows)
        logger.info("trained for %d epochs: %s", trainer.current_epoch, run.best_checkpoint)
    return run


@contextlib.contextmanager
def held_by_the_first(config: TrainingConfig, run: RunDir, trainer: Trainer) -> Iterator[None]:
    """The run folder, claimed and logged to by the first process; the others leave it alone."""
    if not trainer.is_global_zero:
        yield
        return
    with run.claim(overwrite=config.overwrite, resume=config.resume is not None), log_to(run.train_log):
        write_text(run.config, to_yaml(config))
        logger.debug("versions: %s", provenance())
        yield


def improve_probe(scan: Scan, path: Path, config: TrainingConfig, *, write: bool) -> Scan:
    """The scan with its probe refined, or with what the resumed run refined.

    Args:
        scan: Its probe need only be roughly right.
        path: Of the refined probe, a file that `--probe` reads.
        config: What the user asked for.
        write: Whether this is the process that writes it; the others find the same.
    """
    if config.resume is not None and path.is_file():
        return replace(scan, probe=np.load(path, allow_pickle=False))
    better = with_refined_probe(scan, seed=config.seed)
    if write:
        with atomic_write(path) as temporary:
            temporary.write_bytes(npy_bytes(better.probe))
        logger.info("inference takes the refined probe with --probe %s", path)
    return better


def npy_bytes(array: NDArray) -> bytes:
    """The content of an NPY file."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    return content.getvalue()


def check_options(config: TrainingConfig) -> None:
    """Raise `InputError` for what this machine, or Lightning, cannot do."""
    if config.max_time is not None and not re.fullmatch(r"\d\d:\d\d:\d\d:\d\d", config.max_time):
        raise InputError(f"--max_time {config.max_time}: expected DD:HH:MM:SS, such as 00:00:04:00 for four minutes")
    if config.logger in TRACKERS and find_spec(config.logger) is None:
        raise InputError(f"--logger {config.logger} needs a package that is not here: pip install {TRACKERS[config.logger]}")
    choose_device(config.accelerator)
    check_number(config.devices, config.num_nodes)


def check_shapes(scans: list[Scan]) -> None:
    """Raise `InputError` if patterns of different size would meet in a batch."""
    first = scans[0]
    for scan in scans[1:]:
        if scan.probe.shape != first.probe.shape:
            raise InputError(
                f"{scan.source} has probe and patterns of shape {scan.probe.shape} but {first.source} has {first.probe.shape}; "
                "train on scans of one shape"
            )


def check_enough(scans: list[Scan], processes: int) -> None:
    """Raise `InputError` if a scan has no pattern for one of the processes."""
    smallest = min(scans, key=len)
    if len(smallest) < processes:
        raise InputError(f"{smallest.source}: {len(smallest)} patterns cannot be shared by {processes} processes; use fewer")


def find_start(config: TrainingConfig, run: RunDir) -> Path | None:
    """The checkpoint to continue from; None for a new run."""
    if config.resume is None:
        return None
    path = run.last_checkpoint if config.resume == "auto" else Path(config.resume)
    if path.is_file():
        return path
    if config.resume == "auto":
        logger.info("no checkpoint in %s yet: starting from the beginning", run.checkpoints)
        return None
    raise InputError(f"--resume {path}: no such checkpoint; use --resume auto for the last one of {run.path}")


def check_same_network(checkpoint: Path, module: LightningModule) -> None:
    """Raise `InputError` if a run with other settings of the network is asked to continue."""
    before = read_checkpoint(checkpoint)["hyper_parameters"]
    for name in ("generator", "settings", "loss"):
        if before[name] != module.hparams[name]:
            raise InputError(
                f"{checkpoint} was trained with {name} {before[name]}, not {module.hparams[name]}; resume with the same"
            )


def build_module(config: TrainingConfig, members: int) -> PtychoModule:
    """The training module, with weights drawn from the seed."""
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    generator = GENERATORS[config.generator]
    settings = {} if generator.any_size else {"members": members}
    about = {
        "members": members,
        "config": plain(config),
        "versions": provenance(),
    }
    return PtychoModule(
        generator=config.generator,
        settings=generator(**settings).settings,
        loss=config.loss,
        learning_rate=config.learning_rate,
        scheduler=config.scheduler,
        seed=config.seed,
        about=about,
    )


def steps_in_epoch(config: TrainingConfig, scans: list[Scan], members: int) -> int:
    """Steps that each process takes in an epoch."""
    processes = config.devices * config.num_nodes
    groups = sum(count_groups(len(scan), members, processes) for scan in scans)
    return -(-groups // (config.batch_size * processes))


def enough_epochs(scans: list[Scan], *, steps: int) -> int:
    """Epochs that train a generator well, from the steps in one of them."""
    least = math.ceil(sum(map(least_steps, scans)) / steps)
    return max(least, min(EPOCHS, math.ceil(MOST_STEPS * len(scans) / steps)))


def least_steps(scan: Scan) -> int:
    """Steps that a scan is worth, however few its groups are."""
    conditions = conditions_of(scan)
    fluence = conditions.photons / max(conditions.step_px, 1) ** 2
    return LEAST_STEPS if fluence > LOW_FLUENCE else LEAST_STEPS_AT_LOW_FLUENCE


def build_trainer(config: TrainingConfig, epochs: int, run: RunDir, history: "History", *, validated: bool) -> Trainer:
    """Lightning's trainer with the callbacks of a run."""
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # groups are cut from memory
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")  # Lightning's own affair
    warnings.filterwarnings("ignore", message=".*number of training batches.*smaller than the logging interval.*")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    callbacks: list[Callback] = [SignalsAsBefore(), history, *checkpoint_callbacks(config, run, validated=validated)]
    if config.early_stop_patience is not None:
        judged_by = "val_loss" if validated else "train_loss"
        callbacks.append(EarlyStopping(judged_by, patience=config.early_stop_patience, check_on_train_epoch_end=True))
    if not config.quiet:
        callbacks.append(RichProgressBar())
    with refusals():
        return Trainer(
            accelerator=config.accelerator,
            devices=config.devices,
            num_nodes=config.num_nodes,
            strategy=config.strategy,
            use_distributed_sampler=False,  # the sampler deals out the groups itself
            precision=config.precision,
            max_epochs=epochs,
            max_time=config.max_time,
            gradient_clip_val=GRADIENT_NORM,
            deterministic=config.deterministic,
            logger=build_logger(config, run),
            callbacks=callbacks,
            plugins=[WholeCheckpoints()],
            default_root_dir=run.path,
            enable_progress_bar=not config.quiet,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=1.0 if validated else 0,
        )


def build_logger(config: TrainingConfig, run: RunDir) -> Logger | bool:
    """The tracker beside `metrics.csv`, if any."""
    if config.logger == "tensorboard":
        return TensorBoardLogger(run.path, name="tensorboard", version="")
    if config.logger == "mlflow":
        return MLFlowLogger(experiment_name="ptycho_torch", tracking_uri=f"file:{run.path / 'mlruns'}")
    return False


class BestCheckpoint(ModelCheckpoint):
    """`best.ckpt`: the epoch with the smallest validation loss; without validation data, the last."""


class LastCheckpoint(ModelCheckpoint):
    """`last.ckpt`: the latest epoch."""


def checkpoint_callbacks(config: TrainingConfig, run: RunDir, *, validated: bool) -> list[Callback]:
    """What writes last.ckpt, best.ckpt and, if asked for, the other good ones.

    The training losses of two epochs do not compare: each epoch has its own groups, and shares of their
    photons. Without validation data the last epochs are the best, at the end of a falling learning rate.
    """
    monitor, mode = ("val_loss", "min") if validated else ("step", "max")
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
        name = "{epoch:04d}-{val_loss:.6f}" if validated else "{epoch:04d}"
        keep = config.checkpoint_save_top_k
        callbacks.append(ModelCheckpoint(filename=name, monitor=monitor, mode=mode, save_top_k=keep, **common))
    return callbacks


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that appear whole or not at all, also when the process is killed while it writes."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None) -> None:
        """Write beside the place, then move. From memory, so that a full disk is an `OSError` and not one of torch's."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with atomic_write(target) as temporary:
            temporary.write_bytes(content.getbuffer())


class SignalsAsBefore(Callback):
    """SIGTERM ends a process at once, as it did before the training began.

    Lightning's own answer first asks the other processes to agree, which by then wait for this one in
    the middle of a step: none would ever end.
    """

    def __init__(self) -> None:
        self.answer = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signal back from Lightning, which has just set its own handler."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.answer)


class History(Callback):
    """The losses of every epoch, in `metrics.csv` and in the checkpoint, so that a resumed run keeps them.

    Args:
        run: Where to write.
        write: Whether to write `metrics.csv`.
    """

    def __init__(self, run: RunDir, *, write: bool) -> None:
        self.run = run
        self.write = write
        self.rows: list[dict[str, float]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave a state to continue from, however early the run is ended."""
        if not self.run.last_checkpoint.is_file():
            trainer.save_checkpoint(self.run.last_checkpoint)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take down the epoch; end a run whose loss is no longer a number."""
        row: dict[str, float] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        row |= {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.rows.append(row)
        logger.debug("epoch %s", row)
        if self.write and trainer.is_global_zero:
            columns = ["epoch", "step", *sorted(set(row) - {"epoch", "step"})]
            lines = [",".join(columns), *(",".join(repr(entry[name]) for name in columns) for entry in self.rows)]
            write_text(self.run.metrics_csv, "\n".join(lines) + "\n")
        if not all(value == value for value in row.values()):
            raise RunError(f"the loss became NaN in epoch {trainer.current_epoch}; use a smaller --learning_rate")

    def state_dict(self) -> dict[str, Any]:
        """The rows, for the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after the rows of a checkpoint."""
        self.rows = list(state_dict["rows"])


def _announce(module: PtychoModule, scans: list[Scan], members: int, trainer: Trainer) -> None:
    """Say what is about to happen."""
    weights = sum(parameter.numel() for parameter in module.parameters())
    patterns = sum(len(scan) for scan in scans)
    device = trainer.strategy.root_device.type
    shared = f" by {trainer.world_size} processes" if trainer.world_size > 1 else ""
    logger.info(
        "training '%s' (%d weights) on %d patterns of %dx%d in groups of %d, %.3g photons each, on %s%s",
        module.hparams["generator"], weights, patterns, *scans[0].pattern_shape, members, scans[0].photons, device, shared,
    )  # fmt: skip

"""A training for Ptychodus: its folders and settings as those of a run of this package."""

import filecmp
import itertools
import logging
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ptycho_torch.config import TrainingConfig
from ptycho_torch.errors import InputError
from ptycho_torch.io.files import atomic_write
from ptycho_torch.io.readers.detect import detect_format, holds_scan
from ptycho_torch.io.run_dir import RunDir
from ptycho_torch.ptychodus import settings as host

logger = logging.getLogger(__name__)

PATTERNS = "diffraction.h5"
PRODUCTS = ("product.h5", "product-in.h5")  # the second name is that of Ptychodus 1.5
MODEL = "model.ckpt"  # where `ptychodus -b reconstruct` looks for a checkpoint
RUN = "run_{number:03d}"

# Value in Ptychodus, in lower case -> options here. "default" means the default here.
SCHEDULERS: dict[str, dict[str, str]] = {"default": {}, "cosine": {"scheduler": "cosine"}}
LOSSES: dict[str, dict[str, str]] = {"poisson": {}, "mae": {"loss": "amplitude"}}


def training_scans(folder: Path) -> list[Path]:
    """The scans in a folder: every file that holds a scan, else the pair of a batch run.

    Raises:
        InputError: If there is none.
    """
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    scans = [path for path in files if holds_scan(path) and not detect_format(path).pair]
    if scans:
        return scans
    for product in PRODUCTS:
        pair = folder / PATTERNS, folder / product
        if all(path.is_file() for path in pair):
            return [Path(",".join(map(str, pair)))]
    raise InputError(
        f"{folder}: holds no training data; expected scans that Ptychodus exported (*.npz, *.h5), "
        f"or {PATTERNS} with {PRODUCTS[0]}"
    )


def new_run(folder: Path) -> RunDir:
    """The folder of the next run in Ptychodus's output folder; it is not made yet."""
    numbered = (RunDir(folder / RUN.format(number=number)) for number in itertools.count(1))
    return next(run for run in numbered if not run.path.exists())


def to_config(
    training: host.TrainingConfig, model: host.ModelConfig, scans: list[Path], run: RunDir
) -> TrainingConfig:
    """The options of a training; what was left as Ptychodus has it, but for the epochs, is ours.

    Args:
        training: Settings of Ptychodus.
        model: Settings of Ptychodus.
        scans: Files to train on.
        run: Where the results go.
    """
    chosen: dict[str, Any] = {}
    if training.is_chosen("learning_rate"):
        chosen["learning_rate"] = training.learning_rate
    if training.is_chosen("num_workers"):
        chosen["num_workers"] = training.num_workers
    chosen |= SCHEDULERS.get(training.scheduler.casefold(), {})
    chosen |= LOSSES.get(model.loss_function.casefold(), {})
    if training.device.casefold() == "cpu":  # "cuda" is the default on machines without one too
        chosen["accelerator"] = "cpu"
    return TrainingConfig(
        train_data_file=scans, output_dir=run.path, max_epochs=training.epochs, quiet=True, **chosen
    )


def log_settings(settings: Sequence[host.Settings]) -> None:
    """Name, once, the settings that the user chose in Ptychodus and that have no effect here."""
    idle = [text for one in settings for text in one.without_effect()]
    for one in settings:
        idle += _idle_choices(one)
    if idle:
        logger.warning(
            "these settings have no effect on the network of ptycho_torch: %s", ", ".join(idle)
        )
    unknown = [name for one in settings for name in one.unknown()]
    if unknown:
        text = "%s has settings that this back end does not know, and that have no effect: %s"
        logger.warning(text, host.host_name(), ", ".join(unknown))


def _idle_choices(settings: host.Settings) -> Iterator[str]:
    """Values without effect of settings that have one for other values."""
    if isinstance(settings, host.TrainingConfig):
        if settings.scheduler.casefold() not in SCHEDULERS:
            yield f"scheduler {settings.scheduler} (the learning rate follows a cosine)"
        if settings.n_devices > 1:
            yield f"n_devices {settings.n_devices} (one is used)"
    elif isinstance(settings, host.ModelConfig) and settings.loss_function.casefold() not in LOSSES:
        yield f"loss_function {settings.loss_function} (the loss is poisson)"


def offer_checkpoint(checkpoint: Path, folder: Path) -> None:
    """Copy a checkpoint to ``model.ckpt`` in a folder, unless that holds a file of somebody else.

    A ``model.ckpt`` that is a copy of a checkpoint of a run in the folder is replaced: nothing is
    lost with it.
    """
    target = folder / MODEL
    if target.exists() and not any(
        filecmp.cmp(target, copied, shallow=False)
        for copied in folder.glob(f"*/{checkpoint.parent.name}/*.ckpt")
    ):
        text = "%s is not from a training in this folder and was kept; the new network is %s"
        logger.warning(text, target, checkpoint)
        return
    with atomic_write(target) as temporary:
        shutil.copyfile(checkpoint, temporary)
    logger.info("%s is a copy of %s", target, checkpoint)

"""Lightning's trainer, set up for a run."""

import logging
import warnings
from collections.abc import Sequence
from importlib.util import find_spec

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger

from ptycho_torch.config import TrainingConfig
from ptycho_torch.distributed.fabric import as_input_error, environment_plugins
from ptycho_torch.errors import InputError
from ptycho_torch.io.files import printable
from ptycho_torch.io.run_dir import RunDir
from ptycho_torch.train.callbacks import (
    AtomicCheckpointIO,
    ComparableLoss,
    CsvHistory,
    EarlyStopping,
    EpochCheckpoints,
    RestoreSigterm,
)
from ptycho_torch.train.run_progress import RunProgress

TRACKERS = {  # logger -> package to install
    "tensorboard": "tensorboard",
    "mlflow": "'ptycho_torch[mlflow]'",
}
# It has one message: which process ended, before it ends the others.
LAUNCHER = "lightning.fabric.strategies.launchers.subprocess_script"
GRADIENT_NORM = 1.0  # larger gradients are shortened, so that a rare group does not undo the others


def build_trainer(
    config: TrainingConfig,
    run: RunDir,
    *,
    max_epochs: int,
    has_validation: bool,
    history: CsvHistory,
    callbacks: Sequence[Callback],
) -> Trainer:
    """Lightning's trainer with the callbacks of a run, and those that are given."""
    for message in (
        "does not have many workers",  # groups are cut from memory
        "LeafSpec.*is deprecated",  # inside Lightning
        "number of training batches.*smaller than the logging interval",
        "callbacks used to create the checkpoint",  # a run may go on without early stopping
    ):
        warnings.filterwarnings("ignore", message=f".*{message}.*")
    if config.quiet:  # the warnings of the package itself are log messages, and stay
        warnings.filterwarnings("ignore", module=r"(lightning|torch)\.")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR if config.quiet else logging.WARNING)
    logging.getLogger(LAUNCHER).setLevel(logging.INFO)
    keep = config.checkpoint_save_top_k
    own: list[Callback] = [
        RestoreSigterm(),
        ComparableLoss(),
        history,
        *callbacks,
        EpochCheckpoints(run, history, keep=keep, has_validation=has_validation),
    ]
    if config.max_time is not None:  # whole epochs, so that a resumed run can repeat them
        own.append(Timer(config.max_time, interval="epoch"))
    if config.early_stop_patience is not None:
        monitor = "val_loss" if has_validation else "train_loss"
        patience = config.early_stop_patience
        own.append(EarlyStopping(monitor, patience=patience, check_on_train_epoch_end=True))
    if not config.quiet:
        own.append(RunProgress())
    with as_input_error():
        return Trainer(
            accelerator=config.accelerator,
            devices=config.devices,
            num_nodes=config.num_nodes,
            strategy=config.strategy,
            use_distributed_sampler=False,  # the sampler shares out the groups itself
            precision=config.precision,
            max_epochs=max_epochs,
            gradient_clip_val=GRADIENT_NORM,
            deterministic=config.deterministic,
            logger=build_logger(config, run),
            callbacks=own,
            plugins=[AtomicCheckpointIO(), *environment_plugins()],
            default_root_dir=run.path,
            enable_progress_bar=False,  # that of Lightning, which is of an epoch
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=1.0 if has_validation else 0,
        )


def check_tracker(config: TrainingConfig) -> None:
    """Raise `InputError` for a tracker that is not installed, or cannot write into the folder."""
    if config.logger in TRACKERS and find_spec(config.logger) is None:
        package = TRACKERS[config.logger]
        raise InputError(
            f"--logger {config.logger} needs a package that is not here: pip install {package}"
        )
    if config.logger in TRACKERS and printable(str(config.output_dir)) != str(config.output_dir):
        raise InputError(
            f"--logger {config.logger} cannot write into {config.output_dir}, whose name is not "
            "UTF-8; choose another --output_dir, or --logger csv"
        )


def build_logger(config: TrainingConfig, run: RunDir) -> Logger | bool:
    """The tracker beside `metrics.csv`, if any."""
    if config.logger == "tensorboard":
        return TensorBoardLogger(run.path, name="tensorboard", version="")
    if config.logger == "mlflow":
        uri = f"file:{run.path / 'mlruns'}"
        return MLFlowLogger(experiment_name="ptycho_torch", tracking_uri=uri)
    return False

"""Training: scans in, a run folder with checkpoints and history out."""

import contextlib
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch import Callback, Trainer

from ptycho_torch.config import TrainingConfig
from ptycho_torch.config.parser import to_dict, to_yaml
from ptycho_torch.config.registry import GENERATORS, load
from ptycho_torch.data.conditions import conditions_of
from ptycho_torch.data.grouping import choose_group_size, select_positions
from ptycho_torch.data.scan import Scan
from ptycho_torch.distributed.device import (
    choose_device,
    double_precision_device,
    keep_freed_memory,
    threads_for,
)
from ptycho_torch.distributed.fabric import (
    check_world_size,
    is_global_zero,
    raise_on_lost_rank,
    silence_other_ranks,
)
from ptycho_torch.doctor.open_scan import open_scan
from ptycho_torch.errors import InputError, RunError
from ptycho_torch.evaluation.history_plot import save_history
from ptycho_torch.generators.checkpoint import DAMAGE, read_checkpoint, reason_of
from ptycho_torch.io.files import write_npy, write_text
from ptycho_torch.io.log import log_to
from ptycho_torch.io.measurement_file import apply_measurement, write_measurement
from ptycho_torch.io.readers import files_read, scans_in
from ptycho_torch.io.run_dir import RunDir, provenance
from ptycho_torch.refinement.measurement import refine_measurement
from ptycho_torch.refinement.measurement_refiner import MeasurementOptions
from ptycho_torch.refinement.probe_retrieval import ensure_probe
from ptycho_torch.train.budget import default_epochs, steps_in_epoch
from ptycho_torch.train.callbacks import CsvHistory, best_epoch
from ptycho_torch.train.datamodule import ScanDataModule
from ptycho_torch.train.module import PtychoModule
from ptycho_torch.train.trainer import build_trainer, check_tracker

TIME = r"(?!00:00:00:00)[0-9]{2}(:[0-9]{2}){3}"  # DD:HH:MM:SS, and not no time at all

logger = logging.getLogger(__name__)

# Ends of the names of strategies that train in children of the process and not in the process.
STARTED_INSIDE = ("spawn", "fork", "notebook")


def fit(config: TrainingConfig, *, callbacks: Sequence[Callback] = ()) -> RunDir:
    """Train a generator on scans; see `ptycho_torch.train.train`."""
    silence_other_ranks()
    check_options(config)
    run = RunDir(config.output_dir)
    if is_global_zero():
        run.check_unused("train", overwrite=config.overwrite, resume=config.resume is not None)
    # 1. scans
    train_files = [path for given in config.train_data_file for path in scans_in(given)]
    validation_files = [config.test_data_file] if config.test_data_file else []
    train, validation = (
        [read(path, config) for path in files] for files in (train_files, validation_files)
    )
    check_shapes(train + validation)
    check_enough(train + validation, config.devices * config.num_nodes)
    # 2. network
    generator = load(GENERATORS[config.generator])
    group_size = choose_group_size(
        train + validation,
        config.gridsize,
        generator.gridsize,
        variable_group_size=generator.variable_group_size,
    )
    max_epochs = config.max_epochs or default_epochs(
        train, steps=steps_in_epoch(config, train, group_size)
    )
    start = find_start(config, run)
    epochs_done = 0
    if start is not None:
        network = network_parameters(config, group_size)
        epochs_done = check_start(start, network, max_epochs)
    # 3. trainer
    history = CsvHistory(run, write=config.logger != "none")
    trainer = build_trainer(
        config,
        run,
        max_epochs=max_epochs,
        has_validation=bool(validation),
        history=history,
        callbacks=callbacks,
    )
    files = train_files + validation_files
    inputs = [one for path in files for one in files_read(path, config)]
    with claim_on_rank_zero(config, run, trainer, inputs), raise_on_lost_rank(trainer.strategy):
        # 4. the measurement, before the network learns from it
        if config.refine_measurement:
            write = trainer.is_global_zero
            train = [
                improve_measurement(scan, run, i, config, write=write)
                for i, scan in enumerate(train)
            ]
        # 5. training
        module = build_module(config, group_size, train)
        data = ScanDataModule(
            train,
            validation,
            group_size=group_size,
            variable_group_size=generator.variable_group_size,
            batch_size=config.batch_size,
            num_workers=config.num_workers,
            seed=config.seed,
            first_epoch=epochs_done,
        )
        lightning.seed_everything(config.seed, workers=True, verbose=False)
        _announce(module, train, group_size, trainer)
        keep_freed_memory()
        with refusing_start(start, module), threads_for(train[0].pattern_shape):
            trainer.fit(module, data, ckpt_path=start, weights_only=True)
        logger.debug("CUDA initialised: %s", torch.cuda.is_initialized())
        if trainer.is_global_zero:
            save_history(run.history, history.rows, best_epoch=best_epoch(trainer))
        logger.info("trained for %d epochs: %s", len(history.rows), run.best_checkpoint)
    return run


def read(path: Path, config: TrainingConfig) -> Scan:
    """The scan in a file, with a probe, and with the chosen positions."""
    scan = ensure_probe(
        open_scan(path, config),
        seed=config.seed,
        show=not config.quiet,
        device=measurement_device(config),
    )
    return select_positions(scan, config.n_images)


def measurement_device(config: TrainingConfig) -> torch.device:
    """Where probe and measurement are refined before the training.

    Several processes refine for themselves, on the CPU, where they find the same bits.
    """
    if config.devices * config.num_nodes > 1:
        return torch.device("cpu")
    return double_precision_device(choose_device(config.accelerator))


@contextlib.contextmanager
def claim_on_rank_zero(
    config: TrainingConfig, run: RunDir, trainer: Trainer, inputs: Sequence[Path]
) -> Iterator[None]:
    """Claim the run folder and log to it on rank zero; the other ranks do not touch it."""
    if not trainer.is_global_zero:
        yield
        return
    resume = config.resume is not None
    with (
        run.claim("train", overwrite=config.overwrite, resume=resume, inputs=inputs),
        log_to(run.train_log),
    ):
        write_text(run.config, to_yaml(config))
        run.checkpoints.mkdir(exist_ok=True)
        logger.debug("versions: %s", provenance())
        yield


def improve_measurement(
    scan: Scan, run: RunDir, number: int, config: TrainingConfig, *, write: bool
) -> Scan:
    """The scan with its measurement refined, or as the resumed run refined it.

    Args:
        scan: Its probe need only be roughly right.
        run: Keeps the result, and the probe as a file that `--probe` reads.
        number: Of the scan.
        config: Options of the training.
        write: Whether this process writes it; the others compute the same.
    """
    path = run.measurement_file(number)
    if config.resume is not None and path.is_file():
        known = apply_measurement(path, scan)
        if known is None:
            raise InputError(f"{path} is of another scan than {scan.source}; start a new run")
        return known
    options = MeasurementOptions(probe="on", seed=config.seed, device=measurement_device(config))
    better = refine_measurement(scan, options, show=write and not config.quiet).scan
    if write:
        write_measurement(path, better, of=scan)
        write_npy(run.probe_file(number), better.need_probe())
        logger.info("inference takes what was found, kept in %s, for the same scan", path)
    return better


def check_options(config: TrainingConfig) -> None:
    """Raise `InputError` for options that this machine, or Lightning, cannot fulfil."""
    if config.max_time is not None and not re.fullmatch(TIME, config.max_time):
        raise InputError(
            f"--max_time {config.max_time}: expected DD:HH:MM:SS, "
            "such as 00:00:04:00 for four minutes"
        )
    if config.strategy.rpartition("_")[2] in STARTED_INSIDE:
        raise InputError(
            f"--strategy {config.strategy} trains in processes whose log and history are lost; "
            "use --strategy ddp"
        )
    check_tracker(config)
    choose_device(config.accelerator)
    check_world_size(config.devices, config.num_nodes)


def check_shapes(scans: Sequence[Scan]) -> None:
    """Raise `InputError` if patterns of different size would meet in a batch."""
    first, *others = scans
    expected = first.need_probe().shape
    for scan in others:
        found = scan.need_probe().shape
        if found != expected:
            raise InputError(
                f"{scan.source} has probe and patterns of shape {found} but {first.source} "
                f"has {expected}; train on scans of one shape"
            )
        if (scan.fresnel_number is None) != (first.fresnel_number is None):
            raise InputError(
                f"{scan.source} and {first.source} need different propagators; train on scans of "
                "the far field or of the near field"
            )


def check_enough(scans: Sequence[Scan], world_size: int) -> None:
    """Raise `InputError` if a scan has no pattern for one of the processes."""
    smallest = min(scans, key=len)
    if len(smallest) < world_size:
        raise InputError(
            f"{smallest.source}: {len(smallest)} patterns cannot be shared by {world_size} "
            "processes; use fewer"
        )


def find_start(config: TrainingConfig, run: RunDir) -> Path | None:
    """The checkpoint to continue from; None for a new run."""
    if config.resume is None:
        return None
    held = [path for path in (run.last_checkpoint, run.best_checkpoint) if path.is_file()]
    path = run.last_checkpoint if config.resume == "auto" else Path(config.resume)
    if path.is_file():
        if held and path.resolve().parent != run.checkpoints.resolve():
            raise InputError(
                f"{run.path} holds another training; continue it with --resume auto, "
                f"or choose another --output_dir for --resume {path}"
            )
        return path
    if config.resume == "auto":
        if held:
            raise InputError(
                f"{path}: is not there, but {held[0].name} is; continue from that one with "
                f"--resume {held[0]}, or start anew with --overwrite"
            )
        logger.info("no checkpoint in %s yet: starting from the beginning", run.checkpoints)
        return None
    raise InputError(
        f"--resume {path}: no such checkpoint; use --resume auto for the last one of {run.path}"
    )


def network_parameters(config: TrainingConfig, group_size: int) -> dict[str, Any]:
    """Generator, its settings and loss, which decide the shapes and the meaning of the weights."""
    generator = load(GENERATORS[config.generator])
    given = {} if generator.variable_group_size else {"group_size": group_size}
    return {
        "generator": config.generator,
        "settings": generator(**given).settings,
        "loss": config.loss,
    }


def check_start(checkpoint: Path, network: dict[str, Any], max_epochs: int) -> int:
    """The epochs after which a checkpoint was saved.

    Raises:
        InputError: If it is of another network, or of more epochs than are wanted.
    """
    content = read_checkpoint(checkpoint)
    try:
        before = {name: content["hyper_parameters"][name] for name in network}
        epochs = int(content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])
        different = [name for name, value in network.items() if before[name] != value]
        if epochs != len(content["callbacks"]["History"]["rows"]):
            raise ValueError("its table of losses is not of its epochs")
        if epochs and not content["optimizer_states"][0]["state"]:
            raise ValueError("the state of the optimiser is missing")
    except DAMAGE as error:
        raise InputError(f"{checkpoint}: does not hold a training ({reason_of(error)})") from error
    for name in different:
        raise InputError(
            f"{checkpoint} was trained with {name} {before[name]}, not {network[name]}; "
            "resume with the same"
        )
    if epochs > max_epochs:
        raise InputError(
            f"{checkpoint} was trained for {epochs} epochs, more than {max_epochs}; "
            f"resume with --max_epochs {epochs} or more"
        )
    return epochs


@contextlib.contextmanager
def refusing_start(start: Path | None, module: PtychoModule) -> Iterator[None]:
    """Turn an error before the end of the first step of a resumed run into an `InputError`.

    Lightning and torch raise errors of many classes for a state that does not fit.
    """
    try:
        yield
    except DAMAGE as error:
        machine = isinstance(error, InputError | RunError | OSError | torch.OutOfMemoryError)
        if start is None or module.stepped or machine:
            raise
        raise InputError(f"{start}: cannot be continued ({reason_of(error)})") from error


def build_module(config: TrainingConfig, group_size: int, scans: Sequence[Scan]) -> PtychoModule:
    """The training module, with weights drawn from the seed."""
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    network = network_parameters(
        config, group_size
    )  # draws weights too, as every generator that is built
    about = {
        "group_size": group_size,
        "config": to_dict(config),
        "versions": provenance(),
        "conditions": [asdict(conditions_of(scan)) for scan in scans],
    }
    return PtychoModule(
        **network,
        learning_rate=config.learning_rate,
        scheduler=config.scheduler,
        seed=config.seed,
        about=about,
    )


def _announce(
    module: PtychoModule, scans: Sequence[Scan], group_size: int, trainer: Trainer
) -> None:
    """Log the network, the data and the device."""
    weights = sum(parameter.numel() for parameter in module.parameters())
    patterns = sum(len(scan) for scan in scans)
    device = trainer.strategy.root_device.type
    shared = f" by {trainer.world_size} processes" if trainer.world_size > 1 else ""
    logger.info(
        "training '%s' (%d weights) on %d patterns of %dx%d in groups of %d, "
        "%.3g photons each, on %s%s",
        module.hparams["generator"], weights, patterns, *scans[0].pattern_shape, group_size,
        scans[0].photons, device, shared,
    )  # fmt: skip

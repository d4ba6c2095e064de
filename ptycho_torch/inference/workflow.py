"""Run an inference: checkpoint and scan in; reconstruction, pictures and metrics out."""

import contextlib
import logging
import time
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ptycho_torch.config import InferenceConfig
from ptycho_torch.config.parser import to_yaml
from ptycho_torch.data.conditions import training_conditions
from ptycho_torch.data.grouping import select_positions
from ptycho_torch.data.scan import Reconstruction, Scan
from ptycho_torch.distributed.communicator import SingleProcess
from ptycho_torch.distributed.device import (
    choose_device,
    double_precision_device,
    require_determinism,
)
from ptycho_torch.doctor.open_scan import open_scan
from ptycho_torch.errors import InputError, NotTrustedError
from ptycho_torch.evaluation.fit_plots import save_residuals
from ptycho_torch.evaluation.metrics.residuals import pattern_residuals
from ptycho_torch.evaluation.movie import MovieFrames, save_movie
from ptycho_torch.evaluation.pattern_fit import fit_of_patterns, write_fit
from ptycho_torch.evaluation.plots import save_amplitude, save_phase
from ptycho_torch.evaluation.report import write_report
from ptycho_torch.evaluation.verdict import verdict_on
from ptycho_torch.generators.checkpoint import find_checkpoint, load_generator
from ptycho_torch.inference.half_data import half_data_frc, to_dict
from ptycho_torch.inference.in_memory import (
    as_reconstructed,
    check_not_flat,
    image_metrics,
    reconstruct_and_refine,
    with_measurement_fixed,
)
from ptycho_torch.inference.tiling import tile_sizes
from ptycho_torch.inference.training_domain import outside_domain
from ptycho_torch.io.files import file_sha256, write_json, write_text
from ptycho_torch.io.log import collecting_warnings, log_to
from ptycho_torch.io.measurement_file import apply_measurement
from ptycho_torch.io.readers.detect import files_read
from ptycho_torch.io.run_dir import RunDir, provenance
from ptycho_torch.io.writers import check_known, write_formats, write_reconstruction
from ptycho_torch.refinement.loop import RefinementEpoch
from ptycho_torch.refinement.probe_retrieval import ensure_probe

logger = logging.getLogger(__name__)


def run_inference(config: InferenceConfig) -> RunDir:
    """Reconstruct a scan and write the result; see `ptycho_torch.inference.reconstruct`."""
    with collecting_warnings() as warnings:
        return _reconstruct_to_files(config, warnings)


def _reconstruct_to_files(config: InferenceConfig, warnings: list[str]) -> RunDir:
    """Reconstruct a scan and write the result, with the warnings that came up."""
    began, clock = datetime.now().astimezone(), time.perf_counter()
    # 1. network and scan
    comm = find_processes(config)
    run = RunDir(config.output_dir)
    if comm.is_global_zero:
        run.check_unused("infer", overwrite=config.overwrite)
        check_movie(config)
    checkpoint = find_checkpoint(config.model_path)
    generator, about = load_generator(checkpoint)
    device = double_precision_device(comm.device)
    scan = ensure_probe(
        open_scan(config.test_data, config),
        seed=config.seed,
        show=not config.quiet,
        device=device,
    )
    given = select_positions(scan, config.n_images)
    scan = with_known_measurement(given, checkpoint, config)
    check_known(scan, config.format)
    tile_sizes(generator, scan, config.gridsize)
    trained = training_conditions(about)
    with contextlib.ExitStack() as stack:
        if comm.is_global_zero:
            inputs = [*files_read(config.test_data, config), checkpoint]
            stack.enter_context(run.claim("infer", overwrite=config.overwrite, inputs=inputs))
            stack.enter_context(log_to(run.inference_log))
        stack.enter_context(comm.launch())
        torch.manual_seed(config.seed)
        require_determinism(config.deterministic)
        _announce(scan, checkpoint, comm)
        unknown = outside_domain(trained, scan)
        warn_of_training(checkpoint, about, unknown, config)
        # 2. reconstruction
        started = time.perf_counter()
        generator = generator.to(comm.device)
        show = comm.is_global_zero and not config.quiet
        movie = MovieFrames()
        result, history = reconstruct_and_refine(
            generator,
            scan,
            config,
            trained=trained,
            comm=comm,
            show=show,
            on_epoch=None if config.movie is None else partial(film, movie),
        )
        duration_s = time.perf_counter() - started
        check_not_flat(result)
        # 3. quality
        scan = as_reconstructed(scan, result)
        residuals = pattern_residuals(result, scan, device)
        halves, quality = None, {}
        if config.metrics:
            halves = half_data_frc(
                scan,
                lambda half: reconstruct_and_refine(
                    generator, half, with_measurement_fixed(config), trained=trained, comm=comm
                )[0],
                seed=config.seed,
            )
            quality = to_dict(residuals, halves, scan)
        # 4. files
        if comm.is_global_zero:
            write_picture(run, result, config)
            save_residuals(run.residuals, scan.positions_px, residuals, halves, scan.pixel_size_m)
            fit = fit_of_patterns(result, scan, residuals, given.positions_px)
            write_fit(run.pattern_fit, fit)
            found = image_metrics(result, scan, residuals, refined=bool(history))
            timing = {
                "started": began.isoformat(timespec="seconds"),
                "total_s": time.perf_counter() - clock,
                "duration_s": duration_s,
                "patterns_per_s": len(scan) / duration_s,
                "device": comm.device.type,
                "cuda_initialized": torch.cuda.is_initialized(),
                "pixel_size_m": scan.pixel_size_m,
                "decisions": list(scan.decisions),
                "versions": provenance(),
            }
            training = {
                "beyond_training": unknown,
                "trained": about,
                "checkpoint": str(checkpoint.absolute()),
                "checkpoint_sha256": file_sha256(checkpoint),
            }
            said = found | timing | history | quality | training
            verdict = verdict_on(said)
            said |= {"verdict": verdict.to_dict(), "warnings": list(warnings)}
            write_json(run.metrics, said)
            write_report(run)
            if config.movie is not None:
                save_movie(config.movie, movie.frames, result)
                logger.info("the epochs of the refinement: %s", config.movie)
            logger.info("verdict: %s: %s", verdict.level, "; ".join(verdict.reasons))
            if config.strict and verdict.level == "do not trust it":
                raise NotTrustedError(f"{verdict.level}: {'; '.join(verdict.reasons)}")
        logger.info("%d patterns in %.2f s: %s", len(scan), duration_s, run.reconstruction)
    return run


def check_movie(config: InferenceConfig) -> None:
    """Raise `InputError` if the file of the animation cannot be written, or is there already."""
    path = config.movie
    if path is None:
        return
    if path.exists() and not config.overwrite:
        raise InputError(f"--movie {path} is there already; choose another, or --overwrite it")
    if path.parent not in (config.output_dir, Path()) and not path.parent.is_dir():
        raise InputError(f"--movie {path}: there is no folder {path.parent}")


def film(movie: MovieFrames, epoch: int, entry: RefinementEpoch, obj: torch.Tensor) -> None:
    """Keep the object after an epoch of the refinement."""
    movie.add(epoch, entry.r_free, obj.numpy(force=True))


def find_processes(config: InferenceConfig) -> SingleProcess:
    """The processes that do the work.

    Raises:
        InputError: If this machine has no such devices.
    """
    device = choose_device(config.accelerator)
    if config.devices * config.num_nodes == 1:
        return SingleProcess(device)
    from ptycho_torch.distributed.fabric import FabricProcesses  # importing Lightning takes seconds

    return FabricProcesses(config.accelerator, config.devices, config.num_nodes)


def _announce(scan: Scan, checkpoint: Path, comm: SingleProcess) -> None:
    """Log what is about to happen."""
    shared = f", {comm.world_size} processes" if comm.world_size > 1 else ""
    logger.info(
        "reconstructing %d patterns with %s, on %s%s",
        len(scan),
        checkpoint,
        comm.device.type,
        shared,
    )


def with_known_measurement(scan: Scan, checkpoint: Path, config: InferenceConfig) -> Scan:
    """The scan with what the training found about its measurement, if it is the same scan.

    For another scan the probe of the training is offered, and not taken; ``--probe`` comes first.
    """
    run = RunDir(checkpoint.absolute().parent.parent)
    if config.probe is not None:
        return scan
    for path in run.measurement_files():
        known = apply_measurement(path, scan)
        if known is not None:
            logger.info("%s: what the training found about this scan is taken", path)
            return known
    if run.probe_file(0).is_file():
        text = "the network was trained with a refined probe; --probe %s takes it for this image"
        logger.warning(text, run.probe_file(0))
    return scan


def warn_of_training(
    checkpoint: Path, about: dict[str, Any], unknown: Sequence[str], config: InferenceConfig
) -> None:
    """Warn where the training does not fit the scan, or was not finished."""
    if unknown:
        advice = ""
        if config.refine == "0":
            advice = "; --refine auto makes up for most of it, training on such a scan for all"
        text = "the network was trained on other scans than this one, of %s%s"
        logger.warning(text, ", ".join(unknown), advice)
    if about["steps"] == 0:
        text = (
            "%s holds weights that were not trained yet: its training ended before epoch 0 did; "
            "run train --resume auto"
        )
        logger.warning(text, checkpoint)


def write_picture(run: RunDir, result: Reconstruction, config: InferenceConfig) -> None:
    """Write the object, in every format that was asked for, and its pictures."""
    write_text(run.config, to_yaml(config))
    write_reconstruction(run.reconstruction, result)
    write_formats(run, result, config.format)
    save_amplitude(run.amplitude, result)
    save_phase(run.phase, result)

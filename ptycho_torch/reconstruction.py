"""Inference: a trained generator and a scan in, a stitched object out."""

import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from ptycho_torch.accelerator import choose_device, give_memory_back
from ptycho_torch.assessment import assess_halves, plain
from ptycho_torch.checkpoint import find_checkpoint, load_generator
from ptycho_torch.command import log_to
from ptycho_torch.conditions import Conditions, beyond, far_apart, trained_under
from ptycho_torch.config import InferenceConfig, to_yaml
from ptycho_torch.errors import InputError, RunError
from ptycho_torch.generators import Generator
from ptycho_torch.grouping import Neighbourhood, divide, join_groups, make_group
from ptycho_torch.metrics import Residuals, empty_r_factor, noise_r_factor, pattern_residuals
from ptycho_torch.physics import coverage
from ptycho_torch.plots import save_amplitude, save_phase, save_residuals
from ptycho_torch.polishing import polish
from ptycho_torch.refinement import draw_free
from ptycho_torch.report import write_report
from ptycho_torch.run_dir import RunDir, provenance, write_json, write_text
from ptycho_torch.scan import Group, Reconstruction, Scan
from ptycho_torch.selection import members_of_a_group, open_scan
from ptycho_torch.sharing import OneProcess
from ptycho_torch.stitching import Mosaic
from ptycho_torch.writers import check_known, write_formats, write_reconstruction

logger = logging.getLogger(__name__)

FLAT = 0.005  # relative variation of the object; weakly scattering cells still vary by several per cent
FREE_SHARE = 0.04  # of the patterns, kept out of the refinement to judge it by
PROBE_IN_DOUBT = 3.0  # times the R-factor of counting noise; a network with the right probe stays below
SMALL_R = 0.02  # a misfit that no wrong probe would leave
HALO = 1.5  # patterns seen with a region, as a multiple of those in it; they complete the view at its border


def infer(config: InferenceConfig) -> RunDir:
    """Reconstruct a scan and write the result; see `ptycho_torch.inference.reconstruct`."""
    processes = find_processes(config)
    checkpoint = find_checkpoint(config.model_path)
    generator, about = load_generator(checkpoint)
    scan = open_scan(config.test_data, n_images=config.n_images, options=config, seed=config.seed, show=not config.quiet)
    check_known(scan, config.format)
    core, size = tile_sizes(generator, scan, config.gridsize)
    run = RunDir(config.output_dir)
    with contextlib.ExitStack() as until_done:
        if processes.first:
            until_done.enter_context(run.claim(overwrite=config.overwrite))
            until_done.enter_context(log_to(run.inference_log))
        until_done.enter_context(processes.connected())
        torch.manual_seed(config.seed)
        torch.use_deterministic_algorithms(config.deterministic)
        shared = f", {processes.count} processes" if processes.count > 1 else ""
        logger.info("reconstructing %d patterns with %s, on %s%s", len(scan), checkpoint, processes.device.type, shared)
        trained = trained_under(about)
        unknown = beyond(trained, scan)
        if unknown:
            advice = "; --refine auto makes up for most of it, training on such a scan for all" if config.refine == "0" else ""
            logger.warning("the network was trained on other scans than this one, of %s%s", ", ".join(unknown), advice)
        trained_with = RunDir(checkpoint.parents[1]).probe_file(0)
        if config.probe is None and trained_with.is_file():
            logger.warning("the network was trained with a refined probe; --probe %s takes it for this picture", trained_with)
        if about["steps"] == 0:
            text = "%s holds weights that were not trained yet: its training ended before epoch 0 did; run train --resume auto"
            logger.warning(text, checkpoint)
        started = time.perf_counter()
        generator = generator.to(processes.device)
        result, said = make_picture(generator, scan, config, processes, trained, core=core, size=size)
        duration_s = time.perf_counter() - started
        check_not_flat(result)
        scan = replace(scan, positions_px=result.positions_px)
        residuals = pattern_residuals(result, scan)
        halves = None
        if config.metrics:
            halves = assess_halves(
                scan,
                lambda half: reconstruct_half(generator, half, config, processes, trained),
                seed=config.seed,
            )
            said |= plain(residuals, halves, scan)
        if processes.first:
            write_picture(run, result, config)
            save_residuals(run.residuals, scan.positions_px, residuals, halves)
            found = figures(result, scan, residuals, duration_s, processes.device, refined="refinement" in said) | said
            write_json(run.metrics, found | {"beyond_training": unknown, "trained": about})
            write_report(run)
        logger.info("%d patterns in %.2f s: %s", len(scan), duration_s, run.reconstruction)
    return run


def find_processes(config: InferenceConfig) -> OneProcess:
    """Those that do the work.

    Raises:
        InputError: If this machine has no such devices.
    """
    device = choose_device(config.accelerator)
    if config.devices * config.num_nodes == 1:
        return OneProcess(device)
    from ptycho_torch.processes import SeveralProcesses  # Lightning takes seconds to import; one process does not wait

    return SeveralProcesses(config.accelerator, config.devices, config.num_nodes)


def write_picture(run: RunDir, result: Reconstruction, config: InferenceConfig) -> None:
    """Write the object, in every format that was asked for, and its pictures."""
    write_text(run.config, to_yaml(config))
    write_reconstruction(run.reconstruction, result)
    write_formats(run, result, config.format)
    save_amplitude(run.amplitude, result)
    save_phase(run.phase, result)


def make_picture(
    generator: Generator,
    scan: Scan,
    config: InferenceConfig,
    processes: OneProcess,
    trained: Sequence[Conditions],
    *,
    core: int,
    size: int,
) -> tuple[Reconstruction, dict[str, Any]]:
    """The network's picture, refined if that is asked for and predicts patterns better that neither has seen.

    The refinement starts from the network's picture, or from an empty object where positions lie far
    apart. The picture of a network that was not trained on such scans is no part of the answer.

    Args:
        generator: On the device where it is to run.
        scan: Patterns, positions, probe.
        config: What the user asked for.
        processes: That share the network's part; the refinement is that of the first.
        trained: Conditions of the scans that the network was trained on.
        core: Patterns in a region.
        size: Patterns that the generator sees with a region.

    Returns:
        The picture, and what `metrics.json` is to say about the refinement.
    """
    show = processes.first and not config.quiet

    def network(without: np.ndarray) -> Reconstruction:
        return reconstruct_scan(
            generator,
            scan,
            without=without,
            core=core,
            size=size,
            batch_size=config.inference_batch_size,
            processes=processes,
            show=show,
        )

    nothing = np.empty(0, dtype=np.int64)
    if config.refine == "0":
        return network(nothing), {}
    free = draw_free(len(scan), FREE_SHARE, config.seed).numpy()
    seen = network(free)
    start = replace(seen, object=np.ones_like(seen.object)) if far_apart(trained, scan) else seen
    result, history = processes.by_first(
        lambda: polish(
            start,
            scan,
            passes=config.refine,
            refine_probe=config.refine_probe,
            refine_positions=config.refine_positions,
            probe_modes=config.probe_modes,
            free=free,
            other=None if beyond(trained, scan) else seen,
            seed=config.seed,
            show=show,
        )
    )
    return (network(nothing) if history["outcome"] == "other" else result), {"refinement": history}


def reconstruct_half(
    generator: Generator, half: Scan, config: InferenceConfig, processes: OneProcess, trained: Sequence[Conditions]
) -> Reconstruction:
    """The object of a part of a scan, made and refined as the whole was."""
    core, size = tile_sizes(generator, half, config.gridsize)
    return make_picture(generator, half, replace(config, quiet=True), processes, trained, core=core, size=size)[0]


def tile_sizes(generator: Generator, scan: Scan, gridsize: int | None) -> tuple[int, int]:
    """Patterns in a region and patterns seen with it.

    Raises:
        InputError: If the scan has too few, or the generator is bound to another group size.
    """
    if generator.any_size:
        core = gridsize**2 if gridsize else generator.tile
        core = min(core, len(scan))
        return core, min(round(HALO * core), len(scan))
    members = generator.settings["members"]
    if gridsize is not None and gridsize**2 != members:
        raise InputError(f"--gridsize {gridsize}: the generator was trained on groups of {members} patterns; leave it out")
    members_of_a_group([scan], None, round(members**0.5), any_size=False)
    return members, members


def reconstruct_scan(
    generator: Generator,
    scan: Scan,
    *,
    core: int,
    size: int,
    batch_size: int,
    without: np.ndarray | None = None,
    processes: OneProcess | None = None,
    show: bool = False,
) -> Reconstruction:
    """The object of a scan, stitched from the canvases of its neighbourhoods.

    Processes that share it take a batch each in turn, and the first lays the canvases down in the
    order in which it would have made them: the image has the same bits, however many there are.

    Args:
        generator: On the device where it is to run.
        scan: Patterns, positions, probe.
        core: Patterns in a region.
        size: Patterns that the generator sees with a region.
        batch_size: Regions at once.
        without: Indices of scan points not to look at.
        processes: That share the work and each get the result; by default this one does it.
        show: Whether to draw a progress bar.

    Returns:
        The reconstruction, in the frame of the scan's positions, on a canvas that holds all patches.
    """
    corners = scan.corners_px()
    origin = np.floor(corners.min(axis=0))
    extent = np.rint(corners - origin).max(axis=0).astype(int) + scan.pattern_shape + 1
    mosaic = Mosaic(origin, (int(extent[0]), int(extent[1])))
    if without is not None and len(without):
        scan = scan.subset(np.setdiff1d(np.arange(len(scan)), without))
    regions = divide(scan.positions_px, core=core, size=size)
    batches = [regions[i : i + batch_size] for i in range(0, len(regions), batch_size)]
    team = processes or OneProcess(next(generator.parameters()).device)
    for turn in track(range(0, len(batches), team.count), description="reconstructing", disable=not show):
        own = batches[turn : turn + team.count][team.rank : team.rank + 1]  # none where the last turn does not go round
        for part in team.gather([placed for batch in own for placed in canvases(generator, scan, batch)]):
            for placed in part:
                mosaic.add(*placed)
        give_memory_back()  # after each batch takes some hundredths of the time
    image, light = team.by_first(mosaic.finish)
    return Reconstruction(
        object=image.numpy(),
        coverage=light.div_(light.max()).numpy(),
        origin_yx=origin,
        probe=scan.probe,
        positions_px=scan.positions_px,
        scan_index=scan.scan_index,
        pixel_size_m=scan.pixel_size_m,
        instrument=scan.instrument,
    )


@torch.inference_mode()
def canvases(generator: Generator, scan: Scan, regions: list[Neighbourhood]) -> list[tuple[Tensor, Tensor, np.ndarray]]:
    """Canvas, light of the region's own patterns on it, and origin, of each region of a batch."""
    device = next(generator.parameters()).device
    group = Group(*(part.to(device) for part in join_groups([make_group(scan, region.members) for region in regions])))
    canvas_shape = group.canvas_shape()
    images = generator(group, canvas_shape)
    own = zip(regions, group.corners_px.split(1), group.probe.split(1), strict=True)
    light = [coverage(corners[:, : region.core], probe, canvas_shape)[0].cpu() for region, corners, probe in own]
    return list(zip(images.cpu(), light, group.origin_px.cpu().numpy(), strict=True))


def variation(result: Reconstruction) -> float:
    """Standard deviation of the object relative to its mean, weighted by coverage; 0 for a flat one."""
    weight = result.coverage / result.coverage.sum(dtype=np.float64)
    mean = np.sum(weight * result.object)
    spread = np.sqrt(np.sum(weight * np.abs(result.object - mean) ** 2))
    return float(spread / max(abs(mean), np.finfo(np.float64).tiny))


def check_not_flat(result: Reconstruction) -> None:
    """Raise `RunError` for a reconstruction that is not finite, or shows nothing."""
    if not np.isfinite(result.object).all():
        raise RunError(
            "the reconstruction holds values that are not finite; nothing was written: train again with a smaller --learning_rate"
        )
    if variation(result) < FLAT:
        raise RunError(
            f"the reconstruction is flat (it varies by {100 * variation(result):.2g} %); nothing was written: "
            "train longer, or check the probe and the positions"
        )


def figures(
    result: Reconstruction, scan: Scan, residuals: Residuals, duration_s: float, device: torch.device, *, refined: bool
) -> dict[str, Any]:
    """What `metrics.json` says; also warns where the image does not explain the patterns, with what may help."""
    r_image, r_empty, r_noise = residuals.total_r_factor, empty_r_factor(result.probe, scan), noise_r_factor(scan)
    if r_image >= r_empty:
        text = "the image explains the patterns no better than an empty one (R %.3g and %.3g); train longer"
        logger.warning(text, r_image, r_empty)
    logger.info("R-factor %.4f (%.4f for an empty object, about %.4f for counting noise alone)", r_image, r_empty, r_noise)
    if not refined and r_image > PROBE_IN_DOUBT * r_noise and r_image > SMALL_R:
        logger.warning("the probe of the file may be wrong: --refine auto --refine_probe finds a better one with the picture")
    return {
        "patterns": len(scan),
        "photons_per_pattern": scan.photons,
        "r_factor": r_image,
        "r_factor_empty": r_empty,
        "r_factor_noise": r_noise,
        "chi2_per_dof": residuals.chi2_per_dof if residuals.dof.any() else None,
        "variation": variation(result),
        "duration_s": duration_s,
        "patterns_per_s": len(scan) / duration_s,
        "device": device.type,
        "cuda_initialized": torch.cuda.is_initialized(),
        "decisions": list(scan.decisions),
        "versions": provenance(),
    }

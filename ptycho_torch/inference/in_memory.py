"""From a scan in memory and a trained generator to a reconstruction, without files.

`run_inference` and the back end of Ptychodus both use this module; they differ in where the scan
comes from and where the reconstruction goes.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from ptycho_torch.config import ReconstructionOptions
from ptycho_torch.config.options import SWITCHES, Switch
from ptycho_torch.data.conditions import Conditions
from ptycho_torch.data.scan import Reconstruction, Scan
from ptycho_torch.distributed.communicator import SingleProcess
from ptycho_torch.distributed.device import double_precision_device, trim_malloc
from ptycho_torch.errors import RunError
from ptycho_torch.evaluation.metrics.residuals import Residuals, empty_r_factor, noise_r_factor
from ptycho_torch.generators import Generator
from ptycho_torch.inference.stitching import EMPTY
from ptycho_torch.inference.tiling import reconstruct_scan, tile_sizes
from ptycho_torch.inference.training_domain import is_sparse, outside_domain
from ptycho_torch.refinement import RefineOptions, draw_held_out, refine_reconstruction
from ptycho_torch.refinement.loop import Progress
from ptycho_torch.refinement.measurement import refine_measurement
from ptycho_torch.refinement.measurement_refiner import MeasurementOptions

logger = logging.getLogger(__name__)

OptionsT = TypeVar("OptionsT", bound=ReconstructionOptions)

# Relative variation of the object; weakly scattering cells still vary by several per cent.
FLAT = 0.005
HELD_OUT_FRACTION = 0.04  # of the patterns, held out of the refinement
# Times the R-factor of counting noise; a network with the right probe stays below.
DOUBTFUL_PROBE = 3.0
SMALL_R = 0.02  # R-factor that no wrong probe would reach
CUT_OFF = 0.01  # share of the light beyond a canvas from which there is a warning


def reconstruct_and_refine(
    generator: Generator,
    scan: Scan,
    options: ReconstructionOptions,
    *,
    trained: Sequence[Conditions],
    comm: SingleProcess | None = None,
    show: bool = False,
    on_epoch: Progress | None = None,
) -> tuple[Reconstruction, dict[str, Any]]:
    """The network's reconstruction, refined if the options say so.

    The refinement starts from the network's object, or from an empty one where positions lie far
    apart. The object of a network that was not trained on such scans is no part of the answer.
    Where the measurement is found to be other than the file says, network and refinement make the
    image again with what was found.

    Args:
        generator: On the device where it is to run.
        scan: Patterns, positions, probe.
        options: How the image is made.
        trained: Conditions of the scans that the network was trained on.
        comm: Processes that share the patterns and each get the result; by default this one alone.
        show: Whether to draw progress bars.
        on_epoch: Called after each epoch of the refinement with its number, its entry and its
            object; where the image is made a second time, the numbers begin with 0 again.

    Returns:
        The reconstruction, on a canvas that holds all patches, and what `metrics.json` holds about
        the refinement. `on_canvas` moves it to another canvas.
    """
    comm = comm or SingleProcess(next(generator.parameters()).device)
    device = double_precision_device(comm.device)

    def network(scan: Scan, held_out: NDArray[np.int64]) -> Reconstruction:
        return reconstruct_scan(
            generator,
            scan,
            sizes=tile_sizes(generator, scan, options.gridsize),
            batch_size=options.inference_batch_size,
            held_out=held_out,
            comm=comm,
            show=show,
        )

    none = np.empty(0, dtype=np.int64)
    if options.refine == "0":
        return network(scan, none), {}
    held_out = draw_held_out(len(scan), HELD_OUT_FRACTION, options.seed).numpy()
    known = not outside_domain(trained, scan)

    def refined(scan: Scan, refine: RefineOptions) -> tuple[Reconstruction, dict[str, Any]]:
        first = network(scan, held_out)
        start = first
        if is_sparse(trained, scan):
            start = replace(first, object=np.ones_like(first.object))
        result, history = refine_reconstruction(
            scan,
            start,
            refine,
            held_out=held_out,
            network_object=first.object if known else None,
            comm=comm,
            show=show,
            on_epoch=on_epoch,
        )
        return (network(scan, none) if history["outcome"] == "network" else result), history

    result, history = refined(scan, refine_options(options, device))
    measured = replace(scan, probe=result.probe)
    found = refine_measurement(
        measured, measurement_options(options, result, device), start=result, comm=comm, show=show
    )
    if found.findings:
        fixed = replace(refine_options(options, device), update_probe=False, probe_modes=None)
        result, history = refined(found.scan, fixed)
    history["findings"] = [asdict(finding) for finding in found.findings]
    trim_malloc()  # what the refinement kept
    return result, {"refinement": history}


def refine_options(options: ReconstructionOptions, device: torch.device) -> RefineOptions:
    """The options of the refinement of the image, with the measurement as it is given."""
    return RefineOptions(
        epochs="auto" if options.refine == "auto" else int(options.refine),
        update_probe=options.refine_probe == "on",
        probe_modes=options.probe_modes,
        seed=options.seed,
        device=device,
    )


def measurement_options(
    options: ReconstructionOptions, result: Reconstruction, device: torch.device
) -> MeasurementOptions:
    """The options of the refinement of the measurement, after that of an image.

    Without ``--refine auto``, what is not asked for is off, and no modes are tried. A probe
    that was refined with the image is tried again, together with the rest.
    """
    automatic = options.refine == "auto"

    def switch(value: Switch) -> Switch:
        return value if automatic or value == "on" else "off"

    components: int | Literal["auto"] = 0
    if options.probe_components == "auto":
        components = "auto" if automatic else 0
    elif options.probe_components != "off":
        components = int(options.probe_components)
    refined_probe = "auto" if options.refine_probe == "on" and automatic else options.refine_probe
    return MeasurementOptions(
        positions=switch(options.refine_positions),
        flux=switch(options.refine_flux),
        background=switch(options.refine_background),
        probe="on" if components not in ("auto", 0) else refined_probe if automatic else "off",
        probe_components=components,
        probe_modes=len(result.probe) if options.probe_modes or not automatic else None,
        seed=options.seed,
        device=device,
    )


def with_measurement_fixed(options: OptionsT) -> OptionsT:
    """The options for another image of a scan whose measurement was refined already."""
    off: dict[str, Any] = dict.fromkeys(SWITCHES, "off")
    return replace(options, **off, probe_components="off", probe_modes=None)


def as_reconstructed(scan: Scan, result: Reconstruction) -> Scan:
    """The scan with what the image was made with: positions, probe, flux, background."""
    return replace(
        scan,
        positions_px=result.positions_px,
        probe=result.probe,
        flux=result.flux,
        background=result.background,
        probe_components=result.probe_components,
        probe_weights=result.probe_weights,
    )


def on_canvas(
    result: Reconstruction, origin_yx: tuple[int, int], shape: tuple[int, int]
) -> Reconstruction:
    """A reconstruction on another canvas: cropped, and empty space where nothing was measured.

    Warns if the new canvas does not hold all that was measured.

    Args:
        result: Its origin is a whole number of pixels.
        origin_yx: Coordinates of the first pixel of the new canvas, in the frame of the positions.
        shape: ``(Y, X)`` of the new canvas.
    """
    obj = np.full(shape, EMPTY, dtype=result.object.dtype)
    coverage = np.zeros(shape, dtype=result.coverage.dtype)
    source, target = [], []
    offsets = np.rint(result.origin_yx).astype(int) - origin_yx
    for offset, size, full in zip(offsets.tolist(), result.object.shape, shape, strict=True):
        start, stop = max(offset, 0), max(min(offset + size, full), 0)
        target.append(slice(start, stop))
        source.append(slice(start - offset, max(stop - offset, 0)))
    obj[tuple(target)] = result.object[tuple(source)]
    coverage[tuple(target)] = result.coverage[tuple(source)]
    lost = 1 - coverage.sum(dtype=np.float64) / result.coverage.sum(dtype=np.float64)
    if lost > CUT_OFF:
        text = "%.0f %% of the light lies beyond the canvas of %dx%d pixels, and is not part of it"
        logger.warning(text, 100 * lost, *shape)
    return replace(
        result, object=obj, coverage=coverage, origin_yx=np.array(origin_yx, dtype=np.float64)
    )


def variation(result: Reconstruction) -> float:
    """Standard deviation of the object relative to its mean, weighted by coverage; 0 if flat."""
    weight = result.coverage / result.coverage.sum(dtype=np.float64)
    mean = np.sum(weight * result.object)
    spread = np.sqrt(np.sum(weight * np.abs(result.object - mean) ** 2))
    return float(spread / max(abs(mean), np.finfo(np.float64).tiny))


def check_not_flat(result: Reconstruction) -> None:
    """Raise `RunError` for a reconstruction that is not finite, or shows nothing."""
    if not np.isfinite(result.object).all():
        raise RunError(
            "the reconstruction holds values that are not finite; nothing was written: "
            "train again with a smaller --learning_rate"
        )
    if variation(result) < FLAT:
        raise RunError(
            f"the reconstruction is flat (it varies by {100 * variation(result):.2g} %); nothing "
            "was written: train longer, or check the probe and the positions"
        )


def image_metrics(
    result: Reconstruction, scan: Scan, residuals: Residuals, *, refined: bool
) -> dict[str, Any]:
    """Metrics of an image against the patterns; warns, with advice, if it does not explain them."""
    r_image, r_noise = residuals.total_r_factor, noise_r_factor(scan)
    r_empty = empty_r_factor(result.probe, scan)
    if r_image >= r_empty:
        advice = "check the probe and the positions" if refined else "refine it with --refine auto"
        text = "the image explains the patterns no better than an empty one (R %.3g and %.3g); %s"
        logger.warning(text, r_image, r_empty, advice)
    text = "R-factor %.4f (%.4f for an empty object, about %.4f for counting noise alone)"
    logger.info(text, r_image, r_empty, r_noise)
    if not refined and r_image > DOUBTFUL_PROBE * r_noise and r_image > SMALL_R:
        logger.warning(
            "the probe of the file may be wrong: --refine auto --refine_probe finds a better one "
            "with the image"
        )
    return {
        "patterns": len(scan),
        "photons_per_pattern": scan.photons,
        "propagator": "far_field" if scan.is_far_field else "near_field",
        "r_factor": r_image,
        "r_factor_empty": r_empty,
        "r_factor_noise": r_noise,
        "chi2_per_dof": residuals.chi2_per_dof if residuals.dof.any() else None,
        "variation": variation(result),
    }

"""What a measurement did wrong: found from the patterns themselves, and taken into account.

Object, probe and the parameters of the measurement are refined together from an empty object:
positions with an affine map of all of them, the flux of each pattern, a background, a probe that
changes over the scan. Then each parameter that is not asked for by name has to show that the
held-out patterns need it: it is taken out, both models run a few epochs more, and it stays only if
the score of `held_out_halves` is worse without it, by more than its uncertainty.

A clean scan shall pay little for this. So a short trial with all parameters goes first, from the
image that is there already; where it does not predict the held-out patterns better, nothing
further is done.
"""

import logging
from dataclasses import dataclass, replace

import numpy as np
import torch
from rich.progress import Progress as ProgressBar
from torch import Tensor

from ptycho_torch.data.scan import Reconstruction, Scan
from ptycho_torch.distributed.communicator import SingleProcess
from ptycho_torch.refinement.measurement_findings import Finding, describe
from ptycho_torch.refinement.measurement_refiner import (
    LAST_STEP,
    Joint,
    MeasurementOptions,
    MeasurementRefiner,
)
from ptycho_torch.refinement.measurement_trials import extended, needed, trial_gain
from ptycho_torch.refinement.probe_change import remove_open_phase
from ptycho_torch.refinement.step import keep_photons

logger = logging.getLogger(__name__)

MIN_PATTERNS = 24  # fewer of them cannot spare any to be held out
FINAL_EPOCHS = 4  # on all patterns
OPEN_PHASE_STEPS = 3  # each leaves an eighth


@dataclass(frozen=True)
class RefinedMeasurement:
    """A scan with what was found about its measurement.

    Attributes:
        scan: With refined positions, probe, flux, background.
        findings: What was found and taken into account; empty if nothing was.
        object: On a canvas of its own, complex64, (Y, X).
        origin_yx: Of that canvas in the frame of the positions, (2,).
    """

    scan: Scan
    findings: tuple[Finding, ...] = ()
    object: np.ndarray | None = None
    origin_yx: np.ndarray | None = None


@torch.no_grad()
def refine_measurement(
    scan: Scan,
    options: MeasurementOptions,
    *,
    start: Reconstruction | None = None,
    comm: SingleProcess | None = None,
    show: bool = False,
) -> RefinedMeasurement:
    """The scan with what the patterns say about how they were measured; logs what was found.

    Args:
        scan: As given.
        options: What may be refined.
        start: An image of the scan. Where nothing is asked for by name, a short trial from it
            decides whether there is anything to find.
        comm: Processes that share the patterns and each get the result; by default this one alone.
        show: Whether to draw a progress bar.

    Returns:
        The scan itself, without findings, where nothing is to be found or the scan is too small.
    """
    if options.does_nothing or len(scan) < MIN_PATTERNS:
        return RefinedMeasurement(scan)
    with ProgressBar(disable=not show) as bar:
        task = bar.add_task("refining the measurement", total=None)
        refiner = MeasurementRefiner(scan, options, lambda: bar.advance(task), comm)
        if start is not None and not options.asked_for():
            found = trial_gain(refiner, _on_canvas(start, refiner))
            logger.debug("trial of all parameters of the measurement: %s", found)
            if not found.is_significant:
                return RefinedMeasurement(scan)
        joint = needed(refiner, extended(refiner, refiner.refine_all()))
        result = _finish(refiner, joint) if joint.refined else RefinedMeasurement(scan)
    for finding in result.findings:
        logger.info("found, and taken into account: %s", finding.text)
    return result


def _finish(refiner: MeasurementRefiner, joint: Joint) -> RefinedMeasurement:
    """The scan with what was found, after a few epochs on all patterns."""
    refiner.work = refiner.prepared.everything
    for _ in range(OPEN_PHASE_STEPS if len(joint.state.components) else 0):
        remove_open_phase(joint.patterns, joint.state)
    refiner.run(joint, [LAST_STEP] * FINAL_EPOCHS)
    patterns, state, refined = joint.patterns, joint.state, joint.refined
    keep_photons(state, torch.from_numpy(refiner.scan.need_probe()))
    background = patterns.background
    changed: dict[str, np.ndarray] = {}
    if "positions" in refined:
        changed["positions_px"] = patterns.centres.numpy(force=True) + refiner.origin.numpy()
    if "flux" in refined and patterns.flux is not None:
        changed["flux"] = (patterns.flux / patterns.flux.mean()).double().numpy(force=True)
    if "background" in refined and background is not None:
        changed["background"] = patterns.propagator.to_detector(background).numpy(force=True)
    if "probe" in refined:
        changed["probe"] = state.probe.numpy(force=True)
    if len(state.components) and patterns.probe_weights is not None:
        changed["probe_components"] = state.components.numpy(force=True)
        changed["probe_weights"] = patterns.probe_weights.numpy(force=True)
    scan = replace(refiner.scan, **changed)  # type: ignore[arg-type]
    return RefinedMeasurement(
        scan, describe(refiner.scan, scan), state.obj.numpy(force=True), refiner.origin.numpy()
    )


def _on_canvas(start: Reconstruction, refiner: MeasurementRefiner) -> Tensor:
    """The object of an image on the canvas of the refiner, empty space around it."""
    obj = torch.ones(refiner.shape, dtype=torch.complex64)
    top, left = (
        round(float(a - b)) for a, b in zip(start.origin_yx, refiner.origin.tolist(), strict=True)
    )
    rows, columns = start.object.shape
    obj[top : top + rows, left : left + columns] = torch.from_numpy(start.object)
    return obj

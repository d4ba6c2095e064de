"""Retrieve a probe from the patterns alone, or refine a rough one with the object."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from ptycho_torch.data.probe import aperture_radius, defocused, focused_probe
from ptycho_torch.data.scan import Reconstruction, Scan
from ptycho_torch.errors import InputError
from ptycho_torch.refinement.joint_refinement import (
    RefinementResult,
    refine,
)
from ptycho_torch.refinement.refine_options import RefineOptions

logger = logging.getLogger(__name__)

TRIAL_PATTERNS = 128  # patterns in the middle of the scan that choose the curvature
REFINED_PATTERNS = 512  # patterns in the middle of the scan that refine the chosen one
AVERAGED_PATTERNS = 1024  # patterns whose mean shows the aperture
TRIAL_EPOCHS = 6
# Trials from one end to the other; the refinement converges from twice their distance.
CURVATURES = 17
WIDEST_BEAM = 0.8  # of the window; a wider beam overlaps its neighbours in the periodic window
DISTINCT = 0.8  # of the median R-free of the trials; a right curvature is well below


@dataclass(frozen=True)
class Trial:
    """A curvature, in px^2, and the R-free of the probe that has it."""

    curvature: float
    r_free: float


def ensure_probe(scan: Scan, *, seed: int, show: bool, device: torch.device | None = None) -> Scan:
    """The scan with a probe: its own, or one from `retrieve_probe`, which takes minutes."""
    if scan.probe is not None:
        return scan
    if scan.fresnel_number is not None:
        raise InputError(
            f"{scan.source}: there is no probe, and near-field patterns do not show its aperture; "
            "give one with --probe FILE"
        )
    logger.info(
        "%s: there is no probe; retrieving one from the patterns takes some minutes", scan.source
    )
    return retrieve_probe(scan, seed=seed, show=show, device=device)


def retrieve_probe(
    scan: Scan, *, seed: int, show: bool, device: torch.device | None = None
) -> Scan:
    """The scan with a probe that is retrieved from its patterns.

    The root of the mean pattern is the aperture; its phase is tried as a defocus of either sign and
    any size that fits the window. Each trial is refined for a few epochs with a few patterns, and
    the one that predicts the held-out patterns best is refined to the end. The object is unknown
    throughout.

    Args:
        scan: Patterns and positions.
        seed: Seed of the order of the patterns.
        show: Whether to draw a progress bar.
        device: Where to compute; by default the CPU.

    Raises:
        InputError: If no curvature explains the patterns clearly better than the others.
    """
    focused = focused_probe(mean_pattern(scan))
    few = scan.central_subset(TRIAL_PATTERNS)
    to_the_end = RefineOptions(update_probe=True, seed=seed, device=device or torch.device("cpu"))
    options = replace(to_the_end, epochs=TRIAL_EPOCHS)
    trials = [
        Trial(curvature, final_r_free(few, defocused(focused, curvature), options))
        for curvature in track(
            list(curvatures(focused[0])), description="retrieving the probe", disable=not show
        )
    ]
    best = min(trials, key=lambda trial: trial.r_free)
    usual = float(np.median([trial.r_free for trial in trials]))
    if not best.r_free < DISTINCT * usual:
        raise InputError(
            f"{scan.source}: there is no probe, and none could be retrieved from the patterns: the "
            "best "
            f"defocus predicts held-out patterns with R {best.r_free:.3g}, others with "
            f"{usual:.3g}; "
            "give a probe with --probe FILE"
        )
    start = replace(scan.central_subset(REFINED_PATTERNS), probe=defocused(focused, best.curvature))
    result = refine_from_uniform(start, to_the_end)
    rim = best.curvature * aperture_radius(focused[0])
    sentence = (
        f"the probe was retrieved from the patterns: with the best of {len(trials)} defoci, which "
        "moves "
        f"the rim of the aperture by {rim:+.3g} px, and refined, it predicts held-out patterns "
        "with "
        f"R {result.r_free:.3g}"
    )
    return _with_probe(scan, result.reconstruction.probe, sentence)


def _with_probe(scan: Scan, probe: NDArray[np.complex64], sentence: str) -> Scan:
    """The scan with another probe, and a sentence on how it was found, which is logged."""
    logger.info("%s: %s", scan.source, sentence)
    return replace(scan, probe=probe, decisions=(*scan.decisions, sentence))


def mean_pattern(scan: Scan) -> NDArray[np.float64]:
    """Mean of patterns over the scan, on good pixels, with the mean photons of all, (H, W)."""
    n = len(scan)
    chosen = np.unique(np.linspace(0, n - 1, min(n, AVERAGED_PATTERNS)).round().astype(int))
    mean = np.asarray(scan.counts[chosen], dtype=np.float64).mean(axis=0) * scan.mask
    total: float = mean.sum()
    return mean * (scan.pattern_totals().mean() / total)


def empty_object(scan: Scan) -> Reconstruction:
    """An object of ones on the canvas of a scan, with the probe of the scan."""
    origin, shape = scan.canvas()
    return Reconstruction(
        object=np.ones(shape, dtype=np.complex64),
        coverage=np.ones(shape, dtype=np.float32),
        origin_yx=origin,
        probe=scan.need_probe(),
        positions_px=scan.positions_px,
        scan_index=scan.scan_index,
        pixel_size_m=scan.pixel_size_m,
        instrument=scan.instrument,
        is_far_field=scan.is_far_field,
    )


def refine_from_uniform(scan: Scan, options: RefineOptions) -> RefinementResult:
    """Object and probe of a scan, from an empty object; see `refine`."""
    return refine(scan, empty_object(scan), options)


def final_r_free(scan: Scan, probe: NDArray[np.complex64], options: RefineOptions) -> float:
    """R-free after a refinement from a probe; infinite where it diverged."""
    last = refine_from_uniform(replace(scan, probe=probe), options).history[-1].r_free
    return last if np.isfinite(last) else float("inf")


def curvatures(focused: NDArray[np.complex64]) -> Iterator[float]:
    """Curvatures to try, from a converging to a diverging beam that fills the window, in px^2."""
    largest = WIDEST_BEAM / 2 * max(focused.shape) / aperture_radius(focused)
    yield from np.linspace(-largest, largest, CURVATURES).tolist()

"""The illumination where the file has none, made from the patterns, and where it has a rough one, refined with the object."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from ptycho_torch.errors import InputError
from ptycho_torch.grouping import nearest_to_middle
from ptycho_torch.refinement import RefinementResult, mode_gain, refine
from ptycho_torch.scan import Scan

logger = logging.getLogger(__name__)

LOOKED_AT = 128  # patterns in the middle of the scan that choose the curvature
REFINED_WITH = 512  # patterns in the middle of the scan that refine what was chosen
TRIAL_PASSES = 6
CURVATURES = 17  # from one end to the other; the refinement finds the way from twice their distance
APERTURE = 0.95  # of the photons, inside the radius of the aperture
WIDEST_BEAM = 0.8  # of the window, across; a wider one cannot be told from its neighbours in a periodic window
WORTH_MORE_MODES = 0.05  # fall of R-free by one more; coherent simulations gave less than 0, a real beam 0.21
MODES_OF_A_PARTLY_COHERENT_BEAM = 3
DISTINCT = 0.8  # of the median R-free of the trials, which a right curvature is well below


@dataclass(frozen=True)
class Trial:
    """A curvature, in the square of a pixel, and how well the probe that has it predicts unseen patterns."""

    curvature: float
    r_free: float


def illuminate(scan: Scan, *, seed: int, show: bool) -> Scan:
    """The scan with a probe made from its patterns, in place of the focused one that it was read with.

    The root of the mean pattern is the aperture; its phase is tried as a defocus of either sign and
    any size that fits the window. Each trial is refined for a few passes with a few patterns, and
    the one that predicts the others best is refined to the end. The object is unknown throughout.

    Args:
        scan: Its probe is in focus, see `ptycho_torch.scan.focused_probe`.
        seed: Of the order of the patterns.
        show: Whether to draw a progress bar.

    Raises:
        InputError: If no curvature explains the patterns clearly better than the others.
    """
    few = middle_of(scan, LOOKED_AT)
    candidates = list(curvatures(scan.probe[0]))
    trials = [
        Trial(curvature, final_r(from_flat(replace(few, probe=defocused(scan.probe, curvature)), passes=TRIAL_PASSES, seed=seed)))
        for curvature in track(candidates, description="looking for the illumination", disable=not show)
    ]
    best = min(trials, key=lambda trial: trial.r_free)
    usual = float(np.median([trial.r_free for trial in trials]))
    if not best.r_free < DISTINCT * usual:
        raise InputError(
            f"{scan.source}: there is no probe, and none could be made from the patterns: the best defocus predicts unseen "
            f"patterns with R {best.r_free:.3g}, others with {usual:.3g}; give a probe with --probe FILE"
        )
    start = replace(middle_of(scan, REFINED_WITH), probe=defocused(scan.probe, best.curvature))
    result = from_flat(start, passes="auto", seed=seed)
    rim = best.curvature * aperture_radius(scan.probe[0])
    said = (
        f"the probe was made from the patterns: with the best of {len(trials)} defoci, which moves the rim of the aperture by "
        f"{rim:+.3g} px, and refined, it predicts unseen patterns with R {result.r_free:.3g}"
    )
    logger.info("%s: %s", scan.source, said)
    return replace(scan, probe=result.probe.numpy(), probe_known=True, decisions=(*scan.decisions, said))


def with_refined_probe(scan: Scan, *, seed: int) -> Scan:
    """The scan with its probe refined together with the unknown object, with the modes that it turns out to need.

    Args:
        scan: Its probe need only be roughly right.
        seed: Of the order of the patterns.
    """
    part = middle_of(scan, REFINED_WITH)
    result = from_flat(part, passes="auto", seed=seed)
    part = replace(part, probe=result.probe.numpy())
    gain = mode_gain(*inputs(part), result.obj, origin_yx=corner(part), mask=torch.from_numpy(part.mask), seed=seed)
    modes = modes_needed(gain, len(part.probe))
    if modes > len(part.probe):
        result = from_flat(part, passes="auto", seed=seed, probe_modes=modes)
    said = f"the probe was refined, with {modes} modes, and predicts unseen patterns with R {result.r_free:.3g}"
    logger.info("%s: %s", scan.source, said)
    return replace(scan, probe=result.probe.numpy(), decisions=(*scan.decisions, said))


def modes_needed(gain: float, modes: int) -> int:
    """How many modes a probe is to have, from what one more is worth; says so where it is more.

    Args:
        gain: From `mode_gain`.
        modes: Modes so far.
    """
    if gain < WORTH_MORE_MODES:
        return modes
    more = max(modes + 1, MODES_OF_A_PARTLY_COHERENT_BEAM)
    text = "the beam is not coherent enough for a probe of %d: one more mode lowers R-free by %.0f %%; refining %d"
    logger.info(text, modes, 100 * gain, more)
    return more


def middle_of(scan: Scan, k: int) -> Scan:
    """The ``k`` patterns nearest to the middle of the scan, or all."""
    return scan.subset(nearest_to_middle(scan.positions_px, min(k, len(scan))))


def corner(scan: Scan) -> tuple[float, float]:
    """Position ``(y, x)`` of the first pixel of a canvas that holds all patches."""
    y, x = np.floor(scan.corners_px().min(axis=0)).tolist()
    return y, x


def inputs(scan: Scan) -> tuple[Tensor, Tensor, Tensor]:
    """Counts, positions and probe of a scan as tensors."""
    counts = np.asarray(scan.counts[:], dtype=np.float32)
    return torch.from_numpy(counts), torch.from_numpy(scan.positions_px), torch.from_numpy(scan.probe)


def from_flat(scan: Scan, *, passes: int | Literal["auto"], seed: int, probe_modes: int | None = None) -> RefinementResult:
    """Object and probe of a scan, from an empty object; see `refine`."""
    origin = corner(scan)
    rows, columns = np.rint(scan.corners_px() - origin).max(axis=0).astype(int) + scan.pattern_shape + 1
    empty = torch.ones(int(rows), int(columns), dtype=torch.complex64)
    return refine(
        *inputs(scan),
        empty,
        origin_yx=origin,
        mask=torch.from_numpy(scan.mask),
        epochs=passes,
        probe_modes=probe_modes,
        update_probe=True,
        seed=seed,
    )


def final_r(result: RefinementResult) -> float:
    """R-free at the end; infinite for a refinement that diverged."""
    last = result.history[-1].r_free
    return last if np.isfinite(last) else float("inf")


def curvatures(focused: NDArray[np.complex64]) -> Iterator[float]:
    """What to try, from a converging to a diverging beam that fills the window."""
    largest = WIDEST_BEAM / 2 * max(focused.shape) / aperture_radius(focused)
    yield from np.linspace(-largest, largest, CURVATURES).tolist()


def aperture_radius(probe: NDArray[np.complex64]) -> float:
    """Spatial frequency, in cycles a pixel, within which most of the photons are on the detector."""
    power = np.abs(np.fft.fft2(probe)) ** 2
    radius = np.sqrt(squared_frequency(probe.shape)).ravel()
    order = np.argsort(radius)
    inside = np.cumsum(power.ravel()[order])
    return float(radius[order][np.searchsorted(inside, APERTURE * inside[-1])])


def defocused(probe: NDArray[np.complex64], curvature: float) -> NDArray[np.complex64]:
    """A probe out of focus.

    ::

        P(r) = F^-1[ exp(i pi c |q|^2) F[P](q) ]

    moves what has the frequency q by ``c q`` pixels, the free-space propagation of the Fresnel
    approximation [1]_.

    Args:
        probe: Modes, complex, (M, H, W).
        curvature: c, in the square of a pixel.

    Returns:
        Complex, (M, H, W), of the same power.

    References:
        .. [1] J. W. Goodman, "Introduction to Fourier Optics", 3rd ed., section 4.2 (2005).
    """
    phase = np.exp(1j * np.pi * curvature * squared_frequency(probe.shape[-2:]))
    return np.fft.ifft2(np.fft.fft2(probe) * phase).astype(np.complex64)


def squared_frequency(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """``|q|^2`` in cycles a pixel, (H, W), zero frequency at ``[0, 0]``."""
    height, width = shape
    squared: NDArray[np.float64] = np.fft.fftfreq(height)[:, None] ** 2 + np.fft.fftfreq(width) ** 2
    return squared

"""Find the orientation of the detector: in the right one, an object explains the patterns."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from ptycho_torch.data.detector import Orientation, Window
from ptycho_torch.data.probe import resample_probe, ring_centroid, ring_offset, scaled_to
from ptycho_torch.data.scan import Scan
from ptycho_torch.doctor.findings import ERROR, INFO, OK, WARNING, Finding
from ptycho_torch.io.readers.to_scan import SIGNS
from ptycho_torch.physics.forward import illumination, object_gradient, scan_layout
from ptycho_torch.physics.noise import AmplitudeNoise
from ptycho_torch.physics.patches import extract_patches, place_patches

PATTERNS = 36  # patterns of the trial; they overlap enough to contradict each other
LARGEST = 64  # detector pixels; only the middle of larger patterns is used
SCREENING, ITERATIONS = 3, 10  # gradient steps for all hypotheses, and for the best ones
FINALISTS = 12  # hypotheses that get the larger number of steps
STEP = 0.9  # of the gradient over the illumination
DARKEST = 0.05  # of the brightest illumination; steps are smaller where it is darker
# Relative difference of residuals between equivalent orientations of a symmetric probe.
ALIKE = 0.02
DISTINCT = 0.15  # relative difference of residuals above which two orientations differ
# Relative excess of the residual as stored that is certain. 40 good scans reached 0.32, and 14
# wrong ones began at 4.3.
WRONG = 1.0
# The same excess over the positions of the frame before or after. Positions of a slow scan are
# alike in successive frames: four good scans reached 0.07, and shifted ones began at 0.4.
SHIFTED = 0.25
LEAST_RESIDUAL = 1e-12  # of an R-factor; below is the rounding of float32
LEAST_FRAMES = 16  # fewer patterns than this have no neighbourhood whose order could be tried


@dataclass(frozen=True)
class Hypothesis:
    """A possible orientation of patterns and positions.

    Attributes:
        orientation: Of the patterns.
        swap_xy: Whether x and y positions change places, before their direction does.
        negate: Which positions run the other way, as for ``--negate_positions``.
    """

    orientation: Orientation
    swap_xy: bool
    negate: str

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags for this orientation; none for the scan as stored."""
        turned = self.orientation
        given = {
            "--transpose": turned.transpose,
            "--flip_y": turned.flip_y,
            "--flip_x": turned.flip_x,
            "--swap_xy": self.swap_xy,
            f"--negate_positions {self.negate}": self.negate != "none",
        }
        return tuple(flag for flag, on in given.items() if on)


def hypotheses(*, square: bool) -> Iterator[Hypothesis]:
    """All hypotheses; patterns that are not square are not transposed."""
    for transpose, flip_y, flip_x, swap in product((False, True), repeat=4):
        if square or not transpose:
            yield from (
                Hypothesis(Orientation(transpose, flip_y, flip_x), swap, negate) for negate in SIGNS
            )


@dataclass(frozen=True)
class Trial:
    """A hypothesis and its R-factor after a few iterations."""

    hypothesis: Hypothesis
    residual: float


def try_orientations(scan: Scan) -> list[Trial]:
    """Trials of the hypotheses that fit best and of the scan as stored, the best first.

    Patterns are centred on those of the probe: a shift of them is a ramp of the object, which says
    nothing about their orientation.

    Args:
        scan: With its probe; a neighbourhood in its middle is tried, and the middle of its
            patterns.
    """
    amplitude, mask, placed, beam = neighbourhood(scan)
    size = mask.shape
    middle = ring_centroid(np.fft.fftshift(np.sum(np.abs(np.fft.fft2(beam)) ** 2, axis=0)))

    def try_one(one: Hypothesis, iterations: int) -> Trial:
        """The residual of a hypothesis, the better of patterns as stored and moved to the probe."""
        positions = (placed[:, ::-1] if one.swap_xy else placed) * SIGNS[one.negate]
        turned, good = one.orientation.turn(amplitude), one.orientation.turn(mask)
        offset = ring_offset(middle, ring_centroid(np.square(turned).mean(axis=0)), size)
        shift = tuple(np.rint(offset).astype(int).tolist())
        left = [
            residual(
                np.roll(turned, by, axis=(-2, -1)),
                np.roll(good, by, axis=(-2, -1)),
                positions,
                beam,
                iterations,
            )
            for by in {(0, 0), shift}
        ]
        return Trial(one, min(left))

    everything = hypotheses(square=size[0] == size[1])
    first = sorted(
        (try_one(one, SCREENING) for one in everything), key=lambda trial: trial.residual
    )
    stored = [trial for trial in first[FINALISTS:] if not trial.hypothesis.flags]
    finalists = [try_one(trial.hypothesis, ITERATIONS) for trial in (*first[:FINALISTS], *stored)]
    return sorted(finalists, key=lambda trial: trial.residual)


def neighbourhood(
    scan: Scan,
) -> tuple[NDArray, NDArray[np.bool_], NDArray[np.float64], NDArray[np.complex64]]:
    """Amplitudes, mask, positions and probe of the middle of a scan and of its patterns."""
    part = scan.central_subset(PATTERNS)
    height, width = part.pattern_shape
    size = (min(height, LARGEST), min(width, LARGEST))
    window = Window.central(size, (height, width))
    mask = window.apply(part.mask)
    amplitude = np.sqrt(window.apply(np.asarray(part.counts[:], dtype=np.float32))) * mask
    probe = resample_probe(part.need_probe().astype(np.complex128), size, size)
    photons = float(np.sum(amplitude * amplitude, dtype=np.float64)) / len(part)
    placed = part.positions_px * np.array(size) / np.array([height, width])
    return amplitude, mask, placed, scaled_to(probe, photons).astype(np.complex64)


def timing_finding(scan: Scan) -> Finding:
    """Whether the positions of the patterns before or after explain the patterns better.

    Args:
        scan: With its probe, in the order in which it was measured.
    """
    residuals = {}
    for late in (0, 1, -1):  # frames between a pattern and its position
        kept = np.arange(1, len(scan) - 1)
        moved = replace(scan.subset(kept), positions_px=scan.positions_px[kept + late])
        amplitude, mask, placed, beam = neighbourhood(moved)
        residuals[late] = residual(amplitude, mask, placed, beam, ITERATIONS)
    better = min(residuals, key=lambda late: residuals[late])
    evidence = {
        "residual_as_stored": residuals[0],
        "residual_one_later": residuals[1],
        "residual_one_earlier": residuals[-1],
    }
    figures = f"R {residuals[better]:.3g} against {residuals[0]:.3g} as it is stored"
    if better != 0 and residuals[0] / residuals[better] - 1 > SHIFTED:
        side = "after" if better == 1 else "before"
        text = (
            f"the patterns fit the position of the pattern {side} them better than their own "
            f"({figures}): are positions and patterns one frame apart?"
        )
        return Finding("timing", WARNING, text, evidence)
    text = f"the patterns fit their own positions (R {residuals[0]:.3g})"
    return Finding("timing", OK, text, evidence)


@torch.inference_mode()
def residual(
    amplitude: NDArray,
    mask: NDArray[np.bool_],
    positions_px: NDArray,
    probe: NDArray[np.complex64],
    iterations: int,
) -> float:
    """R-factor of the object that a few gradient steps from empty space reach; 1 without light.

    ::

        O <- O + 0.9 sum_n place_n( conj(P_n) F^-1[ Psi_n (A_n / |Psi_n| - 1) ] )
                 / (L + max(L) / 20)

    with the illumination L.

    Args:
        amplitude: Root of the counts, (N, H, W), zero frequency at ``[H // 2, W // 2]``.
        mask: Good pixels, (H, W).
        positions_px: Patch centres ``(y, x)``, (N, 2).
        probe: Modes, (M, H, W), in sqrt(photons).
        iterations: Gradient steps.
    """
    corners = positions_px - positions_px.min(axis=0)
    extent = np.ceil(corners.max(axis=0)).astype(int) + probe.shape[-2:]
    layout = scan_layout(
        torch.from_numpy(corners.astype(np.float32))[None],
        torch.from_numpy(probe)[None],
        (int(extent[0]), int(extent[1])),
    )
    model, noise = layout.model, AmplitudeNoise()
    measured = model.propagator.from_detector(torch.from_numpy(amplitude.astype(np.float32)))[None]
    good = model.propagator.from_detector(torch.from_numpy(mask.copy()))
    total = float((measured * good).square().sum(dtype=torch.float64))
    if total == 0:
        return 1.0
    light = illumination(layout)
    canvas = torch.ones_like(light, dtype=torch.complex64)
    left = float("inf")
    for _ in range(iterations):
        waves = model.detector_waves(extract_patches(canvas, layout.indices), layout.probe)
        intensity = model.expected_counts(waves)
        misfit = noise.misfit(intensity, measured) * good
        left = float(misfit.sum(dtype=torch.float64)) / total
        slope = noise.descent(intensity, measured.clone()) * good
        back = object_gradient(model.exit_wave_gradient(waves, slope), layout.probe)
        change = place_patches(back, layout.indices, layout.canvas_shape)
        canvas = canvas + STEP * change / (light + DARKEST * light.max())
    return max(left, LEAST_RESIDUAL)


def orientation_finding(trials: list[Trial]) -> Finding:
    """The finding from the trials: as stored, turned, or no decision."""
    best = trials[0].residual
    alike = [trial for trial in trials if trial.residual <= best * (1 + ALIKE)]
    simplest, *_ = by_length = sorted(alike, key=lambda trial: len(trial.hypothesis.flags))
    # a symmetric probe fits with patterns and with positions turned over: name one of each
    turned = simplest.hypothesis.orientation
    other = next((one for one in by_length[1:] if one.hypothesis.orientation != turned), None)
    others = [trial.residual for trial in trials if trial not in alike]
    stored = next(trial.residual for trial in trials if not trial.hypothesis.flags)
    margin = others[0] / best - 1 if others else 0.0
    evidence = {
        "residual_best": best,
        "residual_as_stored": stored,
        "margin": margin,
        "alike": len(alike),
    }
    flags = " ".join(simplest.hypothesis.flags)
    others_say = f"the next {100 * margin:.0f} % worse"
    figures = (
        f"R {best:.3g} against {stored:.3g} as it is stored, {others_say}"
        if flags
        else f"R {best:.3g}, {others_say}"
    )
    if not flags and margin > DISTINCT:
        text = (
            f"patterns and positions fit as they are stored (R {best:.3g}; any other way is "
            f"{100 * margin:.0f} % worse or more)"
        )
        return Finding("orientation", OK, text, evidence)
    if flags and stored / best - 1 > WRONG and margin > DISTINCT:
        mirrored = ""
        if other is not None:
            mirrored = (
                f"; {' '.join(other.hypothesis.flags)} fits as well, with a mirror image: the "
                "probe is symmetric, and the patterns do not tell which of the two is right"
            )
        text = f"patterns and positions fit when turned by {flags} ({figures}){mirrored}"
        return Finding("orientation", ERROR, text, evidence, flags)
    leaning = f"turned by {flags}" if flags else "as they are stored"
    text = (
        f"no verdict: patterns and positions fit best {leaning}, with too small a margin "
        f"({figures})"
    )
    return Finding("orientation", INFO, text, evidence)

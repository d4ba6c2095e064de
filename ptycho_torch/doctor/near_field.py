"""Near-field patterns that are read as far-field ones, found by the patterns themselves.

Behind a sample in the near field each pattern is a picture of the sample in the light of the beam:
it fills the detector, and where the sample moved by a step, the picture moved with it. A far-field
pattern has a dark border, or it stays where it is. So neighbouring patterns, each relative to the
mean of all, are correlated: in the near field the displacement of the best agreement is a linear
function of the step between them, whatever orientation and unit the positions have.

A beam that diverges and overfills the detector makes such pictures in the far field too. There the
far field of the probe alone predicts the patterns roughly, and in the near field it does not.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ptycho_torch.data.conditions import median_step_px
from ptycho_torch.data.detector import Window
from ptycho_torch.data.scan import Scan
from ptycho_torch.doctor.findings import OK, WARNING, Finding, Sample
from ptycho_torch.doctor.orientation import neighbourhood, residual

PATTERNS = 36  # patterns of a neighbourhood, as for the orientation
LARGEST = 256  # detector pixels; only the middle of larger patterns is used
NEIGHBOURS = 1.6  # steps; the diagonal of a raster is nearer
LEAST_PAIRS = 12  # fewer have a linear relation by chance
BORDER = 8  # the border is an eighth of the detector wide
# Light at the border over the mean of a pattern. Near-field scans have 0.25 and more, since the
# beam fills the detector; most far-field ones have below 0.1.
LIT = 0.15
# R-factor, without the part of counting noise, of patterns predicted from the probe alone, above
# which they are not its far field: near-field scans have 1.4 and more, far-field ones below 0.3.
FOREIGN = 0.7
LEAST_MOVE_PX = 0.7  # a picture that moves less does not show whether it moves with the sample
# Share of the pairs whose displacement is a linear function of the step. Near-field scans of two
# photons a pixel and more have 0.6 and more; far-field ones that move at all, below 0.25.
EXPLAINED = 0.45
AGREEING = 0.25  # of a step; by so much a displacement may differ from the function
ITERATIONS = 10  # of the fit, whose weights follow the differences
# Of the picture's grain, in pixels: finer is counting noise, coarser the mean's own structure.
FINE_PX, COARSE_PX = 1.0, 8.0


def check_near_field(scan: Scan, sample: Sample) -> Finding:
    """Whether patterns are pictures of the sample that move with the positions."""
    if scan.fresnel_number is not None:
        return Finding("field", OK, "the patterns are read as near-field ones", {})
    lit = light_at_border(sample.mean, scan.mask)
    evidence = {"border_light": lit}
    if lit < LIT:
        return Finding("field", OK, "the patterns are dark at the border: far field", evidence)
    if scan.probe is not None:
        evidence["misfit_of_probe"] = misfit_of_probe(scan)
        if evidence["misfit_of_probe"] < FOREIGN:
            text = "the patterns fill the detector as the far field of the probe does"
            return Finding("field", OK, text, evidence)
    moved, explained = picture_motion(scan)
    evidence |= {"picture_moves_px": moved, "explained_by_positions": explained}
    if moved > LEAST_MOVE_PX and explained > EXPLAINED:
        text = (
            "the patterns fill the detector and show a picture that moves with the positions, by "
            f"{moved:.2g} px a step: are they near-field ones?"
        )
        return Finding("field", WARNING, text, evidence, "--propagator near_field")
    text = "the patterns fill the detector, but show no picture that moves with the positions"
    return Finding("field", OK, text, evidence)


def light_at_border(mean: NDArray, mask: NDArray[np.bool_]) -> float:
    """Mean of a pattern over the border of the detector, relative to the whole."""
    height, width = mean.shape
    inside = np.zeros(mean.shape, dtype=bool)
    rows, columns = height // BORDER, width // BORDER
    inside[rows : height - rows, columns : width - columns] = True
    total = float(mean[mask].mean()) if mask.any() else 0.0
    border = mask & ~inside
    return float(mean[border].mean()) / total if total > 0 and border.any() else 0.0


def misfit_of_probe(scan: Scan) -> float:
    """R-factor of patterns that are predicted from the probe alone, without that of noise.

    It is 1 where the middle of the patterns has no light.
    """
    amplitude, mask, placed, beam = neighbourhood(scan)
    photons = float(np.square(amplitude[:, mask]).sum())
    if photons == 0:
        return 1.0
    noise = 0.25 * int(mask.sum()) * len(amplitude) / photons  # a root of a count has variance 1/4
    return residual(amplitude, mask, placed, beam, 1) - noise


def picture_motion(scan: Scan) -> tuple[float, float]:
    """How far the picture moves in a step, in pixels, and the share that the steps explain.

    Both are 0 where too few patterns have neighbours.
    """
    part = scan.central_subset(PATTERNS)
    height, width = part.pattern_shape
    window = Window.central((min(height, LARGEST), min(width, LARGEST)), (height, width))
    pictures = relative_pictures(
        window.apply(np.asarray(part.counts[:], dtype=np.float64)), window.apply(part.mask)
    )
    spectra = np.fft.fft2(pictures)
    first, second = neighbours(part.positions_px)
    if len(first) < LEAST_PAIRS:
        return 0.0, 0.0
    agreement = np.fft.ifft2(spectra[second] * spectra[first].conj()).real
    size = np.array(window.size)
    place = np.stack(
        np.unravel_index(agreement.reshape(len(first), -1).argmax(axis=1), window.size), axis=1
    )
    moves = (place + size // 2) % size - size // 2
    steps = part.positions_px[second] - part.positions_px[first]
    fitted = robust_fit(steps, moves)
    typical = float(np.median(np.linalg.norm(fitted, axis=1)))
    wrong = np.linalg.norm(moves - fitted, axis=1)
    return typical, float(np.mean(wrong < max(1.0, AGREEING * typical)))


def robust_fit(steps: NDArray[np.float64], moves: NDArray[np.intp]) -> NDArray[np.float64]:
    """Moves as a linear function of the steps, (K, 2); wild ones count by their distance alone."""
    weight = np.ones(len(steps))
    fitted = np.zeros(steps.shape)
    for _ in range(ITERATIONS):
        root = np.sqrt(weight)[:, None]
        fitted = steps @ np.linalg.lstsq(root * steps, root * moves, rcond=None)[0]
        weight = 1 / np.maximum(np.linalg.norm(moves - fitted, axis=1), 0.5)
    return fitted


def relative_pictures(patterns: NDArray, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Patterns relative to their mean, without noise and slow variation, zero at bad pixels."""
    good = mask.astype(float)
    mean = gaussian_filter(patterns.mean(axis=0) * good, FINE_PX)
    floor = 0.05 * float(mean.mean()) + np.finfo(float).tiny
    lit = good * (mean > floor)
    relative = np.stack(
        [gaussian_filter(one * good, FINE_PX) / np.maximum(mean, floor) * lit for one in patterns]
    )
    weight = np.maximum(gaussian_filter(lit, COARSE_PX), 0.05)
    slow = np.stack([gaussian_filter(one, COARSE_PX) / weight for one in relative])
    return (relative - slow) * lit


def neighbours(positions_px: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs of points that are next to each other, as two arrays of indices."""
    distance = np.linalg.norm(positions_px[:, None] - positions_px[None], axis=-1)
    reach = NEIGHBOURS * median_step_px(positions_px)
    first, second = np.nonzero(np.triu((distance > 0) & (distance < reach), 1))
    return first, second

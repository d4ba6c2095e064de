"""What the patterns show: their values, their centre, their light, and the detector's bad spots."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from ptycho_torch.doctor.findings import DOUBT, FAULT, GOOD, NOTE, Finding, Specimen

CORNER = 0.25  # of the size; a centre further from the middle has wrapped around
OFF_CENTER = 0.125  # of the size; light beyond the border is lost
SEEN_OFF_PX = 1.5  # smaller offsets are those of an object's slopes
DARK = 0.05  # of the median pattern; no sample absorbs so much, the beam was gone
SPREAD = 0.5  # relative; an object's absorption and a beam's drift stay below
SPIKE = 30.0  # times the neighbours; a speckle is wider than a pixel, since the beam is smaller than the window
BEAM_PX = 3.0  # around the centre, where the direct beam of a wide illumination is as sharp
SURELY_LIT = 30.0  # photons in the sample; nothing there has a chance of 1e-13
WIDEST_GAP = 5  # px; between which light is looked for on either side
LEAST_SATURATED = 50  # photons; below, many pixels share the largest count by chance
SATURATED_SHARE = 8.0  # pixels at the very top against those in the two per cent below it


def check_values(specimen: Specimen) -> Finding:
    """Counts or amplitude, as the reader decided."""
    reason = next((note for note in specimen.notes if "read as" in note), "patterns are photon counts")
    return Finding("values", GOOD, reason)


def circular_center(image: NDArray) -> tuple[float, float]:
    """Centroid ``(y, x)`` on a ring, which neither a corner nor an even background moves."""
    center = []
    for axis in (0, 1):
        profile = image.sum(axis=1 - axis, dtype=np.float64)
        angle = np.angle(np.sum(profile * np.exp(2j * np.pi * np.arange(len(profile)) / len(profile))))
        center.append(float(angle / (2 * np.pi) * len(profile) % len(profile)))
    return center[0], center[1]


def offset(center: tuple[float, float], reference: tuple[float, float], shape: tuple[int, int]) -> NDArray[np.float64]:
    """From one point of a ring to another, the short way, ``(y, x)``."""
    size = np.array(shape, dtype=np.float64)
    return (np.array(center) - np.array(reference) + size / 2) % size - size / 2


def check_center(specimen: Specimen) -> Finding:
    """Where zero frequency is: in the middle, in a corner, or off by how much."""
    shape = specimen.mask.shape
    mean = smooth(specimen.mean, specimen.mask)
    reference: tuple[float, float] = (shape[0] // 2, shape[1] // 2)
    if specimen.probe is not None:  # a tilted beam is off centre by right
        spectrum = np.fft.fftshift(np.sum(np.abs(np.fft.fft2(specimen.probe)) ** 2, axis=0))
        reference = circular_center(spectrum)
    center = circular_center(mean)
    off = offset(center, reference, (shape[0], shape[1]))
    found = (shape[0] // 2 + off[0], shape[1] // 2 + off[1])
    evidence = {"offset_y_px": float(off[0]), "offset_x_px": float(off[1])}
    share = np.abs(off) / np.array(shape)
    flag = f"--center {found[0] % shape[0]:.0f},{found[1] % shape[1]:.0f}"
    if share.min() > CORNER:
        text = (
            f"zero frequency is in the corner of the patterns, off by ({off[0]:.1f}, {off[1]:.1f}) px; apply numpy.fft.fftshift"
        )
        return Finding("center", FAULT, text, evidence)
    if share.max() > OFF_CENTER:
        text = f"zero frequency is off the middle by ({off[0]:.1f}, {off[1]:.1f}) px"
        return Finding("center", FAULT, text, evidence, flag)
    if np.abs(off).max() > SEEN_OFF_PX:
        return Finding("center", NOTE, f"zero frequency may be off the middle by ({off[0]:.1f}, {off[1]:.1f}) px", evidence, flag)
    return Finding("center", GOOD, f"zero frequency is in the middle, within ({off[0]:.1f}, {off[1]:.1f}) px", evidence)


def smooth(mean: NDArray, mask: NDArray[np.bool_]) -> NDArray:
    """A mean pattern without single bright pixels."""
    around = median_filter(mean, size=3, mode="nearest")
    return np.where(mask & (mean < SPIKE * (around + mean.mean())), mean, around)


def check_light(specimen: Specimen) -> Finding:
    """Photons of a pattern, their spread, and patterns without beam."""
    totals = specimen.totals
    median, spread = float(np.median(totals)), float(totals.std() / totals.mean())
    dark = np.flatnonzero(totals < DARK * median)
    evidence = {"photons": specimen.photons, "spread": spread, "dark": float(len(dark))}
    if len(dark):
        share = f"{100 * DARK:.0f} % of the usual light"
        text = f"{len(dark)} patterns have less than {share} (the first is number {dark[0]}); remove them"
        return Finding("light", FAULT, text, evidence)
    text = f"{specimen.photons:.4g} photons a pattern, spread {100 * spread:.1f} %"
    return Finding("light", DOUBT if spread > SPREAD else GOOD, text, evidence)


def check_pixels(specimen: Specimen) -> Finding:
    """Pixels that are always bright or never lit, and gaps between modules, among those that are called good."""
    mean, mask = specimen.mean, specimen.mask
    ring = _around(np.where(mask, mean, np.nan))
    far = np.hypot(*(np.indices(mean.shape) - np.array(circular_center(mean))[:, None, None])) > BEAM_PX
    floor = 1.0 / len(specimen.sample)  # one photon in the sample
    hot = mask & far & (mean > SPIKE * (np.nan_to_num(ring) + floor))
    dead = mask & (mean == 0) & (light_beside(mean, mask) * len(specimen.sample) > SURELY_LIT)
    lines = sum(int(dead.sum(axis=axis).max() > mean.shape[axis] / 2) for axis in (0, 1))
    evidence = {"hot": float(hot.sum()), "dead": float(dead.sum()), "gaps": float(lines)}
    named = [
        f"{int(found.sum())} {kind} (the first at {tuple(np.argwhere(found)[0].tolist())})"
        for kind, found in (("hot", hot), ("dead", dead))
        if found.any()
    ]
    if named:
        gap = ", in whole rows or columns: a gap between modules" if lines else ""
        text = f"pixels that are called good: {' and '.join(named)}{gap}; mark them in the mask of the file"
        return Finding("pixels", DOUBT, text, evidence)
    return Finding("pixels", GOOD, f"no hot or dead pixel among {int(mask.sum())} that are called good", evidence)


def _around(image: NDArray) -> NDArray:
    """Mean of the eight neighbours, NaN left out."""
    padded = np.pad(image, 1, constant_values=np.nan)
    height, width = image.shape
    shifted = [padded[i : i + height, j : j + width] for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    known = ~np.isnan(shifted)
    return np.where(known, shifted, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)


def light_beside(mean: NDArray, mask: NDArray[np.bool_]) -> NDArray:
    """Light that a pixel should have: that of the nearest lit pixels, the darker of two on opposite sides."""
    padded = np.pad(mean, WIDEST_GAP)
    height, width = mean.shape
    across = []
    for axis in (0, 1):
        sides = []
        for sign in (-1, 1):
            nearest = np.zeros_like(mean)
            for step in range(WIDEST_GAP, 0, -1):
                start = [WIDEST_GAP, WIDEST_GAP]
                start[axis] += sign * step
                value = padded[start[0] : start[0] + height, start[1] : start[1] + width]
                nearest = np.where(value > 0, value, nearest)
            sides.append(nearest)
        across.append(np.minimum(*sides))
    return np.where(mask, np.maximum(*across), 0)


def check_saturation(specimen: Specimen) -> Finding:
    """Many pixels at exactly the largest count."""
    values = specimen.sample[:, specimen.mask]
    top = float(values.max())
    at_top, below = int(np.sum(values == top)), int(np.sum((values < top) & (values >= 0.98 * top)))
    evidence = {"largest": top, "at_largest": float(at_top), "just_below": float(below)}
    if top >= LEAST_SATURATED and at_top > SATURATED_SHARE * (1 + below):
        text = f"saturated: {at_top} values are exactly {top:g}, and {below} lie within 2 % below it; mask them"
        return Finding("saturation", FAULT, text, evidence)
    return Finding("saturation", GOOD, f"not saturated: the largest count is {top:g}", evidence)


CHECKS = (check_values, check_center, check_light, check_pixels, check_saturation)

"""Checks of the patterns: values, centre, photons, bad pixels, saturation."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from ptycho_torch.data.probe import ring_centroid, ring_offset
from ptycho_torch.data.scan import Scan
from ptycho_torch.doctor.findings import ERROR, INFO, OK, WARNING, Finding, Sample

CORNER = 0.25  # of the size; a centre farther from the middle is in a corner
OFF_CENTER = 0.125  # of the size; so far off the middle, light is lost beyond the border
SEEN_OFF_PX = 1.5  # phase slopes of an object cause smaller offsets
DARK = 0.05  # of the median photons; no sample absorbs so much, so the beam was off
SPREAD = 0.5  # relative spread of photons; absorption and drift of a beam stay below
SPIKE = 30.0  # times the neighbours; a speckle is wider than a pixel
BEAM_PX = 3.0  # radius around the centre, where the direct beam of a wide probe is as sharp
SURELY_LIT = 30.0  # expected photons in the sample; counting none has a probability of 1e-13
WIDEST_GAP = 5  # px; the nearest lit pixels on either side are searched so far
LEAST_SATURATED = 50  # photons; below, many pixels have the largest count by chance
SATURATED_SHARE = 8.0  # pixels at the largest count per pixel within 2 % below it


def check_values(scan: Scan, sample: Sample) -> Finding:
    """Counts or amplitude, as the reader decided."""
    reason = next(
        (note for note in scan.decisions if "read as" in note), "patterns are photon counts"
    )
    return Finding("values", OK, reason)


def check_center(scan: Scan, sample: Sample) -> Finding:
    """Place of zero frequency: in the middle, in a corner, or the distance between."""
    if scan.fresnel_number is not None:
        return Finding("center", OK, "near-field patterns have no zero frequency to center", {})
    shape = scan.mask.shape
    mean = smooth(sample.mean, scan.mask)
    reference: tuple[float, float] = (shape[0] // 2, shape[1] // 2)
    if scan.probe is not None:  # a tilted beam is off centre by right
        spectrum = np.fft.fftshift(np.sum(np.abs(np.fft.fft2(scan.probe)) ** 2, axis=0))
        reference = ring_centroid(spectrum)
    center = ring_centroid(mean)
    off = ring_offset(center, reference, (shape[0], shape[1]))
    found = (shape[0] // 2 + off[0], shape[1] // 2 + off[1])
    evidence = {"offset_y_px": float(off[0]), "offset_x_px": float(off[1])}
    share = np.abs(off) / np.array(shape)
    flag = f"--center {found[0] % shape[0]:.0f},{found[1] % shape[1]:.0f}"
    if share.min() > CORNER:
        text = (
            "zero frequency is in the corner of the patterns, off by "
            f"({off[0]:z.1f}, {off[1]:z.1f}) px; apply numpy.fft.fftshift"
        )
        return Finding("center", ERROR, text, evidence)
    if share.max() > OFF_CENTER:
        text = f"zero frequency is off the middle by ({off[0]:z.1f}, {off[1]:z.1f}) px"
        return Finding("center", ERROR, text, evidence, flag)
    if np.abs(off).max() > SEEN_OFF_PX:
        return Finding(
            "center",
            INFO,
            f"zero frequency may be off the middle by ({off[0]:z.1f}, {off[1]:z.1f}) px",
            evidence,
            flag,
        )
    return Finding(
        "center",
        OK,
        f"zero frequency is in the middle, within ({off[0]:z.1f}, {off[1]:z.1f}) px",
        evidence,
    )


def smooth(mean: NDArray, mask: NDArray[np.bool_]) -> NDArray:
    """A mean pattern without single bright pixels."""
    around = median_filter(mean, size=3, mode="nearest")
    return np.where(mask & (mean < SPIKE * (around + mean.mean())), mean, around)


def check_light(scan: Scan, sample: Sample) -> Finding:
    """Photons of a pattern, their spread, and patterns without beam."""
    totals = sample.totals
    median, spread = float(np.median(totals)), float(totals.std() / totals.mean())
    told = median >= SURELY_LIT  # with fewer photons, a pattern may be dark or empty by chance
    dark = np.flatnonzero(totals < DARK * median) if told else np.empty(0, dtype=np.int64)
    evidence = {"photons": float(sample.totals.mean()), "spread": spread, "dark": float(len(dark))}
    if len(dark):
        share = f"{100 * DARK:.0f} % of the usual light"
        text = (
            f"{len(dark)} patterns have less than {share} (the first is number {dark[0]}); remove "
            "them"
        )
        return Finding("light", ERROR, text, evidence)
    text = f"{float(sample.totals.mean()):.4g} photons a pattern, spread {100 * spread:.1f} %"
    return Finding("light", WARNING if spread > SPREAD else OK, text, evidence)


def check_pixels(scan: Scan, sample: Sample) -> Finding:
    """Hot and dead pixels, and gaps between modules, among the good pixels of the mask."""
    mean, mask = sample.mean, scan.mask
    ring = _around(np.where(mask, mean, np.nan))
    far = (
        np.hypot(*(np.indices(mean.shape) - np.array(ring_centroid(mean))[:, None, None])) > BEAM_PX
    )
    floor = 1.0 / len(sample.patterns)  # one photon in the sample
    hot = mask & far & (mean > SPIKE * (np.nan_to_num(ring) + floor))
    dead = mask & (mean == 0) & (light_beside(mean, mask) * len(sample.patterns) > SURELY_LIT)
    lines = sum(int(dead.sum(axis=axis).max() > mean.shape[axis] / 2) for axis in (0, 1))
    evidence = {"hot": float(hot.sum()), "dead": float(dead.sum()), "gaps": float(lines)}
    named = [
        f"{int(found.sum())} {kind} (the first at {tuple(np.argwhere(found)[0].tolist())})"
        for kind, found in (("hot", hot), ("dead", dead))
        if found.any()
    ]
    if named:
        gap = ", in whole rows or columns: a gap between modules" if lines else ""
        text = (
            f"pixels that are called good: {' and '.join(named)}{gap}; mark them in the mask of "
            "the file"
        )
        return Finding("pixels", WARNING, text, evidence)
    return Finding(
        "pixels", OK, f"no hot or dead pixel among {int(mask.sum())} that are called good", evidence
    )


def _around(image: NDArray) -> NDArray:
    """Mean of the eight neighbours, NaN left out."""
    padded = np.pad(image, 1, constant_values=np.nan)
    height, width = image.shape
    shifted = [
        padded[i : i + height, j : j + width]
        for i in range(3)
        for j in range(3)
        if (i, j) != (1, 1)
    ]
    known = ~np.isnan(shifted)
    return np.where(known, shifted, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)


def light_beside(mean: NDArray, mask: NDArray[np.bool_]) -> NDArray:
    """Photons that a pixel should have: of the darker of the nearest lit pixels on either side."""
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


def check_saturation(scan: Scan, sample: Sample) -> Finding:
    """Many pixels at exactly the largest count."""
    values = sample.patterns[:, scan.mask]
    top = float(values.max())
    at_top, below = int(np.sum(values == top)), int(np.sum((values < top) & (values >= 0.98 * top)))
    evidence = {"largest": top, "at_largest": float(at_top), "just_below": float(below)}
    if top >= LEAST_SATURATED and at_top > SATURATED_SHARE * (1 + below):
        text = (
            f"saturated: {at_top} values are exactly {top:g}, and {below} lie within 2 % below it; "
            "mask them"
        )
        return Finding("saturation", ERROR, text, evidence)
    return Finding("saturation", OK, f"not saturated: the largest count is {top:g}", evidence)


CHECKS = (check_values, check_center, check_light, check_pixels, check_saturation)

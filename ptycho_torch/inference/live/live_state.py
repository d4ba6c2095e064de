"""The state of a live view: figures, verdict and pictures of the image so far."""

import io
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from ptycho_torch.data.scan import Reconstruction, Scan
from ptycho_torch.evaluation.metrics.residuals import empty_r_factor, noise_r_factor, r_factor
from ptycho_torch.evaluation.verdict import verdict_on

RATE_S = 5.0  # over which frames per second are counted
LIT = 0.05  # of the largest light; what is darker is noise and not drawn
JUDGED = 32  # newest frames that are compared with the image
CONTRAST = (1, 99)  # percentiles of the drawn values between which the colours lie
WRAPPED = 1.8 * np.pi  # span of phase from which it is drawn with the cyclic map

Figures = dict[str, float]
Verdict = dict[str, Any]  # level and reasons, as `metrics.json` has them


def wait(reason: str) -> Verdict:
    """The verdict before there is an image."""
    return {"level": "wait", "reasons": [reason]}


class Rate:
    """Frames per second over the last `RATE_S`."""

    def __init__(self) -> None:
        self._came: deque[tuple[float, int]] = deque()

    def add(self, now: float, total: int) -> float:
        """Note how many frames there are, and return the rate."""
        self._came.append((now, total))
        while now - self._came[0][0] > RATE_S:
            self._came.popleft()
        (first_s, first), (last_s, last) = self._came[0], self._came[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s else 0.0


def judge(
    scan: Scan, result: Reconstruction, place: int, known: Mapping[str, Any]
) -> tuple[Verdict, Figures]:
    """The verdict on the image so far by the newest frames, and the R-factors that tell.

    Args:
        scan: The kept frames.
        result: The image so far.
        place: Of the newest frame in ``scan``.
        known: What the rules of `verdict_on` need besides.
    """
    newest = (place - np.arange(min(JUDGED, len(scan)))) % len(scan)
    frames = scan.subset(newest)
    corners = frames.corners_px() - result.origin_yx
    room = np.array(result.object.shape) - frames.pattern_shape
    inside = np.flatnonzero(((corners >= 0) & (corners <= room)).all(axis=1))
    if not len(inside):
        return wait("no frame lies inside the image yet"), {}
    frames = frames.subset(inside)
    found = {
        "r_factor": r_factor(result, frames),
        "r_factor_empty": empty_r_factor(result.probe, frames),
        "r_factor_noise": noise_r_factor(frames),
    }
    return verdict_on({**known, **found}).to_dict(), found


@dataclass(frozen=True)
class Pictures:
    """PNG files of an image with the values that their colours span."""

    amplitude: bytes
    phase: bytes
    coverage: bytes
    ranges: dict[str, list[float]]

    def by_name(self) -> dict[str, bytes]:
        """The files, as the page asks for them."""
        return {"amplitude": self.amplitude, "phase": self.phase, "coverage": self.coverage}


def draw(result: Reconstruction) -> Pictures:
    """Amplitude, phase and light, one pixel of the object a pixel, clear where little light fell.

    The phase is relative to its mean over the lit area. It has the cyclic map only where it spans
    nearly all of 2 pi.
    """
    lit = result.coverage > LIT
    window = np.ix_(lit.any(axis=1), lit.any(axis=0))
    lit, image, light = lit[window], result.object[window], result.coverage[window]
    amplitude = np.abs(image)
    phase = np.angle(image * np.conj(np.sum(image[lit])))
    spans = {"amplitude": span(amplitude[lit]), "phase": span(phase[lit]), "coverage": [0.0, 1.0]}
    wraps = spans["phase"][1] - spans["phase"][0] > WRAPPED
    if wraps:
        spans["phase"] = [-np.pi, np.pi]
    return Pictures(
        amplitude=encode(amplitude, lit, spans["amplitude"], "gray"),
        phase=encode(phase, lit, spans["phase"], "twilight" if wraps else "viridis"),
        coverage=encode(light, lit, spans["coverage"], "gray"),
        ranges={name: [float(value) for value in values] for name, values in spans.items()},
    )


def span(values: NDArray) -> list[float]:
    """Lowest and highest value of the colours."""
    if not len(values):
        return [0.0, 1.0]
    low, high = np.percentile(values[:: max(1, len(values) // 50_000)], CONTRAST)
    return [float(low), float(max(high, low + 1e-6))]


def encode(values: NDArray, lit: NDArray[np.bool_], limits: list[float], name: str) -> bytes:
    """A PNG of some values, transparent where nothing is lit."""
    low, high = limits
    levels = (np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    table = (colormaps[name](np.arange(256)) * 255).astype(np.uint8)
    pixels = table[levels]
    pixels[~lit, 3] = 0
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png", compress_level=1)
    return file.getvalue()


def measured_area(result: Reconstruction) -> dict[str, Any]:
    """Size of the picture, and the share of it on which light fell."""
    lit = result.coverage > LIT
    rows, columns = int(lit.any(axis=1).sum()), int(lit.any(axis=0).sum())
    facts: dict[str, Any] = {
        "coverage": float(lit.sum() / max(rows * columns, 1)),
        "shape": [rows, columns],
        "size_m": None,
    }
    if result.pixel_size_m is not None:
        facts["size_m"] = [rows * result.pixel_size_m[0], columns * result.pixel_size_m[1]]
    return facts

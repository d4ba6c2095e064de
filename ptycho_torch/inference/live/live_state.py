"""The state of a live view: figures, verdict and measured area of the image so far."""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ptycho_torch.data.scan import Reconstruction, Scan
from ptycho_torch.evaluation.metrics.residuals import empty_r_factor, noise_r_factor, r_factor
from ptycho_torch.evaluation.verdict import verdict_on
from ptycho_torch.inference.live.live_pictures import LIT

RATE_S = 5.0  # over which frames per second are counted, and for which a lag is told
JUDGED = 32  # newest frames that are compared with the image

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


class Lag:
    """Seconds from a frame to the picture that shows it.

    Attributes:
        largest_s: The largest so far.
    """

    def __init__(self) -> None:
        self.largest_s = 0.0
        self._drawn_s, self._of_picture_s = float("-inf"), 0.0

    def drawn(self, now: float, oldest: float) -> None:
        """Note a picture, and when the oldest frame came that it is the first to show."""
        self._drawn_s, self._of_picture_s = now, now - oldest

    def at(self, now: float, waiting: Iterable[float | None]) -> float:
        """The lag now: that of the newest picture, or for which a frame waits for the next one.

        A picture tells it for `RATE_S`; if no frame came since, the lag is 0.

        Args:
            now: Seconds since 1970, as all times here.
            waiting: When frames came that no picture shows; None for none.
        """
        of_picture = self._of_picture_s if now - self._drawn_s < RATE_S else 0.0
        lag = max([of_picture, *(now - since for since in waiting if since is not None)])
        self.largest_s = max(self.largest_s, lag)
        return lag


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
    if not frames.pattern_totals().any():
        return wait("the newest frames have no light"), {}
    found = {
        "r_factor": r_factor(result, frames),
        "r_factor_empty": empty_r_factor(result.probe, frames),
        "r_factor_noise": noise_r_factor(frames),
    }
    return verdict_on({**known, **found}).to_dict(), found


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

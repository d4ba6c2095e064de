"""The phase of an object as a picture shows it: without offset and ramp, on one branch.

Patterns tell neither the constant phase of an object, nor a linear ramp of it: a shift of the
probe's spectrum makes up for a ramp. Both hide what the patterns do tell, so pictures leave them
out. What is left is drawn in sequential colours from its smallest to its largest value where it
fits into less than one turn, and in cyclic colours where it wraps.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WITHIN = 0.99  # share of the pixels that the range of the colours holds; the rest is noise
WRAPS = 0.95  # of a turn; a wider range has no gap in which the branch could be cut
SAMPLE = 200_000  # pixels that show the range; sorting more of them takes long
SMALLEST_RANGE = 1e-6  # rad; a flat object has no range at all
TURN = 2 * np.pi


@dataclass(frozen=True)
class PhaseRange:
    """The shortest arc of the circle that holds nearly all phases.

    Attributes:
        low: Where it begins, in rad.
        high: Where it ends, above `low`.
        wraps: Whether it is so long that the phase passes through the whole circle.
    """

    low: float
    high: float
    wraps: bool

    def on_branch(self, phase: NDArray[np.float64]) -> NDArray[np.float64]:
        """Phases in rad, within half a turn of the middle of the arc."""
        first = (self.low + self.high) / 2 - np.pi
        return first + np.remainder(phase - first, TURN)


def phase_range(phases: NDArray[np.float64]) -> PhaseRange:
    """The shortest arc that holds `WITHIN` of some phases; from -pi to pi where they wrap.

    Args:
        phases: In rad, on any branch, at least one.
    """
    phases = phases.ravel()[:: -(-phases.size // SAMPLE)]
    ordered = np.sort(np.remainder(phases + np.pi, TURN) - np.pi)
    count = int(np.ceil(WITHIN * len(ordered)))
    ends = np.concatenate([ordered, ordered + TURN])[count - 1 : count - 1 + len(ordered)]
    first = int(np.argmin(ends - ordered))
    low, high = float(ordered[first]), float(ends[first])
    if high - low > WRAPS * TURN:
        return PhaseRange(-np.pi, np.pi, wraps=True)
    if low + high > TURN:  # the middle of the arc lies within -pi and pi
        low, high = low - TURN, high - TURN
    return PhaseRange(low, max(high, low + SMALLEST_RANGE), wraps=False)


def phase_ramp(image: NDArray[np.complex64], lit: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean gradient ``(y, x)`` of the phase of an object, in rad per pixel, (2,).

    It is the phase of the mean product of each pixel with its neighbour::

        ramp = arg sum O*(r) O(r + 1)

    which is the centre of gravity of the spectrum, measured around the circle of frequencies. No
    phase is unwrapped.

    Args:
        image: Object, (Y, X).
        lit: Pixels to take, (Y, X).
    """
    shown = np.where(lit, image, 0).astype(np.complex128)
    return np.array(
        [
            np.angle(np.vdot(shown[:-1], shown[1:])),
            np.angle(np.vdot(shown[:, :-1], shown[:, 1:])),
        ]
    )


def without_ramp(
    image: NDArray[np.complex64], lit: NDArray[np.bool_]
) -> tuple[NDArray[np.complex128], NDArray[np.float64]]:
    """An object without its phase ramp and its mean phase, and the ramp over the whole picture.

    Args:
        image: Object, (Y, X).
        lit: Pixels that define ramp and mean, (Y, X).

    Returns:
        The object, (Y, X), and the ramp ``(y, x)`` from one side of the picture to the other, in
        rad, (2,).
    """
    ramp = phase_ramp(image, lit)
    rows, columns = np.arange(image.shape[0])[:, None], np.arange(image.shape[1])
    flat = image * np.exp(-1j * ramp[0] * rows) * np.exp(-1j * ramp[1] * columns)
    return flat * np.exp(-1j * np.angle(flat[lit].mean())), ramp * image.shape

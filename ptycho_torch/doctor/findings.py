"""What the doctor looks at, and what it says."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ptycho_torch.patterns import Counts
from ptycho_torch.scan import Instrument

GOOD, NOTE, DOUBT, FAULT = "good", "note", "doubt", "fault"  # a fault is certain, a doubt is for the user to judge
SAMPLE = 256  # patterns that are looked at


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: What was looked at.
        verdict: "good", "note", "doubt", or "fault", which is certain.
        text: A sentence with the evidence.
        evidence: The same in numbers.
        flag: What overrides the file, where a flag does.
    """

    check: str
    verdict: str
    text: str
    evidence: dict[str, float] = field(default_factory=dict)
    flag: str = ""


@dataclass(frozen=True)
class Specimen:
    """A scan as the doctor sees it, also without a probe.

    Attributes:
        source: Where it came from.
        counts: Photons, (N, H, W), read by index.
        totals: Photons of each pattern, (N,).
        mask: Good pixels, (H, W).
        positions_px: Patch centres ``(y, x)``, (N, 2).
        scan_index: Identifiers, (N,).
        probe: Modes, (M, H, W), which carry the photons of a mean pattern; None without one.
        pixel_size_m: Object pixel ``(y, x)``, where known.
        stated_pixel_m: The one that the file states, where it does.
        instrument: What is known of the experiment.
        notes: What the reader concluded.
        chosen: Indices of the patterns that are looked at, spread over the scan, (K,).
        sample: They themselves, float32, (K, H, W).
    """

    source: str
    counts: Counts
    totals: NDArray[np.float64]
    mask: NDArray[np.bool_]
    positions_px: NDArray[np.float64]
    scan_index: NDArray[np.int64]
    probe: NDArray[np.complex64] | None
    pixel_size_m: tuple[float, float] | None
    stated_pixel_m: tuple[float, float] | None
    instrument: Instrument
    notes: tuple[str, ...]
    chosen: NDArray[np.int64]
    sample: NDArray[np.float32]

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean pattern, (H, W)."""
        return self.sample.mean(axis=0, dtype=np.float64)

    @property
    def photons(self) -> float:
        """Photons of a mean pattern."""
        return float(self.totals.mean())


def choose(n: int) -> NDArray[np.int64]:
    """Indices spread over a scan of n patterns, in pairs of neighbours, (K,)."""
    if n <= SAMPLE:
        return np.arange(n)
    first = np.linspace(0, n - 2, SAMPLE // 2).astype(np.int64)
    return np.unique(np.concatenate([first, first + 1]))

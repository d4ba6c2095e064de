"""Findings of the doctor, and the sample of patterns that it examines."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ptycho_torch.data.scan import Scan

OK, INFO, WARNING, ERROR = "ok", "info", "warning", "error"  # an error is certain; a warning is not
SAMPLE_SIZE = 256  # patterns that are examined


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        check: Name of the check.
        verdict: "ok", "info", "warning", or "error", which is certain.
        text: A sentence with the evidence.
        evidence: The same in numbers.
        flag: The flag that overrides the file, where there is one.
    """

    check: str
    verdict: str
    text: str
    evidence: dict[str, float] = field(default_factory=dict)
    flag: str = ""


@dataclass(frozen=True)
class Sample:
    """Some patterns of a scan.

    Attributes:
        indices: Their numbers, spread over the scan, ascending, (K,).
        patterns: Photons, float32, (K, H, W).
        totals: Photons on good pixels, of each pattern of the sample, or of the whole scan.
    """

    indices: NDArray[np.int64]
    patterns: NDArray[np.float32]
    totals: NDArray[np.float64]

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean pattern, (H, W)."""
        return self.patterns.mean(axis=0, dtype=np.float64)


def take_sample(scan: Scan, *, all_totals: bool) -> Sample:
    """Patterns spread over a scan, in pairs of neighbours.

    Args:
        scan: Patterns to choose from.
        all_totals: Sum the photons of every pattern of the scan, which reads all of them.
    """
    n = len(scan)
    indices = np.arange(n)
    if n > SAMPLE_SIZE:
        first = np.linspace(0, n - 2, SAMPLE_SIZE // 2).astype(np.int64)
        indices = np.unique(np.concatenate([first, first + 1]))
    patterns = np.asarray(scan.counts[indices], dtype=np.float32) * scan.mask
    totals = patterns.sum(axis=(1, 2), dtype=np.float64)
    return Sample(indices, patterns, scan.pattern_totals() if all_totals else totals)

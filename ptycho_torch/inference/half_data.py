"""Correlate two reconstructions from halves of a scan, which needs no known object."""

import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_torch.data.scan import Reconstruction, Scan
from ptycho_torch.errors import InputError
from ptycho_torch.evaluation.metrics.agreement import overlay
from ptycho_torch.evaluation.metrics.frc import RingCurves, ring_curves
from ptycho_torch.evaluation.metrics.residuals import Residuals

logger = logging.getLogger(__name__)


# Each half needs a pattern for its image and one that the refinement holds out.
LEAST_PATTERNS = 4


def half_data_frc(
    scan: Scan, reconstruct: Callable[[Scan], Reconstruction], *, seed: int
) -> RingCurves | None:
    """The result of `correlate_halves`; None, with a warning, for a scan that is too small."""
    try:
        halves = correlate_halves(scan, reconstruct, seed=seed)
    except InputError as error:
        logger.warning("the halves of the scan cannot be compared: %s", error)
        return None
    agreement = halves.resolutions()["half_bit"]
    logger.info("two halves of the scan agree up to %.2f of Nyquist (1/2 bit)", agreement)
    return halves


def correlate_halves(
    scan: Scan, reconstruct: Callable[[Scan], Reconstruction], *, seed: int
) -> RingCurves:
    """Ring correlation of two reconstructions, each from a random half of a scan.

    Noise differs between the halves; an error that the network or the probe makes in both halves
    does not, and counts as agreement. Each half overlaps half as much as the scan.

    Args:
        scan: Scan to divide.
        reconstruct: Makes an image of a scan.
        seed: Seed of the division.

    Raises:
        InputError: If the halves are too small to be reconstructed or compared.
    """
    order = np.random.default_rng(seed).permutation(len(scan))
    if len(order) < LEAST_PATTERNS:
        raise InputError(
            f"{scan.source}: has {len(order)} patterns; expected at least {LEAST_PATTERNS} for two "
            "halves"
        )
    first, second = (reconstruct(scan.subset(part)) for part in np.array_split(order, 2))
    pair = overlay(first, second)
    return ring_curves(pair.image, pair.reference, pair="half")


def to_dict(residuals: Residuals, halves: RingCurves | None, scan: Scan) -> dict[str, Any]:
    """Residuals of each position, and correlation of the halves, for `metrics.json`."""

    def known(values: NDArray[np.float64]) -> list[float | None]:
        return [None if math.isnan(value) else value for value in values.tolist()]

    return {
        "frc_halves": halves.to_dict() if halves else None,
        "positions": {
            "scan_index": scan.scan_index.tolist(),
            "r_factor": known(residuals.r_factor),
            "chi2_per_dof": known(residuals.pattern_chi2),
        },
    }

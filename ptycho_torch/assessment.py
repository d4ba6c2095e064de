"""What can be said about a reconstruction without knowing the object: its residuals, and what two halves agree on."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptycho_torch.errors import InputError
from ptycho_torch.metrics import Residuals, RingCurves, overlay, pattern_residuals, ring_curves
from ptycho_torch.scan import Reconstruction, Scan

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Assessment:
    """How far a reconstruction can be trusted, from its own patterns.

    Attributes:
        residuals: Of every pattern.
        halves: Ring correlation of two reconstructions, each from a random half of the scan;
            None where the scan is too small for them.
    """

    residuals: Residuals
    halves: RingCurves | None


def assess(result: Reconstruction, scan: Scan, reconstruct: Callable[[Scan], Reconstruction], *, seed: int) -> Assessment:
    """Residuals of a reconstruction, and the ring correlation of two halves of its scan.

    Args:
        result: To be judged.
        scan: What it was made from.
        reconstruct: How it was made; called with each half.
        seed: Of the division into halves.

    Returns:
        The assessment; a warning is logged where there are no halves.
    """
    try:
        halves = correlate_halves(scan, reconstruct, seed=seed)
        logger.info("two halves of the scan agree up to %.2f of Nyquist (1/2 bit)", halves.resolutions()["half_bit"])
    except InputError as error:
        logger.warning("the halves of the scan cannot be compared: %s", error)
        halves = None
    residuals = pattern_residuals(result, scan)
    logger.info("chi^2 per degree of freedom %.3g", residuals.chi2_per_dof)
    return Assessment(residuals, halves)


def correlate_halves(scan: Scan, reconstruct: Callable[[Scan], Reconstruction], *, seed: int) -> RingCurves:
    """Ring correlation of two reconstructions, each from a random half of a scan.

    Noise differs between the halves; what the network or the probe gets wrong in the same way
    does not, and counts as agreement. Each half overlaps half as much as the scan.

    Args:
        scan: To be divided.
        reconstruct: Makes an image of a scan.
        seed: Of the division.

    Raises:
        InputError: If the halves are too small to be reconstructed or compared.
    """
    order = np.random.default_rng(seed).permutation(len(scan))
    if len(order) < 2:
        raise InputError(f"{scan.source}: a scan of one pattern has no halves")
    first, second = (reconstruct(scan.subset(part)) for part in np.array_split(order, 2))
    pair = overlay(first, second)
    return ring_curves(pair.image, pair.reference, pair="half")


def plain(assessment: Assessment, scan: Scan) -> dict[str, Any]:
    """The assessment as `metrics.json` states it."""
    residuals = assessment.residuals
    chi2_per_dof = [float(chi2 / dof) if dof else None for chi2, dof in zip(residuals.chi2, residuals.dof, strict=True)]
    return {
        "chi2_per_dof": residuals.chi2_per_dof if residuals.dof.any() else None,
        "frc_halves": assessment.halves.plain() if assessment.halves else None,
        "positions": {
            "scan_index": scan.scan_index.tolist(),
            "r_factor": residuals.r_factor.tolist(),
            "chi2_per_dof": chi2_per_dof,
        },
    }

"""What can be said about a reconstruction without knowing the object: its residuals, and what two halves agree on."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from ptycho_torch.errors import InputError
from ptycho_torch.metrics import Residuals, RingCurves, overlay, ring_curves
from ptycho_torch.scan import Reconstruction, Scan

logger = logging.getLogger(__name__)


def assess_halves(scan: Scan, reconstruct: Callable[[Scan], Reconstruction], *, seed: int) -> RingCurves | None:
    """What `correlate_halves` finds; None, with a warning, where the scan is too small for halves."""
    try:
        halves = correlate_halves(scan, reconstruct, seed=seed)
    except InputError as error:
        logger.warning("the halves of the scan cannot be compared: %s", error)
        return None
    logger.info("two halves of the scan agree up to %.2f of Nyquist (1/2 bit)", halves.resolutions()["half_bit"])
    return halves


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


def plain(residuals: Residuals, halves: RingCurves | None, scan: Scan) -> dict[str, Any]:
    """The residuals of each position, and the correlation of the halves, as `metrics.json` states them."""
    chi2_per_dof = [float(chi2 / dof) if dof else None for chi2, dof in zip(residuals.chi2, residuals.dof, strict=True)]
    return {
        "frc_halves": halves.plain() if halves else None,
        "positions": {
            "scan_index": scan.scan_index.tolist(),
            "r_factor": residuals.r_factor.tolist(),
            "chi2_per_dof": chi2_per_dof,
        },
    }

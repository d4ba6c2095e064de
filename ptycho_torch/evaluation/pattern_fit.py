"""How well each pattern of a scan is explained, kept in `residuals.npz` for the report."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptycho_torch.data.scan import Reconstruction, Scan
from ptycho_torch.errors import InputError
from ptycho_torch.evaluation.metrics.residuals import Residuals, predict_patterns
from ptycho_torch.io.files import write_npz
from ptycho_torch.io.readers.npz import load_arrays, need_array


@dataclass(frozen=True)
class PatternFit:
    """Residuals of the patterns, three of the patterns with their expectation, and what moved.

    Attributes:
        scan_index: Identifier of each exposure, (N,).
        given_px: Positions ``(y, x)`` as the file has them, in object pixels, (N, 2).
        r_factor: Of each pattern, (N,); NaN where it has no photon.
        chi2_per_dof: Of each pattern, (N,); NaN where it has too few photons.
        chosen: Indices of the best, the median and the worst explained pattern, (3,).
        measured: Photons of these, float32, (3, H, W); NaN on bad pixels.
        expected: Photons of these by the reconstruction, float32, (3, H, W).
    """

    scan_index: NDArray[np.int64]
    given_px: NDArray[np.float64]
    r_factor: NDArray[np.float64]
    chi2_per_dof: NDArray[np.float64]
    chosen: NDArray[np.int64]
    measured: NDArray[np.float32]
    expected: NDArray[np.float32]


def fit_of_patterns(
    result: Reconstruction, scan: Scan, residuals: Residuals, given_px: NDArray[np.float64]
) -> PatternFit:
    """The fit of a reconstruction to the patterns that it was made from.

    Patterns are ordered by chi^2 per degree of freedom, which does not grow where the sample lets
    few photons through, as the R-factor does; by the R-factor if no pattern has enough photons.

    Args:
        result: Object, probe and frame.
        scan: Patterns, with the positions that were used.
        residuals: Of these patterns.
        given_px: Positions in the file, (N, 2).
    """
    values = residuals.pattern_chi2
    compared = np.flatnonzero(np.isfinite(values))
    if not len(compared):
        values = residuals.r_factor
        compared = np.flatnonzero(np.isfinite(values))
    order = compared[np.argsort(values[compared], kind="stable")]
    chosen = order[[0, len(order) // 2, -1]]
    expected, measured = (part.numpy() for part in predict_patterns(result, scan, chosen))
    return PatternFit(
        scan_index=scan.scan_index,
        given_px=given_px,
        r_factor=residuals.r_factor,
        chi2_per_dof=residuals.pattern_chi2,
        chosen=chosen,
        measured=np.where(scan.mask, measured, np.float32(np.nan)),
        expected=expected,
    )


def write_fit(path: Path, fit: PatternFit) -> None:
    """Write `residuals.npz`, whole or not at all."""
    write_npz(path, dict(vars(fit)))


def read_fit(path: Path, *, patterns: int) -> PatternFit:
    """The content of a `residuals.npz`.

    Args:
        path: Of the file.
        patterns: N of the reconstruction beside it.

    Raises:
        InputError: If it is missing or damaged, or is of another reconstruction.
    """
    names = [field.name for field in fields(PatternFit)]
    arrays = load_arrays(path, set(names))
    fit = PatternFit(**{name: need_array(path, arrays, name) for name in names})
    expected = {
        "scan_index": (patterns,),
        "given_px": (patterns, 2),
        "r_factor": (patterns,),
        "chi2_per_dof": (patterns,),
        "chosen": (3,),
        "measured": (3, *fit.expected.shape[-2:]),
        "expected": (3, *fit.expected.shape[-2:]),
    }
    for name, shape in expected.items():
        found = getattr(fit, name).shape
        if found != shape:
            raise InputError(f"{path}: {name} has shape {found}; expected {shape}")
    if not ((fit.chosen >= 0) & (fit.chosen < patterns)).all():
        raise InputError(f"{path}: chosen is {fit.chosen}; expected indices of {patterns} patterns")
    return fit

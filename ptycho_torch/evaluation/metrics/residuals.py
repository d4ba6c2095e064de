"""Residuals of measured patterns for an image: R-factor and chi^2, in all and at each position."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptycho_torch.data.grouping import group_layout, make_group
from ptycho_torch.data.scan import Group, Reconstruction, Scan
from ptycho_torch.physics.forward import predict_counts
from ptycho_torch.physics.noise import amplitude_misfit

CHUNK = 64  # patterns computed at once
ENOUGH = 1.0  # expected photons of a pixel that is a cell by itself; its variance is at most 3
# Expected photons of a cell of darker pixels, as in Cochran's rule for Pearson's statistic.
CELL = 5.0
MANY = 30.0  # photons, from which on the noise of an amplitude is that of many within 1 %
LARGEST_COUNT = 80  # photons; with `MANY` expected, more than these come once in 10^14 times
GRAIN = 2.0**-40  # photons; sums of whole grains have the same bits in any order


def r_factor(result: Reconstruction, scan: Scan) -> float:
    """Misfit of amplitudes over all good pixels of all patterns of a scan.

    ::

        R = sum (sqrt(I) - sqrt(n))^2 / sum n

    With ``scan.subset(held_out)``, patterns that the image was not made from, it is R-free [1]_,
    which noise that was fitted does not lower.

    Args:
        result: Object, probe and frame.
        scan: Patterns to predict; its positions must lie in the frame of ``result``.

    Returns:
        Dimensionless, 0 for a perfect fit. Counting noise alone gives about
        pixels / (4 photons) where every pixel counts several photons.

    Raises:
        ValueError: If a patch reaches beyond the object.

    References:
        .. [1] A. T. Bruenger, "Free R value: a novel statistical quantity for assessing the
           accuracy of crystal structures", Nature 355, 472 (1992), doi:10.1038/355472a0.
    """
    misfit = total = 0.0
    for intensity, counts in _predictions(result, scan):
        squares, photons = _amplitude_misfit(intensity, counts)
        misfit += float(squares.sum())
        total += float(photons.sum())
    return misfit / total


def empty_r_factor(probe: NDArray[np.complex64], scan: Scan) -> float:
    """The R-factor of an empty object, where every pattern is that of the probe alone.

    Args:
        probe: (M, H, W), in sqrt(photons).
        scan: Patterns and mask.
    """
    scan = replace(scan, probe=probe)
    canvas = torch.ones(1, *scan.pattern_shape, dtype=torch.complex64)
    mask = torch.from_numpy(scan.mask)
    misfit = total = 0.0
    for points in _chunks(scan):
        group = make_group(scan, points)
        shown = group if scan.has_own_probes else make_group(scan, points[:1])
        centred = shown._replace(corners_px=torch.zeros_like(shown.corners_px))
        intensity = predict_counts(canvas, group_layout(centred, scan.pattern_shape))[0][:, mask]
        squares, photons = _amplitude_misfit(intensity, group.counts[0][:, mask])
        misfit += float(squares.sum())
        total += float(photons.sum())
    return misfit / total


def noise_r_factor(scan: Scan) -> float:
    """The R-factor of a perfect model, from counting noise alone, within some ten per cent.

    It is the sum of `amplitude_noise` over the pixels, relative to the photons; the expected counts
    are estimated by the mean pattern.

    Args:
        scan: Patterns and mask.
    """
    total = torch.zeros(scan.pattern_shape, dtype=torch.float64)
    for counts in _counts(scan):
        total += counts.sum(dim=0, dtype=torch.float64)
    mean = total.numpy()[scan.mask] / len(scan)
    return float(amplitude_noise(mean).sum() / mean.sum())


def amplitude_noise(expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of ``(sqrt(I) - sqrt(n))^2`` over Poisson counts n with the mean I.

    It is ``2 I - 2 sqrt(I) <sqrt(n)>``: 2 I where photons are few, 0.45 at one photon, and 1/4
    where they are many.

    Args:
        expected: I, photons, of any shape.
    """
    few = np.minimum(expected, MANY)
    probability, root = np.exp(-few), np.zeros_like(few)
    for n in range(1, LARGEST_COUNT + 1):
        probability = probability * (few / n)
        root += probability * np.sqrt(n)
    return np.where(expected < MANY, 2 * few - 2 * np.sqrt(few) * root, 0.25)


@dataclass(frozen=True)
class Residuals:
    """How well each pattern of a scan is explained.

    Attributes:
        misfit: Of amplitudes, the sum of ``(sqrt(I) - sqrt(n))^2`` of each pattern, (N,).
        photons: Of each pattern, on good pixels, (N,).
        chi2: Pearson's statistic of each pattern, (N,).
        dof: Its number of terms, (N,).
    """

    misfit: NDArray[np.float64]
    photons: NDArray[np.float64]
    chi2: NDArray[np.float64]
    dof: NDArray[np.int64]

    @property
    def r_factor(self) -> NDArray[np.float64]:
        """Misfit of each pattern, as `r_factor`, (N,); NaN without a photon."""
        lit = self.photons > 0
        return np.divide(self.misfit, self.photons, where=lit, out=np.full(lit.shape, np.nan))

    @property
    def total_r_factor(self) -> float:
        """Misfit of all patterns, as `r_factor`."""
        return float(self.misfit.sum() / self.photons.sum())

    @property
    def pattern_chi2(self) -> NDArray[np.float64]:
        """Chi^2 per degree of freedom of each pattern, (N,); NaN where photons are too few."""
        return np.where(self.dof > 0, self.chi2 / np.maximum(self.dof, 1), np.nan)

    @property
    def chi2_per_dof(self) -> float:
        """Over all patterns; 1 if the image explains them, NaN without a photon."""
        terms = int(self.dof.sum())
        return float(self.chi2.sum()) / terms if terms else float("nan")


def pattern_residuals(
    result: Reconstruction, scan: Scan, device: torch.device | None = None
) -> Residuals:
    """The residuals of every pattern of a scan.

    With I the expected photons and n the counted ones, ::

        chi^2 = sum_c (n_c - I_c)^2 / I_c

    where a cell c is a pixel, or several dark ones. The variance of a Poisson count is its mean,
    so a cell whose I is right has an expectation of exactly 1, at any I. But the darker it is, the
    heavier the tail (the variance of a term is 2 + 1 / I), until one stray photon in a dark pixel
    outweighs the pattern. So pixels with I below `ENOUGH` are joined along the rows to cells of
    about `CELL` expected photons; sums of Poisson counts are Poisson counts, and what is joined
    depends on I alone, so that the expectation stays 1. The end of a pattern that fills no cell
    is left out, and so are bad pixels.

    The degrees of freedom are the cells; what was fitted is not subtracted, since nobody knows
    how many free values a network or a stopped iteration has. So it can be below 1 on patterns
    that the image was made from; on others it is not, but by chance.

    Args:
        result: Object, probe and frame.
        scan: Patterns to predict; its positions must lie in the frame of ``result``.
        device: Where to compute; by default the CPU.

    Returns:
        Of each pattern.

    Raises:
        ValueError: If a patch reaches beyond the object.
    """
    # One array for all: a small one of each chunk, which stays between large ones that go, would
    # leave gaps of some gigabytes in the memory.
    found = np.empty((4, len(scan)))
    for points, (intensity, counts) in zip(
        _chunks(scan), _predictions(result, scan, device), strict=True
    ):
        numbers = [*_amplitude_misfit(intensity, counts), *_chi2(intensity, counts)]
        found[:, points] = torch.stack(numbers).numpy(force=True)
    misfit, photons, chi2, dof = found
    return Residuals(misfit, photons, chi2, dof.astype(np.int64))


def _predictions(
    result: Reconstruction, scan: Scan, device: torch.device | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Expected and counted photons of the good pixels, (n, pixels) each, chunk by chunk."""
    mask = torch.from_numpy(scan.mask).to(device or torch.device("cpu"))
    for points in _chunks(scan):
        intensity, counts = predict_patterns(result, scan, points, device)
        yield intensity[:, mask], counts[:, mask]


def predict_patterns(
    result: Reconstruction,
    scan: Scan,
    points: NDArray[np.intp],
    device: torch.device | None = None,
) -> tuple[Tensor, Tensor]:
    """Expected and counted photons of some patterns of a scan.

    Args:
        result: Object, probe and frame.
        scan: Its positions must lie in the frame of ``result``.
        points: Indices of patterns, (n,).
        device: Where to compute; by default the CPU.

    Returns:
        Float32, (n, H, W) each.

    Raises:
        ValueError: If a patch reaches beyond the object.
    """
    scan = replace(scan, probe=result.probe)
    rows, columns = result.object.shape
    corners = torch.from_numpy(scan.corners_px()[points] - result.origin_yx).float()[None]
    group = make_group(scan, points)._replace(corners_px=corners)
    device = device or torch.device("cpu")
    group = Group._make(None if part is None else part.to(device) for part in group)
    layout = group_layout(group, (rows, columns))
    expected = predict_counts(torch.from_numpy(result.object).to(device)[None], layout)
    return expected[0], group.counts[0]


def _chunks(scan: Scan) -> Iterator[NDArray[np.intp]]:
    """Indices of all patterns, some at a time: the scan may be larger than memory."""
    for start in range(0, len(scan), CHUNK):
        yield np.arange(start, min(start + CHUNK, len(scan)))


def _counts(scan: Scan) -> Iterator[Tensor]:
    """Counted photons, float32, (n, H, W), chunk by chunk."""
    for points in _chunks(scan):
        yield torch.from_numpy(np.asarray(scan.counts[points], dtype=np.float32))


def _amplitude_misfit(intensity: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Squared differences of amplitudes, and photons, of each pattern, float64, (n,)."""
    squares = amplitude_misfit(intensity, counts)
    return squares.sum(dim=1, dtype=torch.float64), counts.sum(dim=1, dtype=torch.float64)


def _chi2(intensity: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Pearson's statistic of each pattern and its number of cells, float64, (n,)."""
    model, measured = intensity.double(), counts.double()
    # 1. pixels that are cells by themselves
    dark = model < ENOUGH
    bright = torch.where(dark, 0, (measured - model).square() / model)
    # 2. dark pixels, joined to cells by the light that lies before each
    in_dark = torch.where(dark, model, 0)
    filled = (in_dark / GRAIN).round().long().cumsum(dim=1) * GRAIN
    cell = ((filled - in_dark).clamp_min(0) / CELL).floor().long()
    cells = math.floor(model.shape[1] * ENOUGH / CELL) + 2
    row = torch.arange(len(model), device=model.device)[:, None] * cells
    expected, counted = (
        model.new_zeros(len(model) * cells)
        .scatter_add_(0, (row + cell).reshape(-1), light.reshape(-1))
        .reshape(len(model), cells)
        for light in (in_dark, torch.where(dark, measured, 0))
    )
    whole = (filled[:, -1:] / CELL).floor()
    complete = torch.arange(cells, device=model.device) < whole
    joined = torch.where(complete, (counted - expected).square() / expected, 0)
    # 3. both kinds
    terms = (~dark).sum(dim=1, keepdim=True) + whole
    return bright.sum(dim=1) + joined.sum(dim=1), terms[:, 0]

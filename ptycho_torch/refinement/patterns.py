"""Patterns in the form that the loops of the refinement need, and their prediction.

Inside the refinement, patterns and waves have zero frequency at ``[0, 0]``. A position is split as in
`ptycho_torch.physics.patches`: the patch is cut at a whole pixel, the probe carries the fraction.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ptycho_torch.physics.incoherent import incoherent_sum
from ptycho_torch.physics.patches import split_corners
from ptycho_torch.physics.propagate import far_field

SHIFT_NODES = 3  # per axis; interpolating the probe between 3 x 3 shifts errs by 4e-7 of its energy
POISSON_BELOW_COUNTS = 10.0  # mean counts per pixel; above, square roots have constant variance and forgive model errors
COUNT_FLOOR = 0.02  # counts; keeps the Poisson gradient finite where the model is dark


@dataclass(frozen=True)
class Patterns:
    """Counts and where they were taken, in the form that the loops need."""

    seen: Tensor  # (N, H, W), counts if `poisson`, else their square roots
    good: Tensor | None  # (H, W) bool, None if every pixel is
    corners: Tensor  # (N, 2) int64
    fractions: Tensor  # (N, 2)
    weights: Tensor  # (N, K), probe at a position = weights @ basis
    ramps: Tensor  # (K, 1, H, W), Fourier phase of the K shifts
    poisson: bool

    @property
    def shape(self) -> tuple[int, int]:
        """``(H, W)``."""
        return int(self.seen.shape[-2]), int(self.seen.shape[-1])

    def counts(self, index: Tensor) -> Tensor:
        """Photons of some patterns, (B, H, W)."""
        seen = self.seen[index]
        return seen if self.poisson else seen.square_()

    def amplitudes(self, index: Tensor) -> Tensor:
        """Square roots of the counts of some patterns, (B, H, W)."""
        seen = self.seen[index]
        return seen.sqrt_() if self.poisson else seen


def prepare(counts: Tensor, centres: Tensor, mask: Tensor | None, canvas_shape: torch.Size) -> Patterns:
    """Patterns with zero frequency at the corner, and everything about positions worked out."""
    height, width = counts.shape[-2:]
    good = None if mask is None or bool(mask.all()) else torch.fft.ifftshift(mask)
    photons = torch.fft.ifftshift(counts, dim=(-2, -1)).float()
    if good is not None:
        photons *= good
    nodes = shift_nodes()
    ramp_y, ramp_x = (
        torch.exp(-2j * torch.pi * nodes[:, None] * torch.fft.fftfreq(n, dtype=torch.float64)) for n in (height, width)
    )
    ramps = (ramp_y[:, None, :, None] * ramp_x[None, :, None, :]).reshape(-1, 1, height, width).to(torch.complex64)
    lit = float(photons.mean()) if good is None else float(photons.sum() / (good.sum() * len(counts)))
    poisson = lit < POISSON_BELOW_COUNTS
    bare = Patterns(photons if poisson else photons.sqrt_(), good, centres, centres, centres, ramps, poisson)
    placed = placed_at(bare, centres)
    last = torch.tensor(canvas_shape) - torch.tensor([height, width])
    if bool(((placed.corners < 0) | (placed.corners > last)).any()):
        raise ValueError(
            f"patches of {height}x{width} pixels reach beyond the object of {tuple(canvas_shape)} pixels; pad the object"
        )
    return placed


def placed_at(patterns: Patterns, centres: Tensor) -> Patterns:
    """The same patterns, taken at other places."""
    whole, fractions = split_corners(centres - torch.tensor(patterns.shape, dtype=torch.float64) / 2)
    return replace(patterns, corners=whole, fractions=fractions, weights=node_weights(fractions).float())


def shift_nodes() -> Tensor:
    """Chebyshev nodes of the fractions of a pixel, within [-0.5, 0.5]."""
    k = torch.arange(SHIFT_NODES, dtype=torch.float64)
    return 0.5 * torch.cos(torch.pi * (2 * k + 1) / (2 * SHIFT_NODES))


def lagrange_weights(x: Tensor) -> Tensor:
    """Weights of the nodes in the polynomial through them, (N, SHIFT_NODES)."""
    nodes = shift_nodes()
    weights = torch.ones(len(x), SHIFT_NODES, dtype=torch.float64)
    for i in range(SHIFT_NODES):
        for j in range(SHIFT_NODES):
            if i != j:
                weights[:, i] *= (x - nodes[j]) / (nodes[i] - nodes[j])
    return weights


def node_weights(fractions: Tensor) -> Tensor:
    """Weights of the K node shifts for fractions (N, 2), float64, (N, K)."""
    return (lagrange_weights(fractions[:, 0])[:, :, None] * lagrange_weights(fractions[:, 1])[:, None, :]).reshape(
        len(fractions), -1
    )


def shift_basis(patterns: Patterns, probe: Tensor) -> Tensor:
    """The probe at the nodes' shifts, real and imaginary part side by side, (K, M * H * W * 2)."""
    shifted = torch.fft.ifft2(torch.fft.fft2(probe) * patterns.ramps)
    return torch.view_as_real(shifted).reshape(len(shifted), -1)


def probes_at(patterns: Patterns, weights: Tensor, basis: Tensor) -> Tensor:
    """Probe at the fraction of each position, (B, M, H, W): one matrix product instead of two FFTs each."""
    return torch.view_as_complex((weights @ basis).reshape(len(weights), -1, *patterns.shape, 2))


def cut(obj: Tensor, corners: Tensor, shape: tuple[int, int]) -> Tensor:
    """Patches, (B, H, W)."""
    windows = obj.unfold(0, shape[0], 1).unfold(1, shape[1], 1)
    return windows[corners[:, 0], corners[:, 1]]


@dataclass(frozen=True)
class Prediction:
    """How well patterns are predicted."""

    r: float
    deviance: float  # Poisson, per pixel
    dispersion: float  # misfit in units of counting noise, 1 for a right model


def predict(patterns: Patterns, obj: Tensor, probe: Tensor, index: Tensor, batch: int = 32) -> Prediction:
    """R, deviance and dispersion of some patterns."""
    basis = shift_basis(patterns, probe)
    sums = torch.zeros(5, dtype=torch.float64)
    for some in index.split(batch):
        patches = cut(obj, patterns.corners[some], patterns.shape)
        intensity = incoherent_sum(far_field(patches[:, None] * probes_at(patterns, patterns.weights[some], basis)))
        counts = patterns.counts(some)
        if patterns.good is not None:
            intensity = intensity * patterns.good
        amplitude = (intensity.sqrt() - patterns.amplitudes(some)).square().sum()
        model, seen = intensity + COUNT_FLOOR, counts + COUNT_FLOOR
        deviance = 2 * (seen * (seen / model).log() - seen + model).sum()
        noise = (intensity / (intensity + 1)).sum()
        misfit = ((counts - intensity).square() / (intensity + 1)).sum()
        sums += torch.stack([amplitude, counts.sum(), deviance, misfit, noise]).double()
    amplitude, total, deviance, misfit, noise = sums.tolist()
    pixels = len(index) * (math.prod(patterns.shape) if patterns.good is None else int(patterns.good.sum()))
    return Prediction(amplitude / total, deviance / pixels, misfit / noise)

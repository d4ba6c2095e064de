"""Patterns in the form that the loops of the refinement need, and their prediction.

Zero frequency is at ``[0, 0]`` here. A position is split as in `ptycho_torch.physics.patches`: the
patch is cut at a whole pixel, and the probe is shifted by the fraction of a pixel that is left.

Sub-pixel shifts by a few nodes. A probe shifted by a fraction f is F^-1[ramp(f) F[probe]], two
Fourier transforms for each position and mode, as many as the propagation itself. But the shifted
probe is a smooth function of f within [-1/2, 1/2]^2, so a polynomial in f describes it: the probe
is shifted exactly to 3 x 3 Chebyshev nodes once in a step, and the probe of every position is a
weighted sum of these nine, one matrix product. The error is 4e-7 of the probe's energy. The
gradient of the probe goes the same way backwards: residuals are summed with the same weights into
nine nodes, and nine shifts back end it. Derivatives with respect to the position are those of the
polynomial.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ptycho_torch.physics.incoherent import incoherent_sum
from ptycho_torch.physics.patches import split_corners
from ptycho_torch.physics.propagation import far_field

SHIFT_NODES = 3  # per axis; interpolation between 3 x 3 shifts has an error of 4e-7 of the energy
# Mean counts per pixel; above, roots of counts have a constant variance.
POISSON_BELOW_COUNTS = 10.0
COUNT_FLOOR = 0.02  # counts; keeps the Poisson gradient finite where the model is dark


@dataclass(frozen=True)
class PreparedPatterns:
    """Counts and their positions, in the form that the loops need.

    Attributes:
        measured: Counts if ``poisson``, else their square roots, real, (N, H, W).
        mask: Good pixels, bool, (H, W); None if every pixel is good.
        corners: Whole-pixel minimum corners of the patches on the canvas, int64, (N, 2).
        fractions: Sub-pixel parts of the corners, (N, 2).
        weights: Probe at a position = weights @ basis, (N, K).
        ramps: Fourier phases of the K node shifts, complex, (K, 1, H, W).
        poisson: Whether the likelihood is that of sparse counts.
    """

    measured: Tensor
    mask: Tensor | None
    corners: Tensor
    fractions: Tensor
    weights: Tensor
    ramps: Tensor
    poisson: bool

    @property
    def shape(self) -> tuple[int, int]:
        """``(H, W)``."""
        return int(self.measured.shape[-2]), int(self.measured.shape[-1])

    def counts(self, index: Tensor) -> Tensor:
        """Photons of some patterns, (B, H, W)."""
        values = self.measured[index]
        return values if self.poisson else values.square_()

    def amplitudes(self, index: Tensor) -> Tensor:
        """Square roots of the counts of some patterns, (B, H, W)."""
        values = self.measured[index]
        return values.sqrt_() if self.poisson else values


def prepare(
    counts: Tensor, centres: Tensor, mask: Tensor | None, canvas_shape: torch.Size
) -> PreparedPatterns:
    """Patterns with zero frequency at ``[0, 0]``, bad pixels zero, and positions on the canvas.

    Raises:
        ValueError: If a patch reaches beyond the canvas.
    """
    height, width = counts.shape[-2:]
    good = None if mask is None or bool(mask.all()) else torch.fft.ifftshift(mask)
    photons = torch.fft.ifftshift(counts, dim=(-2, -1)).float()
    if good is not None:
        photons *= good
    nodes = shift_nodes()
    ramp_y, ramp_x = (
        torch.exp(-2j * torch.pi * nodes[:, None] * torch.fft.fftfreq(n, dtype=torch.float64))
        for n in (height, width)
    )
    ramps = (ramp_y[:, None, :, None] * ramp_x[None, :, None, :]).reshape(-1, 1, height, width)
    if good is None:
        mean_counts = float(photons.mean())
    else:
        mean_counts = float(photons.sum() / (good.sum() * len(counts)))
    poisson = mean_counts < POISSON_BELOW_COUNTS
    values = photons if poisson else photons.sqrt_()
    unplaced = PreparedPatterns(
        values, good, centres, centres, centres, ramps.to(torch.complex64), poisson
    )
    placed = placed_at(unplaced, centres)
    last = torch.tensor(canvas_shape) - torch.tensor([height, width])
    if bool(((placed.corners < 0) | (placed.corners > last)).any()):
        raise ValueError(
            f"patches of {height}x{width} pixels reach beyond the object of {tuple(canvas_shape)} "
            "pixels; "
            "pad the object"
        )
    return placed


def placed_at(patterns: PreparedPatterns, centres: Tensor) -> PreparedPatterns:
    """The same patterns at other positions."""
    whole, fractions = split_corners(
        centres - torch.tensor(patterns.shape, dtype=torch.float64) / 2
    )
    weights = node_weights(fractions).float()
    return replace(patterns, corners=whole, fractions=fractions, weights=weights)


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
    along_y, along_x = lagrange_weights(fractions[:, 0]), lagrange_weights(fractions[:, 1])
    return (along_y[:, :, None] * along_x[:, None, :]).reshape(len(fractions), -1)


def shift_basis(patterns: PreparedPatterns, probe: Tensor) -> Tensor:
    """The probe at the nodes' shifts, real and imaginary part side by side, (K, M * H * W * 2)."""
    shifted = torch.fft.ifft2(torch.fft.fft2(probe) * patterns.ramps)
    return torch.view_as_real(shifted).reshape(len(shifted), -1)


def probes_at(patterns: PreparedPatterns, weights: Tensor, basis: Tensor) -> Tensor:
    """Probe at the fraction of each position, complex, (B, M, H, W)."""
    return torch.view_as_complex((weights @ basis).reshape(len(weights), -1, *patterns.shape, 2))


def cut(obj: Tensor, corners: Tensor, shape: tuple[int, int]) -> Tensor:
    """Patches of the object, (B, H, W)."""
    windows = obj.unfold(0, shape[0], 1).unfold(1, shape[1], 1)
    return windows[corners[:, 0], corners[:, 1]]


@dataclass(frozen=True)
class Prediction:
    """How well patterns are predicted.

    Attributes:
        r: R-factor.
        deviance: Poisson deviance, per good pixel.
        dispersion: Misfit in units of counting noise; 1 for a right model.
    """

    r: float
    deviance: float
    dispersion: float


def predict(
    patterns: PreparedPatterns, obj: Tensor, probe: Tensor, index: Tensor, batch: int = 32
) -> Prediction:
    """R-factor, deviance and dispersion of some patterns."""
    basis = shift_basis(patterns, probe)
    sums = torch.zeros(5, dtype=torch.float64)
    for some in index.split(batch):
        patches = cut(obj, patterns.corners[some], patterns.shape)
        probes = probes_at(patterns, patterns.weights[some], basis)
        intensity = incoherent_sum(far_field(patches[:, None] * probes))
        counts = patterns.counts(some)
        if patterns.mask is not None:
            intensity = intensity * patterns.mask
        amplitude = (intensity.sqrt() - patterns.amplitudes(some)).square().sum()
        model, measured = intensity + COUNT_FLOOR, counts + COUNT_FLOOR
        deviance = 2 * (measured * (measured / model).log() - measured + model).sum()
        noise = (intensity / (intensity + 1)).sum()
        misfit = ((counts - intensity).square() / (intensity + 1)).sum()
        sums += torch.stack([amplitude, counts.sum(), deviance, misfit, noise]).double()
    amplitude, total, deviance, misfit, noise = sums.tolist()
    good = math.prod(patterns.shape) if patterns.mask is None else int(patterns.mask.sum())
    return Prediction(amplitude / total, deviance / (len(index) * good), misfit / noise)

"""Incoherent modes of the probe: more of them, and orthogonal ones."""

import torch
from torch import Tensor

from ptycho_torch.physics.incoherent import squared_modulus
from ptycho_torch.physics.probe_shift import photons_per_exposure

MODE_SEED = 0.3  # power of an added mode relative to the first
LARGEST_MODE_BOOST = 2.0


def add_modes(probe: Tensor, modes: int) -> Tensor:
    """The probe with as many incoherent modes as asked for, at the same number of photons.

    New modes are the first mode times low polynomials about its centre, as the higher modes of a
    partly coherent beam are, made orthogonal.

    Args:
        probe: Complex, (M, H, W).
        modes: At least M.

    Returns:
        Complex, (modes, H, W).
    """
    if modes == len(probe):
        return probe
    first = probe[0]
    power = first.abs().square()
    y, x = (torch.arange(size, dtype=power.dtype, device=power.device) for size in power.shape)
    y = (y - (power.sum(1) * y).sum() / power.sum())[:, None]
    x = (x - (power.sum(0) * x).sum() / power.sum())[None]
    orders = sorted(
        ((i, j) for i in range(modes) for j in range(modes)), key=lambda order: (sum(order), order)
    )
    grown = list(probe)
    for i, j in orders[len(probe) : modes]:
        shape = first * y**i * x**j
        grown.append(shape * torch.sqrt(MODE_SEED * power.sum() / shape.abs().square().sum()))
    mixed = orthogonalise(torch.stack(grown))
    return mixed * torch.sqrt(photons_per_exposure(probe) / photons_per_exposure(mixed))


def orthogonalise(probe: Tensor) -> Tensor:
    """The same mixture by orthogonal modes of falling power, complex, (M, H, W)."""
    return orthogonal_mixing(probe)[0]


def orthogonal_mixing(probe: Tensor) -> tuple[Tensor, Tensor]:
    """Orthogonal modes of the same mixture, and the unitary matrix (M, M) that makes them."""
    flat = probe.reshape(len(probe), -1)
    left, power, right = torch.linalg.svd(flat, full_matrices=False)
    return (power[:, None] * right).reshape(probe.shape), left.mH


def mode_boost(probe: Tensor) -> Tensor:
    """Larger steps for weak modes, to which the data are less sensitive, (M, 1, 1)."""
    power = squared_modulus(probe).sum((1, 2), keepdim=True)
    return (
        (power.sum() / power).sqrt().clamp(max=LARGEST_MODE_BOOST)
        if len(probe) > 1
        else torch.ones_like(power)
    )

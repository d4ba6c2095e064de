"""Incoherent sums over probe modes, without the copies that complex arithmetic makes."""

from functools import reduce

import torch
from torch import Tensor


def real_product(one: Tensor, other: Tensor) -> Tensor:
    """``Re(conj(a) b)`` of each element, real, of the shape of both."""
    along, across = (torch.view_as_real(one) * torch.view_as_real(other)).unbind(dim=-1)
    return along + across


def squared_modulus(waves: Tensor) -> Tensor:
    """``|w|^2`` of each element, real."""
    real, imaginary = torch.view_as_real(waves).square().unbind(dim=-1)
    return real + imaginary


def incoherent_product(one: Tensor, other: Tensor) -> Tensor:
    """``Re(conj(a) b)`` summed over modes, (..., M, H, W) -> real, (..., H, W)."""
    return reduce(torch.add, map(real_product, one.unbind(dim=-3), other.unbind(dim=-3)))


def incoherent_sum(waves: Tensor) -> Tensor:
    """``|w|^2`` summed over modes, (..., M, H, W) -> real, (..., H, W)."""
    return reduce(torch.add, map(squared_modulus, waves.unbind(dim=-3)))


def coherent_sum(waves: Tensor) -> Tensor:
    """Sum over modes, complex, (..., M, H, W) -> (..., H, W)."""
    return waves.sum(dim=-3) if waves.shape[-3] > 1 else waves.squeeze(-3)

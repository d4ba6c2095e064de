"""A probe that changes over the scan: a mean, and a few components with weights per pattern.

Orthogonal probe relaxation [1]_ describes the probes of all patterns by few components. A drift is
slow, so the weights are Legendre polynomials of the time, the place in the order of the exposures,
and the components are refined like the probe; weights that are fixed fit no noise, and the
held-out patterns have theirs, too.

What the data leave open. A component that is like the probe is a change of the flux; one that is
like its derivative is a change of the position; a phase that is not of interest is the third. These
are described elsewhere, or not at all. The fourth is less plain. If the probe of pattern n is
multiplied with a phase ramp that is proportional to its position, and the object with a quadratic
phase, every exit wave stays the same::

    P_n(r) e^{-2 pi i r.G (p_n - c)} e^{-pi i r.G r},   O(x) e^{pi i (x - c).G (x - c)}

A ramp of the probe moves the aperture on the detector, and a beam that wanders or defocuses does
not. So all four are taken out of the components after each epoch, and at the end what is left of a
motion of the aperture in proportion to the position is given to the object as a quadratic phase.

References:
----------
.. [1] M. Odstrcil et al., "Ptychographic coherent diffractive imaging with orthogonal probe
   relaxation", Opt. Express 24, 8360 (2016), doi:10.1364/OE.24.008360.
"""

import numpy as np
import torch
from torch import Tensor

from ptycho_torch.physics.incoherent import real_product
from ptycho_torch.physics.least_squares import least_squares
from ptycho_torch.physics.probe_shift import frequencies
from ptycho_torch.refinement.prepared_patterns import PreparedPatterns
from ptycho_torch.refinement.step import State


def weights_of_time(count: int, components: int) -> Tensor:
    """Legendre polynomials of degree 1 to K over the scan, float32, (N, K)."""
    time = np.linspace(-1, 1, count)
    columns = [np.polynomial.legendre.Legendre.basis(k + 1)(time) for k in range(components)]
    return torch.from_numpy(np.stack(columns, axis=1)).float()


def remove_open_phase(patterns: PreparedPatterns, state: State) -> None:
    """Take the ramps that are proportional to the positions out of the probe, in place.

    Args:
        patterns: All patterns; they must have weights.
        state: Object, probe and components; the exit waves stay the same to first order.
    """
    if patterns.probe_weights is None:
        raise ValueError("the patterns have no weights of components")
    middle = patterns.centres.mean(0)
    away = (patterns.centres - middle).to(patterns.probe_weights.dtype)
    ramps = spectrum_centres(patterns.probe_weights, state)
    design = torch.cat([away, away.new_ones(len(away), 1)], dim=1)
    slopes = least_squares(design, ramps)[:2]  # (position, ramp)
    tensor = (slopes + slopes.T) / 2  # G; only a symmetric one is the curvature of a phase
    # 1. object: quadratic phase
    y, x = (
        torch.arange(size, dtype=away.dtype, device=away.device) - middle[axis].to(away.dtype)
        for axis, size in enumerate(state.obj.shape)
    )
    state.obj = state.obj * _phase(_quadratic(y, x, tensor))
    # 2. probe: the opposite curvature; components: the opposite ramps
    y, x = (
        torch.arange(size, dtype=away.dtype, device=away.device) - size / 2
        for size in patterns.shape
    )
    per_weight = least_squares(patterns.probe_weights, away @ tensor)  # (K, 2)
    ramp = per_weight[:, 0, None, None] * y[:, None] + per_weight[:, 1, None, None] * x
    state.components = state.components - 2j * torch.pi * ramp[:, None] * state.probe
    curvature = _phase(-_quadratic(y, x, tensor))
    state.probe, state.components = state.probe * curvature, state.components * curvature


def spectrum_centres(weights: Tensor, state: State) -> Tensor:
    """Centre of the spectrum of the probe of each pattern, in cycles a pixel, (N, 2).

    Args:
        weights: Of the components, (N, K).
        state: Probe and components.
    """
    stack = torch.fft.fft2(torch.cat([state.probe[None], state.components]))
    every = torch.cat([weights.new_ones(len(weights), 1), weights], dim=1)
    along_y, along_x = frequencies(state.probe.shape[-2:], weights)
    factors = (weights.new_ones(1, 1), along_y[:, None], along_x[None])
    sums = []
    for factor in factors:
        products = torch.stack([real_product(one, stack * factor).sum((1, 2, 3)) for one in stack])
        sums.append(torch.einsum("nk,kl,nl->n", every, products, every))
    return torch.stack(sums[1:], dim=1) / sums[0][:, None]


def remove_described_elsewhere(state: State) -> None:
    """Take flux, global phase, shifts and ramps out of the components, in place."""
    probe = state.probe
    height, width = probe.shape[-2:]
    y, x = ((torch.arange(size, device=probe.device) - size / 2) for size in (height, width))
    frequency_y, frequency_x = frequencies((height, width), probe.real)
    spectrum = torch.fft.fft2(probe)
    along_y, along_x = (
        torch.fft.ifft2(2j * torch.pi * frequency * spectrum)
        for frequency in (frequency_y[:, None], frequency_x)
    )
    ramps = (y[:, None] * probe, x * probe)
    described = (probe, *ramps, along_y, along_x, *(1j * one for one in (probe, *ramps)))
    columns = torch.stack([_as_real(one) / _as_real(one).norm() for one in described], dim=1)
    basis, _ = torch.linalg.qr(columns)
    flat = torch.stack([_as_real(one) for one in state.components])
    rest = (flat - (flat @ basis) @ basis.T).to(probe.real.dtype)
    state.components = torch.view_as_complex(rest.reshape(*state.components.shape, 2).contiguous())


def _as_real(waves: Tensor) -> Tensor:
    """Real and imaginary parts in one row, float64."""
    return torch.view_as_real(waves.contiguous()).reshape(-1).double()


def _quadratic(y: Tensor, x: Tensor, tensor: Tensor) -> Tensor:
    """``r . G r`` at each pixel."""
    across = 2 * tensor[0, 1] * y[:, None] * x
    return tensor[0, 0] * y[:, None].square() + across + tensor[1, 1] * x.square()


def _phase(quadratic: Tensor) -> Tensor:
    """``exp(i pi q)``."""
    return torch.polar(torch.ones_like(quadratic), torch.pi * quadratic)

"""Losses of expected counts against measured ones.

Both losses are means over the good detector pixels of a group, so that what a group counts does not
depend on those beside it in a batch. They are zero for a perfect fit, and near one where a perfect
model meets the counting noise of many photons.
"""

import torch
from torch import Tensor

DARK = 0.1  # photons; dark level of a counting detector, which bounds the logarithm of dark pixels
DYNAMIC_RANGE = 1e-4  # of the mean count; darker than that, a model pixel is as good as dark
EPS = 1e-6  # photons; keeps the root differentiable at zero


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the good pixels of each group.

    Args:
        values: Real, (B, C, H, W).
        mask: Good pixels, bool, (B, H, W).

    Returns:
        Real, (B,).
    """
    weight = mask[:, None].to(values.dtype).expand_as(values)
    return (values * weight).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3))


def poisson_loss(intensity: Tensor, counts: Tensor, mask: Tensor) -> Tensor:
    """Deviance per pixel of counts with a Poisson distribution and a small dark level c.

    ::

        2 [ I - n + (n + c) log((n + c) / (I + c)) ]

    Without c it is twice the negative log-likelihood [1]_ above its minimum; c keeps a pixel that
    the model leaves dark from outweighing all others, and leaves the minimum at I = n.

    Args:
        intensity: Expected photons, real, (B, C, H, W).
        counts: Measured photons, real, (B, C, H, W).
        mask: Good pixels, bool, (B, H, W).

    Returns:
        Of each group, real, (B,), at least 0 up to round-off.

    References:
        .. [1] P. Thibault and M. Guizar-Sicairos, "Maximum-likelihood refinement for coherent
           diffractive imaging", New J. Phys. 14, 063004 (2012), doi:10.1088/1367-2630/14/6/063004.
    """
    dark = DARK + DYNAMIC_RANGE * counts.mean(dim=(1, 2, 3), keepdim=True)
    deviance = (
        intensity - counts + (counts + dark) * torch.log((counts + dark) / (intensity + dark))
    )
    return 2 * masked_mean(deviance, mask)


def amplitude_loss(intensity: Tensor, counts: Tensor, mask: Tensor) -> Tensor:
    """Squared difference of amplitudes in units of its noise, the Gaussian limit of Poisson.

    ::

        4 (sqrt(I) - sqrt(n))^2

    The root stabilises the variance: it is one quarter at any count that is not small.

    Args:
        intensity: Expected photons, real, (B, C, H, W).
        counts: Measured photons, real, (B, C, H, W).
        mask: Good pixels, bool, (B, H, W).

    Returns:
        Of each group, real, (B,), at least 0.

    References:
        P. Godard et al., "Noise models for low counting rate coherent diffraction imaging",
        Opt. Express 20, 25914 (2012), doi:10.1364/OE.20.025914.
    """
    return 4 * masked_mean(((intensity + EPS).sqrt() - counts.sqrt()).square(), mask)

"""How well expected counts explain measured ones.

Both losses are means over good detector pixels, zero for a perfect fit, and near one half
(Poisson) and one quarter (amplitude) where a perfect model meets counting noise of many photons.
"""

import torch
from torch import Tensor

EPS = 1e-6  # photons per pixel; far below the counts of any detector, keeps logarithm and root finite


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over good pixels.

    Args:
        values: Real, (B, C, H, W).
        mask: Good pixels, bool, (B, H, W).

    Returns:
        Scalar.
    """
    weight = mask[:, None].to(values.dtype).expand_as(values)
    return (values * weight).sum() / weight.sum()


def poisson_loss(intensity: Tensor, counts: Tensor, mask: Tensor) -> Tensor:
    """Half the Poisson deviance per pixel: the negative log-likelihood above its minimum.

    ::

        I - n + n log(n / I)

    Args:
        intensity: Expected photons, real, (B, C, H, W).
        counts: Measured photons, real, (B, C, H, W).
        mask: Good pixels, bool, (B, H, W).

    Returns:
        Scalar, at least 0 up to round-off.

    References:
        P. Thibault and M. Guizar-Sicairos, "Maximum-likelihood refinement for coherent
        diffractive imaging", New J. Phys. 14, 063004 (2012), doi:10.1088/1367-2630/14/6/063004.
    """
    deviance = intensity - counts + torch.xlogy(counts, (counts + EPS) / (intensity + EPS))
    return masked_mean(deviance, mask)


def amplitude_loss(intensity: Tensor, counts: Tensor, mask: Tensor) -> Tensor:
    """Mean squared difference of amplitudes, the Gaussian limit of the Poisson likelihood.

    ::

        (sqrt(I) - sqrt(n))^2

    The root stabilises the variance: it is one quarter at any count that is not small.

    Args:
        intensity: Expected photons, real, (B, C, H, W).
        counts: Measured photons, real, (B, C, H, W).
        mask: Good pixels, bool, (B, H, W).

    Returns:
        Scalar, at least 0.

    References:
        P. Godard et al., "Noise models for low counting rate coherent diffraction imaging",
        Opt. Express 20, 25914 (2012), doi:10.1364/OE.20.025914.
    """
    return masked_mean(((intensity + EPS).sqrt() - counts.sqrt()).square(), mask)


LOSSES = {"poisson": poisson_loss, "amplitude": amplitude_loss}

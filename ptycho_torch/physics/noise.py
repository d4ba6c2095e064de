"""The noise of counts: losses, residuals, measures of misfit, and the division of photons.

Losses are means over the good detector pixels of a group, so that what a group counts does not
depend on those beside it in a batch. They are zero for a perfect fit, and near one where a perfect
model meets the counting noise of many photons.

A `NoiseModel` is the form in which the refinement uses the same likelihoods: element by element,
with the slope that its gradient starts from.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

DARK = 0.1  # photons; dark level of a counting detector, which bounds the logarithm of dark pixels
DYNAMIC_RANGE = 1e-4  # of the mean count; darker than that, a model pixel is as good as dark
EPS = 1e-6  # photons; keeps the root differentiable at zero
NOISE_MISFIT = 0.25  # variance of the root of a count that is not small
COUNT_FLOOR = 0.02  # photons; keeps the slope of the deviance finite where the model is dark


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


class NoiseModel(Protocol):
    """A likelihood of counts, element by element."""

    def descent(self, intensity: Tensor, measured: Tensor) -> Tensor:
        """Minus a quarter of the derivative of the deviance with respect to the expected photons.

        Four times the misfit of amplitudes stands for the deviance where counts are many.
        Multiplied with the waves it is the direction in which the misfit falls; it is 0 where the
        model is right.

        Args:
            intensity: Expected photons, real.
            measured: As `prepare` made them, of the same shape; may be overwritten.
        """

    def misfit(self, intensity: Tensor, measured: Tensor) -> Tensor:
        """What is minimised, element by element, at least 0."""

    def prepare(self, counts: Tensor) -> Tensor:
        """Counts in the form that this model reads most often; may overwrite them."""

    def counts(self, measured: Tensor) -> Tensor:
        """Counts from what `prepare` made; may overwrite it."""

    def amplitudes(self, measured: Tensor) -> Tensor:
        """Square roots of the counts, from what `prepare` made; may overwrite it."""


@dataclass(frozen=True)
class PoissonNoise:
    """Sparse counts: the Poisson deviance with a small dark level, see `poisson_loss`."""

    def descent(self, intensity: Tensor, measured: Tensor) -> Tensor:
        """See `NoiseModel.descent`."""
        counts = measured.add_(COUNT_FLOOR)
        return counts.div_(intensity + COUNT_FLOOR).sub_(1).mul_(0.5)

    def misfit(self, intensity: Tensor, measured: Tensor) -> Tensor:
        """See `NoiseModel.misfit`."""
        return deviance(intensity, measured)

    def prepare(self, counts: Tensor) -> Tensor:
        """The counts."""
        return counts

    def counts(self, measured: Tensor) -> Tensor:
        """The counts."""
        return measured

    def amplitudes(self, measured: Tensor) -> Tensor:
        """Their roots."""
        return measured.sqrt_()


@dataclass(frozen=True)
class AmplitudeNoise:
    """Many counts: the squared difference of their roots, whose variance is constant [1]_.

    References:
        .. [1] P. Godard et al., "Noise models for low counting rate coherent diffraction imaging",
           Opt. Express 20, 25914 (2012), doi:10.1364/OE.20.025914.
    """

    def descent(self, intensity: Tensor, measured: Tensor) -> Tensor:
        """See `NoiseModel.descent`."""
        return measured.mul_((intensity + EPS).rsqrt_()).sub_(1)

    def misfit(self, intensity: Tensor, measured: Tensor) -> Tensor:
        """See `NoiseModel.misfit`."""
        return (intensity.sqrt() - measured).square()

    def prepare(self, counts: Tensor) -> Tensor:
        """The roots of the counts."""
        return counts.sqrt_()

    def counts(self, measured: Tensor) -> Tensor:
        """Their squares."""
        return measured.square_()

    def amplitudes(self, measured: Tensor) -> Tensor:
        """The roots of the counts."""
        return measured


def deviance(intensity: Tensor, counts: Tensor) -> Tensor:
    """Poisson deviance with a dark level of `COUNT_FLOOR`, element by element, at least 0.

    Args:
        intensity: Expected photons, real.
        counts: Measured photons, of the same shape.
    """
    model, measured = intensity + COUNT_FLOOR, counts + COUNT_FLOOR
    return 2 * (measured * (measured / model).log() - measured + model)


def amplitude_misfit(intensity: Tensor, counts: Tensor) -> Tensor:
    """``(sqrt(I) - sqrt(n))^2``, element by element; 1/4 on average for a right model."""
    return (intensity.sqrt() - counts.sqrt()).square()


def thin(counts: Tensor, fraction: float, rng: torch.Generator) -> Tensor:
    """Independent counts of a share of the photons: each photon is taken with a probability.

    Of counts with a Poisson distribution, what is taken and what is left have one again, with the
    means ``fraction`` and ``1 - fraction`` times the old, and are independent [1]_. The part of a
    count below one, where counts are no whole numbers, is divided in proportion.

    Args:
        counts: Photons, real.
        fraction: Within (0, 1).
        rng: Random generator of the division, on the device of the counts.

    Returns:
        What is taken, of the same shape.

    References:
        .. [1] J. F. C. Kingman, "Poisson Processes" (1993), section 5.1 (colouring theorem).
    """
    whole = counts.floor()
    drawn = torch.binomial(whole, torch.full_like(whole, fraction), generator=rng)
    return drawn + fraction * (counts - whole)

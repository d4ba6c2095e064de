"""Propagation of exit waves to the detector and back, in the far field and in the near field.

Zero frequency of a far-field pattern sits at ``[0, 0]`` here, where the FFT puts it;
`from_detector` and `to_detector` move it from and to ``[H // 2, W // 2]``, where detectors have it.
A near-field pattern is an image of the exit wave's window, pixel by pixel, and is not moved.

A patch is cut at a whole pixel, and the probe is shifted by the fraction of a pixel that is left
(`ptycho_torch.physics.patches`). So the exit wave lies moved by that fraction. A far-field
intensity does not depend on it; in the near field the propagator moves the wave back.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Propagator(Protocol):
    """From exit waves to detector waves: a linear operator that conserves energy."""

    def forward(self, waves: Tensor, fraction_px: Tensor) -> Tensor:
        """Detector waves of exit waves.

        Args:
            waves: Exit waves, complex, (..., M, H, W), in sqrt(photons).
            fraction_px: Sub-pixel part ``(y, x)`` of each position, by which the exit waves lie
                moved, real, (..., 2).

        Returns:
            Complex, (..., M, H, W), in sqrt(photons).
        """

    def adjoint(self, waves: Tensor, fraction_px: Tensor) -> Tensor:
        """Exit waves that give these detector waves: inverse and adjoint of `forward`."""

    def from_detector(self, image: Tensor) -> Tensor:
        """An image of the detector, (..., H, W), in the order of the propagated waves."""

    def to_detector(self, image: Tensor) -> Tensor:
        """The inverse of `from_detector`."""

    def mirror(self, image: Tensor, axis: int) -> Tensor:
        """An image of the detector as it is when probe and object are mirrored along an axis."""


class FarField:
    """The Fraunhofer regime: a unitary discrete Fourier transform.

    Unitary means that energy is conserved (Parseval): ``sum |F(w)|^2 == sum |w|^2``.
    """

    def forward(self, waves: Tensor, fraction_px: Tensor | None = None) -> Tensor:
        """See `Propagator.forward`; zero frequency at ``[0, 0]``."""
        return torch.fft.fft2(waves, norm="ortho")

    def adjoint(self, waves: Tensor, fraction_px: Tensor | None = None) -> Tensor:
        """See `Propagator.adjoint`."""
        return torch.fft.ifft2(waves, norm="ortho")

    def from_detector(self, image: Tensor) -> Tensor:
        """Zero frequency from ``[H // 2, W // 2]`` to ``[0, 0]``."""
        return torch.fft.ifftshift(image, dim=(-2, -1))

    def to_detector(self, image: Tensor) -> Tensor:
        """Zero frequency from ``[0, 0]`` to ``[H // 2, W // 2]``."""
        return torch.fft.fftshift(image, dim=(-2, -1))

    def mirror(self, image: Tensor, axis: int) -> Tensor:
        """Frequency q at the place of -q; zero frequency stays at ``[N // 2]``."""
        size = image.shape[axis]
        return image.flip(axis).roll(1 - size % 2, dims=axis)


@dataclass(frozen=True)
class NearField:
    """The Fresnel regime, by the transfer function of free space [1]_.

    ::

        D = F^-1[ exp(-i pi (q_y^2 / N_y + q_x^2 / N_x)) F[w](q) ]

    with q in cycles a pixel and N the Fresnel number of a pixel, ``pixel^2 / (wavelength z)``. The
    window is periodic: what leaves it at one side enters at the other.

    Attributes:
        fresnel_number: ``(N_y, N_x)``, real, (..., 2), broadcast with the fractions. Below
            ``1 / H`` or ``1 / W`` light crosses the whole window, and the far field describes the
            pattern.

    References:
        .. [1] J. W. Goodman, "Introduction to Fourier Optics", 3rd ed., section 4.2 (2005).
    """

    fresnel_number: Tensor

    def forward(self, waves: Tensor, fraction_px: Tensor) -> Tensor:
        """See `Propagator.forward`; pixel by pixel the window of the exit wave."""
        return torch.fft.ifft2(torch.fft.fft2(waves) * self._transfer(waves, fraction_px))

    def adjoint(self, waves: Tensor, fraction_px: Tensor) -> Tensor:
        """See `Propagator.adjoint`."""
        transfer = self._transfer(waves, fraction_px).conj()
        return torch.fft.ifft2(torch.fft.fft2(waves) * transfer)

    def from_detector(self, image: Tensor) -> Tensor:
        """The image as it is."""
        return image

    def to_detector(self, image: Tensor) -> Tensor:
        """The image as it is."""
        return image

    def mirror(self, image: Tensor, axis: int) -> Tensor:
        """The image, mirrored."""
        return image.flip(axis)

    def _transfer(self, waves: Tensor, fraction_px: Tensor) -> Tensor:
        """The transfer function, with the phase that moves the wave back, (..., 1, H, W)."""
        factors = []
        for axis in (-2, -1):
            fraction, number = (
                values[..., axis, None] for values in (fraction_px, self.fresnel_number)
            )
            q = torch.fft.fftfreq(
                waves.shape[axis], dtype=fraction_px.dtype, device=fraction_px.device
            )
            phase = 2 * fraction * q - q.square() / number
            factors.append(torch.polar(torch.ones_like(phase), torch.pi * phase).to(waves.dtype))
        along_y, along_x = factors
        return (along_y[..., :, None] * along_x[..., None, :])[..., None, :, :]


def propagator_of(fresnel_number: Tensor | None) -> Propagator:
    """The propagator of patterns; without a Fresnel number that of the far field."""
    return FarField() if fresnel_number is None else NearField(fresnel_number)

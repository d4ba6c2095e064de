"""Propagation of exit waves to the far-field detector and back.

Zero frequency sits at ``[0, 0]`` here, where the FFT puts it;
`ptycho_torch.physics.forward` moves it to ``[H // 2, W // 2]``, where detectors have it.
"""

import torch
from torch import Tensor


def far_field(waves: Tensor) -> Tensor:
    """Waves on a detector in the Fraunhofer regime, by a unitary discrete Fourier transform.

    Unitary means that energy is conserved (Parseval)::

        sum |far_field(w)|^2 == sum |w|^2

    Args:
        waves: Exit waves, complex, (..., H, W), in sqrt(photons).

    Returns:
        Detector waves, complex, (..., H, W), in sqrt(photons), zero frequency at ``[0, 0]``.
    """
    return torch.fft.fft2(waves, norm="ortho")


def far_field_adjoint(waves: Tensor) -> Tensor:
    """Exit waves that give these detector waves: inverse and adjoint of `far_field`.

    Args:
        waves: Detector waves, complex, (..., H, W), in sqrt(photons), zero frequency at ``[0, 0]``.

    Returns:
        Exit waves, complex, (..., H, W), in sqrt(photons).
    """
    return torch.fft.ifft2(waves, norm="ortho")

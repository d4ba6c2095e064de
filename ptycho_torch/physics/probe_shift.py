"""The sub-pixel shift of a probe, and its photons."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ptycho_torch.physics.incoherent import incoherent_sum


def shift_probe(probe: Tensor, shift_px: Tensor) -> Tensor:
    """The probe moved by a fraction of a pixel, by a linear phase in Fourier space.

    Periodic: what leaves the window at one side enters at the other. The energy is conserved
    but for the Nyquist frequency, which a fractional shift cannot represent.

    Args:
        probe: Complex, (..., M, H, W).
        shift_px: ``(y, x)``, real, (..., 2); its leading axes broadcast with those of ``probe``.

    Returns:
        Complex, (..., M, H, W), with the leading axes of both broadcast.
    """
    y, x = frequencies(probe.shape[-2:], shift_px)
    ramp_y = torch.exp(-2j * torch.pi * shift_px[..., 0, None] * y)  # (..., H)
    ramp_x = torch.exp(-2j * torch.pi * shift_px[..., 1, None] * x)  # (..., W)
    waves = torch.fft.fft2(probe) * ramp_y[..., None, :, None].to(probe.dtype)
    return torch.fft.ifft2(waves * ramp_x[..., None, None, :].to(probe.dtype))


def frequencies(shape: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
    """Frequencies of a transform along y, (H,), and x, (W,), in cycles a pixel.

    Args:
        shape: ``(H, W)``.
        like: Real tensor, whose dtype and device they have.
    """
    along_y, along_x = (
        torch.fft.fftfreq(size, dtype=like.dtype, device=like.device) for size in shape
    )
    return along_y, along_x


def photons_per_exposure(probe: Tensor) -> Tensor:
    """Photons that the probe carries: the squared sum over modes and pixels.

    Args:
        probe: Complex, (..., M, H, W), in sqrt(photons).

    Returns:
        Real, (...), in photons.
    """
    return incoherent_sum(probe).sum(dim=(-2, -1))

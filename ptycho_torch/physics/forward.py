"""The forward model: from an object and an illumination to expected photon counts, and back.

Everything that predicts counts or follows a misfit back to what caused it uses these steps::

    exit wave   psi[n, m] = P[n, m] * patch[n]            the interaction
    detector    Psi       = D psi                         the propagator, `propagation`
    expected    I[n]      = flux[n] * sum_m |Psi[n, m]|^2 + background

and their adjoints to the exit waves, and from there to object, probe and positions.
"""

from dataclasses import dataclass

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from ptycho_torch.physics.exact_sums import sums_at
from ptycho_torch.physics.incoherent import coherent_sum, incoherent_sum, squared_modulus
from ptycho_torch.physics.patches import (
    add_patches,
    extract_patches,
    patch_indices,
    place_patches,
    split_corners,
)
from ptycho_torch.physics.probe_shift import shift_probe
from ptycho_torch.physics.propagation import FarField, Propagator

# Of Fourier transforms of a canvas, in units of the last digit of its brightest pixel.
ROUND_OFF = 16


@dataclass(frozen=True)
class ForwardModel:
    """How the patterns of some positions come about, but for object and probe.

    Attributes:
        propagator: From exit waves to the detector.
        fraction_px: Sub-pixel part of each position, by which its exit wave lies moved, real,
            (..., 2); used in the near field only.
        flux: Photons of each pattern relative to those of the probe, real, (...); None is 1.
        background: Photons of each pixel that come past the sample, real, broadcast with
            (..., H, W), in the order of the propagator; None is 0.
    """

    propagator: Propagator
    fraction_px: Tensor
    flux: Tensor | None = None
    background: Tensor | None = None

    def detector_waves(self, patches: Tensor, probe: Tensor) -> Tensor:
        """Waves on the detector, before the flux.

        Args:
            patches: Object transmission under the probe, complex, (..., H, W). Dimensionless.
            probe: Illumination modes as they fall there, complex, (..., M, H, W), in sqrt(photons).

        Returns:
            Complex, (..., M, H, W), in sqrt(photons).
        """
        return self.propagator.forward(patches[..., None, :, :] * probe, self.fraction_px)

    def expected_counts(self, waves: Tensor) -> Tensor:
        """Expected photons of each pattern, in the order of the propagator.

        The modes add incoherently [1]_.

        Args:
            waves: From `detector_waves`, (..., M, H, W).

        Returns:
            Real, (..., H, W), in photons.

        References:
            .. [1] P. Thibault and A. Menzel, "Reconstructing state mixtures from diffraction
               measurements", Nature 494, 68 (2013), doi:10.1038/nature11806.
        """
        intensity = incoherent_sum(waves)
        if self.flux is not None:
            intensity = intensity * self.flux[..., None, None]
        return intensity if self.background is None else intensity + self.background

    def exit_wave_gradient(self, waves: Tensor, slope: Tensor) -> Tensor:
        """The gradient of a function of the expected counts with respect to the exit waves.

        Args:
            waves: From `detector_waves`, complex, (..., M, H, W); overwritten.
            slope: Derivative of the function with respect to the expected counts, real,
                (..., H, W).

        Returns:
            With respect to the conjugate of the exit waves, complex, (..., M, H, W).
        """
        if self.flux is not None:
            slope = slope * self.flux[..., None, None]
        return self.propagator.adjoint(waves.mul_(slope[..., None, :, :]), self.fraction_px)


def object_gradient(exit_waves: Tensor, probe: Tensor) -> Tensor:
    """The gradient with respect to the patches, by the adjoint of the interaction.

    Args:
        exit_waves: Gradient with respect to the exit waves, complex, (..., M, H, W).
        probe: As it falls there, complex, (..., M, H, W).

    Returns:
        Complex, (..., H, W).
    """
    return coherent_sum(probe.conj() * exit_waves)


def position_gradient(exit_waves: Tensor, probe: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient with respect to a local displacement of each patch, pixel by pixel.

    Where a position moves by d, its patch becomes ``patch + d . grad(patch)``. Summed over the
    pixels, the first result is the derivative with respect to the position of minus the misfit,
    where ``exit_waves`` points downhill; weighted with the distance from the middle of the patch,
    it is that with respect to a local scale or rotation.

    Args:
        exit_waves: Direction of descent of the exit waves, complex, (..., M, H, W).
        probe: As it falls there, complex, (..., M, H, W).
        patches: Complex, (..., H, W).

    Returns:
        ``Re(conj(dpsi / dy_i) chi)`` along y and x, real, (2, ..., H, W), and the products
        ``Re(conj(dpsi / dy_i) dpsi / dy_j)`` for yy, yx and xx, real, (3, ..., H, W).
    """
    light = incoherent_sum(probe)
    back = coherent_sum(probe.conj() * exit_waves)
    along_y, along_x = torch.gradient(patches, dim=(-2, -1))
    slopes = torch.stack([(slope.conj() * back).real for slope in (along_y, along_x)])
    products = torch.stack(
        [
            squared_modulus(along_y) * light,
            (along_y.conj() * along_x).real * light,
            squared_modulus(along_x) * light,
        ]
    )
    return slopes, products


@dataclass(frozen=True)
class ScanLayout:
    """Where each patch of a group lies on its canvas, and the probe as it falls there.

    Attributes:
        indices: Flat canvas index of every patch pixel, int64, (B, C, H, W).
        probe: Illumination of each pattern, shifted by the sub-pixel part of its position and with
            its own photons, in sqrt(photons), complex, (B, C, M, H, W).
        canvas_shape: ``(Y, X)`` of one canvas.
        model: How the patterns come about; their flux is in the probe.
    """

    indices: Tensor
    probe: Tensor
    canvas_shape: tuple[int, int]
    model: ForwardModel


def scan_layout(
    corners_px: Tensor,
    probe: Tensor,
    canvas_shape: tuple[int, int],
    propagator: Propagator | None = None,
    background: Tensor | None = None,
) -> ScanLayout:
    """The `ScanLayout` of groups of patches.

    Args:
        corners_px: Minimum corners ``(y, x)`` of the patches on their canvas, real, (B, C, 2).
        probe: Illumination modes, complex, in sqrt(photons), (B, M, H, W), or (B, C, M, H, W) where
            each pattern has its own.
        canvas_shape: ``(Y, X)`` of one canvas.
        propagator: By default that of the far field.
        background: Photons that come past the sample, real, broadcast with (B, C, H, W), in the
            order of the propagator.

    Returns:
        Indices, shifted probes and the model of the patterns.

    Raises:
        ValueError: On the CPU, if a patch reaches beyond its canvas.
    """
    whole, fraction = split_corners(corners_px)
    height, width = probe.shape[-2:]
    each = probe if probe.ndim == 5 else probe[:, None]
    return ScanLayout(
        indices=patch_indices(whole, (height, width), canvas_shape),
        probe=shift_probe(each, fraction),
        canvas_shape=canvas_shape,
        model=ForwardModel(propagator or FarField(), fraction, background=background),
    )


def diffraction_intensity(
    patches: Tensor,
    probe: Tensor,
    *,
    propagator: Propagator | None = None,
    fraction_px: Tensor | None = None,
) -> Tensor:
    """Expected photon counts on the far-field detector, one pattern per patch.

    Args:
        patches: Object transmission seen by the probe, complex, (..., H, W). Dimensionless;
            modulus 1 and phase 0 is empty space.
        probe: Illumination modes, complex, (..., M, H, W), in sqrt(photons), so that the sum
            of ``probe.abs().square()`` is the photons per exposure. Its leading axes
            broadcast with those of ``patches``.
        propagator: By default that of the far field.
        fraction_px: By which the probe was shifted in its window, (..., 2); by default 0.

    Returns:
        Real, (..., H, W), in photons per detector pixel, zero frequency at
        ``[H // 2, W // 2]``. The sum over pixels equals the photons that leave the object
        (Parseval). Independent of the global phase of ``patches``.

    Raises:
        ValueError: If ``patches`` and ``probe`` differ in (H, W).
    """
    if patches.shape[-2:] != probe.shape[-2:]:
        raise ValueError(
            f"patches are {tuple(patches.shape[-2:])} pixels but probe is "
            f"{tuple(probe.shape[-2:])}; crop or pad the probe first"
        )
    shift = probe.real.new_zeros(2) if fraction_px is None else fraction_px.to(probe.real.dtype)
    model = ForwardModel(propagator or FarField(), shift)
    return model.propagator.to_detector(model.expected_counts(model.detector_waves(patches, probe)))


def predict_counts(canvas: Tensor, layout: ScanLayout) -> Tensor:
    """Expected photon counts of every pattern of a group.

    Args:
        canvas: Object under the group, complex, (B, Y, X).
        layout: From `scan_layout`.

    Returns:
        Real, (B, C, H, W), in photons, as on the detector: a far-field pattern has zero frequency
        at ``[H // 2, W // 2]``.
    """
    waves = layout.model.detector_waves(extract_patches(canvas, layout.indices), layout.probe)
    return layout.model.propagator.to_detector(layout.model.expected_counts(waves))


def illumination(layout: ScanLayout) -> Tensor:
    """Photons that fell on each canvas pixel, summed over the patterns of the group.

    Args:
        layout: From `scan_layout`.

    Returns:
        Real, (B, Y, X), in photons.
    """
    return place_patches(incoherent_sum(layout.probe), layout.indices, layout.canvas_shape)


def illumination_nearest_pixel(
    corners_px: Tensor, probe: Tensor, canvas_shape: tuple[int, int]
) -> Tensor:
    """As `illumination`, with each pattern at its nearest whole pixel and no shifted probes.

    Args:
        corners_px: Minimum corners ``(y, x)`` of the patches on their canvas, (B, C, 2).
        probe: Illumination modes, complex, (B, M, H, W), in sqrt(photons).
        canvas_shape: ``(Y, X)`` of one canvas, which must hold all patches.

    Returns:
        Real, (B, Y, X), in photons.
    """
    power = incoherent_sum(probe)
    canvases = power.new_zeros(len(power), *canvas_shape)
    for canvas, corners, patch in zip(canvases, corners_px.round().long(), power, strict=True):
        add_patches(canvas, patch.expand(len(corners), -1, -1), corners)
    return canvases


def quick_illumination(corners: Tensor, probe: Tensor, canvas_shape: tuple[int, int]) -> Tensor:
    """As `illumination_nearest_pixel` of one group, for the steps of a refinement.

    On a GPU it is some ten times faster, and zero where it is fainter than the round-off of Fourier
    transforms.

    Args:
        corners: Whole-pixel minimum corners ``(y, x)``, int64, (C, 2).
        probe: Illumination modes, complex, (M, H, W), in sqrt(photons).
        canvas_shape: ``(Y, X)``, which must hold all patches.

    Returns:
        Real, (Y, X), in photons.
    """
    if probe.device.type == "cpu":
        return illumination_nearest_pixel(corners[None], probe[None], canvas_shape)[0]
    return light_by_convolution(corners, incoherent_sum(probe), canvas_shape)


def light_by_convolution(corners: Tensor, power: Tensor, canvas_shape: tuple[int, int]) -> Tensor:
    """The same patch at many corners, by Fourier transforms of the canvas.

    Args:
        corners: Int64, (C, 2).
        power: Real, (H, W), at least 0.
        canvas_shape: ``(Y, X)``, which must hold all patches.

    Returns:
        Real, (Y, X); zero where it is not larger than the round-off of the transforms.
    """
    rows, columns = canvas_shape
    ones = power.new_ones(len(corners))
    index = corners[:, 0] * columns + corners[:, 1]
    points = sums_at(ones, index, rows * columns, len(corners)).reshape(rows, columns)
    shape = [next_fast_len(size, real=True) for size in canvas_shape]
    product = torch.fft.rfft2(points, s=shape) * torch.fft.rfft2(power, s=shape)
    light = torch.fft.irfft2(product, s=shape)[:rows, :columns]
    dark = light < ROUND_OFF * torch.finfo(light.dtype).eps * light.max()
    return light.masked_fill(dark, 0)

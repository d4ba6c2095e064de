"""Properties of a probe and operations on it: aperture, defocus, diameter, sampling, scale.

Arrays are NumPy, complex, (M, H, W), with the middle of the window at ``[H // 2, W // 2]``. The
sub-pixel shift, which is part of the forward model, is in `ptycho_torch.physics.probe_shift`.
"""

import math

import numpy as np
from numpy.typing import NDArray

from ptycho_torch.data.detector import Window

SCATTERED = 0.02  # of the aperture's brightness in a mean pattern; darker pixels show the sample
# Of a mean pattern: the aperture's brightness, which hot pixels do not set.
BRIGHT_PERCENTILE = 99.5
APERTURE_SHARE = 0.95  # share of the photons inside the radius of the aperture
BEAM_SHARE = 0.9  # share of the photons inside the diameter of the beam
APERTURE = 0.4  # outer radius of a simulated pupil, as a fraction of the detector's half width
CENTRAL_STOP = 0.4  # its inner radius, as a fraction of the outer
FILLED = 0.44  # half width of a beam behind a diffuser, as a fraction of the window
DIFFUSER_FREQUENCY = 0.06  # spread of the spatial frequencies of a diffuser, in cycles a pixel
DIFFUSER_CONTRAST = 0.7  # of the diffuser's wave relative to the even beam
BEAM = 0.4  # diameter of a simulated defocused beam, as a fraction of the window


def scaled_to(modes: NDArray[np.complexfloating], photons: float) -> NDArray[np.complexfloating]:
    """The probe at the scale at which its squared sum is the number of photons."""
    return modes * np.sqrt(photons / np.sum(np.abs(modes) ** 2))


def focused_probe(mean_pattern: NDArray[np.floating]) -> NDArray[np.complex64]:
    """The probe in focus for the aperture that a mean pattern shows, with its photons.

    Light that the sample scatters beyond the aperture is faint in the mean of many patterns, and is
    left out.

    Args:
        mean_pattern: Photons, (H, W), zero frequency at ``[H // 2, W // 2]``.

    Returns:
        Complex, (1, H, W), in sqrt(photons).
    """
    photons = float(mean_pattern.sum(dtype=np.float64))
    brightest = np.percentile(mean_pattern, BRIGHT_PERCENTILE)
    aperture = np.sqrt(np.clip(mean_pattern - SCATTERED * brightest, 0, None))
    probe = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(aperture), norm="ortho"))
    return (probe * np.sqrt(photons / np.sum(np.abs(probe) ** 2))).astype(np.complex64)[None]


def aperture_radius(probe: NDArray[np.complex64]) -> float:
    """Spatial frequency within which most photons lie on the detector, in cycles a pixel."""
    power = np.abs(np.fft.fft2(probe)) ** 2
    radius = np.sqrt(squared_frequency(probe.shape)).ravel()
    order = np.argsort(radius)
    inside = np.cumsum(power.ravel()[order])
    return float(radius[order][np.searchsorted(inside, APERTURE_SHARE * inside[-1])])


def beam_diameter(probe: NDArray[np.complex64]) -> float:
    """Diameter that holds 90 % of the photons around their centre, in pixels."""
    intensity = np.sum(np.abs(probe) ** 2, axis=0)
    center = ring_centroid(intensity)
    distance = np.hypot(*(np.indices(intensity.shape) - np.array(center)[:, None, None])).ravel()
    order = np.argsort(distance)
    inside = np.cumsum(intensity.ravel()[order])
    return float(2 * distance[order][np.searchsorted(inside, BEAM_SHARE * inside[-1])])


def ring_centroid(image: NDArray) -> tuple[float, float]:
    """Centroid ``(y, x)`` of a periodic image, (H, W); an even background does not move it."""
    center = []
    for axis in (0, 1):
        profile = image.sum(axis=1 - axis, dtype=np.float64)
        angle = np.angle(
            np.sum(profile * np.exp(2j * np.pi * np.arange(len(profile)) / len(profile)))
        )
        center.append(float(angle / (2 * np.pi) * len(profile) % len(profile)))
    return center[0], center[1]


def ring_offset(
    center: tuple[float, float], reference: tuple[float, float], shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Vector ``(y, x)`` from a reference point of a periodic image to another, the short way."""
    size = np.array(shape, dtype=np.float64)
    return (np.array(center) - np.array(reference) + size / 2) % size - size / 2


def defocused(probe: NDArray[np.complex64], curvature: float) -> NDArray[np.complex64]:
    """A probe out of focus.

    ::

        P(r) = F^-1[ exp(i pi c |q|^2) F[P](q) ]

    moves what has the frequency q by ``c q`` pixels, the free-space propagation of the Fresnel
    approximation [1]_.

    Args:
        probe: Modes, complex, (M, H, W).
        curvature: c, in the square of a pixel.

    Returns:
        Complex, (M, H, W), of the same power.

    References:
        .. [1] J. W. Goodman, "Introduction to Fourier Optics", 3rd ed., section 4.2 (2005).
    """
    phase = np.exp(1j * np.pi * curvature * squared_frequency(probe.shape[-2:]))
    return np.fft.ifft2(np.fft.fft2(probe) * phase).astype(np.complex64)


def defocus_curvature(probe: NDArray[np.complexfloating]) -> float:
    """How far a probe is out of focus: c of `defocused`, in the square of a pixel.

    A defocus moves what has the frequency q by ``c q`` pixels. That is the slope of the phase of
    the probe's Fourier transform, and c is fitted to it by least squares, weighted by the light.

    Args:
        probe: Modes, complex, (M, H, W); the beam must be smaller than its window.

    Returns:
        c; 0 in focus, the mean of y and x for an astigmatic beam.
    """
    axes = (-2, -1)
    spectrum = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(probe, axes=axes)), axes=axes)
    covariance = variance = 0.0
    for axis in axes:
        size = probe.shape[axis]
        waves = np.moveaxis(spectrum, axis, -1)
        steps = waves[..., 1:] * waves[..., :-1].conj()  # its phase is 2 pi c q / size
        frequency = (np.arange(size - 1) + 0.5 - size // 2) / size
        weight = np.abs(steps)
        off_centre = frequency - np.sum(weight * frequency) / np.sum(weight)
        covariance += float(np.sum(weight * off_centre * np.angle(steps))) * size / (2 * np.pi)
        variance += float(np.sum(weight * off_centre**2))
    return covariance / variance


def squared_frequency(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """``|q|^2`` in cycles a pixel, (H, W), zero frequency at ``[0, 0]``."""
    height, width = shape
    squared: NDArray[np.float64] = np.fft.fftfreq(height)[:, None] ** 2 + np.fft.fftfreq(width) ** 2
    return squared


def resample_probe(
    modes: NDArray[np.complex128], window: tuple[int, int], shape: tuple[int, int]
) -> NDArray[np.complex128]:
    """A probe for cropped and binned patterns.

    Cropping the detector takes high spatial frequencies away, so that the pixels of the object
    grow; binning it narrows the field of view, which keeps the middle of the probe.

    Args:
        modes: (M, H, W).
        window: What is kept of the detector, ``(H, W)``.
        shape: The same after binning.

    Returns:
        (M, *shape), at a scale of its own.
    """
    axes = (-2, -1)
    spectrum = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(modes, axes=axes)), axes=axes)
    spectrum = Window.central(window, modes.shape[-2:]).apply(spectrum)
    small = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(spectrum, axes=axes)), axes=axes)
    return Window.central(shape, window).apply(small)


def annular_probe(
    size: int,
    *,
    beam: float = BEAM,
    aperture: float = APERTURE,
    central_stop: float = CENTRAL_STOP,
) -> NDArray[np.complex64]:
    """A zone plate's beam out of focus, of unit power, (1, size, size).

    It is an annular pupil with a quadratic phase.

    Args:
        size: Of the window.
        beam: Diameter as a fraction of the window; it is in proportion to the defocus.
        aperture: Outer radius of the pupil, as a fraction of the detector's half width.
        central_stop: Its inner radius, as a fraction of the outer.
    """
    frequency = np.fft.fftfreq(size) * 2  # 1 at Nyquist
    radius = np.hypot(frequency[:, None], frequency)
    softness = 1 / size  # half a pixel of the detector
    pupil = _soft_step((aperture - radius) / softness) * _soft_step(
        (radius - central_stop * aperture) / softness
    )
    curvature = (
        math.pi * beam * size / (4 * aperture)
    )  # moves the pupil's rim to the rim of the beam
    probe = np.fft.fftshift(np.fft.ifft2(pupil * np.exp(1j * curvature * radius**2)))
    return (probe / np.linalg.norm(probe)).astype(np.complex64)[None]


def diffuse_probe(size: int, *, seed: int) -> NDArray[np.complex64]:
    """A beam that fills its window behind a diffuser, of unit power, (1, size, size).

    Near-field ptychography needs its structure: an even beam shows nothing of a sample's slow
    variation. It is dark at the border of the window.

    Args:
        size: Of the window.
        seed: Of the diffuser.
    """
    rng = np.random.default_rng(seed)
    edge = np.exp(-((np.abs(np.arange(size) + 0.5 - size / 2) / (FILLED * size)) ** 8))
    noise = rng.standard_normal((size, size)) + 1j * rng.standard_normal((size, size))
    spectrum = np.fft.fft2(noise) * np.exp(
        -squared_frequency((size, size)) / (2 * DIFFUSER_FREQUENCY**2)
    )
    speckle = np.fft.ifft2(spectrum)
    probe = edge[:, None] * edge * (1 + DIFFUSER_CONTRAST * speckle / np.abs(speckle).std())
    return (probe / np.linalg.norm(probe)).astype(np.complex64)[None]


def _soft_step(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """From 0 to 1 around x = 0."""
    return 0.5 * (1 + np.tanh(x))

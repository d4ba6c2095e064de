"""How good an image is, against the patterns or against a known object."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import fourier_shift
from skimage.metrics import structural_similarity
from skimage.registration import phase_cross_correlation

from ptycho_torch.physics import locate, predict_counts
from ptycho_torch.scan import Reconstruction, Scan

ComplexImage = NDArray[np.complexfloating]

CHUNK = 64  # patterns computed at once
UPSAMPLING = 50  # registration to a fiftieth of a pixel
LARGEST_SHIFT_PX = 3.0  # positions fix the image to less; a larger value is a failed registration
ROUNDS = 2  # a ramp disturbs the registration and a shift the ramp; the second round finds both
RAMP_STEPS = 5  # the ramp is found by linear regression of a wrapped phase, which converges fast


def r_factor(result: Reconstruction, scan: Scan) -> float:
    """Misfit of amplitudes over all good pixels of all patterns of a scan.

    ::

        R = sum (sqrt(I) - sqrt(n))^2 / sum n

    Args:
        result: Object, probe and frame.
        scan: Patterns to predict; its positions must lie in the frame of ``result``.

    Returns:
        Dimensionless, 0 for a perfect fit. Counting noise alone gives about
        pixels / (4 photons) where every pixel counts several photons.
    """
    mask = torch.from_numpy(scan.mask)
    canvas, probe = torch.from_numpy(result.object)[None], torch.from_numpy(result.probe)[None]
    corners = torch.from_numpy(scan.corners_px() - result.origin_yx)
    misfit = total = 0.0
    for start in range(0, len(scan), CHUNK):
        stop = min(start + CHUNK, len(scan))
        geometry = locate(corners[None, start:stop].float(), probe, (canvas.shape[1], canvas.shape[2]))
        intensity = predict_counts(canvas, geometry)[0]
        counts = torch.from_numpy(np.asarray(scan.counts[start:stop], dtype=np.float32))
        misfit += float(((intensity.sqrt() - counts.sqrt()).square() * mask).sum(dtype=torch.float64))
        total += float((counts * mask).sum(dtype=torch.float64))
    return misfit / total


def align(image: ComplexImage, reference: ComplexImage) -> ComplexImage:
    """The image with what ptychography cannot know taken from the reference.

    That is a shift, a complex factor (global phase, and the split of power between probe and
    object), and a linear phase ramp.

    Args:
        image: Complex, (Y, X).
        reference: Complex, (Y, X).

    Returns:
        (Y, X).
    """
    image, reference = image.astype(np.complex128), reference.astype(np.complex128)
    for _ in range(ROUNDS):
        image = _without_ramp(image, reference)
        shift = phase_cross_correlation(reference, image, upsample_factor=UPSAMPLING, normalization=None)[0]
        if np.abs(shift).max() <= LARGEST_SHIFT_PX:
            image = np.fft.ifft2(fourier_shift(np.fft.fft2(image), shift))
    image = _without_ramp(image, reference)
    return image * (np.vdot(image, reference) / np.vdot(image, image))


def _without_ramp(image: ComplexImage, reference: ComplexImage) -> ComplexImage:
    """The image with the mean and the slope of its phase against the reference removed."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    planes = np.stack([np.ones(image.size), y.ravel() - y.mean(), x.ravel() - x.mean()], axis=1)
    for _ in range(RAMP_STEPS):
        product = image * reference.conj()
        mean_phase = np.angle(product.sum())
        weight = np.abs(product).ravel()
        residual = np.angle(product.ravel() * np.exp(-1j * mean_phase))
        plane = np.linalg.lstsq(planes * weight[:, None], residual * weight, rcond=None)[0]
        image = image * np.exp(-1j * (mean_phase + (planes @ plane).reshape(image.shape)))
    return image


def fourier_ring_correlation(a: ComplexImage, b: ComplexImage) -> NDArray[np.float64]:
    """Correlation of two images in rings of spatial frequency.

    ::

        FRC(r) = Re sum A conj(B) / sqrt(sum |A|^2 sum |B|^2)

    A Hann window takes the border of the images out. Rings are one frequency sample wide.

    Args:
        a: Complex, (Y, X).
        b: Complex, (Y, X).

    Returns:
        From zero frequency to Nyquist, (min(Y, X) // 2,).

    References:
        M. van Heel and M. Schatz, "Fourier shell correlation threshold criteria", J. Struct.
        Biol. 151, 250 (2005), doi:10.1016/j.jsb.2005.05.009.
    """
    window = np.hanning(a.shape[0])[:, None] * np.hanning(a.shape[1])
    spectrum_a, spectrum_b = np.fft.fft2(a * window), np.fft.fft2(b * window)
    size = min(a.shape)
    ring = np.rint(np.hypot(np.fft.fftfreq(a.shape[0])[:, None], np.fft.fftfreq(a.shape[1])) * size).astype(int).ravel()

    def rings(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(ring, values.ravel()).astype(np.float64)[: size // 2]

    power = rings(np.abs(spectrum_a) ** 2) * rings(np.abs(spectrum_b) ** 2)
    return rings((spectrum_a * spectrum_b.conj()).real) / np.sqrt(power)


def resolution(correlation: NDArray[np.float64], threshold: float = 0.5) -> float:
    """The spatial frequency at which a ring correlation first falls below a threshold, as a fraction of Nyquist."""
    below = np.flatnonzero(correlation[1:] < threshold)
    return 1.0 if len(below) == 0 else float((below[0] + 0.5) / len(correlation))


@dataclass(frozen=True)
class Agreement:
    """How well an image agrees with a known object, over the region of the patch centres.

    Attributes:
        amplitude_ssim: Structural similarity of the amplitudes, data range 1.
        phase_ssim: Of the phases in rad, data range 1.
        frc50: Spatial frequency where the ring correlation falls below one half, in fractions
            of Nyquist.
        correlation: Modulus of the complex correlation coefficient, mean removed.
    """

    amplitude_ssim: float
    phase_ssim: float
    frc50: float
    correlation: float


def compare(result: Reconstruction, truth: Reconstruction) -> Agreement:
    """Agreement of a reconstruction with a known object that is given in the same frame.

    Args:
        result: To be judged.
        truth: Known.
    """
    first = np.ceil(np.max([result.positions_px.min(axis=0), truth.origin_yx, result.origin_yx], axis=0))
    ends = [item.origin_yx + item.object.shape for item in (result, truth)]
    last = np.floor(np.min([result.positions_px.max(axis=0), *ends], axis=0))
    image, known = (_window(item, first, last) for item in (result, truth))
    image = align(image, known)
    return Agreement(
        amplitude_ssim=float(structural_similarity(np.abs(image), np.abs(known), data_range=1.0)),
        phase_ssim=float(structural_similarity(np.angle(image), np.angle(known), data_range=1.0)),
        frc50=resolution(fourier_ring_correlation(image, known)),
        correlation=correlation(image, known),
    )


def _window(item: Reconstruction, first: NDArray[np.float64], last: NDArray[np.float64]) -> ComplexImage:
    """The object between two corners in the frame of the positions."""
    top, left = (first - item.origin_yx).astype(int)
    bottom, right = (last - item.origin_yx).astype(int)
    return item.object[top:bottom, left:right].astype(np.complex128)


def correlation(a: ComplexImage, b: ComplexImage) -> float:
    """Modulus of the complex correlation coefficient of two images, their means removed; 0 to 1."""
    a, b = a - a.mean(), b - b.mean()
    return float(np.abs(np.vdot(a, b)) / (np.linalg.norm(a) * np.linalg.norm(b)))

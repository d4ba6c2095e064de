"""Align two images: shift, complex factor and phase ramp, which ptychography leaves open."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import fourier_shift

ComplexImage = NDArray[np.complexfloating]

LARGEST_SHIFT_PX = 5.0  # positions fix an image to less; a peak further away is of another feature
FINEST_SHIFT_PX = 2e-3  # beyond what noise leaves of the peak
FINEST_RAMP = 1e-3  # cycles over the image: 6 mrad between its borders
WEAKEST = 1e-12  # of the largest cross power; weaker frequencies are rounding
ROUNDS = 4  # alternations of ramp and shift; each at least halves the remaining error
ZOOM = 10  # a search goes on with a region smaller by this


@dataclass(frozen=True)
class Alignment:
    """How an image is brought onto a reference.

    ::

        aligned = factor * shift(image * exp(-i ramp . r), shift_px)

    with r counted from the middle of the image.

    Attributes:
        shift_px: Movement of the image ``(y, x)``, in pixels, (2,).
        ramp_rad: Slope of its phase ``(y, x)``, in rad per pixel, (2,).
        factor: Complex scale: the global phase, and the split of power between probe and object.
    """

    shift_px: NDArray[np.float64]
    ramp_rad: NDArray[np.float64]
    factor: complex

    def apply(self, image: ComplexImage) -> ComplexImage:
        """The image, shifted, without the ramp, and scaled; complex128, (Y, X).

        What enters at a border is the mirror image of what is inside.
        """
        return self.factor * _shift(_without_ramp(image, self.ramp_rad), self.shift_px)

    def known(self, shape: tuple[int, ...]) -> tuple[slice, slice]:
        """The part of an aligned image of that shape that does not come from beyond its borders."""
        rows, columns = np.rint(np.abs(self.shift_px)).astype(int)
        return slice(rows, shape[0] - rows), slice(columns, shape[1] - columns)


def align(image: ComplexImage, reference: ComplexImage) -> ComplexImage:
    """The image, aligned to the reference; see `find_alignment`."""
    return find_alignment(image, reference).apply(image)


def find_alignment(image: ComplexImage, reference: ComplexImage) -> Alignment:
    """The shift, ramp and factor with which an image resembles a reference most.

    The ramp is the peak of the spectrum of ``image conj(reference)``, of any steepness. The
    shift is the peak of the cross-correlation, half whitened, within `LARGEST_SHIFT_PX`, so that
    a repeated feature further away does not count. Each is found with the other in place. They
    start from the ramp of the images as they lie, and once more from the shift of their phase
    *gradients*, which no ramp disturbs; the better end is taken. The factor is that of least
    squares, so it shrinks a noisy image.

    Args:
        image: Complex, finite, (Y, X).
        reference: Complex, finite, (Y, X).

    Returns:
        The alignment.

    Raises:
        ValueError: If the shapes differ, or one of the two is zero everywhere.

    References:
        M. Guizar-Sicairos, S. T. Thurman and J. R. Fienup, "Efficient subpixel image
        registration algorithms", Opt. Lett. 33, 156 (2008), doi:10.1364/OL.33.000156.
    """
    if image.shape != reference.shape:
        raise ValueError(
            f"the image is {image.shape} and the reference {reference.shape}; cut both to one "
            "region first"
        )
    if not image.any() or not reference.any():
        raise ValueError("an image that is zero everywhere cannot be aligned")
    image, reference = image.astype(np.complex128), reference.astype(np.complex128)
    starts = (np.zeros(2), _peak_shift(_gradients(image), _gradients(reference), LARGEST_SHIFT_PX))
    ends = [_climb(image, reference, start) for start in starts]
    return max(ends, key=lambda end: _resemblance(end, image, reference))


def _climb(image: ComplexImage, reference: ComplexImage, shift: NDArray[np.float64]) -> Alignment:
    """The alignment at the maximum of the correlation that is reached from a shift."""
    reach = LARGEST_SHIFT_PX
    for _ in range(ROUNDS):
        ramp = _peak_ramp(image * _shift(reference, -shift).conj())
        level = _without_ramp(image, ramp)
        step = _peak_shift(_shift(level, shift)[None], reference[None], reach)
        shift = np.clip(shift + step, -LARGEST_SHIFT_PX, LARGEST_SHIFT_PX)
        reach = 1.0
    unscaled = Alignment(shift, ramp, 1)
    inner = unscaled.known(image.shape)
    moved = unscaled.apply(image)[inner]
    return Alignment(shift, ramp, complex(np.vdot(moved, reference[inner]) / np.vdot(moved, moved)))


def _resemblance(alignment: Alignment, image: ComplexImage, reference: ComplexImage) -> float:
    """Modulus of the correlation of an aligned image with the reference, means left in."""
    inner = alignment.known(image.shape)
    moved, known = alignment.apply(image)[inner], reference[inner]
    return float(abs(np.vdot(moved, known)) / (np.linalg.norm(moved) * np.linalg.norm(known)))


def _without_ramp(image: ComplexImage, ramp_rad: NDArray[np.float64]) -> ComplexImage:
    """The image with a phase ramp taken away, whose phase is zero in the middle."""
    y, x = (np.arange(size) - (size - 1) / 2 for size in image.shape)
    return image * np.exp(-1j * ramp_rad[0] * y)[:, None] * np.exp(-1j * ramp_rad[1] * x)


def _shift(image: ComplexImage, shift_px: NDArray[np.float64]) -> ComplexImage:
    """The image moved by a fraction of a pixel; mirror images continue it beyond its borders."""
    rows, columns = image.shape
    periodic = np.pad(image, ((0, rows), (0, columns)), mode="symmetric")
    return np.fft.ifft2(fourier_shift(np.fft.fft2(periodic), shift_px))[:rows, :columns]


def _gradients(image: ComplexImage) -> NDArray[np.complex128]:
    """Products of neighbours along y and x, (2, Y - 1, X - 1); a ramp is a global phase of each."""
    inner = image[:-1, :-1].conj()
    return np.stack([image[1:, :-1] * inner, image[:-1, 1:] * inner])


def _peak_shift(images: NDArray, references: NDArray, reach: float) -> NDArray[np.float64]:
    """The shift ``(y, x)`` at which images correlate most with references, (K, Y, X) each.

    Each frequency counts by the root of its power. By its power, slow errors of the phase, the
    commonest fault of a reconstruction, would pull fine detail out of place: 0.08 px at errors of
    0.3 rad, and 0.015 px so. Without any weight, noise would rule.
    """
    rows, columns = images.shape[-2:]
    window = np.hanning(rows)[:, None] * np.hanning(columns)
    spectra = [
        np.fft.fft2(window * (part - part.mean(axis=(-2, -1), keepdims=True)))
        for part in (images, references)
    ]
    y, x = (
        2 * np.pi * np.asarray(np.fft.fftfreq(size), dtype=np.float64) for size in (rows, columns)
    )
    cross = spectra[0] * spectra[1].conj()
    power = np.abs(cross)
    cross /= np.sqrt(power + WEAKEST * power.max() + np.finfo(np.float64).tiny)
    return _peak(cross, y, x, centre=np.zeros(2), reach=reach, finest=FINEST_SHIFT_PX)


def _peak_ramp(product: ComplexImage) -> NDArray[np.float64]:
    """The slope ``(y, x)`` of the phase of ``image conj(reference)``, in rad per pixel."""
    padded = [2 * size for size in product.shape]
    spectrum = np.abs(np.fft.fft2(product, s=padded))
    row, column = np.unravel_index(spectrum.argmax(), spectrum.shape)
    coarse = (
        2 * np.pi * np.array([np.fft.fftfreq(padded[0])[row], np.fft.fftfreq(padded[1])[column]])
    )
    cycle = 2 * np.pi / max(product.shape)
    y, x = (np.arange(size, dtype=np.float64) for size in product.shape)
    return _peak(
        product[None],
        y,
        x,
        centre=coarse,
        reach=2 * np.pi / min(padded),
        finest=FINEST_RAMP * cycle,
    )


def _peak(
    values: NDArray[np.complexfloating],
    y: NDArray[np.float64],
    x: NDArray[np.float64],
    *,
    centre: NDArray[np.float64],
    reach: float,
    finest: float,
) -> NDArray[np.float64]:
    """The maximum of ``sum_K |sum_yx values exp(-i (k_y y + k_x x))|`` near ``centre``.

    Args:
        values: (K, Y, X).
        y: Coordinates of the rows, (Y,).
        x: Coordinates of the columns, (X,).
        centre: Middle of the search ``(k_y, k_x)``, (2,).
        reach: Half its width.
        finest: Steps below it are not made.

    Returns:
        ``(k_y, k_x)``, (2,).
    """
    while reach > finest:
        trial_y, trial_x = (middle + reach * np.linspace(-1, 1, 2 * ZOOM + 1) for middle in centre)
        sums = np.exp(-1j * np.outer(trial_y, y)) @ values @ np.exp(-1j * np.outer(x, trial_x))
        row, column = np.unravel_index(np.abs(sums).sum(axis=0).argmax(), sums.shape[1:])
        centre, reach = np.array([trial_y[row], trial_x[column]]), reach / ZOOM
    return centre

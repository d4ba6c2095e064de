"""Agreement of two images of one object: structural similarity, PSNR, correlation."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from ptycho_torch.data.scan import Reconstruction
from ptycho_torch.errors import InputError
from ptycho_torch.evaluation.metrics.alignment import Alignment, ComplexImage, find_alignment
from ptycho_torch.evaluation.metrics.frc import fourier_ring_correlation, resolution

DATA_RANGE = 1.0  # of amplitudes, and of phases in rad; SSIM and PSNR are relative to it
SEEN = 0.01  # of the largest coverage
# Of a line of pixels; with more, the line is no part of what two images have in common.
UNSEEN_SHARE = 0.1
SMALLEST_PX = 16  # fewer rows or columns hold too few rings and SSIM windows
PIXEL_TOLERANCE = 1e-3  # relative; over 500 pixels it makes half a pixel


@dataclass(frozen=True)
class AlignedPair:
    """Two images of the same region, one brought onto the other.

    Attributes:
        image: Aligned, complex128, (Y, X).
        reference: As it was, complex128, (Y, X).
        origin_yx: Coordinates of element [0, 0] in the frame of the positions, (2,).
        alignment: What was done to the image.
    """

    image: ComplexImage
    reference: ComplexImage
    origin_yx: NDArray[np.float64]
    alignment: Alignment

    def phases(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Phases of image and reference in rad, (Y, X) each.

        That of the image is on the branch within pi of the reference, so that no jump by 2 pi
        stands in one alone.
        """
        known = np.asarray(np.angle(self.reference), dtype=np.float64)
        return known + np.angle(self.image * self.reference.conj()), known


@dataclass(frozen=True)
class Agreement:
    """How well an image agrees with a reference, over the region that both show.

    Attributes:
        amplitude_ssim: Structural similarity of the amplitudes, data range 1.
        phase_ssim: Of the phases in rad, data range 1.
        frc50: Spatial frequency where the ring correlation falls below one half, in fractions
            of Nyquist.
        correlation: Modulus of the complex correlation coefficient, mean removed.
        amplitude_psnr_db: Peak signal-to-noise ratio of the amplitudes, data range 1.
        phase_psnr_db: Of the phases in rad, data range 1.
    """

    amplitude_ssim: float
    phase_ssim: float
    frc50: float
    correlation: float
    amplitude_psnr_db: float
    phase_psnr_db: float


def compare(result: Reconstruction, reference: Reconstruction) -> Agreement:
    """Agreement of a reconstruction with a known object, or with another one, in the same frame.

    Args:
        result: To be judged.
        reference: Known, or another result.

    Raises:
        InputError: See `overlay`.
    """
    return image_agreement(overlay(result, reference))


def image_agreement(pair: AlignedPair) -> Agreement:
    """Agreement of two images that lie on each other."""
    amplitudes = np.abs(pair.image), np.abs(pair.reference)
    phases = pair.phases()
    return Agreement(
        amplitude_ssim=ssim(*amplitudes),
        phase_ssim=ssim(*phases),
        frc50=resolution(fourier_ring_correlation(pair.image, pair.reference)),
        correlation=correlation(pair.image, pair.reference),
        amplitude_psnr_db=psnr(*amplitudes),
        phase_psnr_db=psnr(*phases),
    )


def overlay(result: Reconstruction, reference: Reconstruction) -> AlignedPair:
    """The common region of two objects, by their coordinates, the first aligned to the second.

    It is the rectangle of the patch centres of both scans, less the lines of pixels at its
    borders that are largely without light, and less the shift of the alignment.

    Args:
        result: To be aligned.
        reference: In the same frame of positions; only fractions of a pixel may be between them.

    Raises:
        InputError: If they have no region in common, differ in pixel size, are not finite, or
            one of them is zero there.
    """
    _check_same_frame(result, reference)
    first, last = common_region(result, reference)
    image, known = (
        _window(item.object, item.origin_yx, first, last).astype(np.complex128)
        for item in (result, reference)
    )
    if not (np.isfinite(image).all() and np.isfinite(known).all()):
        raise InputError(
            "an image holds values that are not finite; nothing can be compared with it"
        )
    if not image.any() or not known.any():
        raise InputError("an image is zero where the two overlap; nothing can be compared with it")
    alignment = find_alignment(image, known)
    inner = alignment.known(image.shape)
    origin_yx = first + np.array([part.start for part in inner])
    return AlignedPair(
        alignment.apply(image)[inner], known[inner], origin_yx.astype(np.float64), alignment
    )


def _check_same_frame(result: Reconstruction, reference: Reconstruction) -> None:
    """Raise `InputError` for images of different pixel size."""
    if result.pixel_size_m is None or reference.pixel_size_m is None:
        return
    for one, other in zip(result.pixel_size_m, reference.pixel_size_m, strict=True):
        if abs(one / other - 1) > PIXEL_TOLERANCE:
            raise InputError(
                f"the pixels are {one:.4g} m and {other:.4g} m wide; only images of one pixel size "
                "can be compared"
            )


def common_region(
    result: Reconstruction, reference: Reconstruction
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last-plus-one pixel ``(y, x)`` of the common region, in the frame of the positions.

    Raises:
        InputError: If it is smaller than `SMALLEST_PX`.
    """
    both = (result, reference)
    starts = [start for item in both for start in (item.positions_px.min(axis=0), item.origin_yx)]
    ends = [
        end
        for item in both
        for end in (item.positions_px.max(axis=0), item.origin_yx + item.object.shape)
    ]
    first, last = (
        np.ceil(np.max(starts, axis=0)).astype(int),
        np.floor(np.min(ends, axis=0)).astype(int),
    )
    if (last > first).all():
        seen = [
            _window(item.coverage > SEEN * item.coverage.max(), item.origin_yx, first, last)
            for item in both
        ]
        trimmed = _trim(seen[0] & seen[1])
        first, last = first + trimmed[0], first + trimmed[1]
    if (last - first < SMALLEST_PX).any():
        boxes = [
            f"y {low[0]:.0f} to {high[0]:.0f}, x {low[1]:.0f} to {high[1]:.0f}"
            for low, high in map(_extent, both)
        ]
        raise InputError(
            f"the two images have less than {SMALLEST_PX} x {SMALLEST_PX} pixels in common: the "
            "scans reach over "
            f"{boxes[0]}, and over {boxes[1]} object pixels"
        )
    return first, last


def _extent(item: Reconstruction) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Smallest and largest position of a scan."""
    return item.positions_px.min(axis=0), item.positions_px.max(axis=0)


def _window(
    image: NDArray,
    origin_yx: NDArray[np.float64],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
) -> NDArray:
    """The part of an image between two corners in the frame of the positions."""
    origin = np.rint(origin_yx).astype(int)
    (top, left), (bottom, right) = first - origin, last - origin
    return image[top:bottom, left:right]


def _trim(seen: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rectangle without border lines that have too little light, cut off the worst first."""
    (top, left), (bottom, right) = (0, 0), seen.shape
    while bottom > top and right > left:
        part = seen[top:bottom, left:right]
        unseen = [1 - line.mean() for line in (part[0], part[-1], part[:, 0], part[:, -1])]
        worst = int(np.argmax(unseen))
        if unseen[worst] <= UNSEEN_SHARE:
            break
        top, bottom = top + (worst == 0), bottom - (worst == 1)
        left, right = left + (worst == 2), right - (worst == 3)
    return np.array([top, left]), np.array([bottom, right])


def ssim(image: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Mean structural similarity of two real images, (Y, X), at a data range of 1; at most 1.

    ::

        SSIM = (2 ma mb + C1)(2 cov + C2) / ((ma^2 + mb^2 + C1)(va + vb + C2))
        C1 = 0.01^2, C2 = 0.03^2

    in windows of 7 x 7 pixels.

    References:
        Z. Wang et al., "Image quality assessment: from error visibility to structural
        similarity", IEEE Trans. Image Process. 13, 600 (2004), doi:10.1109/TIP.2003.819861.
    """
    return float(structural_similarity(image, reference, data_range=DATA_RANGE))


def psnr(image: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Peak signal-to-noise ratio of a real image, in dB, at a data range of 1.

    It is -10 log10 of the mean squared error; infinite for equal images.
    """
    error = float(np.mean((image - reference) ** 2))
    return 10 * float(np.log10(DATA_RANGE**2 / error)) if error > 0 else float("inf")


def correlation(a: ComplexImage, b: ComplexImage) -> float:
    """Modulus of the complex correlation coefficient of two images, means removed; 0 to 1."""
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.abs(np.vdot(a, b))) / norm if norm > 0 else 0.0

"""Agreement of images, compared with cases solved by hand and with independent programs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio
from torchmetrics.functional.image import peak_signal_noise_ratio as torch_psnr

from ptycho_torch.data.scan import Reconstruction
from ptycho_torch.errors import InputError
from ptycho_torch.evaluation.metrics.agreement import (
    SMALLEST_PX,
    common_region,
    compare,
    correlation,
    overlay,
    psnr,
    ssim,
)


def rectangle(rng, *, origin=(0, 0), shape=(60, 70), border=10, pixel_size_m=None):
    """A random result whose scan reaches to ``border`` from its rim."""
    low, high = np.array(origin) + border, np.array(origin) + np.array(shape) - border
    return Reconstruction(
        object=(1 + 0.3 * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))).astype(
            np.complex64
        ),
        coverage=np.ones(shape, dtype=np.float32),
        origin_yx=np.array(origin, dtype=np.float64),
        probe=np.ones((1, 8, 8), dtype=np.complex64),
        positions_px=np.array([low, high], dtype=np.float64),
        scan_index=np.arange(2),
        pixel_size_m=pixel_size_m,
    )


def cut(result, first, last):
    """The same result, cut to the pixels from ``first`` to ``last``."""
    (top, left), (bottom, right) = first, last
    low, high = np.maximum(result.positions_px[0], first), np.minimum(result.positions_px[1], last)
    return replace(
        result,
        object=result.object[top:bottom, left:right],
        coverage=result.coverage[top:bottom, left:right],
        origin_yx=result.origin_yx + first,
        positions_px=np.array([low, high]),
    )


def test_ssim_by_hand():
    """The definition, window by window, with unbiased variances and without the border."""
    rng = np.random.default_rng(0)
    a = rng.random((20, 24))
    b = a + 0.2 * rng.standard_normal(a.shape)
    values = []
    for i in range(20 - 6):
        for j in range(24 - 6):
            u, v = a[i : i + 7, j : j + 7].ravel(), b[i : i + 7, j : j + 7].ravel()
            covariance = np.cov(u, v)
            mean = (2 * u.mean() * v.mean() + 1e-4) / (u.mean() ** 2 + v.mean() ** 2 + 1e-4)
            values.append(
                mean * (2 * covariance[0, 1] + 9e-4) / (covariance[0, 0] + covariance[1, 1] + 9e-4)
            )
    assert ssim(b, a) == pytest.approx(np.mean(values))
    assert ssim(a, a) == pytest.approx(1)


def test_psnr_agrees_with_independent_programs_and_by_hand():
    rng = np.random.default_rng(1)
    a = rng.random((20, 24))
    b = a + 0.1 * rng.standard_normal(a.shape)
    assert psnr(b, a) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1.0))
    theirs = torch_psnr(torch.from_numpy(b), torch.from_numpy(a), data_range=1.0)
    assert psnr(b, a) == pytest.approx(float(theirs), abs=1e-4)  # float32 in theirs
    assert psnr(a + 0.1, a) == pytest.approx(20)  # an error of a tenth everywhere
    assert psnr(a, a) == float("inf")


def test_correlation_agrees_with_numpy_and_with_a_case_by_hand():
    rng = np.random.default_rng(2)
    a, b = (rng.standard_normal((8, 9)) + 1j * rng.standard_normal((8, 9)) for _ in range(2))
    assert correlation(a, b) == pytest.approx(abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]))
    assert correlation(np.array([[1, -1]]), np.array([[3j + 5, -3j + 5]])) == pytest.approx(1)
    assert correlation(np.array([[1, -1, 1, -1]]), np.array([[1, 1, -1, -1]])) == pytest.approx(0)
    assert correlation(a, np.ones_like(a)) == 0
    assert correlation(1e-9 * a, 1e3j * b) == pytest.approx(correlation(a, b)), "at any scale"


def test_compare_is_perfect_for_the_truth_and_names_a_mirrored_image(simulation):
    truth = simulation.truth
    perfect = compare(truth, truth)
    figures = (perfect.amplitude_ssim, perfect.phase_ssim, perfect.frc50, perfect.correlation)
    assert figures == pytest.approx((1, 1, 1, 1), abs=1e-4)
    assert perfect.amplitude_psnr_db > 100
    mirrored = compare(replace(truth, object=truth.object[::-1].copy()), truth)
    assert mirrored.correlation < 0.5
    assert mirrored.amplitude_ssim < 0.5


def test_a_disguised_truth_is_as_good_as_the_truth(simulation):
    truth = simulation.truth
    y, x = np.mgrid[: truth.object.shape[0], : truth.object.shape[1]]
    disguised = truth.object * (0.7 * np.exp(1j * (2.8 + 0.1 * y - 0.2 * x)))
    agreement = compare(replace(truth, object=disguised.astype(np.complex64)), truth)
    assert agreement.phase_ssim > 0.999
    assert (
        agreement.phase_psnr_db > 50
    )  # float32 of the disguised object, and a ramp found to 1e-3 cycles


def test_phases_have_their_jumps_in_common():
    """An error of 0.02 rad at a phase of pi must not become one of 2 pi in half of the pixels."""
    rng = np.random.default_rng(3)
    known = rectangle(rng)
    wave = np.exp(1j * (np.pi + 0.01 * rng.standard_normal(known.object.shape)))
    image, reference = (
        replace(known, object=wave * np.exp(0.02j * rng.standard_normal(wave.shape))),
        replace(known, object=wave),
    )
    shown, truth = overlay(image, reference).phases()
    assert np.abs(shown - truth).max() < 0.2
    assert np.ptp(truth) > 6


def test_frames_of_different_origin_meet_at_their_coordinates():
    """Two parts of one image, cut at different places, have the same bits where they overlap."""
    whole = rectangle(np.random.default_rng(4), shape=(90, 80))
    first, second = cut(whole, (0, 0), (70, 60)), cut(whole, (20, 15), (90, 80))
    pair = overlay(first, second)
    assert np.array_equal(pair.origin_yx, [20, 15])
    assert pair.reference.shape == (50, 45)
    assert np.array_equal(pair.reference, whole.object[20:70, 15:60])
    assert correlation(pair.image, pair.reference) == pytest.approx(1, abs=1e-6)


def test_pixels_without_light_are_left_out():
    """In a round field of view, the largest region without dark corners is about the inscribed
    square.
    """
    result = rectangle(np.random.default_rng(5), shape=(100, 100), border=0)
    y, x = np.mgrid[:100, :100] - 49.5
    dark = np.hypot(y, x) > 50
    round_one = replace(
        result,
        coverage=np.where(dark, 0, 1).astype(np.float32),
        object=np.where(dark, 1, result.object),
    )
    pair = overlay(round_one, result)
    assert 0.9 * 50 * np.sqrt(2) <= min(pair.image.shape) <= 1.15 * 50 * np.sqrt(2)
    assert abs(pair.image.shape[0] - pair.image.shape[1]) <= 2


@pytest.mark.parametrize(("origin", "pixel_size_m", "sentence"), [
    (
        (500, 0),
        None,
        r"less than 16 x 16 pixels in common: .* y 10 to 50, x 10 to 60, and over y 510",
    ),
    ((0, 40), None, "less than 16 x 16 pixels in common"),
    ((0, 0), (1e-8, 2e-8), "pixels are 1e-08 m and 2e-08 m wide"),
])  # fmt: skip
def test_images_that_cannot_be_compared_get_a_sentence(origin, pixel_size_m, sentence):
    rng = np.random.default_rng(6)
    one, other = (
        rectangle(rng, pixel_size_m=(1e-8, 1e-8)),
        rectangle(rng, origin=origin, pixel_size_m=pixel_size_m),
    )
    with pytest.raises(InputError, match=sentence):
        compare(one, other)


def test_images_that_hold_nothing_get_a_sentence():
    good = rectangle(np.random.default_rng(7))
    with pytest.raises(InputError, match="not finite"):
        compare(replace(good, object=good.object * np.nan), good)
    with pytest.raises(InputError, match="is zero"):
        compare(good, replace(good, object=0 * good.object))
    flat = compare(replace(good, object=np.ones_like(good.object)), good)
    assert flat.correlation < 0.2  # a flat image is compared, and found to be none


def test_images_may_have_as_little_in_common_as_is_said():
    """Positions reach from 10 to 50 along y; those of the other from 34, 16 px before the end."""
    rng = np.random.default_rng(6)
    one = rectangle(rng)
    first, last = common_region(one, rectangle(rng, origin=(50 - SMALLEST_PX - 10, 0)))
    assert last[0] - first[0] == SMALLEST_PX
    with pytest.raises(InputError, match="less than 16 x 16 pixels in common"):
        common_region(one, rectangle(rng, origin=(50 - SMALLEST_PX - 9, 0)))

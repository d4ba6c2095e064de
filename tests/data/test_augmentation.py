"""Mirrored groups are what a mirrored experiment would have measured; split counts are two
experiments.
"""

import pytest
import torch

from ptycho_torch.data.augmentation import (
    FLIP_X,
    FLIP_Y,
    INPUT_FRACTION,
    MIN_FRACTION,
    TRANSPOSE,
    apply_symmetry,
    random_input_fraction,
    random_symmetry,
    split_photons,
)
from ptycho_torch.data.grouping import group_layout
from ptycho_torch.data.scan import Group
from ptycho_torch.physics.forward import predict_counts


def random_group(height, width):
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.randn(1, 2, height, width, dtype=torch.complex128, generator=generator)
    spectrum[..., height // 2, :] = (
        0  # Nyquist, which has no sign, and so no mirror image under a sub-pixel shift
    )
    spectrum[..., :, width // 2] = 0
    probe = torch.fft.ifft2(spectrum)
    corners = torch.rand(1, 5, 2, dtype=torch.float64, generator=generator) * 6
    mask = torch.rand(1, height, width, generator=generator) > 0.1
    return Group(
        torch.zeros(1, 5, height, width), corners, probe, mask, torch.zeros(1, 2, dtype=torch.int64)
    )


def complete_group(height, width, *, near_field):
    """A group with all that a group may have: a probe for each pattern, and a background."""
    group = random_group(height, width)
    generator = torch.Generator().manual_seed(2)
    factors = 1 + torch.rand(1, 5, 1, 1, 1, dtype=torch.float64, generator=generator)
    background = torch.rand(1, height, width, dtype=torch.float64, generator=generator)
    number = torch.tensor([[0.1, 0.2]], dtype=torch.float64) if near_field else None
    return group._replace(
        probe=group.probe[:, None] * factors, background=background, fresnel_number=number
    )


def image_and_counts(group, height, width):
    """A random object, and what is expected of it."""
    canvas = torch.randn(
        1, 6 + height, 6 + width, dtype=torch.complex128, generator=torch.Generator().manual_seed(1)
    )
    return canvas, predict_counts(canvas, group_layout(group, tuple(canvas.shape[1:])))


@pytest.mark.parametrize(
    ("height", "width", "near_field"),
    [
        (16, 16, False),
        (16, 12, False),
        (15, 15, False),
        (15, 16, False),
        (15, 15, True),  # an even window has a Nyquist frequency, also of the exit wave
        (15, 17, True),
    ],
)
@pytest.mark.parametrize("symmetry", range(8))
def test_a_mirrored_group_is_what_the_mirrored_object_gives(height, width, near_field, symmetry):
    """The computed counts of the mirrored object under the mirrored probe are the mirrored
    counts.
    """
    group = complete_group(height, width, near_field=near_field)
    canvas, counts = image_and_counts(group, height, width)
    other = apply_symmetry(group._replace(counts=counts), symmetry)

    limit = (
        group.corners_px.amax(dim=1)[0].ceil().long()
    )  # the mirror lies in the middle of the positions
    image = canvas[:, : limit[0] + height, : limit[1] + width]
    for flag, axis in ((FLIP_Y, -2), (FLIP_X, -1)):
        image = image.flip(axis) if symmetry & flag else image
    image = image.mT if symmetry & TRANSPOSE else image
    expected = predict_counts(image, group_layout(other, tuple(image.shape[1:])))
    assert torch.allclose(
        other.counts, expected, rtol=1e-6, atol=1e-6 * counts.max().item()
    )  # halves round to even


def test_each_part_of_the_photons_expects_its_share_of_signal_and_background():
    group = complete_group(16, 12, near_field=False)
    canvas, counts = image_and_counts(group, 16, 12)
    whole = group._replace(counts=counts.round())
    parts = split_photons(whole, 0.3, torch.Generator().manual_seed(0))
    for part, share in zip(parts, (0.3, 0.7), strict=True):
        expected = predict_counts(canvas, group_layout(part, tuple(canvas.shape[1:])))
        assert torch.allclose(expected, share * counts, rtol=1e-6)


@pytest.mark.parametrize("symmetry", range(8))
def test_a_mirrored_mask_stays_on_its_pixels(symmetry):
    group = random_group(16, 16)
    marked = group._replace(counts=group.mask[:, None].double().expand(1, 5, 16, 16))
    other = apply_symmetry(marked, symmetry)
    assert torch.equal(other.counts[:, 0] > 0.5, other.mask)


def dim_group():
    """4096 pixels of five patterns whose counts have the means 0.5, 1, 3, 10 and 100."""
    means = torch.tensor([0.5, 1.0, 3.0, 10.0, 100.0])[None, :, None, None].expand(1, 5, 64, 64)
    group = random_group(64, 64)
    return means, group._replace(
        counts=torch.poisson(means, generator=torch.Generator().manual_seed(2))
    )


@pytest.mark.parametrize("share", [0.35, 0.65])
def test_thinned_counts_have_poisson_distributions_and_are_independent(share):
    means, group = dim_group()
    seen, judged = split_photons(group, share, torch.Generator().manual_seed(3))
    assert torch.equal(seen.counts + judged.counts, group.counts)
    for part, expected in ((seen, share), (judged, 1 - share)):
        mean = means[0, :, 0, 0] * expected
        found = part.counts[0].flatten(1)
        error = (mean / 4096).sqrt()  # of the mean of 4096 counts
        assert torch.all((found.mean(dim=1) - mean).abs() < 4 * error)
        assert torch.all(
            (found.var(dim=1) / mean - 1).abs() < 0.15
        )  # 0.022 to 0.05 are one standard deviation
        assert part.probe.abs().square().sum() == pytest.approx(
            expected * group.probe.abs().square().sum()
        )
    both = torch.stack([seen.counts, judged.counts]).flatten(3)[:, 0]
    correlations = [torch.corrcoef(both[:, i])[0, 1].abs().item() for i in range(5)]
    assert (
        max(correlations) < 0.07
    )  # 0.016 is one standard deviation; halves of one noisy pattern would have 1


def test_a_part_of_a_photon_is_divided_in_proportion():
    _, group = dim_group()
    seen, judged = split_photons(
        group._replace(counts=torch.full_like(group.counts, 0.25)),
        0.4,
        torch.Generator().manual_seed(0),
    )
    assert torch.allclose(seen.counts, torch.tensor(0.1))
    assert torch.allclose(judged.counts, torch.tensor(0.15))


def shares(mean_count):
    """Many draws for a group with so many photons on a pixel."""
    _, group = dim_group()
    group = group._replace(counts=torch.full_like(group.counts, mean_count))
    generator = torch.Generator().manual_seed(0)
    return torch.tensor([random_input_fraction(group, generator) for _ in range(2000)])


def test_of_few_photons_about_half_are_seen():
    low, high = INPUT_FRACTION
    found = shares(2.0)
    assert low <= found.min() < low + 0.01
    assert high - 0.01 < found.max() <= high
    assert found.mean() == pytest.approx(
        (low + high) / 2, abs=0.01
    )  # 0.002 is one standard deviation


@pytest.mark.parametrize(("mean_count", "smallest"), [(30.0, 0.1), (1e6, MIN_FRACTION)])
def test_of_many_photons_any_part_may_be_seen_that_still_is_a_pattern(mean_count, smallest):
    """As many draws in each octave, from the smallest part of a half to a half."""
    found = shares(mean_count)
    low, high = INPUT_FRACTION
    assert low * smallest <= found.min() < 1.1 * low * smallest
    assert 0.9 * high < found.max() <= high
    middle = smallest**0.5 * 0.5
    assert (found < middle).float().mean() == pytest.approx(
        0.5, abs=0.06
    )  # 0.011 is one standard deviation


@pytest.mark.parametrize(("shape", "count"), [((6, 6), 8), ((4, 6), 4)])
def test_each_symmetry_that_keeps_the_shape_is_drawn(shape, count):
    """Of 200 draws one of eight is missing once in 1e11 times."""
    rng, group = torch.Generator().manual_seed(0), random_group(*shape)
    assert {random_symmetry(group, rng) for _ in range(200)} == set(range(count))

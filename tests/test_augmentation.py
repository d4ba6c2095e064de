"""Mirrored groups are what a mirrored experiment would have measured; patterns kept back are not seen."""

import pytest
import torch

from ptycho_torch.augmentation import FLIP_X, FLIP_Y, TRANSPOSE, keep_back, mirrored
from ptycho_torch.physics import locate, predict_counts
from ptycho_torch.scan import Group


def random_group(height, width):
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.randn(1, 2, height, width, dtype=torch.complex128, generator=generator)
    spectrum[..., height // 2, :] = 0  # Nyquist, which has no sign, and so no mirror image under a sub-pixel shift
    spectrum[..., :, width // 2] = 0
    probe = torch.fft.ifft2(spectrum)
    corners = torch.rand(1, 5, 2, dtype=torch.float64, generator=generator) * 6
    mask = torch.rand(1, height, width, generator=generator) > 0.1
    return Group(torch.zeros(1, 5, height, width), corners, probe, mask, torch.zeros(1, 2, dtype=torch.int64))


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 12), (15, 15), (15, 16)])
@pytest.mark.parametrize("symmetry", range(8))
def test_a_mirrored_group_is_what_the_mirrored_object_gives(height, width, symmetry):
    """The counts of the mirrored object under the mirrored probe, computed, are the mirrored counts."""
    group = random_group(height, width)
    rows, columns = 6 + height, 6 + width
    canvas = torch.randn(1, rows, columns, dtype=torch.complex128, generator=torch.Generator().manual_seed(1))
    counts = predict_counts(canvas, locate(group.corners_px, group.probe, (rows, columns)))
    other = mirrored(group._replace(counts=counts), symmetry)

    limit = group.corners_px.amax(dim=1)[0].ceil().long()  # the mirror lies in the middle of the positions
    image = canvas[:, : limit[0] + height, : limit[1] + width]
    for flag, axis in ((FLIP_Y, -2), (FLIP_X, -1)):
        image = image.flip(axis) if symmetry & flag else image
    image = image.mT if symmetry & TRANSPOSE else image
    expected = predict_counts(image, locate(other.corners_px, other.probe, tuple(image.shape[1:])))
    assert torch.allclose(other.counts, expected, rtol=1e-6, atol=1e-6 * counts.max().item())  # halves round to even


@pytest.mark.parametrize("symmetry", range(8))
def test_a_mirrored_mask_stays_on_its_pixels(symmetry):
    group = random_group(16, 16)
    marked = group._replace(counts=group.mask[:, None].double().expand(1, 5, 16, 16))
    other = mirrored(marked, symmetry)
    assert torch.equal(other.counts[:, 0] > 0.5, other.mask)


def test_patterns_kept_back_are_not_seen_and_none_is_lost():
    group = random_group(8, 8)
    group = group._replace(counts=torch.arange(5.0)[None, :, None, None].expand(1, 5, 8, 8))
    seen, judged = keep_back(group, 0.4, torch.Generator().manual_seed(0))
    labels = [part.counts[0, :, 0, 0].tolist() for part in (seen, judged)]
    assert sorted(labels[0] + labels[1]) == [0, 1, 2, 3, 4]
    assert len(labels[1]) == 2
    for part, label in zip((seen, judged), labels, strict=True):
        assert torch.equal(part.corners_px[0], group.corners_px[0, [int(i) for i in label]])

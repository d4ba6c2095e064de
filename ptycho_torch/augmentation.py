"""What makes many groups of one: the symmetries of diffraction, and patterns that are kept back to judge."""

import torch
from torch import Tensor

from ptycho_torch.scan import Group

FLIP_Y, FLIP_X, TRANSPOSE = 1, 2, 4


def mirrored(group: Group, symmetry: int) -> Group:
    """The group that would have been measured with sample and probe mirrored, exactly.

    Args:
        group: As measured.
        symmetry: Sum of `FLIP_Y`, `FLIP_X` and `TRANSPOSE`; the last needs square patterns.

    Returns:
        Mirrored patterns, positions, probe and mask; the canvas keeps its origin.
    """
    counts, corners, probe, mask = group.counts, group.corners_px, group.probe, group.mask
    limit = corners.amax(dim=1, keepdim=True).ceil()
    for axis, flag in ((-2, FLIP_Y), (-1, FLIP_X)):
        if symmetry & flag:
            counts, mask, probe = flip_frequencies(counts, axis), flip_frequencies(mask, axis), probe.flip(axis)
            mirror = torch.zeros(2, dtype=torch.bool, device=corners.device)
            mirror[axis] = True
            corners = torch.where(mirror, limit - corners, corners)
    if symmetry & TRANSPOSE:
        counts, mask, probe, corners = counts.mT, mask.mT, probe.mT, corners.flip(-1)
    return group._replace(counts=counts, corners_px=corners, probe=probe.contiguous(), mask=mask)


def flip_frequencies(image: Tensor, axis: int) -> Tensor:
    """Frequency q at the place of -q; zero frequency stays at ``[N // 2]``."""
    size = image.shape[axis]
    return image.flip(axis).roll(1 - size % 2, dims=axis)


def random_symmetry(group: Group, generator: torch.Generator) -> int:
    """One of the eight symmetries of a square, or of the four of a rectangle."""
    height, width = group.counts.shape[-2:]
    return int(torch.randint(8 if height == width else 4, (), generator=generator))


def keep_back(group: Group, share: float, generator: torch.Generator) -> tuple[Group, Group]:
    """The group without some of its patterns, and the group of those alone, on the same canvas.

    Args:
        group: At least two patterns.
        share: How many to keep back, within (0, 1); at least one is, and one is left.
        generator: Randomness of the choice.
    """
    members = group.counts.shape[1]
    order = torch.randperm(members, generator=generator)
    back = min(max(1, round(share * members)), members - 1)
    parts = (order[back:].sort().values, order[:back].sort().values)
    seen, judged = (group._replace(counts=group.counts[:, part], corners_px=group.corners_px[:, part]) for part in parts)
    return seen, judged

"""What makes many groups of one: the symmetries of diffraction, and the independence of photons."""

import math

import torch
from torch import Tensor

from ptycho_torch.scan import Group

FLIP_Y, FLIP_X, TRANSPOSE = 1, 2, 4
HALF = (0.35, 0.65)  # of the photons, about
SMALLEST_PART = 0.01  # of a half, where there are many photons
FEW = 3.0  # photons on a detector pixel, on average, before a half is made smaller


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
    return int(torch.randint(8 if height == width else 4, (), generator=generator, device=generator.device))


def random_share(group: Group, generator: torch.Generator) -> float:
    """Of the photons, what a network is to see in a step while the others judge it, so that it cannot gain by fitting noise.

    About half where there are few. Of many, anything between that and a hundredth of it: a good
    exposure teaches what to do with poor ones, too.
    """
    share = torch.empty((), device=generator.device).uniform_(*HALF, generator=generator)
    smallest = smallest_part(group.counts.mean().item())
    if smallest < 1:
        share = share * smallest ** torch.rand((), device=generator.device, generator=generator)
    return share.item()


def smallest_part(mean_counts: float) -> float:
    """The least part of a half that a network is shown, from the photons on a detector pixel."""
    return max(SMALLEST_PART, FEW / max(FEW, mean_counts))


def thinned(group: Group, share: float, generator: torch.Generator) -> tuple[Group, Group]:
    """Two measurements of one object from one: each photon goes to the first with the probability ``share``.

    Of counts with a Poisson distribution, both parts have one again, of the means ``share`` and
    ``1 - share`` times the old, and are independent [1]_: what explains the noise of the one does
    not explain that of the other. The part of a count below one, where counts are no whole numbers,
    is divided in proportion.

    Args:
        group: As measured.
        share: Within (0, 1).
        generator: Randomness of the division, on the device of the group.

    Returns:
        The group with the chosen photons and the group with the others, each with the probe that makes so many.

    References:
        .. [1] J. F. C. Kingman, "Poisson Processes" (1993), section 5.1 (colouring theorem).
    """
    whole = group.counts.floor()
    first = torch.binomial(whole, torch.full_like(whole, share), generator=generator) + share * (group.counts - whole)
    return (
        group._replace(counts=first, probe=group.probe * math.sqrt(share)),
        group._replace(counts=group.counts - first, probe=group.probe * math.sqrt(1 - share)),
    )

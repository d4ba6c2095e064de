"""More groups from one: the symmetries of diffraction, and the independence of photons.

Photon thinning. A network that is trained to predict the counts it was given learns to fit their
noise. So the photons of a group are split in two: each photon goes to the input with a probability
s, else to the target. The parts of a Poisson count are independent Poisson counts with the means s
I and (1 - s) I, so the noise of the target cannot be predicted from the input, and the best answer
is the object itself. Each part comes with the probe at its own number of photons. About half of the
photons are given; where a pixel counts many, sometimes as little as a hundredth of that, so that a
network learns from one good exposure how to reconstruct poor ones as well. Validation and the
correlation of half-data reconstructions use the same idea.
"""

import math

import torch
from torch import Tensor

from ptycho_torch.data.grouping import group_propagator
from ptycho_torch.data.scan import Group
from ptycho_torch.physics.noise import thin

FLIP_Y, FLIP_X, TRANSPOSE = 1, 2, 4
INPUT_FRACTION = (0.35, 0.65)  # range of the share of the photons that a network is given
MIN_FRACTION = 0.01  # smallest share of that at many photons
FEW_COUNTS = 3.0  # mean photons on a detector pixel below which the share is not reduced


def apply_symmetry(group: Group, symmetry: int) -> Group:
    """The group that would have been measured with sample and probe mirrored; exact.

    Args:
        group: As measured.
        symmetry: Sum of `FLIP_Y`, `FLIP_X` and `TRANSPOSE`; the last needs square patterns.

    Returns:
        Mirrored patterns, positions, probe and mask; the canvas keeps its origin.
    """
    corners, probe, propagator = group.corners_px, group.probe, group_propagator(group)
    number = group.fresnel_number
    counts, mask, background = group.counts, group.mask, group.background
    limit = corners.amax(dim=1, keepdim=True).ceil()
    for axis, flag in ((-2, FLIP_Y), (-1, FLIP_X)):
        if symmetry & flag:
            counts, mask = propagator.mirror(counts, axis), propagator.mirror(mask, axis)
            background = None if background is None else propagator.mirror(background, axis)
            probe = probe.flip(axis)
            mirror = torch.zeros(2, dtype=torch.bool, device=corners.device)
            mirror[axis] = True
            corners = torch.where(mirror, limit - corners, corners)
    if symmetry & TRANSPOSE:
        counts, mask, probe, corners = counts.mT, mask.mT, probe.mT, corners.flip(-1)
        background = None if background is None else background.mT
        number = None if number is None else number.flip(-1)
    return group._replace(
        counts=counts,
        corners_px=corners,
        probe=probe.contiguous(),
        mask=mask,
        background=background,
        fresnel_number=number,
    )


def random_symmetry(group: Group, rng: torch.Generator) -> int:
    """One of the eight symmetries of a square, or of the four of a rectangle."""
    height, width = group.counts.shape[-2:]
    return int(torch.randint(8 if height == width else 4, (), generator=rng, device=rng.device))


def random_input_fraction(group: Group, rng: torch.Generator) -> float:
    """Share of the photons that a network is given in a step; the others are the target."""
    fraction = torch.empty((), device=rng.device).uniform_(*INPUT_FRACTION, generator=rng)
    smallest = min_input_fraction(group.counts.mean().item())
    if smallest < 1:
        fraction = fraction * smallest ** torch.rand((), device=rng.device, generator=rng)
    return fraction.item()


def min_input_fraction(mean_counts: float) -> float:
    """Smallest factor of the input fraction, from the mean photons on a detector pixel."""
    return max(MIN_FRACTION, FEW_COUNTS / max(FEW_COUNTS, mean_counts))


def split_photons(group: Group, fraction: float, rng: torch.Generator) -> tuple[Group, Group]:
    """Two independent measurements from one: a photon goes to the first with a probability.

    See `noise.thin`.

    Args:
        group: As measured.
        fraction: Within (0, 1).
        rng: Random generator of the division, on the device of the group.

    Returns:
        The group with the chosen photons and the group with the others, each with the probe that
        carries so many.
    """
    first = thin(group.counts, fraction, rng)

    def part(counts: Tensor, share: float) -> Group:
        background = None if group.background is None else group.background * share
        return group._replace(
            counts=counts, probe=group.probe * math.sqrt(share), background=background
        )

    return part(first, fraction), part(group.counts - first, 1 - fraction)

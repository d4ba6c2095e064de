"""Which scan points belong together: the middle of a scan, neighbourhoods, and groups of their patterns."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import KDTree

from ptycho_torch.scan import Group, Scan

QUARTER = np.pi / 2


def nearest_to_middle(positions_px: NDArray[np.float64], k: int) -> NDArray[np.intp]:
    """Indices of the ``k`` positions nearest to the middle of the scan, ascending.

    The middle is the centre of the bounding box, so that a dense corner does not pull it.

    Args:
        positions_px: ``(y, x)``, (N, 2).
        k: How many, at most N.

    Returns:
        (k,).
    """
    middle = (positions_px.min(axis=0) + positions_px.max(axis=0)) / 2
    distance = np.square(positions_px - middle).sum(axis=1)
    return np.sort(np.argsort(distance, kind="stable")[:k])


@dataclass(frozen=True)
class Neighbourhood:
    """Scan points of a compact region, and more around them.

    Attributes:
        members: Indices of scan points, those of the region first, (C,).
        core: How many of them belong to the region; the others only complete the view.
    """

    members: NDArray[np.intp]
    core: int


def divide(
    positions_px: NDArray[np.float64],
    *,
    core: int,
    size: int,
    rng: np.random.Generator | None = None,
) -> list[Neighbourhood]:
    """Compact regions that hold every scan point once, each completed by its nearest outsiders.

    The scan is cut in two again and again, across its longer side or, with ``rng``, at random
    angles, which gives other regions at every call.

    Args:
        positions_px: ``(y, x)``, (N, 2).
        core: Largest number of points in a region.
        size: Members of a neighbourhood, at least ``core``; fewer where the scan has fewer.
        rng: Randomness of the angles.

    Returns:
        Neighbourhoods of equal size, the one nearest to the middle of the scan first, so that
        each touches those before it.
    """
    regions = compact_regions(positions_px, -(-len(positions_px) // core), rng)
    middle = positions_px.mean(axis=0)
    centres = np.array([positions_px[region].mean(axis=0) for region in regions])
    order = np.argsort(np.square(centres - middle).sum(axis=1), kind="stable")
    return complete(positions_px, [regions[i] for i in order], size)


def complete(positions_px: NDArray[np.float64], regions: Sequence[NDArray[np.intp]], size: int) -> list[Neighbourhood]:
    """Regions with the outsiders that are nearest to them, ``size`` points each, or all that there are."""
    tree = KDTree(positions_px)
    size = min(size, len(positions_px))
    return [_complete(tree, region, positions_px[region].mean(axis=0), size) for region in regions]


def compact_regions(
    positions_px: NDArray[np.float64], count: int, rng: np.random.Generator | None = None
) -> list[NDArray[np.intp]]:
    """Indices of points in ``count`` compact regions whose sizes differ by one at most.

    Args:
        positions_px: ``(y, x)``, (N, 2).
        count: At most N.
        rng: Randomness of the angles of the cuts; without it, each is across the longer side.
    """
    return _bisect(positions_px, np.arange(len(positions_px)), count, rng)


def _bisect(
    positions_px: NDArray[np.float64], members: NDArray[np.intp], parts: int, rng: np.random.Generator | None
) -> list[NDArray[np.intp]]:
    """The members in ``parts`` compact regions."""
    if parts == 1:
        return [members]
    points = positions_px[members]
    angle = QUARTER * float(np.argmax(np.ptp(points, axis=0))) if rng is None else rng.uniform(0, np.pi)
    along = points @ np.array([np.cos(angle), np.sin(angle)])
    order = members[np.argsort(along, kind="stable")]
    left = parts // 2
    cut = len(order) * left // parts
    return _bisect(positions_px, order[:cut], left, rng) + _bisect(positions_px, order[cut:], parts - left, rng)


def _complete(tree: KDTree, region: NDArray[np.intp], centre: NDArray[np.float64], size: int) -> Neighbourhood:
    """The region and the nearest points around it, ``size`` in all."""
    _, nearest = tree.query(centre, k=min(size + len(region), tree.n))
    outside = np.setdiff1d(nearest, region, assume_unique=True)
    outside = nearest[np.isin(nearest, outside)][: size - len(region)]
    return Neighbourhood(members=np.concatenate([region, outside]), core=len(region))


def make_group(scan: Scan, members: Sequence[int] | NDArray[np.intp]) -> Group:
    """The group of some scan points, as a batch of one.

    Args:
        scan: Where they were measured.
        members: Indices of its points, in any order.

    Returns:
        A `Group` with B = 1.
    """
    ascending = np.unique(np.asarray(members))  # HDF5 reads ascending indices only
    counts = np.asarray(scan.counts[ascending], dtype=np.float32)[np.searchsorted(ascending, members)]
    corners = scan.corners_px()[np.asarray(members)]
    origin = np.floor(corners.min(axis=0))
    return Group(
        counts=torch.from_numpy(counts)[None],
        corners_px=torch.from_numpy((corners - origin).astype(np.float32))[None],
        probe=torch.from_numpy(scan.probe)[None],
        mask=torch.from_numpy(scan.mask)[None],
        origin_px=torch.from_numpy(origin.astype(np.int64))[None],
    )


def split_groups(batch: Group) -> list[Group]:
    """The groups of a batch, each as a batch of one."""
    return [Group(*(part[i : i + 1] for part in batch)) for i in range(len(batch.counts))]


def join_groups(groups: Sequence[Group]) -> Group:
    """Groups of the same shapes as one batch."""
    return Group(*(torch.cat(parts) for parts in zip(*groups, strict=True)))

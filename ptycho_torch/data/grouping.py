"""Compact regions of scan points, neighbourhoods, and groups of their patterns."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import KDTree
from torch import Tensor

from ptycho_torch.data.scan import Group, Scan
from ptycho_torch.errors import InputError
from ptycho_torch.physics.forward import ScanLayout, scan_layout
from ptycho_torch.physics.propagation import Propagator, propagator_of

logger = logging.getLogger(__name__)

QUARTER_TURN = np.pi / 2


def select_positions(scan: Scan, n_images: int | None) -> Scan:
    """The scan with the ``n_images`` positions nearest to its middle, or with all of them."""
    if n_images is not None and n_images > len(scan):
        logger.info("%s: has %d patterns; all of them are used", scan.source, len(scan))
    return scan.central_subset(n_images)


def choose_group_size(
    scans: Sequence[Scan], gridsize: int | None, preferred: int, *, variable_group_size: bool
) -> int:
    """Number of patterns in a group: gridsize^2, or all of a small scan that makes no two groups.

    Args:
        scans: Scans to divide.
        gridsize: What the user asked for, if anything.
        preferred: The generator's own gridsize.
        variable_group_size: Whether the generator takes smaller groups.

    Raises:
        InputError: If a scan has fewer patterns than a group needs.
    """
    group_size = (gridsize or preferred) ** 2
    smallest = min(scans, key=len)
    if gridsize is None and variable_group_size and len(smallest) < 2 * group_size:
        return len(smallest)
    if len(smallest) >= group_size:
        return group_size
    raise InputError(
        f"{smallest.source}: {len(smallest)} patterns are used but a group needs {group_size} "
        f"(gridsize {gridsize or preferred}); use more with --n_images or a smaller --gridsize"
    )


@dataclass(frozen=True)
class Neighbourhood:
    """Scan points of a compact region, and more around them.

    Attributes:
        points: Indices of scan points, those of the region first, (C,).
        n_core: Number of points that belong to the region; the others are its nearest neighbours.
    """

    points: NDArray[np.intp]
    n_core: int


def divide(
    positions_px: NDArray[np.float64],
    *,
    n_core: int,
    n_total: int,
    rng: np.random.Generator | None = None,
) -> list[Neighbourhood]:
    """Compact regions that hold every scan point once, each with its nearest neighbours.

    The scan is cut in two again and again, across its longer side or, with ``rng``, at random
    angles, which gives other regions at every call.

    Args:
        positions_px: ``(y, x)``, (N, 2).
        n_core: Largest number of points in a region.
        n_total: Number of points in a neighbourhood, at least ``n_core``; fewer where the scan has
            fewer.
        rng: Random generator of the angles.

    Returns:
        Neighbourhoods of equal size, the one nearest to the middle of the scan first, so that
        each touches those before it.
    """
    regions = compact_regions(positions_px, -(-len(positions_px) // n_core), rng)
    middle = positions_px.mean(axis=0)
    centres = np.array([positions_px[region].mean(axis=0) for region in regions])
    order = np.argsort(np.square(centres - middle).sum(axis=1), kind="stable")
    return complete(positions_px, [regions[i] for i in order], n_total)


def complete(
    positions_px: NDArray[np.float64], regions: Sequence[NDArray[np.intp]], n_total: int
) -> list[Neighbourhood]:
    """Regions with the points nearest to them, ``n_total`` points each, or all points."""
    tree = KDTree(positions_px)
    n_total = min(n_total, len(positions_px))
    return [
        _complete(tree, region, positions_px[region].mean(axis=0), n_total) for region in regions
    ]


def compact_regions(
    positions_px: NDArray[np.float64], count: int, rng: np.random.Generator | None = None
) -> list[NDArray[np.intp]]:
    """Indices of points in ``count`` compact regions whose sizes differ by one at most.

    Args:
        positions_px: ``(y, x)``, (N, 2).
        count: At most N.
        rng: Random generator of the angles of the cuts; without it, each is across the longer side.
    """
    return _bisect(positions_px, np.arange(len(positions_px)), count, rng)


def _bisect(
    positions_px: NDArray[np.float64],
    indices: NDArray[np.intp],
    parts: int,
    rng: np.random.Generator | None,
) -> list[NDArray[np.intp]]:
    """The points of some indices in ``parts`` compact regions."""
    if parts == 1:
        return [indices]
    points = positions_px[indices]
    if rng is None:
        angle = QUARTER_TURN * float(np.argmax(np.ptp(points, axis=0)))
    else:
        angle = rng.uniform(0, np.pi)
    along = points @ np.array([np.cos(angle), np.sin(angle)])
    order = indices[np.argsort(along, kind="stable")]
    left = parts // 2
    cut = len(order) * left // parts
    first = _bisect(positions_px, order[:cut], left, rng)
    return first + _bisect(positions_px, order[cut:], parts - left, rng)


def _complete(
    tree: KDTree, region: NDArray[np.intp], centre: NDArray[np.float64], n_total: int
) -> Neighbourhood:
    """The region and the nearest points around it, ``n_total`` in all."""
    _, nearest = tree.query(centre, k=min(n_total + len(region), tree.n))
    outside = np.setdiff1d(nearest, region, assume_unique=True)
    outside = nearest[np.isin(nearest, outside)][: n_total - len(region)]
    return Neighbourhood(points=np.concatenate([region, outside]), n_core=len(region))


def make_group(scan: Scan, points: Sequence[int] | NDArray[np.intp]) -> Group:
    """The group of some scan points, as a batch of one.

    Args:
        scan: Where they were measured.
        points: Indices of its points, in any order.

    Returns:
        A `Group` with B = 1, bad pixels zero.
    """
    points = np.asarray(points)
    ascending = np.unique(points)  # HDF5 reads ascending indices only
    counts = np.asarray(scan.counts[ascending], dtype=np.float32)[
        np.searchsorted(ascending, points)
    ]
    if not scan.mask.all():
        counts *= scan.mask
    corners = scan.corners_px()[points]
    origin = np.floor(corners.min(axis=0))
    background, number = scan.background, scan.fresnel_number
    probe = scan.probes_of(points) if scan.has_own_probes else scan.need_probe()
    return Group(
        counts=torch.from_numpy(counts)[None],
        corners_px=torch.from_numpy((corners - origin).astype(np.float32))[None],
        probe=torch.from_numpy(probe)[None],
        mask=torch.from_numpy(scan.mask)[None],
        origin_px=torch.from_numpy(origin.astype(np.int64))[None],
        background=None if background is None else torch.from_numpy(background)[None],
        fresnel_number=None if number is None else torch.tensor(number)[None],
    )


def split_groups(batch: Group) -> list[Group]:
    """The groups of a batch, each as a batch of one."""
    return [
        Group._make(None if part is None else part[i : i + 1] for part in batch)
        for i in range(len(batch.counts))
    ]


def join_groups(groups: Sequence[Group]) -> Group:
    """Groups of the same shapes, and of one propagator, as one batch."""
    groups = _alike(groups)
    return Group._make(
        None if parts[0] is None else torch.cat(parts) for parts in zip(*groups, strict=True)
    )


def _alike(groups: Sequence[Group]) -> Sequence[Group]:
    """The groups with a background, and with a probe for each pattern, where one of them has it."""
    if any(group.probe.ndim == 5 for group in groups):
        groups = [
            group
            if group.probe.ndim == 5
            else group._replace(
                probe=group.probe[:, None].expand(-1, group.counts.shape[1], -1, -1, -1)
            )
            for group in groups
        ]
    if any(group.background is not None for group in groups):
        groups = [
            group
            if group.background is not None
            else group._replace(background=torch.zeros_like(group.mask, dtype=group.counts.dtype))
            for group in groups
        ]
    return groups


def group_propagator(group: Group) -> Propagator:
    """The propagator of a batch of groups, which all of them have in common."""
    number = group.fresnel_number
    return propagator_of(None if number is None else number[:, None])


def group_layout(
    group: Group, canvas_shape: tuple[int, int], points: Tensor | None = None
) -> ScanLayout:
    """The layout of the patterns of a batch of groups, with all that is known of them.

    Args:
        group: Patterns with positions and illumination.
        canvas_shape: ``(Y, X)`` to lay them on.
        points: Which patterns of each group, int64, (B, C'); by default all.
    """
    propagator = group_propagator(group)
    corners, probe, background = group.corners_px, group.probe, group.background
    if points is not None:
        each = torch.arange(len(corners), device=corners.device)[:, None]
        corners = corners[each, points]
        probe = probe[each, points] if probe.ndim == 5 else probe
    if background is not None:
        background = propagator.from_detector(background)[:, None]
    return scan_layout(corners, probe, canvas_shape, propagator=propagator, background=background)

"""Positions that a fault of the encoder put far away from the scan."""

import logging

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from ptycho_torch.data.scan import Scan

logger = logging.getLogger(__name__)

# Windows between a position and the nearest other one. Patches two windows apart share nothing,
# and separate fields of a scan are seldom farther apart.
LINK_WINDOWS = 4.0
LINK_STEPS = 20.0  # the same in median distances of neighbours, for scans without overlap
LOST_SHARE = 0.05  # of the positions; a larger part that lies apart was meant
NAMED = 3  # lost positions that a message names


def lost_positions(scan: Scan) -> NDArray[np.int64]:
    """Numbers of the patterns whose positions lie apart from nearly all others, ascending.

    Positions are connected where they are at most `LINK_WINDOWS` windows, or `LINK_STEPS` steps,
    apart. The connected parts that hold less than `LOST_SHARE` of the positions together are lost,
    the smallest first; a scan of several fields loses none.
    """
    positions = scan.positions_px
    places = np.unique(positions, axis=0)
    if len(places) < 3:
        return np.empty(0, dtype=np.int64)
    nearest = KDTree(places).query(places, k=2)[0][:, 1]
    link = max(LINK_WINDOWS * max(scan.pattern_shape), LINK_STEPS * float(np.median(nearest)))
    part = _connected_parts(positions, link)
    sizes = np.bincount(part)
    allowed = max(1, int(LOST_SHARE * len(positions)))
    lost: list[int] = []
    for number in np.argsort(sizes, kind="stable")[:-1]:
        allowed -= int(sizes[number])
        if allowed < 0:
            break
        lost.append(int(number))
    return np.flatnonzero(np.isin(part, lost))


def _connected_parts(positions: NDArray[np.float64], link: float) -> NDArray[np.int64]:
    """The number of the part that each position belongs to; cells of the size of ``link`` touch."""
    every_cell = np.floor((positions - np.median(positions, axis=0)) / link)
    cells, cell_of = np.unique(every_cell, axis=0, return_inverse=True)
    pairs = KDTree(cells).query_pairs(1.0, p=np.inf, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), (len(cells), len(cells)))
    return connected_components(graph, directed=False)[1][cell_of.ravel()]


def say_lost(scan: Scan, lost: NDArray[np.int64]) -> str:
    """A sentence without its end that names the lost positions and their distance."""
    others = np.delete(scan.positions_px, lost, axis=0)
    distance = KDTree(others).query(scan.positions_px[lost])[0]
    named = ", ".join(str(one) for one in lost[:NAMED])
    if len(lost) == 1:
        return f"the position of pattern {named} lies {distance[0]:.4g} px from the others"
    more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
    return (
        f"the positions of patterns {named}{more} lie {distance.min():.4g} to "
        f"{distance.max():.4g} px from the others"
    )


def without_lost_positions(scan: Scan) -> Scan:
    """The scan without the patterns whose positions are lost, with a warning that names them.

    The probe keeps its photons, those of a mean pattern of the file.
    """
    lost = lost_positions(scan)
    if not len(lost):
        return scan
    left = "the pattern is left out" if len(lost) == 1 else "the patterns are left out"
    logger.warning("%s: %s; %s", scan.source, say_lost(scan, lost), left)
    return scan.subset(np.setdiff1d(np.arange(len(scan)), lost))

"""The scan that a command works on: read, told about, and cut to the positions that were asked for."""

import logging
from pathlib import Path

from ptycho_torch.config import ReadingOptions
from ptycho_torch.doctor.examination import refuse_faults
from ptycho_torch.errors import InputError
from ptycho_torch.grouping import nearest_to_middle
from ptycho_torch.illumination import illuminate
from ptycho_torch.readers import read_scan
from ptycho_torch.scan import Scan

logger = logging.getLogger(__name__)


def open_scan(path: Path, *, n_images: int | None, options: ReadingOptions, seed: int = 0, show: bool = False) -> Scan:
    """The scan in a file, with the ``n_images`` positions nearest to its middle, and with a probe even if the file has none.

    Args:
        path: Of the file.
        n_images: How many positions, all by default and where there are fewer.
        options: How it is read.
        seed: Of the search for a probe.
        show: Whether to draw a progress bar of that search.

    Raises:
        InputError: See `read_scan`; and if it is certainly not what it says.
    """
    scan = read_scan(path, options=options)
    for decision in scan.decisions:
        logger.info("%s: %s", path.name, decision)
    refuse_faults(scan, options)
    if not scan.probe_known:
        scan = illuminate(scan, seed=seed, show=show)
    if n_images is None or n_images >= len(scan):
        if n_images is not None and n_images > len(scan):
            logger.info("%s: has %d patterns; all of them are used", path.name, len(scan))
        return scan
    return scan.subset(nearest_to_middle(scan.positions_px, n_images))


def members_of_a_group(scans: list[Scan], gridsize: int | None, preferred: int, *, any_size: bool) -> int:
    """Patterns in a group, gridsize^2; where that was not asked for, a small scan that makes no two groups is one.

    Args:
        scans: To be divided.
        gridsize: What the user asked for, if anything.
        preferred: The generator's own.
        any_size: Whether the generator makes do with smaller groups.

    Raises:
        InputError: If a scan has fewer patterns than a group needs.
    """
    members = (gridsize or preferred) ** 2
    smallest = min(scans, key=len)
    if gridsize is None and any_size and len(smallest) < 2 * members:
        return len(smallest)
    if len(smallest) >= members:
        return members
    raise InputError(
        f"{smallest.source}: {len(smallest)} patterns are used but a group needs {members} (gridsize {gridsize or preferred}); "
        "use more with --n_images or a smaller --gridsize"
    )

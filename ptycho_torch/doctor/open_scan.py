"""Read a scan for a run, after a quick examination."""

import logging
from pathlib import Path

from ptycho_torch.config import ReadingOptions
from ptycho_torch.data.scan import Scan
from ptycho_torch.doctor.examination import refuse_errors
from ptycho_torch.doctor.lost_positions import without_lost_positions
from ptycho_torch.io.readers import read_scan

logger = logging.getLogger(__name__)


def open_scan(path: Path, options: ReadingOptions) -> Scan:
    """The scan in a file, with its decisions logged; it may have no probe.

    Patterns whose positions are lost are left out, with a warning.

    Raises:
        InputError: See `read_scan`; and if it is certainly not what its file says.
    """
    scan = read_scan(path, options=options)
    for decision in scan.decisions:
        logger.info("%s: %s", path.name, decision)
    scan = without_lost_positions(scan)
    refuse_errors(scan, options)
    return scan

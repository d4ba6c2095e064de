"""Scans from one format into another."""

import logging

from ptycho_torch.config import ConversionConfig
from ptycho_torch.config.registry import SCAN_WRITERS
from ptycho_torch.data.grouping import select_positions
from ptycho_torch.doctor.open_scan import open_scan
from ptycho_torch.errors import InputError
from ptycho_torch.io.writers import write_scan
from ptycho_torch.refinement.probe_retrieval import ensure_probe

logger = logging.getLogger(__name__)


def convert(config: ConversionConfig) -> None:
    """Write a scan in another format.

    Args:
        config: What to read and how, and what to write.

    Raises:
        InputError: If the scan cannot be used, or the output is there already.
    """
    occupied = any(config.output.iterdir()) if config.output.is_dir() else config.output.exists()
    if occupied and not config.overwrite:
        raise InputError(
            f"{config.output}: is there already; choose another output, or --overwrite to replace "
            "it"
        )
    if not config.output.parent.is_dir():
        raise InputError(
            f"{config.output.parent}: no such folder; make it, or choose another output"
        )
    form = config.format if config.format != "auto" else config.output.suffix[1:].lower()
    if form not in SCAN_WRITERS:
        raise InputError(
            f"{config.output}: its ending names no format; expected --format with one of "
            f"{', '.join(SCAN_WRITERS)}"
        )
    scan = ensure_probe(open_scan(config.file, config), seed=0, show=not config.quiet)
    scan = select_positions(scan, config.n_images)
    write_scan(config.output, scan, format_name=form)
    logger.info("wrote %d patterns of %dx%d: %s", len(scan), *scan.pattern_shape, config.output)

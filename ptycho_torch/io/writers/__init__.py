"""Results and scans into files, one format a module. Every file appears whole or not at all."""

from collections.abc import Sequence
from pathlib import Path

from ptycho_torch.config.registry import RESULT_WRITERS, SCAN_WRITERS, load
from ptycho_torch.data.scan import Reconstruction, Scan
from ptycho_torch.io.run_dir import RunDir
from ptycho_torch.io.writers.npz_writer import write_reconstruction
from ptycho_torch.io.writers.si_geometry import check_known


def write_scan(path: Path, scan: Scan, *, format_name: str = "npz") -> None:
    """Write a scan.

    Args:
        path: The file; for "ptychodus" the folder of its two files.
        scan: What to write.
        format_name: A key of `SCAN_WRITERS`.

    Raises:
        InputError: If the format is in metres and the experiment is not known.
    """
    load(SCAN_WRITERS[format_name])(path, scan)


def write_formats(run: RunDir, result: Reconstruction, formats: Sequence[str]) -> None:
    """Write a reconstruction in more formats, each in its place in the folder of the run."""
    for name in formats:
        load(RESULT_WRITERS[name])(run, result)


__all__ = ["check_known", "write_formats", "write_reconstruction", "write_scan"]

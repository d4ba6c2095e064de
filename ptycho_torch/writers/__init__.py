"""Results and scans into files, one format a module. Every file appears whole or not at all."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ptycho_torch.run_dir import RunDir
from ptycho_torch.scan import Reconstruction, Scan
from ptycho_torch.writers import cxi, npz, ptychodus, ptypy, tiff
from ptycho_torch.writers.metric import check_known
from ptycho_torch.writers.npz import write_reconstruction

SCAN_WRITERS: dict[str, Callable[[Path, Scan], None]] = {
    "npz": npz.write_scan,
    "cxi": cxi.write_scan,
    "ptychodus": ptychodus.write_scan,
    "ptyd": ptypy.write_scan,
}

RESULT_WRITERS: dict[str, tuple[tuple[str, Callable[[Path, Reconstruction], None]], ...]] = {  # name in `RunDir`, writer
    "ptychodus": (("product", ptychodus.write_product),),
    "cxi": (("cxi", cxi.write_result),),
    "tiff": (("amplitude_tiff", tiff.write_amplitude), ("phase_tiff", tiff.write_phase)),
}


def write_scan(path: Path, scan: Scan, *, format_name: str = "npz") -> None:
    """Write a scan.

    Args:
        path: The file; for "ptychodus" the folder of its two files.
        scan: What to write.
        format_name: A key of `SCAN_WRITERS`.

    Raises:
        InputError: If the format is in metres and the experiment is not known.
    """
    SCAN_WRITERS[format_name](path, scan)


def write_formats(run: RunDir, result: Reconstruction, formats: Sequence[str]) -> None:
    """Write a reconstruction in more formats, each in its place in the folder of the run."""
    for name in formats:
        for place, write in RESULT_WRITERS[name]:
            write(getattr(run, place), result)


__all__ = ["RESULT_WRITERS", "SCAN_WRITERS", "check_known", "write_formats", "write_reconstruction", "write_scan"]

"""Read NPZ files of PtychoNN: patterns as recorded; the labels are not needed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ptycho_torch.io.readers.checks import check_real
from ptycho_torch.io.readers.npz import load_arrays, need_array
from ptycho_torch.io.readers.raw_scan import Format, RawScan

LARGEST_SCAN_M = 0.01  # scans are smaller than a centimetre, and larger than a hundredth of a pixel


def read_ptychonn(paths: Sequence[Path]) -> RawScan:
    """The raw in an NPZ file with ``reciprocal`` and ``scan``.

    Raises:
        InputError: If a key is missing or its content cannot be what it should.
    """
    (path,) = paths
    arrays = load_arrays(path, {"reciprocal", "scan"})
    positions = check_real(f"{path}: scan", need_array(path, arrays, "scan"), (None, 2))
    metric = len(positions) > 1 and float(np.ptp(positions, axis=0).max()) < LARGEST_SCAN_M
    unit = "metres" if metric else "object pixels"
    return RawScan(
        source=str(path),
        patterns=need_array(path, arrays, "reciprocal"),
        patterns_key="reciprocal",
        values="unknown",
        positions=positions,
        positions_unit="m" if metric else "px",
        notes=(f"scan spans {np.ptp(positions, axis=0).max():.3g}: read as {unit}",),
    )


FORMAT = Format(
    name="NPZ (PtychoNN)",
    container="npz",
    recognises=lambda names: {"reciprocal", "scan"} <= names,
    read=read_ptychonn,
)

"""What was found about the measurement of a scan, kept in a file beside the run that found it."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptycho_torch.data.lazy_patterns import blocks
from ptycho_torch.data.scan import Scan
from ptycho_torch.errors import InputError
from ptycho_torch.io.files import write_npz
from ptycho_torch.io.readers.npz import load_arrays

HASH = "scan_sha256"
NEEDED = ("positions_px", "probe")
OPTIONAL = ("flux", "background", "probe_components", "probe_weights")


def scan_hash(scan: Scan) -> str:
    """SHA-256 of good pixels, positions and mask of a scan as it was read; reads all patterns."""
    digest = hashlib.sha256()
    for part in (scan.positions_px, scan.mask):
        digest.update(np.ascontiguousarray(part).tobytes())
    for _, block in blocks(scan.counts):
        digest.update(np.ascontiguousarray(block * scan.mask, dtype=np.float32).tobytes())
    return digest.hexdigest()


def write_measurement(path: Path, found: Scan, *, of: Scan) -> None:
    """Write what was found, whole or not at all.

    Args:
        path: NPZ file.
        found: The scan with refined positions, probe, flux, background.
        of: The scan as it was read.
    """
    arrays: dict[str, NDArray] = {HASH: np.array(scan_hash(of))}
    for name in (*NEEDED, *OPTIONAL):
        value = getattr(found, name)
        if value is not None:
            arrays[name] = value
    write_npz(path, arrays)


def apply_measurement(path: Path, scan: Scan) -> Scan | None:
    """The scan with what a file says was found; None if the file is of another scan.

    Raises:
        InputError: If the file is damaged.
    """
    arrays = load_arrays(path, {HASH, *NEEDED, *OPTIONAL})
    missing = [name for name in (HASH, *NEEDED) if arrays.get(name) is None]
    if missing:
        raise InputError(f"{path}: key '{missing[0]}' is missing; the file is damaged")
    if str(arrays[HASH]) != scan_hash(scan):
        return None
    found = {
        name: array for name in (*NEEDED, *OPTIONAL) if (array := arrays.get(name)) is not None
    }
    expected = {
        "positions_px": scan.positions_px.shape,
        "flux": (len(scan),),
        "background": scan.pattern_shape,
    }
    for name, shape in expected.items():
        if name in found and found[name].shape != shape:
            raise InputError(f"{path}: '{name}' has shape {found[name].shape}; expected {shape}")
    return replace(scan, **found)  # type: ignore[arg-type]

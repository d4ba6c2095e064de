"""Write NPZ files: reconstructions, and scans in the layout of PtychoPINN and Ptychodus."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptycho_torch.data.scan import Reconstruction, Scan
from ptycho_torch.io.files import write_npz


def write_reconstruction(path: Path, result: Reconstruction) -> None:
    """Write a reconstruction with the fields of `Reconstruction` (``specs/run_folder.md``)."""
    fields: dict[str, NDArray] = {
        "object": result.object.astype(np.complex64),
        "coverage": result.coverage.astype(np.float32),
        "origin_yx": result.origin_yx.astype(np.float64),
        "probe": result.probe.astype(np.complex64),
        "positions_px": result.positions_px.astype(np.float64),
        "scan_index": result.scan_index.astype(np.int64),
    }
    measurement = {
        "flux": (result.flux, np.float64),
        "background": (result.background, np.float32),
        "probe_components": (result.probe_components, np.complex64),
        "probe_weights": (result.probe_weights, np.float32),
    }
    fields |= {
        key: values.astype(kind)
        for key, (values, kind) in measurement.items()
        if values is not None
    }
    write_npz(path, fields | _known_sizes(result))


def write_scan(path: Path, scan: Scan) -> None:
    """Write a scan: ``diff3d``, ``xcoords``, ``ycoords``, ``probeGuess``, ``scan_index``.

    Object pixel, energy, distance and detector pixel have the keys of a reconstruction. Every array
    has an axis, so that ``{key: array[:n] for key, array in ...}`` cuts a scan.
    """
    fields: dict[str, NDArray] = {
        "diff3d": scan.counts[:],
        "xcoords": scan.positions_px[:, 1],
        "ycoords": scan.positions_px[:, 0],
    }
    if scan.probe is not None:
        fields["probeGuess"] = scan.probe if len(scan.probe) > 1 else scan.probe[0]
    fields["scan_index"] = scan.scan_index
    if not scan.mask.all():
        fields["bad_pixels"] = ~scan.mask
    known = {key: np.atleast_1d(value) for key, value in _known_sizes(scan).items()}
    write_npz(path, fields | known)


def _known_sizes(item: Scan | Reconstruction) -> dict[str, NDArray]:
    """Object pixel, known facts about the experiment, and whether it is in the near field."""
    known = {"pixel_size_m": item.pixel_size_m, **vars(item.instrument)}
    radiation = known.pop("radiation")
    fields: dict[str, NDArray] = {
        key: np.asarray(value, dtype=np.float64)
        for key, value in known.items()
        if value is not None
    }
    if radiation != "photons":
        fields["radiation"] = np.asarray(radiation)
    if not item.is_far_field:
        fields["far_field"] = np.asarray(False)
    return fields

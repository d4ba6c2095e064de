"""Write ptypy's prepared data (``.ptyd``)."""

from pathlib import Path

import numpy as np

from ptycho_torch.data.scan import Scan
from ptycho_torch.io.writers.hdf5_writer import mark_near_field, new_hdf5, store_patterns
from ptycho_torch.io.writers.si_geometry import in_metres, log_omitted


def write_scan(path: Path, scan: Scan) -> None:
    """Write a scan as one chunk.

    Raises:
        InputError: If the experiment is not known in metres.
    """
    geometry = in_metres(scan, "ptyd")
    with new_hdf5(path) as file:
        meta = file.create_group("meta")
        meta["version"], meta["label"] = "0.1", "None"
        meta["num_frames"] = len(scan)
        meta["energy"] = geometry.photon_energy_ev / 1e3
        if geometry.radiation != "photons":
            meta.attrs["radiation"] = geometry.radiation
        meta["distance"] = geometry.distance_m
        meta["psize"] = np.array(geometry.detector_pixel_m)
        meta["shape"] = np.array(scan.pattern_shape)
        meta["center"] = np.array(scan.pattern_shape) // 2
        meta["propagation"] = "farfield" if geometry.is_far_field else "nearfield"
        mark_near_field(meta, geometry)
        meta["weight2d"] = scan.mask.astype(np.float32)
        chunk = file.create_group("chunks/0")
        store_patterns(chunk, "data", scan.counts)
        chunk["positions"] = geometry.positions_m
        chunk["indices"] = scan.scan_index
        weights = {"dtype": np.uint8, "chunks": (1, *scan.pattern_shape), "compression": "gzip"}
        stored = chunk.create_dataset("weights", shape=scan.counts.shape, **weights)
        for number in range(len(scan)):
            stored[number] = scan.mask
    log_omitted("a .ptyd file", "the probe")

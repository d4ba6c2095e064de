"""Write CXI 1.6 for cdtools, SHARP and Ptychodus; probe and object are images 1 and 2."""

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ptycho_torch.data.scan import Reconstruction, Scan
from ptycho_torch.io.run_dir import RunDir
from ptycho_torch.io.writers.hdf5_writer import mark_near_field, new_hdf5, store_patterns
from ptycho_torch.io.writers.si_geometry import SiGeometry, in_metres, log_omitted

VERSION = 160
PIXEL_IS_INVALID = 1
JOULE_PER_EV = 1.602176634e-19
DETECTOR = "/entry_1/instrument_1/detector_1"
TRANSLATION = "/entry_1/sample_1/geometry_1/translation"


def write_scan(path: Path, scan: Scan) -> None:
    """Write a scan.

    Raises:
        InputError: If the experiment is not known in metres.
    """
    geometry = in_metres(scan, "cxi")
    with new_hdf5(path) as file:
        _write_experiment(file, geometry)
        store_patterns(file[DETECTOR], "data", scan.counts)
        file[DETECTOR].create_dataset(
            "mask", data=np.where(scan.mask, 0, PIXEL_IS_INVALID).astype(np.uint32)
        )
        file["/entry_1/data_1/data"] = h5py.SoftLink(f"{DETECTOR}/data")
        _write_image(file, 1, scan.need_probe()[None], geometry.pixel_m)
    index = (
        ""
        if np.array_equal(scan.scan_index, np.arange(len(scan)))
        else "the index of the exposures"
    )
    log_omitted("a CXI file", index)


def write_result(run: RunDir, result: Reconstruction) -> None:
    """Write a reconstruction: the probe as the first image, the object as the second.

    Raises:
        InputError: If the experiment is not known in metres.
    """
    geometry = in_metres(result, "cxi")
    center_m = (result.origin_yx + np.array(result.object.shape) / 2) * np.array(geometry.pixel_m)
    with new_hdf5(run.cxi) as file:
        _write_experiment(file, geometry)
        _write_image(file, 1, result.probe[None], geometry.pixel_m)
        _write_image(file, 2, result.object[None], geometry.pixel_m)
        own = file.create_group(
            "/entry_1/ptychodus"
        )  # where Ptychodus keeps what CXI has no place for
        own["probe_position_indexes"] = result.scan_index
        own["object_center_y_m"], own["object_center_x_m"] = center_m
        for name in ("object", "probe"):
            own[f"{name}_pixel_height_m"], own[f"{name}_pixel_width_m"] = geometry.pixel_m
    log_omitted("a CXI file", "the coverage")


def _write_experiment(file: h5py.File, geometry: SiGeometry) -> None:
    """Source, detector, and the translations of the sample.

    The illumination moves by their negative along basis vectors that point to negative y and x,
    which leaves the sign of the positions.
    """
    file["cxi_version"] = VERSION
    file["number_of_entries"] = 1
    source = file.create_group("/entry_1/instrument_1/source_1")
    source["wavelength"] = geometry.wavelength_m
    if geometry.radiation == "electrons":
        source["probe"] = "electron"  # the word of NeXus's NXsource
    source["energy"] = geometry.energy_ev * JOULE_PER_EV
    detector = file.create_group(DETECTOR)
    detector["distance"] = geometry.distance_m
    detector["y_pixel_size"], detector["x_pixel_size"] = geometry.detector_pixel_m
    rows, columns = geometry.detector_pixel_m
    detector["basis_vectors"] = np.array([[0.0, -columns], [-rows, 0.0], [0.0, 0.0]])
    translation = np.zeros((len(geometry.positions_m), 3))
    translation[:, 0], translation[:, 1] = geometry.positions_m[:, 1], geometry.positions_m[:, 0]
    file[TRANSLATION] = translation
    file["/entry_1/data_1/translation"] = h5py.SoftLink(TRANSLATION)
    mark_near_field(file["/entry_1"], geometry)
    detector["translation"] = h5py.SoftLink(TRANSLATION)


def _write_image(
    file: h5py.File, number: int, data: NDArray[np.complex64], pixel_m: tuple[float, float]
) -> None:
    """A complex image with its size in metres, ``[x, y, z]``."""
    image = file.create_group(f"/entry_1/image_{number}")
    image["data"] = data
    image["data_space"] = np.bytes_("real")
    height, width = data.shape[-2:]
    image["image_size"] = np.array([width * pixel_m[1], height * pixel_m[0], 0.0])
    image["source_1"] = h5py.SoftLink("/entry_1/instrument_1/source_1")
    image["detector_1"] = h5py.SoftLink(DETECTOR)

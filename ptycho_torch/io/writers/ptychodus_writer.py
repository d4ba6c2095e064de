"""Write Ptychodus' product, with the object at its place in metres, and diffraction file."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptycho_torch.data.scan import Reconstruction, Scan
from ptycho_torch.io.files import PART
from ptycho_torch.io.run_dir import RunDir
from ptycho_torch.io.writers.hdf5_writer import new_hdf5, store_patterns
from ptycho_torch.io.writers.si_geometry import SiGeometry, in_metres, log_omitted

PATTERNS, PRODUCT = "diffraction.h5", "product.h5"  # the names of Ptychodus's own workflow folders


def write_result(run: RunDir, result: Reconstruction) -> None:
    """Write a reconstruction as a product.

    Raises:
        InputError: If the experiment is not known in metres.
    """
    geometry = in_metres(result, "ptychodus")
    _write_product(run.product, geometry, result.object, result.origin_yx, result)
    named = {"flux": result.flux, "background": result.background}
    omitted = ["the coverage", *(name for name, value in named.items() if value is not None)]
    log_omitted("a Ptychodus product", ", ".join(omitted))


def write_scan(path: Path, scan: Scan) -> None:
    """Write a scan as the two files of a folder; its product shows empty space.

    Raises:
        InputError: If the experiment is not known in metres.
    """
    geometry = in_metres(scan, "ptychodus")
    corners = scan.corners_px()
    origin = np.floor(corners.min(axis=0)) - 1
    extent = (np.ceil(corners.max(axis=0)) + scan.pattern_shape - origin).astype(int) + 1
    empty = np.ones((int(extent[0]), int(extent[1])), dtype=np.complex64)
    scan.need_probe()
    with _both_or_none(path) as folder:
        _write_patterns(folder / PATTERNS, geometry, scan)
        _write_product(folder / PRODUCT, geometry, empty, origin, scan)


@contextlib.contextmanager
def _both_or_none(path: Path) -> Iterator[Path]:
    """A folder for the two files, which take their places when the block ends without error.

    Patterns of one scan beside positions of another would be read without a word.

    Raises:
        OSError: With the name of the file that cannot be written.
    """
    folder = path / PART.format(name="pair", process=os.getpid())
    folder.mkdir(parents=True)
    try:
        yield folder
        for name in (PATTERNS, PRODUCT):
            os.replace(folder / name, path / name)
    except OSError as error:
        if error.errno is None or error.filename is None:
            raise
        name = Path(error.filename).name
        raise OSError(error.errno, error.strerror, str(path / name)) from error
    finally:
        shutil.rmtree(folder)


def _write_patterns(path: Path, geometry: SiGeometry, scan: Scan) -> None:
    """Write a diffraction file."""
    with new_hdf5(path) as file:
        file["indexes"] = scan.scan_index
        patterns = store_patterns(file, "patterns", scan.counts)
        patterns.attrs["detector_pixel_height_m"], patterns.attrs["detector_pixel_width_m"] = (
            geometry.detector_pixel_m
        )
        file["bad_pixels"] = ~scan.mask


def _write_product(
    path: Path,
    geometry: SiGeometry,
    image: NDArray[np.complex64],
    origin_yx: NDArray[np.float64],
    measured: Scan | Reconstruction,
) -> None:
    """Write a product; the centre of the object is that of its array.

    A probe that changes over the scan is stored with its components, and ``opr_weights`` whose
    first column, of the mean, is 1.
    """
    probe, scan_index = np.asarray(measured.probe), measured.scan_index
    stack = probe[None]  # (C, M, H, W)
    if measured.probe_components is not None:
        stack = np.concatenate([stack, measured.probe_components])
    center_m = (origin_yx + np.array(image.shape) / 2) * np.array(geometry.pixel_m)
    with new_hdf5(path) as file:
        file.attrs["name"] = path.stem
        file.attrs["comments"] = "written by ptycho_torch"
        file.attrs["detector_object_distance_m"] = geometry.distance_m
        file.attrs["photon_energy_eV"] = geometry.photon_energy_ev
        file.attrs["probe_energy_eV"] = geometry.photon_energy_ev  # the older name
        if geometry.radiation != "photons":
            file.attrs["radiation"] = geometry.radiation
        file.attrs["probe_photon_count"] = float(np.sum(np.abs(probe.astype(np.complex128)) ** 2))
        file.attrs["exposure_time_s"] = 0.0
        file.attrs["mass_attenuation_m2_per_kg"] = 0.0
        file.attrs["tomography_angle_deg"] = 0.0
        file.attrs["far_field"] = geometry.is_far_field
        file["probe_position_indexes"] = scan_index
        file["probe_position_y_m"], file["probe_position_x_m"] = geometry.positions_m.T
        stored_probe = file.create_dataset("probe", data=stack)
        if measured.probe_weights is not None:
            ones = np.ones((len(scan_index), 1), dtype=np.float32)
            file["opr_weights"] = np.hstack([ones, measured.probe_weights])
        stored_object = file.create_dataset("object", data=image[None])  # (L, Y, X)
        for item in (stored_probe, stored_object):
            item.attrs["pixel_height_m"], item.attrs["pixel_width_m"] = geometry.pixel_m
        stored_object.attrs["center_y_m"], stored_object.attrs["center_x_m"] = center_m
        file["object_layer_spacing_m"] = np.zeros(0)
        file["loss_epochs"], file["loss_values"] = np.zeros(0, dtype=np.int64), np.zeros(0)

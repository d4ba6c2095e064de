"""A simulated scan as a beamline knows it, and functions that write it in the formats of other
programs.
"""

from types import SimpleNamespace

import h5py
import hdf5plugin
import numpy as np

ENERGY_EV, DISTANCE_M, DETECTOR_PIXEL_M = 8000.0, 1.2, 75e-6
WAVELENGTH_M = 1.2398419843320026e-6 / ENERGY_EV


def as_measured(simulation):
    """The simulated scan in metres; the probe and the pattern have no symmetry."""
    scan = simulation.scan
    n, height, width = scan.counts.shape
    pixel_m = WAVELENGTH_M * DISTANCE_M / (width * DETECTOR_PIXEL_M)
    return SimpleNamespace(
        scan=scan,
        truth=simulation.truth,
        counts=scan.counts.astype(np.int32),
        positions_m=(scan.positions_px - scan.positions_px.mean(axis=0)) * pixel_m,
        pixel_m=pixel_m,
        probe=scan.probe,
        shape=(height, width),
        n=n,
        energy_ev=ENERGY_EV,
        wavelength_m=WAVELENGTH_M,
        distance_m=DISTANCE_M,
        detector_pixel_m=DETECTOR_PIXEL_M,
    )


def write_cxi(path, measured):
    """As `cdtools.tools.data` writes it: soft links, translations, basis vectors in columns."""
    with h5py.File(path, "w") as file:
        file["cxi_version"] = 160
        file["number_of_entries"] = 1
        entry = file.create_group("entry_1")
        source = entry.create_group("instrument_1/source_1")
        source["wavelength"] = np.float32(measured.wavelength_m)
        source["energy"] = np.float32(1.9864459e-25 / measured.wavelength_m)
        detector = entry.create_group("instrument_1/detector_1")
        detector["distance"] = np.float32(measured.distance_m)
        detector["x_pixel_size"] = detector["y_pixel_size"] = measured.detector_pixel_m
        pixel = measured.detector_pixel_m
        detector["basis_vectors"] = np.array([[0, -pixel, 0], [-pixel, 0, 0]]).T
        detector["mask"] = np.zeros(measured.shape, dtype=np.uint32)
        detector.create_dataset("data", data=measured.counts, compression="gzip", chunks=True)
        group = entry.create_group("data_1")
        group["data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
        translation = np.zeros((measured.n, 3))
        translation[:, :2] = measured.positions_m[:, ::-1]
        entry["sample_1/geometry_1/translation"] = translation
        group["translation"] = h5py.SoftLink("/entry_1/sample_1/geometry_1/translation")


def write_nexus(path, measured, *, raster=True):
    """As NXcxi_ptycho defines it: classes, a raster of rank 4, micrometres, keV."""
    with h5py.File(path, "w") as file:

        def group(name, kind):
            made = file.create_group(name)
            made.attrs["NX_class"] = kind
            return made

        entry = group("scan_7", "NXentry")
        entry["definition"] = "NXcxi_ptycho"
        instrument = group("scan_7/beamline", "NXinstrument")
        group("scan_7/beamline/ring", "NXsource")["energy"] = 3.0
        instrument["ring/energy"].attrs["units"] = "GeV"
        beam = group("scan_7/beamline/beam", "NXbeam")
        beam["incident_beam_energy"] = measured.energy_ev / 1e3
        beam["incident_beam_energy"].attrs["units"] = "keV"
        detector = group("scan_7/beamline/eiger", "NXdetector")
        side = int(np.sqrt(measured.n))
        shape = (side, side) if raster else (measured.n,)
        detector["data"] = measured.counts.reshape(*shape, *measured.shape)
        detector["distance"] = measured.distance_m * 1e3
        detector["distance"].attrs["units"] = "mm"
        for axis in "xy":
            detector[f"{axis}_pixel_size"] = measured.detector_pixel_m * 1e6
            detector[f"{axis}_pixel_size"].attrs["units"] = "um"
        group("scan_7/sample", "NXsample")
        moved = group("scan_7/sample/transformations", "NXtransformations")
        for axis, column in (("x", 1), ("y", 0)):
            moved[axis] = (measured.positions_m[:, column] * 1e6).reshape(shape)
            moved[axis].attrs["units"] = "µm"


def write_ptychodus(folder, measured, *, indexes=None, product_indexes=None):
    """As `ptychodus.api.io` writes the two files."""
    folder.mkdir(exist_ok=True)
    indexes = np.arange(measured.n) if indexes is None else indexes
    with h5py.File(folder / "diffraction.h5", "w") as file:
        file.create_dataset("indexes", data=indexes, compression="lzf")
        patterns = file.create_dataset("patterns", data=measured.counts, compression="lzf")
        patterns.attrs["detector_pixel_width_m"] = measured.detector_pixel_m
        patterns.attrs["detector_pixel_height_m"] = measured.detector_pixel_m
        file.create_dataset(
            "bad_pixels", data=np.zeros(measured.shape, dtype=bool), compression="lzf"
        )
    with h5py.File(folder / "product.h5", "w") as file:
        file.attrs["name"] = "scan"
        file.attrs["comments"] = ""
        file.attrs["detector_object_distance_m"] = measured.distance_m
        file.attrs["photon_energy_eV"] = measured.energy_ev
        file.attrs["far_field"] = True
        file["probe_position_indexes"] = (
            np.arange(measured.n) if product_indexes is None else product_indexes
        )
        file["probe_position_y_m"], file["probe_position_x_m"] = measured.positions_m.T
        probe = file.create_dataset("probe", data=measured.probe[None].astype(complex))
        image = file.create_dataset("object", data=measured.truth.object[None].astype(complex))
        for item in (probe, image):
            item.attrs["pixel_height_m"] = item.attrs["pixel_width_m"] = measured.pixel_m
        image.attrs["center_x_m"] = image.attrs["center_y_m"] = 0.0
        file["object_layer_spacing_m"] = np.zeros(0)
    return folder


def write_ptychi(folder, measured):
    """As Pty-Chi's examples hold it; patterns compressed by Blosc, a probe at its own scale."""
    folder.mkdir(exist_ok=True)
    with h5py.File(folder / "scan_dp.hdf5", "w") as file:
        file.create_dataset(
            "dp", data=measured.counts, chunks=(8, *measured.shape), **hdf5plugin.Blosc(cname="lz4")
        )
    with h5py.File(folder / "scan_para.hdf5", "w") as file:
        image = file.create_dataset("object", data=measured.truth.object[None])
        image.attrs["pixel_height_m"] = image.attrs["pixel_width_m"] = measured.pixel_m
        file["probe"] = measured.probe[None] / measured.shape[0]
        file["probe_position_y_m"], file["probe_position_x_m"] = measured.positions_m.T
    return folder


def write_ptyd(path, measured, *, energy=None, propagation="farfield", chunks=3):
    """As `ptypy.core.data.PtyScan` writes it: chunks, keV, 'None' for a value that is not set."""
    with h5py.File(path, "w") as file:
        meta = file.create_group("meta")
        meta["version"], meta["label"] = "0.1", "None"
        meta["num_frames"] = measured.n
        meta["energy"] = measured.energy_ev / 1e3 if energy is None else energy
        meta["distance"] = measured.distance_m
        meta["psize"] = np.full(2, measured.detector_pixel_m)
        meta["shape"] = np.array(measured.shape)
        meta["center"] = np.array(measured.shape) / 2
        meta["propagation"] = propagation
        for number, part in enumerate(np.array_split(np.arange(measured.n), chunks)):
            chunk = file.create_group(f"chunks/{number}")
            chunk["data"] = measured.counts[part]
            chunk["positions"] = measured.positions_m[part]
            chunk["indices"] = part
            chunk["weights"] = np.zeros(0)


def write_ptylab(path, measured):
    """As PtyLab's preprocessing writes it."""
    with h5py.File(path, "w") as file:
        file.create_dataset("ptychogram", data=measured.counts.astype(np.float32))
        file["encoder"] = measured.positions_m
        file["dxd"] = (measured.detector_pixel_m,)
        file["zo"] = (measured.distance_m,)
        file["wavelength"] = (measured.wavelength_m,)
        file["Nd"] = (measured.shape[0],)


def write_nsls2(path, measured):
    """As the scripts of NSLS-II's 3-ID write it: amplitudes, [x; y] in micrometres."""
    with h5py.File(path, "w") as file:
        file["diffamp"] = np.sqrt(measured.counts.astype(np.float32))
        file["points"] = measured.positions_m.T[::-1] * 1e6
        file["lambda_nm"] = measured.wavelength_m * 1e9
        file["ccd_pixel_um"] = measured.detector_pixel_m * 1e6
        file["z_m"] = measured.distance_m
        file["angle"] = 0.0


def write_ptychonn(path, measured):
    """As PtychoNN's training data: patterns, phases, amplitudes, positions in object pixels."""
    labels = np.zeros((measured.n, 2, *measured.shape), dtype=np.float32)
    positions = measured.scan.positions_px
    np.savez(path, reciprocal=measured.counts.astype(np.float32), real=labels, scan=positions)

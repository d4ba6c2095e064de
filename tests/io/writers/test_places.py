"""Every writer leaves each pixel of the object, and each pattern, at its place in metres.

The place is computed from the fields of the file alone, as the specification of its format says,
with h5py and NumPy: no reader of this package, and no other program, takes part.
"""

from dataclasses import replace

import h5py
import numpy as np
import pytest
import tifffile

from ptycho_torch.data.scan import Instrument, Reconstruction, Scan
from ptycho_torch.io.run_dir import RunDir
from ptycho_torch.io.writers import (
    RESULT_WRITERS,
    SCAN_WRITERS,
    write_formats,
    write_reconstruction,
    write_scan,
)

ENERGY_EV, DISTANCE_M, DETECTOR_PIXEL_M = 8000.0, 1.5, (75e-6, 55e-6)
H_C_JOULE_M, E_COULOMB = 1.98644586e-25, 1.602176634e-19
POSITIONS_PX = np.array([[11.0, 12.25], [14.5, 20.0], [20.75, 13.5], [22.0, 23.0]])
ORIGIN = np.array([2.0, 3.0])
ROUNDED = 1e-7  # of a coordinate: the constants of the specification have nine digits

# Pattern and object, even and odd; a half pixel that is lost shows in one of them.
SIZES = [((16, 16), (28, 32)), ((15, 16), (29, 32)), ((16, 17), (28, 31)), ((15, 17), (29, 31))]


def pixel_m(shape):
    """Object pixel of far-field patterns: wavelength * distance / size of the detector."""
    reach = H_C_JOULE_M / (ENERGY_EV * E_COULOMB) * DISTANCE_M
    return reach / (np.array(shape) * DETECTOR_PIXEL_M)


@pytest.fixture(params=SIZES, ids=lambda sizes: "x".join(str(n) for pair in sizes for n in pair))
def result(request):
    pattern, shape = request.param
    rng = np.random.default_rng(0)
    image, probe = (
        (rng.normal(size=(*size, 2)) @ [1, 1j]).astype(np.complex64)
        for size in (shape, (1, *pattern))
    )
    return Reconstruction(
        object=image,
        coverage=np.ones(shape, dtype=np.float32),
        origin_yx=ORIGIN,
        probe=probe,
        positions_px=POSITIONS_PX,
        scan_index=np.array([3, 5, 4, 9]),
        pixel_size_m=tuple(pixel_m(pattern)),
        instrument=Instrument(ENERGY_EV, DISTANCE_M, DETECTOR_PIXEL_M),
    )


@pytest.fixture
def scan(result):
    shape = result.probe.shape[1:]
    mask = np.ones(shape, dtype=bool)
    mask[2, 3] = mask[-1, 0] = False
    counts = np.random.default_rng(1).poisson(5, (len(POSITIONS_PX), *shape)).astype(np.uint32)
    return Scan(
        counts=counts * mask,
        positions_px=POSITIONS_PX,
        probe=result.probe,
        mask=mask,
        scan_index=result.scan_index,
        pixel_size_m=result.pixel_size_m,
        instrument=result.instrument,
    )


def about_the_middle(shape, middle_m, size_m):
    """Places of the pixels of an image whose centre is at a place in metres, (Y,) and (X,)."""
    return [
        middle + (np.arange(count) + 0.5 - count / 2) * size
        for count, middle, size in zip(shape, middle_m, size_m, strict=True)
    ]


def beam_of_cxi(file):
    """Positions of the beam: it moves against the sample, in the basis of the detector."""
    detector = file["/entry_1/instrument_1/detector_1"]
    basis = detector["basis_vectors"][()]  # columns: to the next row, to the next column
    along = basis / np.linalg.norm(basis, axis=0)
    return -file["/entry_1/sample_1/geometry_1/translation"][()] @ along


def image_of_npz(run):
    with np.load(run.reconstruction) as file:
        size, origin = file["pixel_size_m"], file["origin_yx"]
        image = file["object"]
        middle = (origin + np.array(image.shape) / 2) * size
        return image, about_the_middle(image.shape, middle, size), file["positions_px"] * size


def image_of_product(run):
    with h5py.File(run.product) as file:
        image, about = file["object"][()][0], file["object"].attrs
        middle, size = (
            [about[name.format(axis)] for axis in axes]
            for name, axes in (("center_{}_m", "yx"), ("pixel_{}_m", ("height", "width")))
        )
        positions = np.stack([file[f"probe_position_{axis}_m"][()] for axis in "yx"], axis=1)
        return image, about_the_middle(image.shape, middle, size), positions


def image_of_cxi(run):
    with h5py.File(run.cxi) as file:
        stored, own = file["entry_1/image_2"], file["entry_1/ptychodus"]
        image = stored["data"][()][0]
        width, height, _ = stored["image_size"][()]
        size = np.array([height, width]) / image.shape
        middle = [own[f"object_center_{axis}_m"][()] for axis in "yx"]
        return image, about_the_middle(image.shape, middle, size), beam_of_cxi(file)


IMAGES = {"npz": image_of_npz, "ptychodus": image_of_product, "cxi": image_of_cxi}


def test_every_format_of_an_image_is_held_by_these_laws():
    assert set(IMAGES) == {"npz", *RESULT_WRITERS} - {"tiff"}  # it has no place for the place
    assert set(SCANS) == set(SCAN_WRITERS)


@pytest.mark.parametrize("format_name", IMAGES)
def test_each_pixel_of_the_object_is_at_its_place(format_name, tmp_path, result):
    run = RunDir(tmp_path)
    if format_name == "npz":
        write_reconstruction(run.reconstruction, result)
    else:
        write_formats(run, result, [format_name])
    image, places_m, positions_m = IMAGES[format_name](run)
    assert np.array_equal(image, result.object)
    size = pixel_m(result.probe.shape[1:])
    for axis in (0, 1):
        # The patch of position p begins at p - H/2, so that the middle of pixel i lies at i + 1/2.
        expected = ORIGIN[axis] + np.arange(image.shape[axis]) + 0.5 - POSITIONS_PX[:, [axis]]
        found = (places_m[axis] - positions_m[:, [axis]]) / size[axis]
        assert found == pytest.approx(expected, rel=ROUNDED, abs=1e-5)


def test_a_tiff_has_the_size_of_a_pixel(tmp_path, result):
    run = RunDir(tmp_path)
    write_formats(run, result, ["tiff"])
    with tifffile.TiffFile(run.amplitude_tiff) as file:
        tags = file.pages[0].tags
        across, down = (tags[name].value for name in ("XResolution", "YResolution"))
        assert tags["ResolutionUnit"].value == 3  # pixels per centimetre
    size = [0.01 * denominator / numerator for numerator, denominator in (down, across)]
    assert size == pytest.approx(pixel_m(result.probe.shape[1:]), rel=1e-3)  # a rational number


def scan_of_npz(path):
    with np.load(path) as file:
        positions = np.stack([file["ycoords"], file["xcoords"]], axis=1)
        return file["diff3d"], positions, ~file["bad_pixels"], file["scan_index"]


def scan_of_cxi(path):
    with h5py.File(path) as file:
        detector = file["/entry_1/instrument_1/detector_1"]
        patterns = file["/entry_1/data_1/data"][()]
        wavelength_m = file["/entry_1/instrument_1/source_1/wavelength"][()]
        photon_j = file["/entry_1/instrument_1/source_1/energy"][()]
        assert photon_j * wavelength_m == pytest.approx(H_C_JOULE_M, rel=ROUNDED)
        pitch = np.array([detector["y_pixel_size"][()], detector["x_pixel_size"][()]])
        assert np.linalg.norm(detector["basis_vectors"][()], axis=0) == pytest.approx(pitch)
        size = wavelength_m * detector["distance"][()] / (pitch * patterns.shape[1:])
        return patterns, beam_of_cxi(file) / size, detector["mask"][()] == 0, None


def scan_of_ptychodus(path):
    with h5py.File(path / "diffraction.h5") as file:
        patterns, mask, index = file["patterns"][()], ~file["bad_pixels"][()], file["indexes"][()]
        about = file["patterns"].attrs
        pitch = [about[f"detector_pixel_{side}_m"] for side in ("height", "width")]
    with h5py.File(path / "product.h5") as file:
        photon_j = file.attrs["photon_energy_eV"] * E_COULOMB
        reach = H_C_JOULE_M / photon_j * file.attrs["detector_object_distance_m"]
        size = reach / (np.array(pitch) * patterns.shape[1:])
        positions = np.stack([file[f"probe_position_{axis}_m"][()] for axis in "yx"], axis=1)
        assert np.array_equal(file["probe_position_indexes"][()], index)
        empty, about = file["object"], file["object"].attrs
        middle = np.array([about["center_y_m"], about["center_x_m"]])
        corners = (positions - middle) / size + np.array(empty.shape[1:]) / 2
        corners -= np.array(patterns.shape[1:]) / 2  # every patch lies on the object
        assert empty.dtype == np.complex64
        assert corners.min() >= 0
        assert (corners + patterns.shape[1:] <= empty.shape[1:]).all()
    return patterns, positions / size, mask, index


def scan_of_ptypy(path):
    with h5py.File(path) as file:
        meta, chunk = file["meta"], file["chunks/0"]
        patterns = chunk["data"][()]
        photon_j = 1e3 * meta["energy"][()] * E_COULOMB  # it is in keV
        reach = H_C_JOULE_M / photon_j * meta["distance"][()]
        size = reach / (meta["psize"][()] * meta["shape"][()])
        assert np.array_equal(meta["shape"][()], patterns.shape[1:])
        assert np.array_equal(meta["center"][()], np.array(patterns.shape[1:]) // 2)
        assert meta["num_frames"][()] == len(patterns)
        assert meta["propagation"][()] == b"farfield"
        weights = chunk["weights"][()]
        assert (weights == meta["weight2d"][()]).all()
        return patterns, chunk["positions"][()] / size, weights[0] == 1, chunk["indices"][()]


SCANS = {
    "npz": scan_of_npz,
    "cxi": scan_of_cxi,
    "ptychodus": scan_of_ptychodus,
    "ptyd": scan_of_ptypy,
}


@pytest.mark.parametrize("format_name", SCANS)
def test_each_pattern_is_at_its_place(format_name, tmp_path, scan):
    path = tmp_path / f"scan.{format_name}"
    write_scan(path, scan, format_name=format_name)
    patterns, positions_px, mask, index = SCANS[format_name](path)
    assert np.array_equal(patterns, scan.counts)
    assert positions_px == pytest.approx(POSITIONS_PX, rel=ROUNDED)
    assert np.array_equal(mask, scan.mask)
    assert index is None or np.array_equal(index, scan.scan_index)


# What Ptychodus asks for and a reconstruction does not hold.
UNKNOWN = ("exposure_time_s", "mass_attenuation_m2_per_kg", "tomography_angle_deg")


def test_a_probe_in_a_product_has_its_photons_and_its_components(tmp_path, result):
    """The probe of exposure n is the sum of the stored ones, with its row of weights."""
    components = result.probe[None] * np.array([0.5, 0.25j])[:, None, None, None]
    weights = np.random.default_rng(2).normal(size=(4, 2)).astype(np.float32)
    changing = replace(
        result, probe_components=components.astype(np.complex64), probe_weights=weights
    )
    run = RunDir(tmp_path)
    write_formats(run, changing, ["ptychodus"])
    with h5py.File(run.product) as file:
        stored, of_each = file["probe"][()], file["opr_weights"][()]
        photons = file.attrs["probe_photon_count"]
        unknown = {name: file.attrs[name] for name in UNKNOWN}
        sizes = [file["probe"].attrs[f"pixel_{side}_m"] for side in ("height", "width")]
    expected = result.probe[None] * (1 + weights @ [0.5, 0.25j])[:, None, None, None]
    assert unknown == dict.fromkeys(unknown, 0)
    assert np.tensordot(of_each, stored, axes=1) == pytest.approx(expected, rel=1e-5)
    assert photons == pytest.approx(np.sum(np.abs(result.probe) ** 2), rel=1e-5)
    assert sizes == pytest.approx(pixel_m(result.probe.shape[1:]), rel=ROUNDED)

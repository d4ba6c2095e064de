"""Details of single formats: units, masks, darks, signs, pairs, links."""

import dataclasses

import h5py
import numpy as np
import pytest
from beamline_files import (
    write_cxi,
    write_nexus,
    write_ptychi,
    write_ptychodus,
    write_ptychonn,
    write_ptyd,
    write_ptylab,
)

from ptycho_torch.config import ReadingOptions
from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.errors import InputError
from ptycho_torch.io.readers import read_scan, scans_in
from ptycho_torch.io.writers import ptychodus_writer


@pytest.fixture
def options(probe_file):
    return ReadingOptions(probe=probe_file)


def change(path, key, value, **attributes):
    with h5py.File(path, "a") as file:
        if key in file:
            del file[key]
        file[key] = value
        file[key].attrs.update(attributes)


def moved(scan):
    return scan.positions_px - scan.positions_px.mean(axis=0)


def test_cxi_energy_is_in_joules(tmp_path, measured, options):
    path = tmp_path / "scan.cxi"
    write_cxi(path, measured)
    with h5py.File(path, "a") as file:
        del file["entry_1/instrument_1/source_1/wavelength"]
    assert read_scan(path, options=options).instrument.energy_ev == pytest.approx(
        measured.energy_ev, rel=1e-6
    )
    change(path, "entry_1/instrument_1/source_1/energy", 8.0, units="keV")
    assert read_scan(path, options=options).instrument.energy_ev == pytest.approx(8000)
    change(path, "entry_1/instrument_1/source_1/energy", 8000 * 1.602176634e-19)
    assert read_scan(path, options=options).instrument.energy_ev == pytest.approx(8000)


def test_an_unknown_unit_is_named(tmp_path, measured, options):
    path = tmp_path / "scan.cxi"
    write_cxi(path, measured)
    change(path, "entry_1/instrument_1/detector_1/distance", 1.2, units="furlong")
    with pytest.raises(InputError, match="'furlong'"):
        read_scan(path, options=options)


def test_cxi_basis_vectors_turn_the_positions(tmp_path, measured, options):
    path = tmp_path / "scan.cxi"
    write_cxi(path, measured)
    before = moved(read_scan(path, options=options))
    pixel = measured.detector_pixel_m
    change(
        path,
        "entry_1/instrument_1/detector_1/basis_vectors",
        np.array([[0, pixel, 0], [-pixel, 0, 0]]),
    )
    assert moved(read_scan(path, options=options)) == pytest.approx(before * [-1, 1], abs=1e-6)
    change(
        path,
        "entry_1/instrument_1/detector_1/basis_vectors",
        np.array([[-pixel, 0, 0], [0, -pixel, 0]]),
    )
    assert moved(read_scan(path, options=options)) == pytest.approx(before[:, ::-1], abs=1e-6)
    with h5py.File(path, "a") as file:
        del file["entry_1/instrument_1/detector_1/basis_vectors"]
    assert moved(read_scan(path, options=options)) == pytest.approx(before, abs=1e-6)


def test_cxi_mask_dark_and_negative_values(tmp_path, measured, options):
    path = tmp_path / "scan.cxi"
    write_cxi(path, measured)
    mask = np.zeros(measured.shape, dtype=np.uint32)
    mask[3, 4], mask[5, 6] = 1, 0x00001000
    change(path, "entry_1/instrument_1/detector_1/mask", mask)
    dark = np.full((4, *measured.shape), 10.0)
    change(path, "entry_1/instrument_1/detector_1/data_dark", dark)
    with h5py.File(path, "a") as file:
        file["entry_1/instrument_1/detector_1/data"][...] = (
            measured.counts + 10 - 3 * (measured.counts == 0)
        )
    scan = read_scan(path, options=options)
    assert not scan.mask[3, 4]
    assert scan.mask.sum() == scan.mask.size - 1
    expected = np.where(scan.mask, measured.counts, 0)
    assert np.array_equal(scan.counts[:], expected)


def test_cxi_corner_gives_the_center(tmp_path, measured, options):
    path = tmp_path / "scan.cxi"
    write_cxi(path, measured)
    pixel = measured.detector_pixel_m
    change(
        path,
        "entry_1/instrument_1/detector_1/corner_position",
        [14 * pixel, 13 * pixel, measured.distance_m],
    )
    scan = read_scan(path, options=options)
    assert any("(13, 14)" in decision for decision in scan.decisions)
    expected = np.zeros_like(measured.counts)
    expected[:, 3:, 2:] = measured.counts[:, :-3, :-2]
    assert np.array_equal(scan.counts[:], expected)
    assert not scan.mask[:3].any()
    assert scan.mask[3:, 2:].all()


def near_field_file(path, measured, distance_m):
    """A CXI file with pixels of 0.65 micrometres and light that fills the detector."""
    write_cxi(path, measured)
    change(path, "entry_1/instrument_1/detector_1/distance", distance_m)
    for axis in "xy":
        change(path, f"entry_1/instrument_1/detector_1/{axis}_pixel_size", 0.65e-6)
    with h5py.File(path, "a") as file:
        del file["entry_1/instrument_1/detector_1/basis_vectors"]
        file["entry_1/instrument_1/detector_1/data"][...] = np.random.default_rng(0).poisson(
            200, measured.counts.shape
        )
    return path


def test_a_near_field_scan_has_a_fresnel_number(tmp_path, measured, options):
    """pixel^2 / (wavelength z), for 8 keV and 5 cm."""
    path = near_field_file(tmp_path / "near.cxi", measured, 0.05)
    scan = read_scan(path, options=options)
    expected = 0.65e-6**2 / (1.549802e-10 * 0.05)
    assert scan.fresnel_number == pytest.approx((expected, expected), rel=1e-5)
    assert scan.pixel_size_m == pytest.approx((0.65e-6, 0.65e-6))
    far = dataclasses.replace(options, propagator="far_field")
    assert read_scan(path, options=far).fresnel_number is None


@pytest.mark.parametrize("distance_m", [1e-200, 1e200])
def test_a_size_beyond_any_microscope_is_refused_with_its_flag(
    tmp_path, measured, options, distance_m
):
    """Its square is no float64."""
    write_cxi(tmp_path / "scan.cxi", measured)
    change(tmp_path / "scan.cxi", "entry_1/instrument_1/detector_1/distance", distance_m)
    with pytest.raises(InputError, match="give the right one with --distance_m"):
        read_scan(tmp_path / "scan.cxi", options=options)


def test_a_near_field_scan_is_not_cropped(tmp_path, measured, options):
    path = near_field_file(tmp_path / "near.cxi", measured, 0.05)
    with pytest.raises(InputError, match="leave --crop and --bin out"):
        read_scan(path, options=dataclasses.replace(options, crop=16))


def test_a_near_field_scan_whose_numbers_do_not_fit_is_refused(tmp_path, measured, options):
    path = near_field_file(tmp_path / "near.cxi", measured, 1.0)
    with pytest.raises(InputError, match="near-field"):
        read_scan(path, options=options)


def test_ptypy_and_ptychodus_may_say_near_field(tmp_path, measured, options):
    write_ptyd(tmp_path / "near.ptyd", measured, propagation="nearfield")
    write_ptychodus(tmp_path / "pair", measured)
    with h5py.File(tmp_path / "pair" / "product.h5", "a") as file:
        file.attrs["far_field"] = False
    assert read_scan(tmp_path / "near.ptyd", options=options).fresnel_number is not None
    with pytest.raises(InputError, match="near-field"):  # its object pixel is that of the far field
        read_scan(tmp_path / "pair", options=options)


@pytest.mark.parametrize("raster", [True, False])
def test_nexus_takes_the_energy_of_the_beam(tmp_path, measured, options, raster):
    path = tmp_path / "scan.nxs"
    write_nexus(path, measured, raster=raster)
    scan = read_scan(path, options=options)
    assert scan.instrument.energy_ev == pytest.approx(8000)
    assert scan.counts.shape == measured.counts.shape
    assert np.array_equal(scan.counts[11:13], measured.counts[11:13])


def test_ptychodus_pairs_by_index(tmp_path, measured):
    indexes = np.arange(measured.n) + 5
    indexes[0] = 900
    product = np.arange(measured.n) + 5
    product[1] = 7  # twice: the mean position counts
    folder = write_ptychodus(tmp_path / "pair", measured, indexes=indexes, product_indexes=product)
    scan = read_scan(folder)
    assert scan.scan_index.tolist() == list(range(7, measured.n + 5))
    assert np.array_equal(scan.counts[:], measured.counts[2:])
    mean = (measured.positions_m[1] + measured.positions_m[2]) / 2 / measured.pixel_m
    assert scan.positions_px[0] == pytest.approx(mean)
    assert any("have a partner" in decision for decision in scan.decisions)


@pytest.mark.parametrize("write", [write_ptychodus, write_ptychi])
def test_a_pair_is_a_folder_two_paths_or_a_comma(write, tmp_path, measured):
    folder = write(tmp_path / "pair", measured)
    first, second = sorted(folder.iterdir())
    (folder / "notes.txt").write_text("not a scan")
    expected = read_scan(folder).positions_px
    for path in ([first, second], [second, first], f"{first},{second}"):
        assert np.array_equal(read_scan(path).positions_px, expected)
    for half in (first, second):
        with pytest.raises(InputError, match="is needed too"):
            read_scan(half)
        with pytest.raises(InputError, match="is needed too"):
            read_scan([half, half])
    second.unlink()
    with pytest.raises(InputError, match="expected the two files"):
        read_scan(folder)


@pytest.mark.parametrize("as_attribute", [True, False])
def test_a_probe_that_changes_comes_back_from_a_ptychodus_product(tmp_path, as_attribute):
    """The probe of every exposure, but for the scale, which the counts set."""
    made = simulate_scan(photons=1e5, n_side=4, pattern_size=32).scan
    rng = np.random.default_rng(0)
    components = (0.1 * rng.standard_normal((2, 1, 32, 32)) * np.abs(made.probe)).astype(complex)
    scan = dataclasses.replace(
        made,
        probe_components=components.astype(np.complex64),
        probe_weights=rng.standard_normal((16, 2)).astype(np.float32),
    )
    ptychodus_writer.write_scan(tmp_path / "pair", scan)
    if as_attribute:
        with h5py.File(tmp_path / "pair" / "product.h5", "a") as file:
            file["probe"].attrs["opr_weights"] = file["opr_weights"][()]
            del file["opr_weights"]
    again = read_scan(tmp_path / "pair")
    points = np.arange(16)
    expected, found = scan.probes_of(points), again.probes_of(points)
    factor = np.vdot(expected, found) / np.vdot(expected, expected)
    assert np.allclose(found, factor * expected, atol=1e-4 * float(np.abs(found).max()))


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        (np.ones((3, 1)), "expected real numbers of shape"),
        (np.full((100, 1), np.nan), "not finite"),
        (np.ones((100, 4)), "and its weights have"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, measured, weights, sentence):
    folder = write_ptychodus(tmp_path / "pair", measured)
    if len(weights) == 100:
        weights = np.repeat(weights[:1], measured.n, axis=0)
    with h5py.File(folder / "product.h5", "a") as file:
        file["opr_weights"] = weights
    with pytest.raises(InputError, match=sentence):
        read_scan(folder)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e300])
@pytest.mark.filterwarnings("error")
def test_a_changing_probe_that_is_not_finite_is_refused(tmp_path, measured, value):
    folder = write_ptychodus(tmp_path / "pair", measured)
    with h5py.File(folder / "product.h5", "a") as file:
        probe = file["probe"][()].astype(np.complex128)
        probe[0, 0, 3, 3] = value
        del file["probe"]
        file["probe"] = probe
        file["opr_weights"] = np.full((measured.n, 1), 1e200)
    with pytest.raises(InputError, match=r"probe has a total power of"):
        read_scan(folder)


@pytest.mark.filterwarnings("error")
def test_weights_of_a_changing_probe_beyond_float32_are_refused(tmp_path, measured):
    folder = write_ptychodus(tmp_path / "pair", measured)
    with h5py.File(folder / "product.h5", "a") as file:
        weights = np.ones((measured.n, 1))
        weights[0] = 1e300
        file["opr_weights"] = weights
    with pytest.raises(InputError, match=r"weights of them are up to 9.8e.299"):
        read_scan(folder)


def test_older_ptychodus_names_are_read(tmp_path, measured):
    folder = write_ptychodus(tmp_path / "pair", measured)
    with h5py.File(folder / "product.h5", "a") as file:
        del file.attrs["photon_energy_eV"]
        file.attrs["probe_energy_eV"] = 8000.0
        file["probe"].attrs["opr_weights"] = np.ones((measured.n, 1))
    assert read_scan(folder).instrument.energy_ev == 8000


def test_a_chunk_in_another_file_is_followed_and_missed(tmp_path, measured, options):
    path = tmp_path / "scan.ptyd"
    write_ptyd(path, measured)
    with h5py.File(path, "a") as file, h5py.File(tmp_path / "chunk1.ptyd", "w") as other:
        file.copy("chunks/1", other, name="1")
        del file["chunks/1"]
        file["chunks/1"] = h5py.ExternalLink("chunk1.ptyd", "/1")
    assert np.array_equal(read_scan(path, options=options).counts[:], measured.counts)
    (tmp_path / "chunk1.ptyd").unlink()
    with pytest.raises(InputError, match=r"chunks/1 in chunk1\.ptyd"):
        read_scan(path, options=options)


def test_ptyd_weights_indices_and_none(tmp_path, measured, options):
    path = tmp_path / "scan.ptyd"
    write_ptyd(path, measured, chunks=2)
    with h5py.File(path, "a") as file:
        half = len(file["chunks/0/indices"])
        weights = np.ones((half, *measured.shape))
        weights[3, 1, 2] = 0
        del file["chunks/0/weights"]
        file["chunks/0/weights"] = weights
        file["chunks/0/indices"][...] = np.arange(half) + 100
    scan = read_scan(path, options=options)
    assert not scan.mask[1, 2]
    assert scan.mask.sum() == scan.mask.size - 1
    assert scan.scan_index[0] == half
    assert scan.scan_index[-1] == 99 + half
    del scan  # closes the file
    change(path, "meta/energy", "None")
    with pytest.raises(InputError, match="--energy_ev"):
        read_scan(path, options=options)


@pytest.mark.parametrize(
    "weights", [h5py.Empty("f8"), np.zeros(0), np.ones((3, 3))], ids=["null", "none", "other size"]
)
@pytest.mark.parametrize("place", ["chunks/1/weights", "meta/weight2d"])
def test_ptyd_weights_that_do_not_fit_are_left_out(place, weights, tmp_path, measured, options):
    path = tmp_path / "scan.ptyd"
    write_ptyd(path, measured, chunks=2)
    change(path, place, weights)
    scan = read_scan(path, options=options)
    assert scan.mask.all()
    said = [one for one in scan.decisions if "was left out" in one]
    assert said == (
        [f"/{place} has shape (3, 3) and was left out"] if weights.shape == (3, 3) else []
    )


@pytest.mark.parametrize("number", range(8))
def test_ptylab_orientations(tmp_path, measured, options, number):
    path = tmp_path / "scan.hdf5"
    write_ptylab(path, measured)
    change(path, "orientation", number)
    expected = np.swapaxes(measured.counts, 1, 2) if number >= 4 else measured.counts
    expected = expected[:, ::-1] if number & 2 else expected
    expected = expected[..., ::-1] if number & 1 else expected
    assert np.array_equal(read_scan(path, options=options).counts[:], expected)


MAP = """
patterns: /raw/frames
values: counts
positions_um: /raw/xy
positions_order: xy
energy_kev: 8.0
distance_m: /raw/z
detector_pixel_um: 75
probe: /raw/probe
bad_pixels: /raw/bad
"""


def write_own(path, measured):
    with h5py.File(path, "w") as file:
        file["raw/frames"] = measured.counts
        file["raw/xy"] = measured.positions_m[:, ::-1].T * 1e6
        file["raw/z"] = measured.distance_m * 1e3
        file["raw/z"].attrs["units"] = "mm"
        file["raw/probe"] = measured.probe
        file["raw/bad"] = np.zeros(measured.shape, dtype=bool)


def test_any_hdf5_file_is_read_by_a_map(tmp_path, measured):
    path, layout = tmp_path / "own.h5", tmp_path / "map.yaml"
    write_own(path, measured)
    layout.write_text(MAP)
    scan = read_scan(path, options=ReadingOptions(map=layout))
    assert np.array_equal(scan.counts[:], measured.counts)
    assert moved(scan) == pytest.approx(measured.positions_m / measured.pixel_m)
    assert scan.pixel_size_m == pytest.approx((measured.pixel_m, measured.pixel_m))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("patterns: /raw/other", "/raw/other"),
        ("positions_um: /raw/xy", "patterns"),
        ("patterns: /raw/frames\nspeed: 3", "'speed' is not known"),
        ("patterns: /raw/frames", "positions_m"),
        ("patterns: [", "not YAML"),
        (
            "patterns: /raw/frames\nvalues: photons",
            "values is photons; expected counts or amplitude$",
        ),
        (
            "patterns: /raw/frames\nradiation: neutrons",
            "radiation is neutrons; expected photons or",
        ),
        ("patterns: /raw/frames\npositions_order: zx", "positions_order is zx; expected yx or xy$"),
        *(
            (f"patterns: /raw/frames\n{key}: 3", f"{key} is 3; expected its place in the file")
            for key in ("probe", "mask", "bad_pixels", "dark", "index")
        ),
    ],
)
def test_a_wrong_map_is_named(tmp_path, measured, text, message):
    path, layout = tmp_path / "own.h5", tmp_path / "map.yaml"
    write_own(path, measured)
    layout.write_text(text)
    with pytest.raises(InputError, match=message):
        read_scan(path, options=ReadingOptions(map=layout))


def test_a_folder_of_scans_means_its_scans_and_a_pair_stays_one(tmp_path, measured):
    folder = tmp_path / "scans"
    folder.mkdir()
    write_ptychonn(folder / "b.npz", measured)
    write_cxi(folder / "a.dat", measured)
    np.savez(folder / "truth.npz", object=np.ones((3, 3)))
    (folder / "notes.txt").write_text("not a scan")
    assert [path.name for path in scans_in(folder)] == ["a.dat", "b.npz"]
    write_ptychodus(tmp_path / "pair", measured)
    assert scans_in(tmp_path / "pair") == [tmp_path / "pair"]
    assert scans_in(folder / "b.npz") == [folder / "b.npz"]
    with pytest.raises(InputError, match="without scans"):
        scans_in(tmp_path)

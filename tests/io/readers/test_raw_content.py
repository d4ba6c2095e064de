"""Everything that a format can state reaches the content of the file, in its own units.

Each format is written twice: with all that it may hold, every number another one and the patterns
not square, and with nothing that may be left out. Then every field is compared.
"""

import dataclasses
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from ptycho_torch.data.raster import Raster
from ptycho_torch.data.scan import Instrument
from ptycho_torch.data.wavelength import energy_of
from ptycho_torch.io.readers.cxi import PIXEL_HAS_SIGNAL, read_cxi
from ptycho_torch.io.readers.empad import COLUMNS, PATTERN_ROWS, PIXEL_M, ROWS, read_empad
from ptycho_torch.io.readers.hdf5_map import read_hdf5_map
from ptycho_torch.io.readers.nexus import read_nexus
from ptycho_torch.io.readers.npz import read_npz
from ptycho_torch.io.readers.nsls2 import read_nsls2
from ptycho_torch.io.readers.ptychi import read_ptychi
from ptycho_torch.io.readers.ptychodus import read_ptychodus
from ptycho_torch.io.readers.ptychodus_training import read_training_data
from ptycho_torch.io.readers.ptychonn import LARGEST_SCAN_M, read_ptychonn
from ptycho_torch.io.readers.ptylab import read_ptylab
from ptycho_torch.io.readers.ptypy import read_ptyd
from ptycho_torch.io.readers.raw_scan import RawScan

N, HEIGHT, WIDTH = 6, 10, 8
RNG = np.random.default_rng(0)
COUNTS = RNG.integers(0, 50, (N, HEIGHT, WIDTH)).astype(np.uint16)
POSITIONS_M = RNG.normal(0, 1e-6, (N, 2))
PROBE = RNG.normal(size=(2, HEIGHT, WIDTH)) + 1j * RNG.normal(size=(2, HEIGHT, WIDTH))
BAD = RNG.random((HEIGHT, WIDTH)) < 0.2
ENERGY_EV, DISTANCE_M, WAVELENGTH_M = 8100.0, 1.3, 1.4e-10
PIXEL_Y, PIXEL_X = 55e-6, 75e-6  # of the detector
OBJECT_Y, OBJECT_X = 2e-8, 3e-8
INDEX = np.array([11, 13, 17, 19, 23, 29])


def assert_content(raw, **expected):
    """Every field is as expected, and as the class has it where nothing is expected."""
    for each in dataclasses.fields(RawScan):
        found = getattr(raw, each.name)
        if each.name not in expected:
            default = each.default
            if default is dataclasses.MISSING and each.default_factory is not dataclasses.MISSING:
                default = each.default_factory()
            assert default is not dataclasses.MISSING, f"{each.name} is not compared"
            assert found == default, each.name
            continue
        wanted = expected[each.name]
        if isinstance(wanted, Instrument):
            for one in dataclasses.fields(Instrument):
                values = getattr(found, one.name), getattr(wanted, one.name)
                assert values[0] == (
                    values[1] if values[1] is None or isinstance(values[1], str)
                    else pytest.approx(values[1], rel=1e-6)
                ), one.name  # fmt: skip
        elif isinstance(wanted, np.ndarray):
            assert found.shape == wanted.shape, each.name
            np.testing.assert_allclose(found[:], wanted, rtol=1e-6, err_msg=each.name)
        elif isinstance(wanted, tuple) and wanted and isinstance(wanted[0], float):
            assert found == pytest.approx(wanted), each.name
        else:
            assert found == wanted, each.name


def common(path, key, **expected):
    return {
        "source": str(path), "patterns": COUNTS, "patterns_key": key, "values": "counts",
        "positions": POSITIONS_M, "positions_unit": "m", **expected,
    }  # fmt: skip


@pytest.fixture
def path(tmp_path):
    return tmp_path / "scan.h5"


@pytest.mark.parametrize("electrons", [True, False])
def test_cxi(path, electrons):
    dark = RNG.random((2, HEIGHT, WIDTH))
    dark[0, 2, 3] = np.nan
    corner = np.array([3.2 * PIXEL_X, 4.7 * PIXEL_Y, DISTANCE_M])
    bits = np.where(BAD, 2, 0)
    bits[0, 0] = PIXEL_HAS_SIGNAL
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry_1")
        entry.attrs["far_field"], entry.attrs["object_pixel_m"] = 0, (OBJECT_Y, OBJECT_X)
        source = entry.create_group("instrument_1/source_1")
        source["wavelength"], source["energy"] = WAVELENGTH_M, 1.0
        source["probe"] = "Electron" if electrons else "x-ray"
        detector = entry.create_group("instrument_1/detector_1")
        detector["distance"] = DISTANCE_M
        detector["basis_vectors"] = np.array([[0, -PIXEL_Y, 0], [-PIXEL_X, 0, 0]]).T
        detector["corner_position"] = corner
        detector["mask"], detector["data_dark"] = bits, dark
        entry["data_1/data"] = COUNTS
        entry["data_1/translation"] = np.pad(POSITIONS_M[:, ::-1], ((0, 0), (0, 1)))
        entry["image_1/data"] = PROBE
        entry["instrument_1/source_1/illumination"] = 2 * PROBE
    raw = read_cxi([path])
    good = ~BAD
    good[0, 0] = True
    mean = np.nanmean(dark, axis=0)
    radiation = "electrons" if electrons else "photons"
    energy = energy_of(WAVELENGTH_M, radiation)
    assert_content(
        raw,
        **common(path, "/entry_1/data_1/data"),
        probe=PROBE, probe_key="/entry_1/image_1/data", mask=good, dark=mean,
        negative_is_zero=True, center=(4.7, 3.2),
        instrument=Instrument(energy, DISTANCE_M, (PIXEL_Y, PIXEL_X), radiation),
        far_field=False, object_pixel_m=(OBJECT_Y, OBJECT_X), wavelength_stated=True,
        notes=("the detector's basis vectors give the direction of the positions",),
    )  # fmt: skip


@pytest.mark.parametrize("place", ["sample_1/geometry_1", "instrument_1/detector_1"])
def test_cxi_with_what_is_needed_alone(path, place):
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry_1")
        detector = entry.create_group("instrument_1/detector_1")
        detector["x_pixel_size"], detector["y_pixel_size"] = PIXEL_X, PIXEL_Y
        detector["data"] = COUNTS
        entry[f"{place}/translation"] = POSITIONS_M[:, ::-1]
        entry["instrument_1/source_1/illumination"] = PROBE.real  # no light
    assert_content(
        read_cxi([path]),
        **common(path, "/entry_1/instrument_1/detector_1/data"),
        negative_is_zero=True, instrument=Instrument(detector_pixel_m=(PIXEL_Y, PIXEL_X)),
    )  # fmt: skip
    with h5py.File(path, "r+") as file:
        entry = file["entry_1"]
        del entry["instrument_1/source_1/illumination"]
        entry["instrument_1/source_1/illumination"] = PROBE
        entry["instrument_1/source_1/energy"] = ENERGY_EV * 1.602176634e-19
        del entry["instrument_1/detector_1/x_pixel_size"]
    assert_content(
        read_cxi([path]),
        **common(path, "/entry_1/instrument_1/detector_1/data"),
        probe=PROBE, probe_key="/entry_1/instrument_1/source_1/illumination",
        negative_is_zero=True,
        instrument=Instrument(ENERGY_EV, detector_pixel_m=(PIXEL_Y, PIXEL_Y)),
    )  # fmt: skip


def nexus(file):
    """The classes of NXcxi_ptycho, empty."""
    names = {
        "entry": ("scan", "NXentry"), "instrument": ("scan/beamline", "NXinstrument"),
        "source": ("scan/beamline/ring", "NXsource"), "beam": ("scan/sample/light", "NXbeam"),
        "detector": ("scan/beamline/eiger", "NXdetector"), "sample": ("scan/sample", "NXsample"),
        "moved": ("scan/sample/moves", "NXtransformations"), "data": ("scan/data", "NXdata"),
    }  # fmt: skip
    made = {}
    for name, (where, kind) in names.items():
        made[name] = file.require_group(where)
        made[name].attrs["NX_class"] = kind
    return SimpleNamespace(**made)


def test_nexus(path):
    dark = RNG.random((HEIGHT, WIDTH))
    with h5py.File(path, "w") as file:
        made = nexus(file)
        made.entry["definition"] = "NXcxi_ptycho"
        made.data["frames"], made.data.attrs["signal"] = COUNTS, "frames"
        made.source["probe"] = "electron"
        made.beam["incident_energy"] = ENERGY_EV / 1e3
        made.beam["incident_energy"].attrs["units"] = "keV"
        made.detector["pixel_mask"], made.detector["darkfield"] = BAD, dark
        made.detector["distance"] = DISTANCE_M
        made.detector["y_pixel_size"], made.detector["x_pixel_size"] = PIXEL_Y, PIXEL_X
        made.detector["beam_center_y"], made.detector["beam_center_x"] = 4.5, 3.5
        made.detector["corner_position"] = np.array([PIXEL_X, PIXEL_Y, DISTANCE_M])
        made.moved["y_translation"], made.moved["translation_x"] = POSITIONS_M.T
    expected = {
        **common(path, "/scan/data/frames"),
        "mask": ~BAD, "dark": dark, "negative_is_zero": True, "center": (4.5, 3.5),
        "instrument": Instrument(ENERGY_EV, DISTANCE_M, (PIXEL_Y, PIXEL_X), "electrons"),
    }  # fmt: skip
    assert_content(read_nexus([path]), **expected)
    with h5py.File(path, "r+") as file:  # the corner tells the centre where nothing else does
        del file["scan/beamline/eiger/beam_center_x"]
    assert_content(read_nexus([path]), **{**expected, "center": (1.0, 1.0)})


def test_nexus_with_what_is_needed_alone(path):
    with h5py.File(path, "w") as file:
        made = nexus(file)
        made.detector["data"] = COUNTS
        made.data["data"] = COUNTS[0]  # no stack
        made.detector["y_pixel_size"], made.detector["x_pixel_size"] = PIXEL_Y, PIXEL_X
        made.moved["y"], made.moved["x"] = POSITIONS_M.T
    assert_content(
        read_nexus([path]),
        **common(path, "/scan/beamline/eiger/data"),
        negative_is_zero=True, instrument=Instrument(detector_pixel_m=(PIXEL_Y, PIXEL_X)),
    )  # fmt: skip


@pytest.fixture
def pair(tmp_path):
    return [tmp_path / "patterns.h5", tmp_path / "product.h5"]


@pytest.mark.parametrize("electrons", [True, False])
def test_ptychodus(pair, electrons):
    """Positions in another order, one twice; a probe of two parts that change by their weights."""
    order = np.array([4, 0, 5, 2, 1, 3, 3])
    parts, weights = np.stack([PROBE, 0.1j * PROBE]), RNG.normal(size=(N, 2))
    shift = np.zeros((7, 2))
    shift[5:, 0] = 1e-7, -1e-7  # of the two that are averaged
    with h5py.File(pair[0], "w") as file:
        file["patterns"], file["indexes"], file["bad_pixels"] = COUNTS, INDEX, BAD
        file["patterns"].attrs["detector_pixel_height_m"] = PIXEL_Y
        file["patterns"].attrs["detector_pixel_width_m"] = PIXEL_X
    with h5py.File(pair[1], "w") as file:
        file["probe_position_indexes"] = INDEX[order]
        moved = POSITIONS_M[order] + shift
        file["probe_position_y_m"], file["probe_position_x_m"] = moved.T
        file["probe"], file["opr_weights"] = parts, weights
        file["object"] = np.ones((1, 4, 4), dtype=complex)
        file["object"].attrs["pixel_height_m"] = OBJECT_Y
        file["object"].attrs["pixel_width_m"] = OBJECT_X
        energy = ENERGY_EV
        file.attrs["photon_energy_eV"] = energy
        file.attrs["detector_object_distance_m"], file.attrs["far_field"] = DISTANCE_M, False
        if electrons:
            file.attrs["radiation"] = "electrons"
            energy = energy_of(Instrument(energy).wavelength_m, "electrons")
    source = f"{pair[0]} and {pair[1]}"
    radiation = "electrons" if electrons else "photons"
    for paths in (pair, pair[::-1]):
        assert_content(
            read_ptychodus(paths),
            **common(source, "patterns", probe=parts, probe_key="probe", probe_weights=weights),
            mask=~BAD, scan_index=INDEX, wavelength_stated=electrons, far_field=False,
            instrument=Instrument(energy, DISTANCE_M, (PIXEL_Y, PIXEL_X), radiation),
            object_pixel_m=(OBJECT_Y, OBJECT_X),
        )  # fmt: skip


def test_ptychodus_with_what_is_needed_alone(pair):
    """Four of six patterns have positions, and three positions have no pattern."""
    with h5py.File(pair[0], "w") as file:
        file["patterns"], file["indexes"] = COUNTS, INDEX
    positions = np.concatenate([POSITIONS_M[2:], np.ones((3, 2))])
    with h5py.File(pair[1], "w") as file:
        file["probe_position_indexes"] = [*INDEX[2:], 101, 102, 103]
        file["probe_position_y_m"], file["probe_position_x_m"] = positions.T
    expected = {
        **common(f"{pair[0]} and {pair[1]}", "patterns", probe_key="probe"),
        "patterns": COUNTS[2:], "positions": POSITIONS_M[2:], "scan_index": INDEX[2:],
        "far_field": True,
        "notes": ("4 of 6 patterns and 7 positions have a partner; others were left out",),
    }  # fmt: skip
    assert_content(read_ptychodus(pair), **expected)
    with h5py.File(pair[1], "r+") as file:  # the pixel and the weights that the probe has
        file["probe"] = PROBE[None]
        file["probe"].attrs["pixel_height_m"] = OBJECT_Y
        file["probe"].attrs["pixel_width_m"] = OBJECT_X
        file["probe"].attrs["opr_weights"] = np.arange(7.0)[:, None]
    more = {
        "probe": PROBE[None], "probe_weights": np.arange(4.0)[:, None],
        "object_pixel_m": (OBJECT_Y, OBJECT_X),
    }  # fmt: skip
    assert_content(read_ptychodus(pair), **expected, **more)


def test_training_data_of_ptychodus(path):
    """The detector pixel is the one that makes the object pixel of energy and distance."""
    positions = RNG.uniform(5, 20, (N, 2))
    with h5py.File(path, "w") as file:
        file["patterns"] = COUNTS
        file["probe_position_y_px"], file["probe_position_x_px"] = positions.T
    bare = {
        **common(path, "patterns", probe_key="probe"),
        "positions": positions, "positions_unit": "px", "positions_from": "center",
    }  # fmt: skip
    assert_content(read_training_data([path]), **bare)
    with h5py.File(path, "r+") as file:
        file["probe"], file["bad_pixels"] = PROBE, BAD
        file["object_pixel_height_m"], file["object_pixel_width_m"] = OBJECT_Y, OBJECT_X
        file["photon_energy_eV"], file["detector_object_distance_m"] = ENERGY_EV, DISTANCE_M
    reach = Instrument(ENERGY_EV).wavelength_m * DISTANCE_M
    pixel = (reach / (HEIGHT * OBJECT_Y), reach / (WIDTH * OBJECT_X))
    assert_content(
        read_training_data([path]), **bare, probe=PROBE, mask=~BAD,
        instrument=Instrument(ENERGY_EV, DISTANCE_M, pixel), object_pixel_m=(OBJECT_Y, OBJECT_X),
    )  # fmt: skip
    with h5py.File(path, "r+") as file:
        del file["object_pixel_width_m"]
    instrument = Instrument(ENERGY_EV, DISTANCE_M)
    assert_content(
        read_training_data([path]), **bare, probe=PROBE, mask=~BAD, instrument=instrument
    )


def test_ptychi(pair):
    with h5py.File(pair[0], "w") as file:
        file["dp"] = COUNTS
    with h5py.File(pair[1], "w") as file:
        file["object"] = np.ones((1, 4, 4), dtype=complex)
        file["object"].attrs["pixel_height_m"] = OBJECT_Y
        file["object"].attrs["pixel_width_m"] = OBJECT_X
        file["probe"] = PROBE
        file["probe_position_y_m"], file["probe_position_x_m"] = POSITIONS_M.T
    for paths in (pair, pair[::-1]):
        assert_content(
            read_ptychi(paths),
            **common(f"{pair[0]} and {pair[1]}", "dp", probe=PROBE, probe_key="probe"),
            object_pixel_m=(OBJECT_Y, OBJECT_X),
        )


@pytest.mark.parametrize("place", ["meta/weight2d", "common/weight2d", "chunks/10/weights"])
def test_ptyd(path, place):
    """Two chunks, numbered 9 and 10, of exposures in another order."""
    order = np.array([3, 0, 5, 1, 4, 2])
    with h5py.File(path, "w") as file:
        for name, part in (("9", order[:2]), ("10", order[2:])):
            chunk = file.create_group(f"chunks/{name}")
            chunk["data"], chunk["positions"] = COUNTS[part], POSITIONS_M[part]
            chunk["indices"] = INDEX[part]
        meta = file.create_group("meta")
        meta["energy"], meta["distance"] = ENERGY_EV / 1e3, DISTANCE_M
        meta["psize"], meta["center"] = (PIXEL_Y, PIXEL_X), (4.5, 3.5)
        meta["propagation"] = "nearfield"
        meta.attrs["far_field"], meta.attrs["object_pixel_m"] = 0, (OBJECT_Y, OBJECT_X)
        meta.attrs["radiation"] = "electrons"
        file[place] = ~BAD
    energy = energy_of(Instrument(ENERGY_EV).wavelength_m, "electrons")
    assert_content(
        read_ptyd([path]), **common(path, "chunks/*/data"), mask=~BAD, center=(4.5, 3.5),
        scan_index=INDEX, wavelength_stated=True, far_field=False,
        instrument=Instrument(energy, DISTANCE_M, (PIXEL_Y, PIXEL_X), "electrons"),
        object_pixel_m=(OBJECT_Y, OBJECT_X),
    )  # fmt: skip


def test_ptyd_with_what_is_needed_alone(path):
    with h5py.File(path, "w") as file:
        file.create_group("meta")["psize"] = PIXEL_Y
        file["chunks/0/data"], file["chunks/0/positions"] = COUNTS, POSITIONS_M
    expected = {
        **common(path, "chunks/*/data"), "mask": np.ones((HEIGHT, WIDTH), dtype=bool),
        "scan_index": np.arange(N), "instrument": Instrument(detector_pixel_m=(PIXEL_Y, PIXEL_Y)),
    }  # fmt: skip
    assert_content(read_ptyd([path]), **expected)
    with h5py.File(path, "r+") as file:
        file["meta/propagation"] = "farfield"
        file["chunks/0/weights"] = np.ones((N, HEIGHT, WIDTH))
        file["chunks/0/weights"][2, 3, 4] = 0
    expected["mask"][3, 4] = False
    note = "weights differ between exposures; a pixel is good where all have it for good"
    assert_content(read_ptyd([path]), **expected, far_field=True, notes=(note,))


@pytest.mark.parametrize("transposed", [True, False])
def test_ptylab(path, transposed):
    with h5py.File(path, "w") as file:
        file["ptychogram"], file["dxd"] = COUNTS, PIXEL_Y
        file["encoder"] = POSITIONS_M.T if transposed else POSITIONS_M
        file["zo"], file["wavelength"] = DISTANCE_M, WAVELENGTH_M
        file["zled"] = 1.0
    assert_content(
        read_ptylab([path]), **common(path, "ptychogram"), wavelength_stated=True,
        instrument=Instrument(energy_of(WAVELENGTH_M), DISTANCE_M, (PIXEL_Y, PIXEL_Y)),
        negative_is_zero=True,
    )  # fmt: skip


def test_nsls2(path):
    with h5py.File(path, "w") as file:
        file["diffamp"], file["points"] = np.sqrt(COUNTS), POSITIONS_M.T[::-1] * 1e6
        file["lambda_nm"], file["ccd_pixel_um"] = WAVELENGTH_M * 1e9, PIXEL_Y * 1e6
        file["z_m"] = DISTANCE_M
    expected = {**common(path, "diffamp"), "patterns": np.sqrt(COUNTS), "values": "amplitude"}
    assert_content(
        read_nsls2([path]), **expected, wavelength_stated=True,
        instrument=Instrument(energy_of(WAVELENGTH_M), DISTANCE_M, (PIXEL_Y, PIXEL_Y)),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("span", "unit"),
    [(0.9 * LARGEST_SCAN_M, "m"), (LARGEST_SCAN_M, "px"), (100.0, "px")],
)
def test_ptychonn(tmp_path, span, unit):
    path = tmp_path / "scan.npz"
    positions = np.zeros((N, 2))
    positions[:, 1] = np.linspace(0, span, N)
    np.savez(path, reciprocal=COUNTS, scan=positions)
    said = "metres" if unit == "m" else "object pixels"
    expected = {
        **common(path, "reciprocal"), "values": "unknown", "positions": positions,
        "positions_unit": unit, "notes": (f"scan spans {span:.3g}: read as {said}",),
    }  # fmt: skip
    assert_content(read_ptychonn([path]), **expected)
    np.savez(path, reciprocal=COUNTS[:2], scan=positions[[0, -1]])
    two = {"patterns": COUNTS[:2], "positions": positions[[0, -1]]}
    assert_content(read_ptychonn([path]), **{**expected, **two})
    np.savez(path, reciprocal=COUNTS[:1], scan=positions[:1])  # one has no distance to another
    assert read_ptychonn([path]).positions_unit == "px"


def test_npz(tmp_path):
    path = tmp_path / "scan.npz"
    positions = RNG.uniform(5, 20, (N, 2))
    bare = {"diff3d": COUNTS, "ycoords": positions[:, 0], "xcoords": positions[:, 1]}
    expected = {
        **common(path, "diff3d", probe_key="probeGuess"), "values": "unknown",
        "positions": positions, "positions_unit": "px",
    }  # fmt: skip
    np.savez(path, **bare)
    assert_content(read_npz([path]), **expected)
    np.savez(
        path, **bare, probeGuess=PROBE, scan_index=INDEX, bad_pixels=BAD, radiation="electrons",
        far_field=False, pixel_size_m=(OBJECT_Y, OBJECT_X), detector_pixel_m=(PIXEL_Y, PIXEL_X),
        energy_ev=ENERGY_EV, distance_m=DISTANCE_M,
    )  # fmt: skip
    full = {
        "probe": PROBE, "mask": ~BAD, "scan_index": INDEX, "far_field": False,
        "instrument": Instrument(ENERGY_EV, DISTANCE_M, (PIXEL_Y, PIXEL_X), "electrons"),
        "object_pixel_m": (OBJECT_Y, OBJECT_X),
    }  # fmt: skip
    assert_content(read_npz([path]), **expected, **full)
    # the older name, with the exposures last, and an index that numbers the object
    del bare["diff3d"]
    square = COUNTS[:, :WIDTH]
    np.savez(path, **bare, diffraction=np.moveaxis(square, 0, -1), scan_index=np.full(N, 3))
    notes = (
        "diffraction has axes (N, N, n) and was read as (n, N, N)",
        "scan_index is 3 everywhere: it numbers the object, and the exposures were numbered from 0",
    )
    older = {"patterns": square, "patterns_key": "diffraction", "notes": notes}
    assert_content(read_npz([path]), **{**expected, **older})


@pytest.mark.parametrize(
    ("pair_of_positions", "order"), [(True, None), (False, None), (False, "yx"), (False, "xy")]
)
def test_hdf5_map(tmp_path, path, pair_of_positions, order):
    dark = RNG.random((HEIGHT, WIDTH))
    with h5py.File(path, "w") as file:
        file["d"], file["probe"], file["bad"], file["dark"] = COUNTS, PROBE, BAD, dark
        file["z"], file["n"] = DISTANCE_M, INDEX
        file["e"] = ENERGY_EV / 1e3
        file["e"].attrs["units"] = "keV"
        file["y"], file["x"] = POSITIONS_M.T * 1e9
        file["p"] = POSITIONS_M[:, ::-1].T * 1e6 if order == "xy" else POSITIONS_M * 1e6
    lines = [
        "patterns: d", "values: amplitude", "probe: probe", "bad_pixels: bad", "dark: dark",
        "index: n", "distance_mm: z", "energy_ev: e", "radiation: electrons",
        f"detector_pixel_um: [{PIXEL_Y * 1e6}, {PIXEL_X * 1e6}]", "center_px: [4.5, 3.5]",
        f"pixel_size_nm: [{OBJECT_Y * 1e9}, {OBJECT_X * 1e9}]", "raster_step_nm: [40, 50]",
        "raster_shape: [2, 3]", "raster_rotation_deg: 7.5",
        *(["positions_y_nm: y", "positions_x_nm: x"] if pair_of_positions else ["positions_um: p"]),
        *([f"positions_order: {order}"] if order else []),
    ]  # fmt: skip
    (tmp_path / "map.yaml").write_text("\n".join(lines))
    raw = read_hdf5_map(path, tmp_path / "map.yaml")
    hint = (
        f"--map {tmp_path / 'map.yaml'}: key 'positions_m' is missing; expected it, or "
        "positions_y_m and positions_x_m, or raster_step_m"
    )
    assert_content(
        raw,
        **{**common(path, "d"), "values": "amplitude"},
        probe=PROBE, probe_key="probe", mask=~BAD, dark=dark, center=(4.5, 3.5), scan_index=INDEX,
        instrument=Instrument(ENERGY_EV, DISTANCE_M / 1e3, (PIXEL_Y, PIXEL_X), "electrons"),
        object_pixel_m=(OBJECT_Y, OBJECT_X), positions_hint=hint,
        raster=Raster((pytest.approx(4e-8), pytest.approx(5e-8)), (2, 3), 7.5),
    )  # fmt: skip


def test_hdf5_map_with_what_is_needed_alone(tmp_path, path):
    """A stack of rank 4 is a raster; the mask is of good pixels; the wavelength is stated."""
    with h5py.File(path, "w") as file:
        file["d"] = COUNTS.reshape(2, 3, HEIGHT, WIDTH)
        file["good"], file["p"] = ~BAD, POSITIONS_M
    (tmp_path / "map.yaml").write_text("patterns: /d\n")
    hint = {"positions_hint": read_hdf5_map(path, tmp_path / "map.yaml").positions_hint}
    none = {**common(path, "/d"), "values": "unknown", "positions": np.empty((0, 2)), **hint}
    assert_content(read_hdf5_map(path, tmp_path / "map.yaml"), **none, raster=Raster(shape=(2, 3)))
    text = f"patterns: /d\nmask: good\npositions_px: p\nwavelength_nm: {WAVELENGTH_M * 1e9}\n"
    (tmp_path / "map.yaml").write_text(text)
    more = {"positions": POSITIONS_M, "positions_unit": "px"}
    assert_content(
        read_hdf5_map(path, tmp_path / "map.yaml"), **{**none, **more}, mask=~BAD,
        instrument=Instrument(energy_of(WAVELENGTH_M, "photons")), wavelength_stated=True,
        raster=Raster(shape=(2, 3)),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "mode", "shape"),
    [
        ("scan_x3_y2.raw", None, (2, 3)), ("scan.raw", None, None),
        ("scan_x9_y9.raw", "acquire", (3, 2)), ("scan.raw", "search", None),
    ],
)  # fmt: skip
def test_empad(tmp_path, name, mode, shape):
    frames = RNG.normal(size=(N, ROWS, COLUMNS)).astype("<f4")
    (tmp_path / name).write_bytes(frames.tobytes())
    paths = [tmp_path / name]
    if mode is not None:
        beside = (tmp_path / name).with_suffix(".xml")
        beside.write_text(
            f'<root><raw_file filename="C:\\data/{name}"/><scan_parameters mode="{mode}">'
            "<scan_resolution_x>2</scan_resolution_x> <scan_resolution_y> 3 </scan_resolution_y>"
            "</scan_parameters></root>"
        )
        paths.append(beside)
    for path in paths:
        expected = {
            **common(path, "frames"), "patterns": frames[:, :PATTERN_ROWS],
            "positions": np.empty((0, 2)), "negative_is_zero": True,
            "instrument": Instrument(detector_pixel_m=(PIXEL_M, PIXEL_M), radiation="electrons"),
            "raster": Raster(shape=shape),
            "notes": ("frames of an EMPAD; values below zero, its noise, were set to zero",),
        }  # fmt: skip
        assert_content(read_empad([path]), **expected)

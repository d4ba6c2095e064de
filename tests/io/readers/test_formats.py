"""Every format, written as its own program writes it, comes back as the same scan."""

import h5py
import numpy as np
import pytest
from beamline_files import (
    write_cxi,
    write_nexus,
    write_nsls2,
    write_ptychi,
    write_ptychodus,
    write_ptychonn,
    write_ptyd,
    write_ptylab,
)

from ptycho_torch.config import ReadingOptions
from ptycho_torch.errors import InputError
from ptycho_torch.io.readers import read_scan

WRITERS = {
    "cxi": write_cxi,
    "nexus": write_nexus,
    "ptychodus": write_ptychodus,
    "ptychi": write_ptychi,
    "ptyd": write_ptyd,
    "ptylab": write_ptylab,
    "nsls2": write_nsls2,
    "ptychonn": write_ptychonn,
}
WITH_PROBE = ("ptychodus", "ptychi")
WITHOUT_PIXEL = ("ptychonn",)
FLOAT32 = 1e-6  # positions pass through float32 in some files


@pytest.fixture(params=WRITERS)
def written(request, tmp_path, measured):
    path = tmp_path / "scan.npz" if request.param == "ptychonn" else tmp_path / "scan.dat"
    WRITERS[request.param](path, measured)
    return request.param, path


def relative(positions):
    return positions - positions.mean(axis=0)


def assert_same(scan, measured):
    """The same patterns at the same places, in the same orientation."""
    assert np.array_equal(scan.counts[:], measured.counts)
    offset = relative(scan.positions_px) - relative(measured.scan.positions_px)
    assert np.abs(offset).max() < FLOAT32 * np.abs(measured.scan.positions_px).max()
    assert scan.photons == pytest.approx(measured.counts.sum() / measured.n, rel=1e-5)
    ratio = (
        np.vdot(measured.probe, scan.probe)
        / np.linalg.norm(measured.probe)
        / np.linalg.norm(scan.probe)
    )
    assert ratio == pytest.approx(1, abs=1e-5)


def test_a_scan_comes_back(written, measured, probe_file):
    name, path = written
    scan = read_scan(path, options=ReadingOptions(probe=None if name in WITH_PROBE else probe_file))
    assert_same(scan, measured)
    if name not in WITHOUT_PIXEL:
        assert scan.pixel_size_m == pytest.approx((measured.pixel_m, measured.pixel_m), rel=FLOAT32)


def test_patterns_stay_in_the_file(written, probe_file):
    name, path = written
    if name == "ptychonn":
        pytest.skip("NPZ files are read whole")
    scan = read_scan(path, options=ReadingOptions(probe=probe_file))
    assert not isinstance(scan.counts, np.ndarray)
    assert not isinstance(scan.subset([3, 5]).counts, np.ndarray)
    chosen = np.array([40, 3, 3, 17])
    assert np.array_equal(scan.counts[chosen], scan.counts[:][chosen])
    assert np.array_equal(scan.subset(range(10, 20)).counts[2:4], scan.counts[12:14])


def test_without_a_probe_the_scan_says_so_and_names_the_flag(written):
    name, path = written
    if name in WITH_PROBE:
        pytest.skip("this format has a probe")
    scan = read_scan(path)
    assert scan.probe is None
    assert any("--probe FILE" in text for text in scan.decisions)
    assert scan.pattern_totals() == pytest.approx(scan.counts[:].sum(axis=(1, 2)), rel=1e-5)
    with pytest.raises(InputError, match="--probe FILE"):
        scan.need_probe()


@pytest.mark.parametrize("name", ["cxi", "nexus", "ptyd", "ptylab", "nsls2", "ptychi", "ptychodus"])
def test_a_truncated_file_is_named(name, tmp_path, measured, probe_file):
    path = tmp_path / "scan"
    WRITERS[name](path, measured)
    damaged = max((path.iterdir() if path.is_dir() else [path]), key=lambda one: one.stat().st_size)
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    with pytest.raises(InputError, match=damaged.name if not path.is_dir() else "scan"):
        read_scan(path, options=ReadingOptions(probe=probe_file))


def test_an_unknown_hdf5_file_lists_what_it_holds(tmp_path):
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["frames"] = np.zeros(3)
    with pytest.raises(InputError, match=r"found frames; .*--map"):
        read_scan(path)


KEYS = {
    "cxi": ["entry_1/instrument_1/detector_1/data", "entry_1/sample_1/geometry_1/translation"],
    "nexus": [
        "scan_7/beamline/eiger/data",
        "scan_7/sample/transformations/y",
        "scan_7/beamline/beam/incident_beam_energy",
    ],
    "ptyd": ["chunks/1/data", "chunks/0/positions", "meta/energy"],
    "ptylab": ["encoder", "dxd", "zo", "wavelength"],
    "nsls2": ["points", "lambda_nm", "ccd_pixel_um", "z_m"],
}


@pytest.mark.parametrize(
    ("name", "key"), [(name, key) for name, keys in KEYS.items() for key in keys]
)
def test_a_missing_key_is_named(name, key, tmp_path, measured, probe_file):
    path = tmp_path / "scan.h5"
    WRITERS[name](path, measured)
    with h5py.File(path, "a") as file:
        del file[key]
    expected = "--energy_ev" if "energy" in key else key.split("/")[-1]
    with pytest.raises(InputError, match=expected) as caught:
        read_scan(path, options=ReadingOptions(probe=probe_file))
    assert path.name in str(caught.value)


@pytest.mark.parametrize("name", ["cxi", "nexus", "ptyd", "ptylab", "nsls2"])
def test_fewer_positions_than_patterns_are_refused(name, tmp_path, measured, probe_file):
    path = tmp_path / "scan.h5"
    places = {
        "cxi": ["entry_1/sample_1/geometry_1/translation"],
        "nexus": ["scan_7/sample/transformations/x", "scan_7/sample/transformations/y"],
        "ptyd": ["chunks/2/positions"],
        "ptylab": ["encoder"],
        "nsls2": ["points"],
    }[name]
    WRITERS[name](path, measured)
    with h5py.File(path, "a") as file:
        for key in places:
            values, attributes = file[key][()], dict(file[key].attrs)
            del file[key]
            file[key] = values[..., :-2] if name == "nsls2" else values[:-2]
            file[key].attrs.update(attributes)
    with pytest.raises(InputError, match="expected equal numbers"):
        read_scan(path, options=ReadingOptions(probe=probe_file))

"""Rasters without positions: flags, maps, 4-D arrays, and raw files of the EMPAD."""

import h5py
import numpy as np
import pytest

from ptycho_torch.config import ReadingOptions
from ptycho_torch.data.raster import raster_positions_m
from ptycho_torch.errors import InputError
from ptycho_torch.io.readers import read_scan

ROWS, COLUMNS = 2, 3
STEP_M = 5e-11
EXPERIMENT = {"energy_ev": 300e3, "distance_m": 0.1}
PIXEL_M = 1.96874890e-12 * 0.1 / (128 * 150e-6)


def test_a_raster_goes_row_by_row_and_turns_counterclockwise():
    plain = raster_positions_m((2, 3), (2.0, 1.0))
    assert plain.tolist() == [[-1, -1], [-1, 0], [-1, 1], [1, -1], [1, 0], [1, 1]]
    turned = raster_positions_m((2, 3), (2.0, 1.0), 90.0)
    # the step to the right now goes up, that is to smaller y
    assert turned[1] - turned[0] == pytest.approx([-1, 0])
    assert turned[3] - turned[0] == pytest.approx([0, 2])


@pytest.fixture
def frames():
    rng = np.random.default_rng(0)
    return rng.poisson(3.0, (ROWS * COLUMNS, 130, 128)).astype("<f4")


@pytest.fixture
def raw(tmp_path, frames):
    path = tmp_path / "scan_x3_y2.raw"
    frames.tofile(path)
    return path


def options(**more):
    return ReadingOptions(**EXPERIMENT | {"raster_step_m": STEP_M} | more)


def steps_px(scan):
    grid = scan.positions_px.reshape(ROWS, COLUMNS, 2)
    return grid[0, 1] - grid[0, 0], grid[1, 0] - grid[0, 0]


def test_an_empad_file_is_a_scan_of_electrons(raw, frames):
    frames[0, 5, 7] = -2.5  # noise of the detector
    frames.tofile(raw)
    scan = read_scan(raw, options=options())
    assert scan.counts[:] == pytest.approx(np.maximum(frames[:, :128], 0))
    assert scan.counts[[4, 1]] == pytest.approx(frames[[4, 1], :128])
    assert scan.instrument.radiation == "electrons"
    assert scan.pixel_size_m == pytest.approx((PIXEL_M, PIXEL_M), rel=1e-6)
    along_row, along_column = steps_px(scan)
    assert along_row == pytest.approx([0, STEP_M / PIXEL_M], rel=1e-6)
    assert along_column == pytest.approx([STEP_M / PIXEL_M, 0], rel=1e-6)


def test_the_shape_is_from_the_flag_the_sidecar_or_the_name(tmp_path, frames):
    path = tmp_path / "plain.raw"
    frames.tofile(path)
    with pytest.raises(InputError, match=r"2 x 2 points for 6 patterns; give --raster_shape"):
        read_scan(path, options=options())
    along_row, _ = steps_px(read_scan(path, options=options(raster_shape="2,3")))
    assert along_row[1] > 0
    sidecar = tmp_path / "plain.xml"
    sidecar.write_text(
        '<root><raw_file filename="D:\\data\\plain.raw"/>'
        '<scan_parameters mode="search"><scan_resolution_x>9</scan_resolution_x>'
        "<scan_resolution_y>9</scan_resolution_y></scan_parameters>"
        '<scan_parameters mode="acquire"><scan_resolution_x>3</scan_resolution_x>'
        "<scan_resolution_y>2</scan_resolution_y></scan_parameters></root>"
    )
    for given in (path, sidecar):
        scan = read_scan(given, options=options())
        assert steps_px(scan)[0] == pytest.approx([0, STEP_M / PIXEL_M], rel=1e-6)


@pytest.mark.parametrize("kept", [0, 100, 130 * 128 * 4 * 5 + 4])
def test_a_file_that_ends_within_a_frame_is_refused(raw, kept):
    raw.write_bytes(raw.read_bytes()[:kept])
    with pytest.raises(InputError, match="expected whole frames of 130 x 128 float32 numbers"):
        read_scan(raw, options=options())


def test_what_is_missing_is_named(raw, tmp_path):
    with pytest.raises(InputError, match="no positions; or give the step of a raster"):
        read_scan(raw, options=ReadingOptions(**EXPERIMENT))
    with pytest.raises(InputError, match="--raster_shape 7: expected rows,columns"):
        options(raster_shape="7")
    (tmp_path / "gone.xml").write_text('<root><raw_file filename="gone.raw"/></root>')
    with pytest.raises(InputError, match=r"names gone\.raw, which is not in its folder"):
        read_scan(tmp_path / "gone.xml", options=options())
    (tmp_path / "bomb.xml").write_text('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>')
    with pytest.raises(InputError, match="defines entities"):
        read_scan(tmp_path / "bomb.xml", options=options())


@pytest.mark.parametrize("stored", ["4-D", "3-D"])
def test_a_map_describes_a_raster(tmp_path, frames, stored):
    patterns = frames[:, :128]
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = patterns.reshape(2, 3, 128, 128) if stored == "4-D" else patterns
    lines = [
        "patterns: data", "radiation: electrons", "energy_kev: 300", "distance_m: 0.1",
        "detector_pixel_um: 150", "raster_step_nm: [0.05, 0.1]", "raster_rotation_deg: 90",
    ]  # fmt: skip
    if stored == "3-D":
        lines.append("raster_shape: [2, 3]")
    (tmp_path / "map.yaml").write_text("\n".join(lines))
    scan = read_scan(tmp_path / "scan.h5", options=ReadingOptions(map=tmp_path / "map.yaml"))
    along_row, along_column = steps_px(scan)
    assert along_row == pytest.approx([-2 * STEP_M / PIXEL_M, 0], rel=1e-6, abs=1e-9)
    assert along_column == pytest.approx([0, STEP_M / PIXEL_M], rel=1e-6, abs=1e-9)
    assert np.array_equal(scan.counts[:], patterns)


def test_a_map_without_positions_names_the_keys(tmp_path, frames):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = frames
    (tmp_path / "map.yaml").write_text("patterns: data")
    with pytest.raises(InputError, match=r"'positions_m' is missing.*raster_step_m"):
        read_scan(tmp_path / "scan.h5", options=ReadingOptions(map=tmp_path / "map.yaml"))
    (tmp_path / "map.yaml").write_text("patterns: data\nraster_shape: [2]\nraster_step_nm: 1")
    with pytest.raises(InputError, match=r"raster_shape is \[2\]; expected"):
        read_scan(tmp_path / "scan.h5", options=ReadingOptions(map=tmp_path / "map.yaml"))


def test_a_raster_in_an_npz_file_is_flattened_row_by_row(tmp_path):
    rng = np.random.default_rng(0)
    counts = rng.poisson(3.0, (4, 5, 16, 16))
    y, x = np.mgrid[10:14, 10:15].reshape(2, -1)
    np.savez(tmp_path / "scan.npz", diff3d=counts, xcoords=x, ycoords=y)
    scan = read_scan(tmp_path / "scan.npz")
    assert np.array_equal(scan.counts[:], counts.reshape(20, 16, 16))

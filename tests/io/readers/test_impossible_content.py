"""Content that no scan can have: refused with file and key, in words without the library's own."""

import dataclasses
import zipfile

import h5py
import numpy as np
import pytest
from beamline_files import write_cxi, write_nexus, write_nsls2, write_ptychonn, write_ptylab

from ptycho_torch.config import ReadingOptions
from ptycho_torch.errors import InputError
from ptycho_torch.io.readers import read_scan
from ptycho_torch.io.readers.checks import check_patterns
from ptycho_torch.io.readers.pattern_transforms import AmplitudesToCounts

DETECTOR = "entry_1/instrument_1/detector_1"


@pytest.fixture
def options(probe_file):
    return ReadingOptions(probe=probe_file)


def spoiled_cxi(path, measured, key, value, **attributes):
    write_cxi(path, measured)
    with h5py.File(path, "r+") as file:
        if key in file and value is not None:
            del file[key]
        if value is not None:
            file[key] = value
        for name, content in attributes.items():
            file[key].attrs[name] = content
    return path


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (
            f"{DETECTOR}/basis_vectors",
            np.full((3, 2), 1e250) * [[0, 1], [1, 0], [0, 0]],
            "1e\\+250",
        ),
        (f"{DETECTOR}/corner_position", np.zeros(0), r"shape \(0,\)"),
        (f"{DETECTOR}/corner_position", np.full(3, 1e300), "expected metres"),
        (f"{DETECTOR}/distance", np.longdouble(0), r"distance is \[0.0\]; expected one"),
        (f"{DETECTOR}/data_dark", np.zeros((0, 2)), "expected dark frames of 32x32"),
    ],
)
def test_a_length_that_cannot_be_is_refused(key, value, words, measured, options, tmp_path):
    path = spoiled_cxi(tmp_path / "scan.cxi", measured, key, value)
    with pytest.raises(InputError, match=words) as error:
        read_scan(path, options=options)
    assert str(path) in str(error.value)
    assert key in str(error.value)


@pytest.mark.parametrize("unit", [np.ones((2, 2)), "x" * 60000, 1 + 2j, np.bytes_(b"\xff")])
def test_a_unit_that_is_no_word_is_refused_in_a_line(unit, measured, options, tmp_path):
    path = spoiled_cxi(tmp_path / "scan.cxi", measured, f"{DETECTOR}/distance", None, units=unit)
    with pytest.raises(InputError, match="distance") as error:
        read_scan(path, options=options)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_an_empty_unit_is_none(measured, options, tmp_path):
    path = spoiled_cxi(
        tmp_path / "scan.cxi", measured, f"{DETECTOR}/distance", None, units=h5py.Empty("S1")
    )
    assert read_scan(path, options=options).instrument.distance_m == pytest.approx(1.2)


def test_compressed_bytes_that_are_damaged_are_said_in_plain_words(measured, options, tmp_path):
    path = tmp_path / "scan.h5"
    write_ptylab(path, measured)
    with h5py.File(path, "r+") as file:
        stored = file["encoder"][()]
        del file["encoder"]
        made = file.create_dataset("encoder", data=stored, chunks=stored.shape, compression="gzip")
        made.id.write_direct_chunk((0, 0), b"garbage" * 9)
    with pytest.raises(
        InputError, match=r"/encoder cannot be read .*compressed numbers are damaged"
    ):
        read_scan(path, options=options)


@pytest.mark.parametrize(
    "text",
    [
        '<?xml version="1.0" encoding="klingon"?><root/>',
        '<?xml version="1.0" encoding="gbk"?><root/>',
        '<root><raw_file filename="scan.raw"/><scan_parameters mode="acquire">'
        f"<scan_resolution_x>{'9' * 5000}</scan_resolution_x>"
        "<scan_resolution_y>3</scan_resolution_y></scan_parameters></root>",
    ],
)
def test_a_sidecar_that_is_none_is_named(text, tmp_path):
    np.zeros((9, 130, 128), dtype="<f4").tofile(tmp_path / "scan.raw")
    (tmp_path / "scan.xml").write_text(text)
    with pytest.raises(InputError, match=r"scan\.xml"):
        read_scan(tmp_path / "scan.raw", options=dataclasses.replace(ReadingOptions(), crop=64))


@pytest.mark.parametrize("size", [5e-324, 1e250])
@pytest.mark.filterwarnings("error")
def test_a_detector_pixel_whose_square_is_no_number_is_refused_with_its_flag(
    size, measured, options, tmp_path
):
    path = tmp_path / "scan.nxs"
    write_nexus(path, measured)
    with h5py.File(path, "r+") as file:
        del file["scan_7/beamline/eiger/x_pixel_size"]
        file["scan_7/beamline/eiger/x_pixel_size"] = size
    with pytest.raises(InputError, match="give the right one with --detector_pixel_m") as error:
        read_scan(path, options=options)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("key", ["energy_ev", "center_px"])
def test_a_number_of_hundreds_of_digits_is_refused(key, measured, tmp_path):
    path, layout = tmp_path / "own.h5", tmp_path / "own.yaml"
    with h5py.File(path, "w") as file:
        file["frames"], file["xy"] = measured.counts, measured.positions_m
        file["probe"] = measured.probe
    layout.write_text(
        f"patterns: frames\npositions_m: xy\nprobe: probe\n{key}: {'9' * 400}\n"
        "distance_m: 1\ndetector_pixel_um: 75\n"
    )
    with pytest.raises(InputError, match=rf"{key} is beyond 1\.8e\+308"):
        read_scan(path, options=ReadingOptions(map=layout))


def test_a_header_of_an_array_that_holds_code_is_said_in_plain_words(measured, tmp_path):
    path = tmp_path / "scan.npz"
    write_ptychonn(path, measured)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = b"__import__('os').abort()"
    members["scan.npy"] = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(InputError, match="is no header"):
        read_scan(path)


def test_names_that_are_no_text_are_listed(tmp_path):
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        for number in range(30):
            file[f"a{number:02}"] = 0.0
        h5py.h5g.create(file.id, b"\xff\xfe")
    with pytest.raises(InputError, match=r"found a00, a01, .* and 11 more; describe it"):
        read_scan(path)
    with h5py.File(path, "w") as file:
        h5py.h5g.create(file.id, b"\xff\xfe")
    with pytest.raises(InputError, match=r"found \\xff\\xfe; describe it"):
        read_scan(path)


@pytest.mark.parametrize("value", [1e29, 1e300, np.inf])
@pytest.mark.filterwarnings("error")
def test_amplitudes_whose_squares_are_beyond_float32_are_refused(value, measured, tmp_path):
    path = tmp_path / "scan.h5"
    write_nsls2(path, measured)
    with h5py.File(path, "r+") as file:
        amplitudes = file["diffamp"][()].astype(np.float64)
        amplitudes[0, 3, 3] = value
        del file["diffamp"]
        file["diffamp"] = amplitudes
    with pytest.raises(InputError, match=r"scan.h5.*diffamp.*(e\+\d+; expected|not finite)"):
        read_scan(path)


@pytest.mark.filterwarnings("error")
def test_counts_beyond_float32_are_infinite_and_refused():
    counts = AmplitudesToCounts(np.ones((1, 2, 2)), unit=1e-40, whole=True)
    with pytest.raises(InputError, match="here holds 4 values that are not finite"):
        check_patterns("here", counts)


@pytest.mark.filterwarnings("error")
def test_a_dark_frame_beyond_float32_is_refused(measured, options, tmp_path):
    path = tmp_path / "scan.cxi"
    spoiled_cxi(path, measured, f"{DETECTOR}/data_dark", np.full(measured.shape, 1e300))
    with pytest.raises(InputError, match=r"the dark frame holds 1e.300; expected counts"):
        read_scan(path, options=options)

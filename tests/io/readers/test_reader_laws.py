"""Laws of the readers that small changes of them would break and that no format's test states."""

from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from beamline_files import write_cxi, write_nexus, write_ptyd, write_ptylab

from ptycho_torch.config import ReadingOptions
from ptycho_torch.config.options import LARGEST_SIZE, SMALLEST_SIZE
from ptycho_torch.errors import InputError
from ptycho_torch.io.readers import read_scan
from ptycho_torch.io.readers.checks import check_quantity
from ptycho_torch.io.readers.cxi import read_cxi
from ptycho_torch.io.readers.file_kind import kind_of_file
from ptycho_torch.io.readers.hdf5 import need_dataset
from ptycho_torch.io.readers.nearfield import border_light
from ptycho_torch.io.readers.nexus import read_nexus
from ptycho_torch.io.readers.pattern_transforms import Bin


@pytest.mark.parametrize("bound", [SMALLEST_SIZE, LARGEST_SIZE])
def test_the_bounds_of_a_size_belong_to_it(bound):
    assert check_quantity("here", bound) == bound
    outside = bound * (0.99 if bound < 1 else 1.01)
    with pytest.raises(InputError, match="here is"):
        check_quantity("here", outside)


def test_chunks_of_two_sizes_are_refused(tmp_path, measured):
    write_ptyd(tmp_path / "scan.ptyd", measured)
    with h5py.File(tmp_path / "scan.ptyd", "r+") as file:
        smaller = file["chunks/1/data"][:, :-2]
        del file["chunks/1/data"]
        file["chunks/1/data"] = smaller
    with pytest.raises(InputError, match="different sizes"):
        read_scan(tmp_path / "scan.ptyd")


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.uint64, np.float32, np.float64])
def test_binned_patterns_are_of_the_number_type_that_they_state(kind):
    """Counts that fill a type add up to more than it holds."""
    largest = 60_000
    view = Bin(np.full((2, 4, 4), largest, dtype=kind), 2)
    binned = view.convert(view.source)
    assert binned.dtype == view.dtype
    assert (binned == 4 * largest).all()


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("end", ["first", "last"])
def test_the_border_is_an_eighth_of_the_pattern_on_each_side(axis, end):
    """A line of light is on it up to the eighth, and no further."""
    shares = []
    for inside in (7, 8):
        patterns = np.zeros((1, 64, 64))
        place = inside if end == "first" else 63 - inside
        patterns[0, *((place, 32) if axis == 0 else (32, place))] = 1
        shares.append(border_light(SimpleNamespace(patterns=patterns, mask=None)))
    assert shares[0] > 0
    assert shares[1] == 0


@pytest.mark.parametrize(
    ("content", "is_text"),
    [
        (b"\x01\x02\x03", False),
        (bytes(4096), False),  # of a copy that reserved its room and was cut off
        (b"a word\tand another\r\n", True),
        ("\ufeffeine Z\u00e4hlung\n".encode(), True),
    ],
)
def test_text_is_what_can_be_printed(content, is_text, tmp_path):
    (tmp_path / "file").write_bytes(content)
    assert (kind_of_file(tmp_path / "file") == "text") is is_text


def test_a_stated_centre_of_the_beam_is_taken(tmp_path, measured):
    """Once a scan, or once a pattern."""
    for number, repeats in enumerate((1, measured.n)):
        path = tmp_path / f"scan_{number}.nxs"
        write_nexus(path, measured)
        with h5py.File(path, "r+") as file:
            detector = file["scan_7/beamline/eiger"]
            detector["beam_center_y"] = np.full(repeats, 14.0)
            detector["beam_center_x"] = np.full(repeats, 17.0)
        assert read_nexus([path]).center == (14.0, 17.0)


@pytest.mark.parametrize("key", ["mask", "bad_pixels"])
def test_a_mapped_mask_is_of_good_pixels_and_bad_pixels_are_its_opposite(key, tmp_path, measured):
    good = np.ones(measured.shape, dtype=bool)
    good[3, 5] = False
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["d"], file["p"] = measured.counts, measured.scan.positions_px
        file["m"] = (good if key == "mask" else ~good).astype(np.uint8)
    lines = ("patterns: /d", "positions_px: /p", f"{key}: /m")
    (tmp_path / "map.yaml").write_text("\n".join(lines))
    np.save(tmp_path / "probe.npy", measured.probe)
    options = ReadingOptions(map=tmp_path / "map.yaml", probe=tmp_path / "probe.npy")
    assert np.array_equal(read_scan(tmp_path / "scan.h5", options=options).mask, good)


def test_the_corner_of_a_detector_tells_its_distance(tmp_path, measured):
    """Where no distance is stated; how far the corner lies to the side is of no matter."""
    write_cxi(tmp_path / "scan.cxi", measured)
    with h5py.File(tmp_path / "scan.cxi", "r+") as file:
        detector = file["entry_1/instrument_1/detector_1"]
        del detector["distance"]
        detector["corner_position"] = np.array([1e-3, 2e-3, measured.distance_m])
    found = read_cxi([tmp_path / "scan.cxi"])
    assert found.instrument.distance_m == pytest.approx(measured.distance_m)


def test_a_scan_of_fourier_ptychography_is_refused(tmp_path, measured):
    write_ptylab(tmp_path / "scan.h5", measured)
    with h5py.File(tmp_path / "scan.h5", "r+") as file:
        del file["zo"]
        file["zled"] = 0.1
    with pytest.raises(InputError, match="Fourier ptychography"):
        read_scan(tmp_path / "scan.h5")


def test_a_key_that_is_missing_is_named_with_its_group(tmp_path):
    with h5py.File(tmp_path / "file.h5", "w") as file:
        group = file.create_group("one/two")
        for item, named in ((file, "'a' is missing"), (group, "'/one/two/a' is missing")):
            with pytest.raises(InputError, match=named):
                need_dataset(item, "a", "b")

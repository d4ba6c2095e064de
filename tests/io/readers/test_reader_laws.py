"""Laws of the readers that small changes of them would break and that no format's test states."""

import zipfile
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from beamline_files import (
    write_cxi,
    write_nexus,
    write_nsls2,
    write_ptychi,
    write_ptychodus,
    write_ptyd,
    write_ptylab,
)
from test_hostile_hdf5 import datasets, refusal

from ptycho_torch.config import ReadingOptions
from ptycho_torch.config.options import LARGEST_SIZE, SMALLEST_SIZE
from ptycho_torch.data.raster import raster_positions_m
from ptycho_torch.errors import InputError
from ptycho_torch.io.readers import read_scan
from ptycho_torch.io.readers.checks import check_quantity
from ptycho_torch.io.readers.cxi import read_cxi
from ptycho_torch.io.readers.detect import FORMATS, place_on_raster
from ptycho_torch.io.readers.file_kind import kind_of_file
from ptycho_torch.io.readers.hdf5 import need_dataset
from ptycho_torch.io.readers.nearfield import border_light
from ptycho_torch.io.readers.nexus import read_nexus
from ptycho_torch.io.readers.npz import check_declared, unreadable
from ptycho_torch.io.readers.pattern_transforms import AmplitudesToCounts, Bin
from ptycho_torch.io.readers.ptychonn import read_ptychonn
from ptycho_torch.io.readers.raw_scan import RawScan


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


def test_light_at_the_border_is_relative_to_that_of_the_whole_pattern():
    """On good pixels; a pattern without light or without a good border has none."""
    rng = np.random.default_rng(0)
    patterns, mask = rng.random((3, 16, 24)), rng.random((16, 24)) > 0.3
    border = np.ones((16, 24), dtype=bool)
    border[2:14, 3:21] = False
    mean = patterns.mean(axis=0)
    for good in (mask, None):
        where = np.ones_like(border) if good is None else good
        found = border_light(SimpleNamespace(patterns=patterns, mask=good))
        assert found == pytest.approx(mean[where & border].mean() / mean[where].mean())
    spoiled = np.where(patterns < 0.2, np.nan, patterns)
    found = border_light(SimpleNamespace(patterns=spoiled, mask=None))
    mean = np.nan_to_num(spoiled).mean(axis=0)
    assert found == pytest.approx(mean[border].mean() / mean.mean())
    for dark in (
        SimpleNamespace(patterns=np.zeros((2, 16, 16)), mask=None),
        SimpleNamespace(patterns=patterns, mask=~border),
        SimpleNamespace(patterns=patterns, mask=np.zeros_like(border)),
    ):
        assert border_light(dark) == 0
    bright = np.full((4, 16, 16), 3e38, dtype=np.float32)  # whose sum float32 does not hold
    assert border_light(SimpleNamespace(patterns=bright, mask=None)) == pytest.approx(1)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32, np.float64])
def test_amplitudes_of_any_number_type_are_squared_without_overflow(kind):
    """The square of 200 is 40000, which neither 8 nor 16 bits hold."""
    view = AmplitudesToCounts(np.full((1, 2, 2), 200, dtype=kind), 4.0, whole=True)
    assert (view[:] == 10_000).all()
    third = AmplitudesToCounts(np.full((1, 2, 2), 1, dtype=kind), 3.0, whole=False)
    assert third[:] == pytest.approx(np.full((1, 2, 2), 1 / 3))


SPOILT = ("abc", np.full((2, 3), np.nan))


HDF5_WRITERS = (
    write_cxi, write_nexus, write_nsls2, write_ptychi, write_ptychodus, write_ptyd, write_ptylab,
)  # fmt: skip


@pytest.mark.parametrize("write", HDF5_WRITERS, ids=lambda write: write.__name__)
def test_a_refusal_names_the_file(write, tmp_path, measured, probe_file):
    """Whatever dataset or attribute of whatever format cannot be what it should."""
    sound = tmp_path / "scan"
    write(sound, measured)
    files = sorted(sound.iterdir()) if sound.is_dir() else [sound]
    refused = 0
    for path in files:
        with h5py.File(path, "r") as file:
            places = [("/", attribute) for attribute in file.attrs]
            for key in datasets(path):
                places += [(key, attribute) for attribute in (None, *file[key].attrs)]
        whole = path.read_bytes()
        for key, attribute in places:
            for value in SPOILT:
                with h5py.File(path, "r+") as file:
                    if attribute is not None:
                        file[key].attrs[attribute] = value
                    else:
                        del file[key]
                        file[key] = value
                sentence = refusal(sound, ReadingOptions(probe=probe_file))
                refused += bool(sentence)
                assert not sentence or str(sound) in sentence, (key, attribute)
                path.write_bytes(whole)
    assert refused > len(SPOILT)


@pytest.mark.parametrize("start", ["<!DOCTYPE root>", '<!ENTITY a "b">'])
def test_an_xml_file_that_could_define_entities_is_not_parsed(start, tmp_path):
    (tmp_path / "scan.xml").write_text(f'{start}<root><raw_file filename="scan.raw"/></root>')
    with pytest.raises(InputError, match=r"scan\.xml: defines entities"):
        read_scan(tmp_path / "scan.xml")


def test_a_refusal_of_an_npz_file_names_it(tmp_path):
    path = tmp_path / "scan.npz"
    np.savez(path, scan=np.ones((3, 2)))
    with pytest.raises(InputError, match=f"^{path}: key 'reciprocal' is missing; found scan"):
        read_ptychonn([path])
    np.savez(path, reciprocal=np.ones((3, 2, 2)))
    with pytest.raises(InputError, match=f"^{path}: key 'scan' is missing; found reciprocal"):
        read_ptychonn([path])
    assert str(path) in str(unreadable(path, MemoryError()))
    assert str(unreadable(path, ValueError("a reason"))).startswith(f"{path}: not a readable NPZ")


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_an_array_that_declares_more_than_it_holds_is_refused(dtype, tmp_path):
    """The 128 bytes of the header count for what it holds, too."""
    np.save(tmp_path / "scan.npy", np.ones(700, dtype=dtype))
    whole = (tmp_path / "scan.npy").read_bytes()
    for shape, fits in ((b"(700,)", True), (b"(999,)", False)):
        with zipfile.ZipFile(tmp_path / "scan.npz", "w") as archive:
            archive.writestr("scan.npy", whole.replace(b"(700,)", shape))
        if fits:
            check_declared(tmp_path / "scan.npz", {"scan"})
        else:
            with pytest.raises(InputError, match=r"scan declares .* of shape .999,"):
                check_declared(tmp_path / "scan.npz", {"scan"})
            check_declared(tmp_path / "scan.npz", {"other"})


def test_an_archive_of_other_arrays_is_described_by_some_names(tmp_path):
    np.savez(tmp_path / "many.npz", **{name: np.ones(1) for name in "gfedcba"})
    assert kind_of_file(tmp_path / "many.npz") == "an NPZ file of arrays (a, b, c, d, e, f)"


def test_a_virtual_dataset_of_virtual_ones_is_read(tmp_path, measured):
    """A chain of them is no circle."""
    write_cxi(tmp_path / "scan.cxi", measured)
    with h5py.File(tmp_path / "scan.cxi", "r+") as file:
        key = "entry_1/instrument_1/detector_1/data"
        file.move(key, "stored")
        for place, source in (("between", "stored"), (key, "between")):
            layout = h5py.VirtualLayout(shape=measured.counts.shape, dtype="i4")
            layout[...] = h5py.VirtualSource(".", f"/{source}", shape=measured.counts.shape)
            file.create_virtual_dataset(place, layout)
    assert np.array_equal(read_cxi([tmp_path / "scan.cxi"]).patterns[:], measured.counts)


def test_a_file_of_no_known_format_is_told_what_is_known(tmp_path):
    (tmp_path / "notes.txt").write_text("some words")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["frames"] = np.zeros(3)
    names = [one.name for one in FORMATS]
    with pytest.raises(InputError, match="it is text; known: ") as refused:
        read_scan(tmp_path / "notes.txt")
    assert str(refused.value).endswith(", ".join(names))
    hdf5 = ", ".join(one.name for one in FORMATS if one.container == "hdf5")
    with pytest.raises(InputError, match="none of the formats") as refused:
        read_scan(tmp_path / "other.h5")
    assert f"none of the formats {hdf5}; found frames" in str(refused.value)


def test_a_raster_replaces_positions_in_pixels_by_metres():
    raw = RawScan("file", np.ones((6, 4, 4)), "d", "counts", np.zeros((6, 2)), "px")
    options = ReadingOptions(raster_step_m=1e-7, raster_shape="2,3", raster_rotation_deg=0.0)
    placed = place_on_raster(raw, options)
    assert placed.positions_unit == "m"
    assert placed.positions == pytest.approx(raster_positions_m((2, 3), (1e-7, 1e-7), 0.0))
    assert placed.notes == (
        "positions are those of a raster of 2 x 3 points with a step of 1e-07 m, turned by 0 "
        "degrees",
    )

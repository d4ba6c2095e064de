"""NPZ files of PtychoPINN and Ptychodus: good ones are read, bad ones get a sentence."""

import json
import pickle
import re

import numpy as np
import pytest

from ptycho_torch.config import ReadingOptions
from ptycho_torch.errors import InputError
from ptycho_torch.io.readers import read_scan
from ptycho_torch.io.readers.probe_file import read_probe


@pytest.fixture
def arrays():
    """A scan as Ptychodus exports it: 12 patterns of 16x16 counts, a probe of arbitrary scale."""
    rng = np.random.default_rng(0)
    y = np.arange(16) - 8
    probe = np.exp(-(y[:, None] ** 2 + y**2) / 10) * np.exp(0.1j * y)
    expected = 40 * np.exp(-(y[:, None] ** 2 + y**2) / 20)
    return {
        "diff3d": rng.poisson(expected, (12, 16, 16)).astype(np.uint16),
        "xcoords": np.linspace(20, 60, 12),
        "ycoords": np.linspace(70, 30, 12),
        "probeGuess": probe.astype(np.complex64),
        "scan_index": np.arange(12) * 2,
    }


@pytest.fixture
def write(tmp_path, arrays):
    def write(*, leave_out=(), **changes):
        path = tmp_path / "scan.npz"
        content = {key: value for key, value in (arrays | changes).items() if key not in leave_out}
        np.savez(path, **content)
        return path

    return write


def test_positions_are_y_x_and_counts_are_kept(write, arrays):
    scan = read_scan(write())
    assert np.array_equal(
        scan.positions_px, np.stack([arrays["ycoords"], arrays["xcoords"]], axis=1)
    )
    assert np.array_equal(scan.counts[:], arrays["diff3d"])
    assert np.array_equal(scan.scan_index, arrays["scan_index"])


def test_probe_carries_the_photons_of_a_mean_pattern(write, arrays):
    scan = read_scan(write())
    assert scan.photons == pytest.approx(arrays["diff3d"].sum() / 12, rel=1e-5)  # complex64
    ratio = scan.probe[0] / arrays["probeGuess"]
    assert np.allclose(ratio, ratio[0, 0], rtol=1e-5)
    assert any("probeGuess was multiplied by" in decision for decision in scan.decisions)


def test_scale_is_that_of_the_whole_scan_and_not_of_a_subset(write):
    scan = read_scan(write())
    assert scan.subset([0, 5]).photons == scan.photons


@pytest.mark.parametrize(
    ("shape", "modes"),
    [((16, 16), 1), ((16, 16, 1), 1), ((1, 16, 16), 1), ((3, 16, 16), 3)],
    ids=lambda v: str(v),
)
def test_probe_gets_a_mode_axis(write, arrays, shape, modes):
    probe = np.broadcast_to(arrays["probeGuess"], (modes, 16, 16)).reshape(shape)
    assert read_scan(write(probeGuess=probe)).probe.shape == (modes, 16, 16)


def test_every_variant_of_a_scan_is_the_same_scan(write, arrays):
    plain = read_scan(write())
    counts = arrays["diff3d"]
    variants = [
        {"diff3d": counts.astype(np.float32)},
        {"diff3d": counts.astype(">i4")},
        {"diff3d": (np.sqrt(counts) / 37.5).astype(np.float32)},
        {"diff3d": np.sqrt(counts.astype(np.float64))},
        {"leave_out": ["diff3d"], "diffraction": counts},
        {"leave_out": ["diff3d"], "diffraction": np.moveaxis(counts, 0, -1)},
        {"probeGuess": 1000 * arrays["probeGuess"][..., None]},
        {"xcoords_start": arrays["xcoords"], "objectGuess": np.ones((80, 80), dtype=np.complex64)},
    ]
    for variant in variants:
        scan = read_scan(write(**variant))
        assert np.array_equal(scan.counts[:], plain.counts[:]), variant
        assert np.array_equal(scan.positions_px, plain.positions_px)
        assert np.allclose(scan.probe, plain.probe, rtol=1e-4)


def test_amplitude_is_recognised_and_reported(write, arrays):
    scan = read_scan(write(diff3d=(np.sqrt(arrays["diff3d"]) / 12).astype(np.float32)))
    assert any("read as amplitudes" in decision for decision in scan.decisions)


def test_values_that_could_be_either_are_refused_and_the_flag_decides(write, arrays):
    values = np.random.default_rng(1).gamma(2.0, 3.0, arrays["diff3d"].shape).astype(np.float32)
    path = write(diff3d=values)
    with pytest.raises(InputError, match="--diffraction counts or --diffraction amplitude"):
        read_scan(path)
    assert np.array_equal(
        read_scan(path, options=ReadingOptions(diffraction="counts")).counts[:], values
    )
    assert np.allclose(
        read_scan(path, options=ReadingOptions(diffraction="amplitude")).counts[:],
        values**2,
        rtol=1e-6,
    )


def test_whole_numbers_are_read_as_amplitudes_with_the_flag(write):
    path = write(diff3d=np.full((12, 16, 16), 3, dtype=np.int32))
    assert np.array_equal(
        read_scan(path, options=ReadingOptions(diffraction="amplitude")).counts[:],
        np.full((12, 16, 16), 9.0),
    )


def test_bad_pixels_are_masked_and_do_not_count(write, arrays):
    bad = np.zeros((16, 16), dtype=bool)
    bad[3, 4] = True
    counts = arrays["diff3d"].copy()
    counts[:, 3, 4] = 60000
    scan = read_scan(write(diff3d=counts, bad_pixels=bad))
    assert not scan.mask[3, 4]
    assert scan.mask.sum() == 255
    assert scan.photons == pytest.approx(counts[:, ~bad].sum() / 12, rel=1e-5)


def test_bad_pixels_may_hold_anything(write, arrays):
    bad = np.zeros((16, 16), dtype=bool)
    bad[4, 5] = True
    counts = arrays["diff3d"].astype(np.float32)
    counts[:, 4, 5] = np.nan
    assert not read_scan(write(diff3d=counts, bad_pixels=bad)).counts[:][:, 4, 5].any()


def test_an_index_that_numbers_the_object_is_no_index(write):
    assert read_scan(write(scan_index=np.zeros(12, dtype=int))).scan_index.tolist() == list(
        range(12)
    )


def test_missing_scan_index_counts_from_zero(write):
    assert np.array_equal(read_scan(write(leave_out=["scan_index"])).scan_index, np.arange(12))


class Trap:
    """An object that writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_pickle_is_never_executed(write, tmp_path):
    sprung = tmp_path / "sprung"
    trap = np.empty((), dtype=object)
    trap[()] = Trap(sprung)
    scan = read_scan(write(_metadata=trap))
    assert any("_metadata" in decision for decision in scan.decisions)
    with pytest.raises(InputError, match="not a readable NPZ"):
        read_scan(write(xcoords=trap))
    assert not sprung.exists()
    pickle.loads(pickle.dumps(Trap(sprung)))  # the trap works where pickles are loaded
    assert sprung.exists()


def test_metadata_of_ptychopinn_is_left_out_and_reported(write):
    metadata = np.array(json.dumps({"physics_parameters": {"nphotons": 1e9}}), dtype=object)
    assert (
        "_metadata holds a pickled object and was left out"
        in read_scan(write(_metadata=metadata)).decisions
    )


def with_value(array, value):
    array = array.astype(np.float32)
    array[4, 5, 6] = value
    return array


BAD = {
    "missing diff3d": (lambda a: {"leave_out": ["diff3d"]}, "key 'diff3d' is missing; found"),
    "missing xcoords": (lambda a: {"leave_out": ["xcoords"]}, "key 'xcoords' is missing"),
    "lengths": (lambda a: {"xcoords": a["xcoords"][:7]}, "xcoords has 7 values but ycoords has 12"),
    "fewer patterns": (
        lambda a: {"diff3d": a["diff3d"][:9]},
        "diff3d has 9 patterns but there are 12 positions",
    ),
    "axes": (
        lambda a: {"diff3d": np.moveaxis(a["diff3d"], 0, -1)},
        "wrong order; expected .12, N, N.: store numpy.moveaxis",
    ),
    "axes inside": (lambda a: {"diff3d": np.swapaxes(a["diff3d"], 0, 1)}, "wrong order"),
    "flat patterns": (
        lambda a: {"diff3d": a["diff3d"].reshape(12, -1)},
        "expected real numbers of shape .n, N, N.",
    ),
    "text": (lambda a: {"diff3d": np.array(["a", "b"])}, "expected real numbers"),
    "nan": (lambda a: {"diff3d": with_value(a["diff3d"], np.nan)}, "1 values that are not finite"),
    "infinite": (
        lambda a: {"diff3d": with_value(a["diff3d"], np.inf)},
        "1 values that are not finite",
    ),
    "negative": (lambda a: {"diff3d": with_value(a["diff3d"], -3)}, "1 negative values"),
    "all zero": (
        lambda a: {"diff3d": np.zeros_like(a["diff3d"])},
        "all patterns are all zero",
    ),
    "no pattern": (
        lambda a: {k: a[k][:0] for k in ("diff3d", "xcoords", "ycoords", "scan_index")},
        "n > 0",
    ),
    "probe size": (
        lambda a: {"probeGuess": a["probeGuess"][:8, :8]},
        r"probeGuess is complex64 of shape \(8, 8\)",
    ),
    "probe zero": (lambda a: {"probeGuess": 0 * a["probeGuess"]}, "not all zero"),
    "probe nan": (lambda a: {"probeGuess": np.nan * a["probeGuess"]}, "total power of nan"),
    "position nan": (lambda a: {"ycoords": a["ycoords"] * np.nan}, "12 values that are not finite"),
    "positions 2d": (
        lambda a: {"ycoords": a["ycoords"][:, None]},
        "expected real numbers of shape .n,.",
    ),
    "scan index": (lambda a: {"scan_index": np.arange(5)}, "expected 12 whole numbers"),
    "index of infinity": (
        lambda a: {"scan_index": np.full(12, np.inf)},
        "expected 12 whole numbers",
    ),
    "an index of infinity": (
        lambda a: {"scan_index": np.append(np.arange(11.0), np.inf)},
        "expected 12 whole numbers",
    ),
    "pixel size": (lambda a: {"pixel_size_m": np.array([1e-8, 0.0])}, "expected positive numbers"),
    "denormal pixel": (
        lambda a: {"detector_pixel_m": np.array([7.5e-5, 5e-322])},
        "expected positive numbers, from 1e-15",
    ),
    "energy": (lambda a: {"energy_ev": np.arange(3.0)}, r"energy_ev is .* expected 1 positive"),
    "distance": (lambda a: {"distance_m": np.array("1 m")}, "distance_m is <U3"),
    "mask size": (
        lambda a: {"bad_pixels": np.zeros((4, 4), dtype=bool)},
        "bad_pixels is bool of shape",
    ),
    "mask everything": (
        lambda a: {"bad_pixels": np.ones((16, 16), dtype=bool)},
        "marks every pixel",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_gets_a_sentence_that_names_it(write, arrays, case):
    change, sentence = BAD[case]
    path = write(**change(arrays))
    with pytest.raises(InputError, match=sentence) as error:
        read_scan(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_no_npz_are_told_apart(tmp_path, write):
    missing, text, cut = tmp_path / "missing.npz", tmp_path / "text.npz", tmp_path / "cut.npz"
    text.write_text("not a scan")
    cut.write_bytes(write().read_bytes()[:700])
    sentences = {
        missing: "no such file",
        text: "known format",
        cut: "is it complete",
        tmp_path: "a folder without a pair",
    }
    for path, sentence in sentences.items():
        with pytest.raises(InputError, match=sentence):
            read_scan(path)


def test_python_objects_are_named_and_not_called_incomplete(tmp_path, write):
    """A file of them is whole; NumPy's advice to load it unsafely is left out."""
    objects = np.array([{}, 1], dtype=object)
    scan, probe = tmp_path / "objects.npz", tmp_path / "objects.npy"
    np.savez(scan, diff3d=objects, xcoords=np.arange(2.0), ycoords=np.arange(2.0))
    np.save(probe, objects)
    for path, read in ((scan, read_scan), (probe, read_probe)):
        with pytest.raises(InputError, match="holds Python objects, which are never") as error:
            read(path)
        assert not re.search("complete|unsafe|pickle|single array", str(error.value))


def test_lengths_and_energy_are_read_where_the_file_has_them(write):
    plain = read_scan(write())
    assert (plain.pixel_size_m, plain.instrument.energy_ev) == (None, None)
    scan = read_scan(write(pixel_size_m=np.array([2e-8, 3e-8]), energy_ev=np.array(8000.0)))
    assert (scan.pixel_size_m, scan.instrument.energy_ev) == ((2e-8, 3e-8), 8000.0)


def test_writing_and_reading_a_scan_changes_nothing(simulation, scan_file):
    scan = read_scan(scan_file)
    assert np.array_equal(scan.counts[:], simulation.scan.counts[:])
    assert np.array_equal(scan.positions_px, simulation.scan.positions_px)
    ratio = scan.probe / simulation.scan.probe
    assert np.allclose(
        np.median(np.abs(ratio)), np.sqrt(scan.photons / simulation.scan.photons), rtol=1e-4
    )

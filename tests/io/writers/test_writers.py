"""Written files are read back with the same content; a file appears whole or not at all."""

import dataclasses
import errno
import logging
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from ptycho_torch.config import ReadingOptions
from ptycho_torch.data.scan import Instrument
from ptycho_torch.errors import InputError
from ptycho_torch.io.readers import read_scan
from ptycho_torch.io.readers.reconstruction import read_reconstruction
from ptycho_torch.io.run_dir import RunDir
from ptycho_torch.io.writers import (
    RESULT_WRITERS,
    SCAN_WRITERS,
    ptychodus_writer,
    write_formats,
    write_reconstruction,
    write_scan,
)
from ptycho_torch.io.writers.hdf5_writer import PatientFile, store_patterns

FLOAT32 = 1e-6


@pytest.fixture
def scan(simulation):
    """A scan with a bad pixel and an index that does not start at 0."""
    mask = simulation.scan.mask.copy()
    mask[3, 5] = False
    counts = np.where(mask, simulation.scan.counts, 0).astype(np.uint32)
    return dataclasses.replace(
        simulation.scan, mask=mask, counts=counts, scan_index=np.arange(64) + 10
    )


def test_every_array_of_a_scan_can_be_cut_along_its_first_axis(tmp_path, scan):
    write_scan(tmp_path / "scan.npz", scan)
    with np.load(tmp_path / "scan.npz") as archive:
        images = {key: archive[key] for key in ("probeGuess", "bad_pixels")}
        cut = {key: archive[key][:3] for key in archive}
    np.savez(tmp_path / "cut.npz", **cut | images)
    part, whole = read_scan(tmp_path / "cut.npz"), scan.subset([0, 1, 2])
    assert part.instrument == whole.instrument
    assert part.pixel_size_m == whole.pixel_size_m
    np.testing.assert_array_equal(part.counts, whole.counts)


@pytest.mark.parametrize("format_name", SCAN_WRITERS)
def test_a_scan_comes_back(format_name, tmp_path, scan):
    path, probe = tmp_path / "scan", tmp_path / "probe.npy"
    np.save(probe, scan.probe)
    write_scan(path, scan, format_name=format_name)
    back = read_scan(path, options=ReadingOptions(probe=probe if format_name == "ptyd" else None))
    assert np.array_equal(back.counts[:], scan.counts)
    assert np.array_equal(back.mask, scan.mask)
    assert np.array_equal(
        back.scan_index, np.arange(64) if format_name == "cxi" else scan.scan_index
    )
    assert back.positions_px == pytest.approx(scan.positions_px, rel=FLOAT32)
    assert abs(np.vdot(back.probe, scan.probe)) == pytest.approx(
        np.linalg.norm(back.probe) * np.linalg.norm(scan.probe), rel=FLOAT32
    )
    assert back.pixel_size_m == pytest.approx(scan.pixel_size_m)
    assert back.instrument.energy_ev == pytest.approx(scan.instrument.energy_ev)


def test_the_two_files_of_a_pair_are_replaced_together(tmp_path, scan, monkeypatch):
    write_scan(tmp_path / "pair", scan, format_name="ptychodus")
    before = {path: path.read_bytes() for path in (tmp_path / "pair").iterdir()}

    def fail(path, *_):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(ptychodus_writer, "_write_product", fail)
    with pytest.raises(OSError, match=r"No space left on device: '.*/pair/product.h5'"):
        write_scan(tmp_path / "pair", scan.subset(np.arange(9)), format_name="ptychodus")
    assert {path: path.read_bytes() for path in (tmp_path / "pair").iterdir()} == before


@pytest.mark.parametrize("format_name", sorted(set(SCAN_WRITERS) - {"npz"}))
def test_a_scan_without_metres_names_the_flags(format_name, tmp_path, scan):
    blind = dataclasses.replace(scan, instrument=Instrument(energy_ev=8000.0), pixel_size_m=None)
    flags = "give --distance_m, --detector_pixel_m"
    with pytest.raises(InputError, match=f"--format {format_name} is in metres.*{flags}"):
        write_scan(tmp_path / "scan", blind, format_name=format_name)
    assert not any(tmp_path.iterdir())


def test_fields_that_a_format_cannot_hold_are_named(tmp_path, scan, caplog):
    caplog.set_level(logging.INFO, "ptycho_torch")
    for format_name, left in (
        ("cxi", "index of the exposures"),
        ("ptyd", "probe"),
    ):
        caplog.clear()
        write_scan(tmp_path / f"scan.{format_name}", scan, format_name=format_name)
        assert left in caplog.text


class Unreadable:
    """Patterns that raise `OSError` when they are read."""

    shape, dtype = (64, 32, 32), np.dtype(np.uint32)

    def __getitem__(self, key):
        raise OSError("broken")


@pytest.mark.parametrize("format_name", SCAN_WRITERS)
def test_a_file_appears_whole_or_not_at_all(format_name, tmp_path, scan):
    unreadable = dataclasses.replace(scan, counts=Unreadable())
    with pytest.raises(OSError, match="broken"):
        write_scan(tmp_path / "scan", unreadable, format_name=format_name)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_reconstruction_comes_back_with_its_experiment(tmp_path, simulation):
    path = tmp_path / "reconstruction.npz"
    write_reconstruction(path, simulation.truth)
    back = read_reconstruction(path)
    assert back.instrument == simulation.truth.instrument
    assert back.pixel_size_m == simulation.truth.pixel_size_m


@pytest.fixture
def variable(simulation):
    """A reconstruction with everything that may be known about its measurement."""
    rng, (n, (modes, height, width)) = np.random.default_rng(0), (64, simulation.truth.probe.shape)
    components = rng.normal(size=(2, modes, height, width, 2)) @ [1, 1j]
    return dataclasses.replace(
        simulation.truth,
        flux=rng.uniform(0.5, 1.5, n),
        background=rng.uniform(0, 3, (height, width)).astype(np.float32),
        probe_components=components.astype(np.complex64),
        probe_weights=rng.normal(size=(n, 2)).astype(np.float32),
    )


def test_a_reconstruction_is_stored_in_the_number_types_of_its_specification(tmp_path, variable):
    """Also where the arrays in memory are of the other width."""
    types = {
        **dict.fromkeys(("object", "probe", "probe_components"), np.complex64),
        **dict.fromkeys(("coverage", "background", "probe_weights"), np.float32),
        **dict.fromkeys(("origin_yx", "positions_px", "flux"), np.float64),
        "scan_index": np.int64,
    }
    other = {np.complex64: np.complex128, np.float32: np.float64, np.float64: np.float32,
             np.int64: np.int32}  # fmt: skip
    held = {name: getattr(variable, name).astype(other[kind]) for name, kind in types.items()}
    write_reconstruction(tmp_path / "image.npz", dataclasses.replace(variable, **held))
    with np.load(tmp_path / "image.npz") as stored:
        assert {name: stored[name].dtype.type for name in types} == types


@pytest.mark.parametrize("modes", [1, 3])
def test_a_probe_of_one_mode_is_an_image_as_ptychopinn_writes_it(modes, tmp_path, scan):
    probe = np.repeat(scan.probe[:1], modes, axis=0)
    write_scan(tmp_path / "scan.npz", dataclasses.replace(scan, probe=probe))
    with np.load(tmp_path / "scan.npz") as stored:
        assert stored["probeGuess"].shape == ((32, 32) if modes == 1 else (3, 32, 32))


def test_bytes_of_equal_weight_are_compressed_together(tmp_path, scan):
    """Three of the four bytes of a small count are zero."""
    with h5py.File(tmp_path / "patterns.h5", "w") as file:
        shuffled = store_patterns(file, "shuffled", scan.counts)
        as_it_is = file.create_dataset(
            "as it is", data=scan.counts, chunks=shuffled.chunks, compression="gzip",
            compression_opts=shuffled.compression_opts,
        )  # fmt: skip
        sizes = [one.id.get_storage_size() for one in (shuffled, as_it_is)]
    assert sizes[0] < 0.9 * sizes[1]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full disk")
def test_the_first_error_of_a_full_disk_is_kept_and_ends_no_write():
    """HDF5 goes on writing when its file is closed; it must not be told, or it crashes."""
    with PatientFile(Path("/dev/full")) as file:
        assert file.write(b"some") == 4
        first = file.error
        assert first.errno == errno.ENOSPC
        assert file.write(b"more bytes") == 10
        assert file.error is first


MEASUREMENT = ("flux", "background", "probe_components", "probe_weights")


def test_what_is_known_about_the_measurement_comes_back(tmp_path, variable, simulation):
    path = tmp_path / "reconstruction.npz"
    write_reconstruction(path, variable)
    back = read_reconstruction(path)
    for name in MEASUREMENT:
        kept, given = getattr(back, name), getattr(variable, name)
        assert np.array_equal(kept, given)
        assert kept.dtype == given.dtype
    write_reconstruction(path, simulation.truth)
    back = read_reconstruction(path)
    assert [getattr(back, name) for name in MEASUREMENT] == [None] * 4


@pytest.mark.parametrize("name", MEASUREMENT)
def test_a_measurement_of_the_wrong_size_is_refused_by_name(name, tmp_path, variable):
    path = tmp_path / "reconstruction.npz"
    write_reconstruction(
        path, dataclasses.replace(variable, **{name: getattr(variable, name)[..., 1:]})
    )
    with pytest.raises(InputError, match=f"'{name}' has shape"):
        read_reconstruction(path)


@pytest.mark.parametrize("name", ["probe_components", "probe_weights"])
def test_components_without_weights_are_refused_and_so_are_weights(name, tmp_path, variable):
    path = tmp_path / "reconstruction.npz"
    write_reconstruction(path, dataclasses.replace(variable, **{name: None}))
    with pytest.raises(InputError, match=f"'{name}' is missing"):
        read_reconstruction(path)


def test_all_result_formats_lie_in_the_run_folder(tmp_path, simulation):
    run = RunDir(tmp_path)
    write_formats(run, simulation.truth, list(RESULT_WRITERS))
    truth = simulation.truth
    assert set(run.files("infer")) == set(tmp_path.iterdir())
    assert tifffile.imread(run.amplitude_tiff) == pytest.approx(np.abs(truth.object))
    assert tifffile.imread(run.phase_tiff) == pytest.approx(np.angle(truth.object))
    with tifffile.TiffFile(run.phase_tiff) as file:
        numerator, denominator = file.pages[0].tags["XResolution"].value
        assert 0.01 * denominator / numerator == pytest.approx(truth.pixel_size_m[1], rel=1e-3)
    with h5py.File(run.cxi) as file:
        assert np.array_equal(file["entry_1/image_2/data"][0], truth.object)

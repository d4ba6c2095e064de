"""The half pixel between positions from the corner of pixel 0 and positions from its center."""

import h5py
import numpy as np
import pytest

from ptycho_torch.config import ReadingOptions
from ptycho_torch.data.scan import Instrument
from ptycho_torch.errors import InputError
from ptycho_torch.io.readers import read_scan
from ptycho_torch.io.readers.detect import detect_format

SENTENCE = (
    "positions are counted from the center of pixel 0, as Ptychodus 1.6 and later export them"
)


@pytest.fixture
def export(tmp_path, measured):
    """Writes the scan as Ptychodus exports it, with an object around it."""

    def write(*, middles, mask, off_px=0.0, **changes):
        shape = (90, 101)
        extremes = measured.positions_m.min(axis=0) + measured.positions_m.max(axis=0)
        middle = (np.array(shape) - (1 if middles else 0)) / 2
        positions = (measured.positions_m - extremes / 2) / measured.pixel_m + middle + off_px
        content = {
            "xcoords": positions[:, 1],
            "ycoords": positions[:, 0],
            "xcoords_start": positions[:, 1],
            "ycoords_start": positions[:, 0],
            "diff3d": measured.counts,
            "probeGuess": measured.probe,
            "objectGuess": np.ones(shape, dtype=complex),
            "scan_index": np.zeros(measured.n, dtype=int),
        }
        if mask:
            content["bad_pixels"] = np.zeros(measured.shape, dtype=bool)
        np.savez(tmp_path / "exported.npz", **content | changes)
        return tmp_path / "exported.npz", positions

    return write


@pytest.mark.parametrize(
    ("version", "middles", "mask", "off_px", "half"),
    [
        ("1.7", True, True, 0.0, 0.5),
        ("1.7, object not centred", True, True, 4.3, 0.5),
        ("1.6", True, False, 0.0, 0.5),
        ("1.6, object not centred: nothing tells it", True, False, 4.3, 0.0),
        ("1.5", False, False, 0.0, 0.0),
        ("1.5, object not centred", False, False, 4.3, 0.0),
    ],
)
def test_exported_files_tell_by_their_object_and_their_mask(
    export, version, middles, mask, off_px, half
):
    path, positions = export(middles=middles, mask=mask, off_px=off_px)
    scan = read_scan(path)
    assert scan.positions_px == pytest.approx(positions + half), version
    assert (SENTENCE in scan.decisions) == (half > 0)


def test_the_flag_comes_first(export):
    for middles in (True, False):
        path, positions = export(middles=middles, mask=middles)
        for word, half in (("corner", 0.0), ("center", 0.5)):
            scan = read_scan(path, options=ReadingOptions(positions_from=word))
            assert scan.positions_px == pytest.approx(positions + half)


def test_files_without_an_object_count_from_the_corner(export, scan_file, simulation):
    assert read_scan(scan_file).positions_px == pytest.approx(simulation.scan.positions_px)
    for damaged in (np.array(None, dtype=object), np.ones(3)):
        path, positions = export(middles=True, mask=True, objectGuess=damaged)
        assert read_scan(path).positions_px == pytest.approx(positions)


def test_cropping_scales_from_the_corner(export):
    path, positions = export(middles=True, mask=True)
    cropped = read_scan(path, options=ReadingOptions(crop=16))
    assert cropped.positions_px == pytest.approx((positions + 0.5) / 2)


def test_metres_need_no_such_flag(tmp_path, simulation):
    from ptycho_torch.io.writers.ptychodus_writer import write_scan

    write_scan(tmp_path, simulation.scan)
    with pytest.raises(
        InputError, match="positions are in metres, and --positions_from is for object pixels"
    ):
        read_scan(tmp_path, options=ReadingOptions(positions_from="center"))


# --- HDF5 training data of Ptychodus


@pytest.fixture
def training_data(tmp_path, measured):
    """A file as `ptychodus.api.io.save_training_data` writes it."""

    def write(energy="photon_energy_eV", leave_out=()):
        path = tmp_path / "training.h5"
        positions = measured.positions_m / measured.pixel_m + 40
        bad = np.zeros(measured.shape, dtype=bool)
        bad[3, 4] = True
        content = {
            "patterns": measured.counts,
            "bad_pixels": bad,
            "probe": measured.probe,
            "object": np.ones((90, 101), dtype=complex),
            "probe_position_x_px": positions[:, 1],
            "probe_position_y_px": positions[:, 0],
            "object_pixel_width_m": measured.pixel_m,
            "object_pixel_height_m": measured.pixel_m,
            "detector_object_distance_m": measured.distance_m,
            energy: measured.energy_ev,
        }
        with h5py.File(path, "w") as file:
            for key, value in content.items():
                if key not in leave_out:
                    file[key] = value
        return path, positions

    return write


@pytest.mark.parametrize("energy", ["photon_energy_eV", "probe_energy_eV"])
def test_training_data_is_read(training_data, measured, energy):
    path, positions = training_data(energy)
    assert detect_format(path).name == "Ptychodus training data"
    scan = read_scan(path)
    assert scan.positions_px == pytest.approx(positions + 0.5)
    assert scan.pixel_size_m == pytest.approx((measured.pixel_m, measured.pixel_m))
    assert scan.instrument.energy_ev == measured.energy_ev
    assert scan.instrument.distance_m == measured.distance_m
    assert scan.instrument.detector_pixel_m == pytest.approx((measured.detector_pixel_m,) * 2)
    assert not scan.mask[3, 4]
    good = np.where(scan.mask, measured.counts, 0)
    assert np.array_equal(scan.counts[:], good)


def test_training_data_without_an_experiment_is_read_too(training_data):
    path, _ = training_data(leave_out=("photon_energy_eV", "object_pixel_width_m", "bad_pixels"))
    scan = read_scan(path)
    assert scan.pixel_size_m is None
    assert scan.instrument == Instrument(distance_m=scan.instrument.distance_m)


def test_training_data_that_contradicts_itself_is_refused(training_data):
    path, _ = training_data()
    with h5py.File(path, "a") as file:
        del file["probe_position_x_px"]
        file["probe_position_x_px"] = np.zeros(3)
    with pytest.raises(
        InputError, match="probe_position_x_px has 3 values but probe_position_y_px has"
    ):
        read_scan(path)

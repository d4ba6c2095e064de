"""Cropping, binning, turning and centring of patterns, and the physics after each of them."""

import dataclasses

import numpy as np
import pytest
import torch
from beamline_files import write_cxi, write_ptychodus

from ptycho_torch.config import ReadingOptions
from ptycho_torch.data.detector import Orientation
from ptycho_torch.data.scan import Reconstruction
from ptycho_torch.errors import InputError
from ptycho_torch.evaluation.metrics.residuals import r_factor
from ptycho_torch.io.readers import read_scan
from ptycho_torch.physics.propagation import FarField


@pytest.fixture(params=["hdf5", "npz"])
def source(request, tmp_path, measured, scan_file):
    return scan_file if request.param == "npz" else write_ptychodus(tmp_path / "pair", measured)


def read(source, **options):
    return read_scan(source, options=ReadingOptions(**options))


def test_cropping_keeps_the_middle_and_enlarges_the_pixel(source, measured):
    whole, scan = read(source), read(source, crop=24)
    assert np.array_equal(scan.counts[:], measured.counts[:, 4:28, 4:28])
    assert np.diff(scan.positions_px, axis=0) == pytest.approx(
        np.diff(whole.positions_px, axis=0) * 24 / 32
    )
    if whole.pixel_size_m is not None:
        assert scan.pixel_size_m[0] == pytest.approx(whole.pixel_size_m[0] * 32 / 24)


def test_binning_adds_up_and_keeps_the_pixel(source, measured):
    whole, scan = read(source), read(source, bin=2)
    assert scan.counts[:].sum() == measured.counts.sum()
    assert scan.counts[5][3, 4] == measured.counts[5][6:8, 8:10].sum()
    assert np.array_equal(scan.positions_px, whole.positions_px)
    assert scan.pixel_size_m == whole.pixel_size_m


def test_an_amplitude_is_squared_before_it_is_binned(tmp_path, scan_file, measured):
    with np.load(scan_file) as archive:
        arrays = dict(archive)
    path = tmp_path / "amplitude.npz"
    np.savez(path, **arrays | {"diff3d": np.sqrt(arrays["diff3d"]).astype(np.float32)})
    assert read(path, bin=2).counts[:].sum() == pytest.approx(measured.counts.sum())


def test_a_bin_with_a_bad_pixel_is_bad(tmp_path, scan_file):
    with np.load(scan_file) as archive:
        arrays = dict(archive)
    bad = np.zeros((32, 32), dtype=bool)
    bad[6, 9] = True
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays | {"bad_pixels": bad})
    scan = read(path, bin=2)
    assert np.argwhere(~scan.mask).tolist() == [[3, 4]]
    assert not scan.counts[:][:, 3, 4].any()


def test_a_cropped_probe_predicts_the_cropped_patterns(source, measured):
    """With empty space as the object, the cropped probe gives the middle of the whole pattern."""
    scan = read(source, crop=24)
    pattern = np.fft.fftshift(
        FarField().forward(torch.from_numpy(measured.probe)).abs().square().numpy()[0]
    )
    cropped = np.fft.fftshift(
        FarField().forward(torch.from_numpy(scan.probe)).abs().square().numpy()[0]
    )
    middle = pattern[4:28, 4:28]
    assert cropped / cropped.sum() == pytest.approx(middle / middle.sum(), abs=1e-6)


def test_the_object_explains_the_cropped_patterns(source, measured):
    """The truth, resampled to the larger pixel, has a far smaller residual than empty space."""
    scan = read(source, crop=24)
    truth = measured.truth
    frame = (
        scan.positions_px.min(axis=0) - truth.positions_px.min(axis=0) * 24 / 32
    )  # of the file against that of the truth
    size = truth.object.shape[0]
    small = round(size * 24 / 32)
    spectrum = np.fft.fftshift(np.fft.fft2(truth.object))
    start = size // 2 - small // 2
    image = (
        np.fft.ifft2(np.fft.ifftshift(spectrum[start : start + small, start : start + small]))
        * (small / size) ** 2
    )
    image *= np.sqrt(
        measured.scan.photons / scan.photons
    )  # the reader cannot know what the object absorbs
    result = Reconstruction(
        object=image.astype(np.complex64),
        coverage=np.ones(image.shape, dtype=np.float32),
        origin_yx=frame,
        probe=scan.probe,
        positions_px=scan.positions_px,
        scan_index=scan.scan_index,
    )
    inside = np.all(
        (scan.corners_px() - frame >= 0) & (scan.corners_px() - frame <= small - 24), axis=1
    )
    chosen = scan.subset(np.flatnonzero(inside))
    empty = dataclasses.replace(result, object=np.ones_like(result.object))
    assert r_factor(result, chosen) < 0.3 * r_factor(empty, chosen)


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("flip_y", [False, True])
@pytest.mark.parametrize("flip_x", [False, True])
def test_orientations(source, measured, transpose, flip_y, flip_x):
    scan = read(source, transpose=transpose, flip_y=flip_y, flip_x=flip_x)
    orientation = Orientation(transpose, flip_y, flip_x)
    assert np.array_equal(scan.counts[:], orientation.turn(measured.counts))
    y, x = orientation.move((3, 7), (32, 32))
    assert orientation.apply(measured.counts)[0][round(y), round(x)] == measured.counts[0][3, 7]


def test_positions_are_swapped_and_reversed(source):
    plain = read(source).positions_px
    assert np.allclose(read(source, swap_xy=True).positions_px, plain[:, ::-1])
    assert np.allclose(read(source, negate_positions="both").positions_px, -plain)
    assert np.allclose(read(source, negate_positions="x").positions_px, plain * [1, -1])
    assert np.allclose(read(source, negate_positions="y").positions_px, plain * [-1, 1])


def test_a_stated_center_comes_to_the_middle(source, measured):
    scan = read(source, center="13.6,18")
    expected = np.zeros_like(measured.counts)
    expected[:, 2:, :-2] = measured.counts[:, :-2, 2:]
    assert np.array_equal(scan.counts[:], expected)
    assert not scan.mask[:2].any()
    assert not scan.mask[:, -2:].any()
    cropped = read(source, center="14,18", crop=20)
    assert np.array_equal(cropped.counts[:], measured.counts[:, 4:24, 8:28])
    assert cropped.mask.all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": 40}, "--crop 40 is larger"),
        ({"bin": 3}, "--bin 3 does not divide"),
        ({"center": "40,3"}, "outside the patterns"),
    ],
)
def test_options_that_do_not_fit_are_named(source, options, message):
    with pytest.raises(InputError, match=message):
        read(source, **options)


@pytest.mark.parametrize("center", ["3", "a,b", "1,2,3"])
def test_a_center_is_two_numbers(center):
    with pytest.raises(InputError, match="expected y,x"):
        ReadingOptions(center=center)


def test_the_user_states_the_experiment(tmp_path, measured, probe_file):
    path = tmp_path / "scan.cxi"
    write_cxi(path, measured)
    scan = read(path, probe=probe_file, energy_ev=4000.0)
    assert scan.pixel_size_m == pytest.approx((2 * measured.pixel_m,) * 2, rel=1e-6)
    scan = read(path, probe=probe_file, pixel_size_m=1e-8)
    assert scan.pixel_size_m == (1e-8, 1e-8)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5"])
def test_a_probe_comes_from_its_own_file(tmp_path, measured, suffix):
    import h5py

    path, file = tmp_path / "scan.cxi", tmp_path / f"probe{suffix}"
    write_cxi(path, measured)
    if suffix == ".npy":
        np.save(file, measured.probe[0])
    elif suffix == ".npz":
        np.savez(file, probe=measured.probe)
    else:
        with h5py.File(file, "w") as opened:
            opened["probe"] = measured.probe[None]
    scan = read(path, probe=file)
    assert abs(np.vdot(scan.probe, measured.probe)) == pytest.approx(
        np.linalg.norm(scan.probe) * np.linalg.norm(measured.probe), rel=1e-6
    )
    with pytest.raises(InputError, match="no such file"):
        read(path, probe=tmp_path / "absent")

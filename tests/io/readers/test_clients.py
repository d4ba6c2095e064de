"""Other programs read what this package writes, and this package what they write: same places,
orientation, pixel.

Patterns are simulated by one side and predicted by the other from the positions that it read, so
that a flip, a transposition or a shift by a pixel cannot go unseen.
"""

import dataclasses
import sys
from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np
import pytest

from ptycho_torch.config import ReadingOptions
from ptycho_torch.data.scan import Reconstruction
from ptycho_torch.data.simulation import expected_counts, simulate_scan
from ptycho_torch.data.wavelength import PHOTON_ENERGY_WAVELENGTH
from ptycho_torch.evaluation.metrics.residuals import r_factor
from ptycho_torch.io.readers import read_scan
from ptycho_torch.io.run_dir import RunDir
from ptycho_torch.io.writers import cxi_writer, ptychodus_writer

STAND_IN = Path(__file__).parents[2] / "ptychodus" / "stand_in"  # for torchvision

FLOAT32 = 1e-3  # of the brightest amplitude: float32 transforms, and float32 metres in the files


@pytest.fixture(scope="module")
def skewed():
    """A scan of a rectangular region with a probe that has no symmetry; 30 patterns of 32x32."""
    made = simulate_scan(photons=1e6, n_side=6, step_px=3.0, pattern_size=32, seed=3)
    y, x = np.mgrid[:32, :32] - 16
    envelope = np.exp(
        -(x**2 + 1.2 * y**2) / 22
    )  # dark at the border, where programs that shift by other fractions differ
    probe = (
        envelope
        * np.exp(0.2j * y + 0.03j * (x - 3) ** 2)
        * (1 + 0.4 * np.tanh(x / 3) + 0.2 * np.tanh(y / 4))
    )
    probe = (probe * np.sqrt(1e6 / np.sum(np.abs(probe) ** 2))).astype(np.complex64)[None]
    keep = np.arange(36) % 6 < 5
    positions = made.scan.positions_px[keep] + [0.0, 4.0]
    object_yx = np.pad(made.truth.object, ((0, 3), (4, 9)), constant_values=1)
    intensity, _ = expected_counts(object_yx, probe, positions)
    scan = dataclasses.replace(
        made.scan,
        counts=intensity,
        positions_px=positions,
        probe=probe,
        scan_index=np.arange(len(positions)),
    )
    truth = dataclasses.replace(
        made.truth,
        object=object_yx,
        coverage=np.ones(object_yx.shape, dtype=np.float32),
        probe=probe,
        positions_px=positions,
        scan_index=scan.scan_index,
    )
    return scan, truth


def relative(positions):
    return positions - positions.mean(axis=0)


def assert_equal_up_to_scale(patterns, expected):
    """Amplitudes agree, relative to the brightest, after one factor for all patterns."""
    amplitude, reference = (
        np.sqrt(patterns * (np.sum(expected) / np.sum(patterns))),
        np.sqrt(expected),
    )
    assert np.abs(amplitude - reference).max() < FLOAT32 * reference.max()


def assert_predicts(patterns, image, probe, corners):
    """Our forward model gives the patterns of another program, up to one factor."""
    intensity, _ = expected_counts(image, probe, corners + 16)
    assert_equal_up_to_scale(patterns, intensity)


# --- Ptychodus


def as_product(api, truth):
    """A reconstruction as Ptychodus has it in memory."""
    pixel = api.geometry.PixelGeometry(
        width_m=truth.pixel_size_m[1], height_m=truth.pixel_size_m[0]
    )
    positions_m = truth.positions_px * np.array(truth.pixel_size_m)
    center = (truth.origin_yx + np.array(truth.object.shape) / 2) * np.array(truth.pixel_size_m)
    points = [api.probe_positions.ProbePosition(i, x, y) for i, (y, x) in enumerate(positions_m)]
    return api.product.Product(
        metadata=api.product.ProductMetadata(
            name="truth",
            comments="",
            detector_distance_m=truth.instrument.distance_m,
            photon_energy_eV=truth.instrument.energy_ev,
            probe_photon_count=1e6,
            exposure_time_s=0.0,
            mass_attenuation_m2_per_kg=0.0,
            tomography_angle_deg=0.0,
        ),
        probe_positions=api.probe_positions.ProbePositionSequence(points),
        probes=api.probe.ProbeSequence(
            array=truth.probe.astype(complex), opr_weights=None, pixel_geometry=pixel
        ),
        object_=api.object.Object(
            array=truth.object.astype(complex),
            pixel_geometry=pixel,
            center=api.object.ObjectCenter(x_m=center[1], y_m=center[0]),
        ),
        losses=[],
    )


@pytest.fixture(scope="module")
def ptychodus():
    pytest.importorskip("ptychodus.api", reason="ptychodus is not installed: pip install ptychodus")
    import ptychodus.api.geometry
    import ptychodus.api.io
    import ptychodus.api.object
    import ptychodus.api.probe
    import ptychodus.api.probe_positions
    import ptychodus.api.product
    import ptychodus.api.simulate.diffraction

    return ptychodus.api


def test_a_pair_that_ptychodus_simulates_and_writes_is_read(ptychodus, tmp_path, skewed):
    _, truth = skewed
    product = as_product(ptychodus, truth)
    data = ptychodus.simulate.diffraction.generate_diffraction_data(product)
    data._indexes[:] = np.arange(len(truth.positions_px))
    ptychodus.io.save_diffraction_data(tmp_path / "diffraction.h5", data)
    ptychodus.io.save_product(tmp_path / "product.h5", product)
    scan = read_scan(tmp_path)
    assert scan.pixel_size_m == pytest.approx(truth.pixel_size_m)
    assert scan.positions_px == pytest.approx(truth.positions_px)
    assert_predicts(scan.counts[:], truth.object, scan.probe, scan.corners_px() - truth.origin_yx)


def test_ptychodus_opens_our_product_and_predicts_the_patterns(ptychodus, tmp_path, skewed):
    scan, truth = skewed
    ptychodus_writer.write_result(RunDir(tmp_path), truth)
    product = ptychodus.io.load_product(tmp_path / "product.h5")
    assert product.object_.get_geometry().center_x_m == pytest.approx(
        truth.object.shape[1] / 2 * truth.pixel_size_m[1]
    )
    data = ptychodus.simulate.diffraction.generate_diffraction_data(product)
    patterns = data.get_patterns()
    assert_equal_up_to_scale(patterns, scan.counts)


def test_ptychodus_opens_our_scan(ptychodus, tmp_path, skewed):
    scan, _ = skewed
    ptychodus_writer.write_scan(tmp_path / "pair", scan)
    data = ptychodus.io.load_diffraction_data(tmp_path / "pair" / "diffraction.h5")
    product = ptychodus.io.load_product(tmp_path / "pair" / "product.h5")
    assert np.array_equal(data.get_patterns(), scan.counts)
    x = product.probe_positions.get_coordinates_x_m() / scan.pixel_size_m[1]
    assert x == pytest.approx(scan.positions_px[:, 1])


def test_ptychodus_reads_our_cxi(ptychodus, tmp_path, skewed):
    from ptychodus.plugins.cxi_file import CXIProductFileIO

    scan, truth = skewed
    cxi_writer.write_result(RunDir(tmp_path), truth)
    product = CXIProductFileIO().read(RunDir(tmp_path).cxi)
    patterns = ptychodus.simulate.diffraction.generate_diffraction_data(product).get_patterns()
    assert_equal_up_to_scale(patterns, scan.counts)


# --- cdtools


@pytest.fixture(scope="module")
def cdtools():
    return pytest.importorskip("cdtools", reason="cdtools is not installed: pip install cdtools-py")


def cdtools_patterns(cdtools, dataset, truth):
    """Patterns that cdtools predicts for a dataset, from an object and a probe on its own grid, and
    the corners it uses.
    """
    import torch

    geometry = dataset.detector_geometry
    basis = cdtools.tools.initializers.exit_wave_geometry(
        torch.as_tensor(np.asarray(geometry["basis"]), dtype=torch.float64),
        (32, 32),
        torch.as_tensor(float(dataset.wavelength), dtype=torch.float64),
        torch.as_tensor(float(geometry["distance"]), dtype=torch.float64),
    )
    basis = basis[0] if isinstance(basis, tuple) else basis
    moved = cdtools.tools.interactions.translations_to_pixel(basis, dataset.translations.double())
    corners = moved - moved.mean(dim=0) + torch.as_tensor((truth.positions_px - 16).mean(axis=0))
    wave = cdtools.tools.interactions.ptycho_2D_sinc(
        torch.as_tensor(truth.probe[0]),
        torch.as_tensor(truth.object),
        corners,
        multiple_modes=False,
    )
    return cdtools.tools.propagators.far_field(wave).abs().square().numpy(), corners.numpy(), basis


def test_cdtools_opens_our_scan_and_predicts_its_patterns(cdtools, tmp_path, skewed):
    scan, truth = skewed
    cxi_writer.write_scan(tmp_path / "scan.cxi", scan)
    dataset = cdtools.datasets.Ptycho2DDataset.from_cxi(tmp_path / "scan.cxi")
    patterns, corners, basis = cdtools_patterns(cdtools, dataset, truth)
    assert corners == pytest.approx(truth.positions_px - 16, abs=1e-3)
    assert np.linalg.norm(basis.numpy(), axis=0) == pytest.approx(scan.pixel_size_m, rel=1e-5)
    assert_equal_up_to_scale(patterns, scan.counts)


def test_a_scan_that_cdtools_simulates_and_writes_is_read(cdtools, tmp_path, skewed):
    import torch

    scan, truth = skewed
    pixel = scan.instrument.detector_pixel_m[0]
    translations = np.zeros((len(scan), 3))
    translations[:, 0], translations[:, 1] = (
        -relative(scan.positions_px)[:, 1],
        -relative(scan.positions_px)[:, 0],
    )
    for basis in ([[0, -pixel], [-pixel, 0], [0, 0]], [[0, pixel], [-pixel, 0], [0, 0]]):
        dataset = cdtools.datasets.Ptycho2DDataset(
            translations * scan.pixel_size_m[0],
            torch.zeros(len(scan), 32, 32),
            wavelength=PHOTON_ENERGY_WAVELENGTH / scan.instrument.energy_ev,
            detector_geometry={
                "distance": scan.instrument.distance_m,
                "basis": np.array(basis),
                "corner": None,
            },
            mask=np.ones((32, 32)),
        )
        patterns, corners, _ = cdtools_patterns(cdtools, dataset, truth)
        dataset.patterns = torch.as_tensor(patterns)
        path = tmp_path / f"cdtools{np.sign(basis[0][1]):+.0f}.cxi"
        dataset.to_cxi(path)
        np.save(tmp_path / "probe.npy", truth.probe)
        back = read_scan(path, options=ReadingOptions(probe=tmp_path / "probe.npy"))
        assert back.pixel_size_m == pytest.approx(scan.pixel_size_m, rel=1e-6)
        assert relative(back.positions_px) == pytest.approx(relative(corners), abs=1e-3)
        shifted = relative(back.positions_px) + corners.mean(axis=0)
        inside = np.all((shifted >= 0) & (shifted <= np.array(truth.object.shape) - 32), axis=1)
        assert inside.sum() > 20
        assert_predicts(back.counts[:][inside], truth.object, back.probe, shifted[inside])


def test_cdtools_opens_our_reconstruction(cdtools, tmp_path, skewed):
    _, truth = skewed
    cxi_writer.write_result(RunDir(tmp_path), truth)
    dataset = cdtools.datasets.CDataset.from_cxi(RunDir(tmp_path).cxi)
    assert float(dataset.wavelength) == pytest.approx(
        PHOTON_ENERGY_WAVELENGTH / truth.instrument.energy_ev
    )
    with h5py.File(RunDir(tmp_path).cxi) as file:
        moved = -cdtools.tools.data.get_ptycho_translations(file)
    assert moved[:, 1] == pytest.approx(truth.positions_px[:, 0] * truth.pixel_size_m[0])


# --- PtyLab


def test_ptylab_and_the_reader_agree(tmp_path, skewed):
    pytest.importorskip("PtyLab", reason="PtyLab is not installed: pip install ptylab")
    from PtyLab.ExperimentalData.ExperimentalData import ExperimentalData
    from PtyLab.Params.Params import Params
    from PtyLab.Reconstruction.Reconstruction import Reconstruction as PtyLabReconstruction

    scan, truth = skewed
    path = tmp_path / "scan.hdf5"
    with h5py.File(path, "w") as file:
        file["ptychogram"] = scan.counts
        file["encoder"] = relative(scan.positions_px) * scan.pixel_size_m[0]
        file["dxd"] = scan.instrument.detector_pixel_m[0]
        file["zo"] = scan.instrument.distance_m
        file["wavelength"] = PHOTON_ENERGY_WAVELENGTH / scan.instrument.energy_ev
        file["entrancePupilDiameter"] = 10 * scan.pixel_size_m[0]
        file["orientation"] = 0
    data = ExperimentalData(path)
    state = PtyLabReconstruction(data, Params())
    np.save(tmp_path / "probe.npy", truth.probe)
    back = read_scan(path, options=ReadingOptions(probe=tmp_path / "probe.npy"))
    assert back.pixel_size_m == pytest.approx((state.dxo, state.dxo))
    # PtyLab rounds positions to whole pixels
    assert relative(state.positions) == pytest.approx(relative(back.positions_px), abs=1.0)
    assert np.corrcoef(state.positions[:, 0], back.positions_px[:, 0])[0, 1] > 0.99
    patches = np.stack(
        [truth.object[y : y + 32, x : x + 32] for y, x in np.rint(scan.corners_px()).astype(int)]
    )
    from PtyLab.utils.utils import fft2c

    theirs = np.abs(fft2c(patches * truth.probe)) ** 2
    ours, _ = expected_counts(truth.object, truth.probe, np.rint(scan.corners_px()) + 16)
    assert_equal_up_to_scale(theirs, ours)


# --- Pty-Chi


@pytest.fixture
def ptychi_images(monkeypatch):
    """Image processing of Pty-Chi, which imports torchvision; its wheels need a torch with CUDA."""
    if find_spec("torchvision") is None:
        monkeypatch.syspath_prepend(STAND_IN)
    yield pytest.importorskip("ptychi.image_proc", reason="it is not installed: make test-clients")
    if find_spec("torchvision").origin.startswith(str(STAND_IN)):
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]


def test_patterns_that_ptychi_predicts_are_read(ptychi_images, tmp_path, skewed):
    import torch

    _, truth = skewed
    shape = np.array(truth.object.shape)
    middle = shape / 2 + truth.origin_yx
    positions = truth.positions_px - middle  # from the centre of the object, as its files have them
    whole = torch.as_tensor(positions + (shape - 1) / 2)
    patches = ptychi_images.extract_patches_fourier_shift(
        torch.as_tensor(truth.object), whole, (32, 32)
    )
    waves = torch.fft.fftshift(
        torch.fft.fft2(patches * torch.as_tensor(truth.probe)[0]), dim=(-2, -1)
    )
    with h5py.File(tmp_path / "a_dp.hdf5", "w") as file:
        file["dp"] = waves.abs().square().numpy()
    with h5py.File(tmp_path / "a_para.hdf5", "w") as file:
        image = file.create_dataset("object", data=truth.object[None])
        image.attrs["pixel_height_m"], image.attrs["pixel_width_m"] = truth.pixel_size_m
        file["probe"] = truth.probe[None]
        for axis, column in (("y", 0), ("x", 1)):
            file[f"probe_position_{axis}_m"] = positions[:, column] * truth.pixel_size_m[column]
    scan = read_scan(tmp_path)
    assert scan.positions_px == pytest.approx(positions)
    image = Reconstruction(
        object=truth.object,
        coverage=truth.coverage,
        origin_yx=truth.origin_yx - middle,
        probe=truth.probe * np.float32(32),  # its transform is not unitary
        positions_px=scan.positions_px,
        scan_index=scan.scan_index,
    )
    # Pty-Chi shifts the patch by a fraction of a pixel, this package the probe
    assert r_factor(image, scan) < 0.003

"""Ptychodus itself trains and reconstructs with this package, and opens the products."""

import importlib.metadata
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from host_calls import DATA, INFERENCE, MODEL, TRAINING

from ptycho_torch.data.scan import Reconstruction
from ptycho_torch.evaluation.metrics.agreement import correlation, overlay
from ptycho_torch.io.readers import read_scan

ptychodus = pytest.importorskip("ptychodus.api", reason="it is not installed: make test-clients")
import ptychodus.api.geometry as geometry_api  # noqa: E402
import ptychodus.api.io as io_api  # noqa: E402
import ptychodus.api.object as object_api  # noqa: E402
import ptychodus.api.probe as probe_api  # noqa: E402
import ptychodus.api.probe_positions as positions_api  # noqa: E402
import ptychodus.api.product as product_api  # noqa: E402
import ptychodus.api.reconstruct as reconstruct_api  # noqa: E402
import ptychodus.api.simulate.diffraction as simulate_api  # noqa: E402

SIZE = 32
SHIFT_PX = 0.02
CORRELATION = 0.998
COUNTS = 0.005  # relative, of all photons
STAND_IN = Path(__file__).parent / "stand_in"  # for torchvision, which Pty-Chi imports
LIMIT_S = 300
PROBE_OF_PRODUCT = 0.3  # amplitude of the product's probe, of the one that made the patterns


@dataclass(frozen=True)
class Case:
    """A scan that Ptychodus simulated, and the truth in pixels of metres."""

    truth: product_api.Product
    data: object
    pixel_m: float


def to_product(object_yx, center_px, probe, positions_px, pixel_m, *, layers=1):
    """A product of Ptychodus; coordinates in metres are pixels of ours times the pixel."""
    pixel = geometry_api.PixelGeometry(width_m=pixel_m, height_m=pixel_m)
    positions_m = positions_px * pixel_m
    points = [positions_api.ProbePosition(i, x, y) for i, (y, x) in enumerate(positions_m)]
    return product_api.Product(
        metadata=product_api.ProductMetadata(
            name="known",
            comments="",
            detector_distance_m=1.0,
            photon_energy_eV=8000.0,
            probe_photon_count=1e6,
            exposure_time_s=0.0,
            mass_attenuation_m2_per_kg=0.0,
            tomography_angle_deg=0.0,
        ),
        probe_positions=positions_api.ProbePositionSequence(points),
        probes=probe_api.ProbeSequence(
            array=np.asarray(probe).astype(complex), opr_weights=None, pixel_geometry=pixel
        ),
        object_=object_api.Object(
            array=np.broadcast_to(object_yx, (layers, *object_yx.shape)).astype(complex),
            pixel_geometry=pixel,
            center=object_api.ObjectCenter(x_m=center_px[1] * pixel_m, y_m=center_px[0] * pixel_m),
            layer_spacing_m=[1e-6] * (layers - 1),
        ),
        losses=[],
    )


@pytest.fixture(scope="module")
def case():
    """100 patterns that Ptychodus's own forward model makes, with counting noise."""
    from ptycho_torch.data.simulation import expected_counts, simulate_scan

    made = simulate_scan(photons=1e6, n_side=10, step_px=3.5, pattern_size=SIZE, seed=5)
    pixel_m = made.scan.pixel_size_m[0]
    truth = to_product(
        made.truth.object,
        np.array(made.truth.object.shape) / 2,
        made.scan.probe,
        made.scan.positions_px,
        pixel_m,
    )
    data = simulate_api.generate_diffraction_data(truth)
    light = expected_counts(made.truth.object, made.scan.probe, made.scan.positions_px)[0]
    per_photon = data.get_patterns().sum() / light.sum(dtype=float)  # its unit is another one
    counts = np.random.default_rng(0).poisson(data.get_patterns() / per_photon)
    data._patterns, data._indexes[:] = counts.astype(np.uint16), np.arange(len(counts))
    return Case(truth, data, pixel_m)


def workflow(
    case,
    folder,
    *,
    origin_px=None,
    shape=None,
    layers=1,
    algorithm="ptychopinn-torch_unsupervised",
    **more,
):
    """A folder of a batch run; its product shows empty space, by default around the scan."""
    positions = positions_of(case.truth) / case.pixel_m
    if origin_px is None:
        around = object_api.compute_object_geometry(
            case.truth.probe_positions, case.truth.probes.get_geometry()
        )
        center, shape = (
            np.array([around.center_y_m, around.center_x_m]) / case.pixel_m,
            (around.height_px, around.width_px),
        )
    else:
        center = np.array(origin_px) + np.array(shape) / 2
    probe = PROBE_OF_PRODUCT * case.truth.probes.get_probe_no_opr().get_array()
    product = to_product(np.ones(shape), center, probe, positions, case.pixel_m, layers=layers)
    folder.mkdir(parents=True, exist_ok=True)
    io_api.save_diffraction_data(folder / "diffraction.h5", case.data)
    io_api.save_product(folder / "product.h5", product)
    sections = {"Processing": {"Algorithm": algorithm}} | more
    lines = [
        line
        for name, values in sections.items()
        for line in (f"[{name}]", *(f"{key} = {value}" for key, value in values.items()), "")
    ]
    (folder / "settings.ini").write_text("\n".join(lines))
    return folder


def positions_of(product):
    """``(y, x)`` in metres, (N, 2)."""
    points = product.probe_positions
    return np.stack([points.get_coordinates_y_m(), points.get_coordinates_x_m()], axis=1)


def batch(action, inputs, outputs, *paths):
    """`ptychodus -b`; its exit status and its log."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "QT_QPA_PLATFORM": "offscreen"}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, paths))
    argv = [sys.executable, "-m", "ptychodus", "-b", action, "-i", str(inputs), "-o", str(outputs)]
    done = subprocess.run(
        argv, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    return done.returncode, done.stdout + done.stderr


def as_reconstruction(product, pixel_m):
    """A product in pixels of metres."""
    image = product.object_.get_array()[0]
    geometry = product.object_.get_geometry()
    center = np.array([geometry.center_y_m, geometry.center_x_m]) / pixel_m
    return Reconstruction(
        object=image,
        coverage=np.ones(image.shape, dtype=np.float32),
        origin_yx=center - np.array(image.shape) / 2,
        probe=product.probes.get_probe_no_opr().get_array(),
        positions_px=positions_of(product) / pixel_m,
        scan_index=np.arange(len(product.probe_positions)),
    )


def place_error_px(image, truth, pair):
    """Distance of the picture from the truth; between their grids is a fraction of a pixel."""
    between = [(item.origin_yx - np.rint(item.origin_yx)) for item in (image, truth)]
    error = pair.alignment.shift_px - (between[0] - between[1])
    return error - np.rint(error)


def assert_is_truth(path, case):
    """The picture of a product lies where the truth lies, and its photons are as many."""
    product = io_api.load_product(path)
    image, truth = (
        as_reconstruction(product, case.pixel_m),
        as_reconstruction(case.truth, case.pixel_m),
    )
    pair = overlay(image, truth)
    print(
        "place",
        place_error_px(image, truth, pair),
        "correlation",
        correlation(pair.image, pair.reference),
    )
    assert np.abs(pair.alignment.shift_px).max() < 1  # of whole pixels there is none
    assert np.abs(place_error_px(image, truth, pair)).max() < SHIFT_PX
    assert correlation(pair.image, pair.reference) > CORRELATION
    predicted, made = (
        simulate_api.generate_diffraction_data(one).get_patterns().sum()
        for one in (product, case.truth)
    )
    print("photons, relative to the truth", predicted / made)
    assert predicted == pytest.approx(made, rel=COUNTS)


QUICK = {"epochs": 3, "num_dataloader_workers": 0, "gradient_accumulation_steps": 2}


@pytest.fixture(scope="module")
def trained(case, tmp_path_factory):
    """A folder in which `ptychodus -b train` was run."""
    folder = workflow(
        case, tmp_path_factory.mktemp("batch") / "work", PtychoPINNTorchTraining=QUICK
    )
    status, log = batch("train", folder, folder)
    assert status == 0, log
    return folder, log


def test_ptychodus_trains(trained):
    folder, log = trained
    assert (folder / "model.ckpt").read_bytes() == (
        folder / "run_001" / "checkpoints" / "best.ckpt"
    ).read_bytes()
    assert [
        line
        for line in log.splitlines()
        if "ptychopinn-torch: " in line and "epoch 3 of 3: train_loss" in line
    ]
    assert "have no effect on the network of ptycho_torch: accum_steps 2" in log
    assert "does not know" not in log
    assert "wrong scale" not in log  # of a pixel that differs by more than 1e-9


def test_ptychodus_reconstructs_around_the_scan(trained, case, tmp_path):
    folder, _ = trained
    status, log = batch("reconstruct", folder, tmp_path)
    assert status == 0, log
    assert "refinement, epoch 1:" in log
    assert_is_truth(tmp_path / "product.000001.h5", case)


def test_ptychodus_reconstructs_an_object_that_is_not_centred_on_the_scan(trained, case, tmp_path):
    folder = workflow(case, tmp_path / "work", origin_px=(-30, -11), shape=(140, 121))
    (folder / "model.ckpt").write_bytes((trained[0] / "model.ckpt").read_bytes())
    status, log = batch("reconstruct", folder, tmp_path)
    assert status == 0, log
    product = io_api.load_product(tmp_path / "product.000001.h5")
    assert product.object_.get_array().shape == (1, 140, 121)
    assert_is_truth(tmp_path / "product.000001.h5", case)


def test_ptychi_continues_from_our_picture(trained, case, tmp_path):
    pytest.importorskip("ptychi", reason="ptychi is not installed: make test-clients")
    ours = tmp_path / "ours"
    status, log = batch("reconstruct", trained[0], ours)
    assert status == 0, log
    settings = {"PtyChi": {"NumEpochs": 2, "BatchSize": 25}}
    folder = workflow(case, tmp_path / "work", algorithm="pty-chi_LSQML", **settings)
    (folder / "product.h5").write_bytes((ours / "product.000001.h5").read_bytes())
    paths = [] if has_torchvision() else [STAND_IN]
    status, log = batch("reconstruct", folder, tmp_path / "theirs", *paths)
    assert status == 0, log
    last = sorted((tmp_path / "theirs").glob("product*.h5"))[-1]
    product = io_api.load_product(last)
    image, truth = (
        as_reconstruction(product, case.pixel_m),
        as_reconstruction(case.truth, case.pixel_m),
    )
    pair = overlay(image, truth)
    assert (
        correlation(pair.image, pair.reference) > 0.99
    )  # it takes two of its own steps away from ours
    assert np.abs(place_error_px(image, truth, pair)).max() < 0.1


def has_torchvision():
    """Whether torchvision is there and loads beside this torch."""
    done = subprocess.run(
        [sys.executable, "-c", "import torchvision"], capture_output=True, check=False
    )
    return done.returncode == 0


# --- refusals, each with status 1 and a sentence in Ptychodus's log


def test_an_object_of_two_layers_is_refused(trained, case, tmp_path):
    folder = workflow(case, tmp_path / "work", origin_px=(0, 0), shape=(70, 70), layers=2)
    (folder / "model.ckpt").write_bytes((trained[0] / "model.ckpt").read_bytes())
    status, log = batch("reconstruct", folder, tmp_path)
    assert status == 1
    assert (
        "InputError: the object of the product has 2 layers, and ptycho_torch makes objects of "
        "one layer" in log
    )


def test_a_checkpoint_of_another_program_is_refused(case, tmp_path):
    folder = workflow(case, tmp_path / "work")
    torch.save({"state_dict": {}}, folder / "model.ckpt")
    status, log = batch("reconstruct", folder, tmp_path)
    assert status == 1
    assert "a checkpoint of another program; expected one that ptycho_torch.train wrote" in log


def test_supervised_training_is_refused_before_there_is_a_child(case, tmp_path):
    folder = workflow(case, tmp_path / "work", algorithm="ptychopinn-torch_supervised")
    status, log = batch("train", folder, folder)
    assert status == 1
    assert (
        "InputError: ptycho_torch learns from the patterns alone and has no mode 'Supervised'"
        in log
    )
    assert not (folder / "run_001").exists()


# --- the contract


def test_the_settings_are_those_that_the_other_tests_pass():
    from ptychodus.api.settings import SettingsRegistry
    from ptychodus.model.ptychopinn_torch import reconstructor, settings

    registry = SettingsRegistry()
    groups = [
        getattr(settings, f"PtychoPINNTorch{name}Settings")(registry)
        for name in ("Data", "Model", "Training", "Inference")
    ]
    made = reconstructor._build_configs("Unsupervised", *groups)
    for config, given in zip(made, (DATA, MODEL, TRAINING, INFERENCE, {}), strict=True):
        assert vars(config) == given
        assert config.unknown() == config.without_effect() == []


@pytest.mark.parametrize("name", ["npz", "h5"])
def test_exported_training_data_are_read_in_their_frame(case, tmp_path, name):
    if name == "h5" and not hasattr(io_api, "save_training_data"):
        pytest.skip("this version of Ptychodus has no such file")
    folder = workflow(case, tmp_path)
    product = io_api.load_product(folder / "product.h5")
    patterns = case.data.get_patterns()
    given = reconstruct_api.ReconstructInput(patterns, np.zeros((SIZE, SIZE), dtype=bool), product)
    path = tmp_path / f"exported.{name}"
    {
        "npz": io_api.save_ptychopinn_training_data,
        "h5": getattr(io_api, "save_training_data", None),
    }[name](path, given)
    scan = read_scan(path)
    geometry = product.object_.get_geometry()
    corner = (
        np.array([geometry.center_y_m, geometry.center_x_m]) / case.pixel_m
        - np.array([geometry.height_px, geometry.width_px]) / 2
    )
    assert scan.positions_px + corner == pytest.approx(positions_of(case.truth) / case.pixel_m)
    assert np.array_equal(scan.counts[:], patterns)


def test_the_version_is_one_that_was_tested():
    assert importlib.metadata.version("ptychodus") in ("1.5.1", "1.6.0", "1.7.0")

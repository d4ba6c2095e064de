"""The back end, called as Ptychodus calls it: place and scale, the folders, every refusal."""

import ast
import logging
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from host_calls import TRAINING, TrainInput, build_configs, in_child, run_reconstruct, run_train

import ptycho_torch
from ptycho_torch.config_params import DataConfig, ModelConfig, TrainingConfig
from ptycho_torch.data.scan import Reconstruction
from ptycho_torch.data.simulation import expected_counts
from ptycho_torch.errors import InputError, RunError
from ptycho_torch.evaluation.metrics.agreement import correlation, overlay
from ptycho_torch.ptychodus import host_scan, settings
from ptycho_torch.ptychodus.host_options import read_options
from ptycho_torch.ptychodus.host_scan import object_of_caller
from ptycho_torch.ptychodus.training import (
    log_settings,
    new_run,
    offer_checkpoint,
    to_config,
    training_scans,
)

SHIFT_PX = 0.02  # 0.007 measured, with 80 patterns of 32x32 at 1e6 photons
CORRELATION = 0.998  # 0.9999 measured
COUNTS = 0.01  # relative; the photons of a mean pattern have an error of 1 / sqrt(80 * 7e5)


def in_metres(image, given):
    """An array that was returned, with its middle at the middle of the input object."""
    geometry = given.product.object_.geometry
    return Reconstruction(
        object=image,
        coverage=np.ones(image.shape, dtype=np.float32),
        origin_yx=geometry.center_m / geometry.pixel_m - np.array(image.shape) / 2,
        probe=given.product.probe,
        positions_px=given.product.positions_m / geometry.pixel_m,
        scan_index=np.arange(len(given.product.positions_m)),
    )


def assert_is_truth(image, given, known):
    """The picture lies where the truth lies, and makes the counts with the product's probe."""
    result = in_metres(image, given)
    pair = overlay(result, known.truth)
    assert np.abs(pair.alignment.shift_px).max() < SHIFT_PX
    assert correlation(pair.image, pair.reference) > CORRELATION
    probe = np.asarray(given.product.probe, dtype=np.complex64).reshape(-1, 32, 32)
    made, _ = expected_counts(np.asarray(image), probe, result.positions_px - result.origin_yx)
    good = np.ones((32, 32), dtype=bool) if given.bad_pixels is None else ~given.bad_pixels
    assert made[:, good].sum() == pytest.approx(known.scan.counts[:][:, good].sum(), rel=COUNTS)


# --- training


def test_training_returns_losses_and_a_checkpoint(training):
    result = training.outcome.result
    epochs, values = zip(*result["losses"][0], strict=True)
    assert epochs == (0, 1, 2)
    assert np.isfinite(values).all()
    assert result["losses"][1] == []
    assert result["progress"] == 3
    assert result["checkpoint"] == str(training.folder / "run_001" / "checkpoints" / "best.ckpt")
    assert (
        training.checkpoint.read_bytes()
        == (training.folder / "run_001" / "checkpoints" / "best.ckpt").read_bytes()
    )


def test_there_is_a_line_in_the_log_for_each_epoch(training):
    lines = [line for line in training.outcome.lines() if line.startswith("epoch ")]
    assert [line.split(":")[0] for line in lines] == [
        "epoch 1 of 3",
        "epoch 2 of 3",
        "epoch 3 of 3",
    ]
    names = {name for _, name, text in training.outcome.log if text in lines}
    assert names == {"ptychopinn-torch"}  # its messages are those in Ptychodus's window


def test_settings_without_effect_are_named_once(training):
    warnings = training.outcome.lines(logging.WARNING)
    assert [line for line in warnings if "no effect on the network" in line] == [
        "these settings have no effect on the network of ptycho_torch: accum_steps 2"
    ]
    assert (
        sum("does not know" in line and "TrainingConfig.colour" in line for line in warnings) == 1
    )


def test_a_second_training_replaces_neither_the_first_nor_files_of_the_user(
    workflow_folder, training, tmp_path
):
    folder = tmp_path / "output"
    shutil.copytree(training.folder, folder)
    (folder / "config.yaml").write_text("mine")
    before = {path: path.read_bytes() for path in (folder / "run_001").rglob("*") if path.is_file()}
    run_train(
        TrainInput(build_configs(epochs=1, num_workers=0, device="cpu"), workflow_folder, folder)
    )
    assert {path: path.read_bytes() for path in before} == before
    assert (folder / "config.yaml").read_text() == "mine"
    second = (folder / "run_002" / "checkpoints" / "best.ckpt").read_bytes()
    assert (folder / "model.ckpt").read_bytes() == second  # the first one is still in its run


def test_a_checkpoint_of_the_user_is_kept(training, tmp_path, caplog):
    checkpoint = training.folder / "run_001" / "checkpoints" / "best.ckpt"
    (tmp_path / "model.ckpt").write_bytes(b"mine")
    offer_checkpoint(checkpoint, tmp_path)
    assert (tmp_path / "model.ckpt").read_bytes() == b"mine"
    assert "is not from a training in this folder and was kept" in caplog.text


def test_exported_scans_come_before_the_pair(workflow_folder, scan_file, tmp_path):
    assert [path.name for path in training_scans(workflow_folder)] == [
        "product.h5"
    ]  # of two names joined by a comma
    folder = tmp_path / "folder"
    shutil.copytree(workflow_folder, folder)
    shutil.copyfile(scan_file, folder / "exported.npz")
    np.savez(folder / "other.npz", unrelated=np.zeros(3))
    assert training_scans(folder) == [folder / "exported.npz"]


def test_a_pair_of_ptychodus_1_5_is_found(workflow_folder, tmp_path):
    shutil.copyfile(workflow_folder / "diffraction.h5", tmp_path / "diffraction.h5")
    shutil.copyfile(workflow_folder / "product.h5", tmp_path / "product-in.h5")
    assert training_scans(tmp_path)[0].name == "product-in.h5"


def test_a_folder_without_scans_is_refused(tmp_path):
    with pytest.raises(
        InputError, match=r"holds no training data; expected scans that Ptychodus exported"
    ):
        run_train(TrainInput(build_configs(), tmp_path, tmp_path))
    assert list(tmp_path.iterdir()) == []


# --- inference


@pytest.fixture(scope="module")
def reconstructed(training, host_input):
    """An inference in a spawned child, for an object around the scan."""
    given = host_input()
    return given, in_child(run_reconstruct, (training.checkpoint, given))


def test_the_picture_lies_where_the_product_says(reconstructed, known):
    given, outcome = reconstructed
    assert not outcome.error
    assert outcome.result.shape == (
        given.product.object_.geometry.height_px,
        given.product.object_.geometry.width_px,
    )
    assert outcome.result.dtype.kind == "c"
    assert_is_truth(outcome.result, given, known)


def test_each_epoch_of_the_refinement_has_a_line(reconstructed):
    lines = reconstructed[1].lines()
    epochs = [line for line in lines if line.startswith("refinement, epoch ")]
    assert len(epochs) > 3
    assert any(line.startswith("R-factor") for line in lines)


@pytest.mark.parametrize(("origin_yx", "shape"), [((-31, -12), (150, 141)), ((1, 0), (90, 120))])
def test_an_object_that_is_not_centred_on_the_scan_keeps_its_place(
    training, host_input, known, origin_yx, shape
):
    given = host_input(origin_yx=origin_yx, shape=shape)
    image = run_reconstruct((training.checkpoint, given))
    assert image.shape == shape
    assert_is_truth(image, given, known)
    assert image[-1, -1] == pytest.approx(image[-1, -2])  # empty space, in the scale of the product


def test_a_part_of_the_object_is_left_out_with_a_warning(training, host_input, known, caplog):
    given = host_input(origin_yx=(20, 15), shape=(30, 30))
    image = run_reconstruct((training.checkpoint, given))
    assert image.shape == (30, 30)
    pair = overlay(in_metres(image, given), known.truth)
    assert np.abs(pair.alignment.shift_px).max() < SHIFT_PX
    assert "% of the light lies beyond the canvas of 30x30 pixels" in caplog.text


def test_bad_pixels_have_no_part(training, host_input, known):
    bad = np.zeros((32, 32), dtype=bool)
    bad[16, 16:18] = bad[3:6, 20] = bad[:, 9] = True
    given = host_input(bad_pixels=bad)
    patterns = given.diffraction_patterns.copy()
    patterns[:, bad] = 60000  # worse than any inpainting
    assert_is_truth(
        run_reconstruct((training.checkpoint, replace(given, diffraction_patterns=patterns))),
        given,
        known,
    )


def test_three_modes_of_any_scale_are_taken(training, host_input, known):
    modes = np.concatenate(
        [
            known.scan.probe,
            0.02 * np.roll(known.scan.probe, 2, axis=1),
            0.01 * known.scan.probe[:, ::-1],
        ]
    )
    intensity, _ = expected_counts(known.truth.object, modes, known.scan.positions_px)
    counts = np.random.default_rng(0).poisson(intensity)
    given = host_input(probe=17.5 * modes, scan=replace(known.scan, counts=counts))
    assert_is_truth(
        run_reconstruct((training.checkpoint, given)), given, replace_scan(known, counts)
    )


def replace_scan(known, counts):
    return type(known)(**vars(known) | {"scan": replace(known.scan, counts=counts)})


def test_a_file_beside_the_checkpoint_holds_the_options(training, host_input, tmp_path, caplog):
    shutil.copyfile(training.checkpoint, tmp_path / "star.ckpt")
    (tmp_path / "star.yaml").write_text("refine: '0'\n")
    caplog.set_level(logging.INFO)
    run_reconstruct((tmp_path / "star.ckpt", host_input()))
    assert "refine 0" in caplog.text
    assert "refinement, epoch" not in caplog.text
    assert read_options(training.checkpoint).refine == "auto"


# --- refusals of an inference


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("refine: sometimes", "--refine is sometimes; expected a number of epochs or auto"),
        ("colour: blue", "colour"),
    ],
)
def test_an_option_that_is_not_known_is_refused(tmp_path, text, sentence):
    (tmp_path / "star.yaml").write_text(text)
    with pytest.raises(InputError, match=sentence):
        read_options(tmp_path / "star.ckpt")


def test_a_checkpoint_of_another_program_is_refused(host_input, tmp_path):
    torch.save({"state_dict": {}, "hyper_parameters": {"N": 64}}, tmp_path / "other.ckpt")
    with pytest.raises(
        InputError, match="a checkpoint of another program; expected one that ptycho_torch"
    ):
        run_reconstruct((tmp_path / "other.ckpt", host_input()))


def test_an_object_of_two_layers_is_refused(training, host_input):
    with pytest.raises(
        InputError, match="has 2 layers, and ptycho_torch makes objects of one layer"
    ):
        run_reconstruct((training.checkpoint, host_input(layer_spacing_m=(1e-6,))))


def test_a_caller_that_does_not_know_the_shape_is_refused():
    with pytest.raises(InputError, match="the place of the object is not known: Ptychodus"):
        object_of_caller(sys._getframe())


def test_a_probe_of_another_size_is_refused(training, host_input, known):
    with pytest.raises(
        InputError, match=r"the scan from Ptychodus: probe is .* expected \(32, 32\)"
    ):
        run_reconstruct((training.checkpoint, host_input(probe=known.probe[:, :16, :16])))


def test_a_flat_picture_is_refused(training, host_input, known):
    empty = np.ones(known.truth.object.shape, dtype=np.complex64)
    counts, _ = expected_counts(empty, known.scan.probe, known.scan.positions_px)
    with pytest.raises(RunError, match="the reconstruction is flat"):
        run_reconstruct((training.checkpoint, host_input(scan=replace(known.scan, counts=counts))))


def test_a_network_that_is_not_trained_is_refused():
    from ptycho_torch.api.base_api import InferenceEngine, PtychoModel
    from ptycho_torch.model import PtychoPINN_Lightning

    model = PtychoModel()
    model.model = PtychoPINN_Lightning()
    with pytest.raises(InputError, match="the network is not trained"):
        InferenceEngine(config_manager=None, ptycho_model=model)


# --- settings


def test_settings_come_through_a_pickle_and_can_be_changed():
    configs = pickle.loads(pickle.dumps(build_configs(epochs=7, notes="a note")))
    configs["training_config"].n_devices = 3
    assert configs["training_config"].epochs == 7
    assert configs["training_config"].n_devices == 3
    assert configs["training_config"].without_effect() == configs["training_config"].unknown() == []


def test_the_settings_need_no_torch():
    code = "import sys, ptycho_torch.config_params; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("chosen", "name", "value"),
    [
        ({}, "max_epochs", 50),
        ({"epochs": 7}, "max_epochs", 7),
        ({}, "learning_rate", 5e-3),
        ({"learning_rate": 2e-3}, "learning_rate", 2e-3),
        ({}, "num_workers", 0),
        ({"num_workers": 2}, "num_workers", 2),
        ({}, "loss", "poisson"),
        ({"loss_function": "MAE"}, "loss", "amplitude"),
        ({}, "accelerator", "auto"),
        ({"device": "cpu"}, "accelerator", "cpu"),
        ({"scheduler": "Cosine"}, "scheduler", "cosine"),
        ({"scheduler": "Exponential"}, "scheduler", "cosine"),
        ({"n_devices": 4}, "devices", 1),
        ({"strategy": "ddp"}, "strategy", "auto"),
    ],
)
def test_what_a_setting_means(tmp_path, chosen, name, value):
    configs = build_configs(**chosen)
    config = to_config(
        configs["training_config"], configs["model_config"], [tmp_path], new_run(tmp_path)
    )
    assert getattr(config, name) == value
    assert config.output_dir == tmp_path / "run_001"


def test_every_choice_without_effect_is_named(caplog):
    configs = build_configs(
        scheduler="Exponential", n_devices=4, loss_function="Huber", batch_size=8, batch_norm=True
    )
    configs["data_config"].K = 12
    log_settings([configs["data_config"], configs["model_config"], configs["training_config"]])
    (record,) = caplog.records
    for words in (
        "scheduler Exponential",
        "n_devices 4",
        "loss_function Huber",
        "batch_size 8",
        "batch_norm True",
        "K 12",
    ):
        assert words in record.getMessage()


def test_supervised_training_is_refused_in_the_parent():
    with pytest.raises(
        InputError,
        match="has no mode 'Supervised'; choose the algorithm ptychopinn-torch_unsupervised",
    ):
        build_configs(mode="Supervised")


def test_a_setting_that_is_missing_is_refused_with_the_version(monkeypatch):
    monkeypatch.setattr(settings, "host_version", lambda: (2, 0, 0))
    with pytest.raises(
        InputError, match=r"Ptychodus 2\.0\.0 does not pass TrainingConfig\.epochs; .*1\.7\.0"
    ):
        TrainingConfig(**{key: value for key, value in TRAINING.items() if key != "epochs"})
    assert DataConfig().unknown() == []
    assert ModelConfig(mode="Unsupervised", loss_function="Poisson").without_effect() == []


def test_the_half_pixel_follows_the_version(monkeypatch, host_input):
    given = host_input()
    positions = given.product.object_.geometry.positions_px(given.product.positions_m)
    host = host_scan.HostObject((70, 60), 1, None)
    for version, half in (((1, 5, 1), 0.0), ((1, 6, 0), 0.5), ((1, 7, 0), 0.5), ((), 0.5)):
        monkeypatch.setattr(host_scan, "host_version", lambda version=version: version)
        made = host_scan.to_host_scan(
            given.diffraction_patterns, given.product.probe, positions, host
        )
        assert made.scan.positions_px == pytest.approx(positions + half)


@pytest.mark.parametrize("name", ["config_params", "model", "lightning_utils", "api/base_api"])
def test_the_modules_that_ptychodus_imports_hold_names_only(name):
    tree = ast.parse((Path(ptycho_torch.__file__).parent / f"{name}.py").read_text())
    docstring, imports, names = tree.body
    assert isinstance(docstring, ast.Expr)
    assert isinstance(imports, ast.ImportFrom)
    assert str(imports.module).startswith("ptycho_torch.ptychodus.")
    assert ast.literal_eval(names.value) == [alias.name for alias in imports.names]

"""Checkpoints with parts that are missing or absurd: one sentence from infer and from --resume."""

import copy
import math
from dataclasses import replace

import pytest
import torch

from ptycho_torch.config import InferenceConfig, TrainingConfig
from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.errors import InputError
from ptycho_torch.inference import reconstruct
from ptycho_torch.io.writers import write_scan
from ptycho_torch.train import train

DELETE = object()
NESTED: list = []
NESTED.append(NESTED)


def declared(*shape: int) -> torch.Tensor:
    """A tensor that holds one number and declares as many as its shape."""
    return torch.zeros(1).expand(*shape)


HYPER = "hyper_parameters"
WEIGHT = "state_dict/generator.corrections.0.enter.weight"
MOMENT = "optimizer_states/0/state/0/exp_avg"
EPOCHS = "loops/fit_loop/epoch_progress/current/processed"

FOR_BOTH = [  # refused by inference and by --resume
    (HYPER, DELETE),
    (f"{HYPER}/generator", "palette"),
    (f"{HYPER}/generator", []),
    (f"{HYPER}/about", DELETE),
    (f"{HYPER}/about/note", b"bytes"),
    (f"{HYPER}/about/note", math.nan),
    (f"{HYPER}/about/note", math.inf),
    (f"{HYPER}/about/note", torch.zeros(2)),
    (f"{HYPER}/about/note", 1j),
    (f"{HYPER}/about/note", {1, 2}),
    (f"{HYPER}/about/note", NESTED),
    (f"{HYPER}/about/note", 10**5000),
    (f"{HYPER}/settings", DELETE),
    (f"{HYPER}/settings", []),
    (f"{HYPER}/settings/levels", 10**6),
    (f"{HYPER}/settings/levels", -1),
    (f"{HYPER}/settings/levels", "3"),
    (f"{HYPER}/settings/levels", math.nan),
    (f"{HYPER}/settings/levels", torch.zeros(3)),
    (f"{HYPER}/settings/width", 10**9),
    (f"{HYPER}/settings/width", 10**30),
    (f"{HYPER}/settings/width", 0),
    (f"{HYPER}/settings/colour", "red"),
    ("state_dict", DELETE),
    ("state_dict", None),
    ("state_dict", {}),
    ("state_dict", {7: 7}),
    (WEIGHT, DELETE),
    (WEIGHT, torch.full((16, 5, 3, 3), math.nan)),
    (WEIGHT, torch.full((16, 5, 3, 3), math.inf)),
    (WEIGHT, torch.zeros(3)),
    (WEIGHT, declared(16, 5, 3, 3)),
    (WEIGHT, declared(10**6, 10**6)),
    (WEIGHT, torch.zeros(16, 5, 3, 3).to_sparse()),
    (WEIGHT, torch.zeros(16, 5, 3, 3, device="meta")),
    (WEIGHT, "weight"),
    ("state_dict/generator.extra", torch.zeros(1)),
]
FOR_INFERENCE = [
    (f"{HYPER}/about/conditions", DELETE),
    (f"{HYPER}/about/conditions", 3),
    (f"{HYPER}/about/conditions", [3]),
    (f"{HYPER}/about/conditions/0/photons", "nan"),
    (f"{HYPER}/about/conditions/0/photons", -1.0),
    (f"{HYPER}/about/conditions/0/photons", None),
    (f"{HYPER}/about/conditions/0/pattern_rows", 10**400),
    (f"{HYPER}/about/conditions/0/pattern_rows", 0),
    (f"{HYPER}/about/conditions/0/probe_modes", "two"),
]
FOR_RESUME = [
    ("loops", DELETE),
    ("loops", 3),
    (EPOCHS, "one"),
    (EPOCHS, -3),
    (EPOCHS, 10**30),
    (EPOCHS, None),
    (f"{HYPER}/loss", DELETE),
    (f"{HYPER}/loss", torch.zeros(2)),
    ("optimizer_states", DELETE),
    ("optimizer_states", []),
    ("optimizer_states", 3),
    ("optimizer_states/0/param_groups", []),
    ("optimizer_states/0/param_groups/0/betas", None),
    (MOMENT, DELETE),
    (MOMENT, torch.zeros(7)),
    (MOMENT, torch.full((6,), math.nan)),
    (MOMENT, declared(10**12)),
    ("lr_schedulers", DELETE),
    ("lr_schedulers", 3),
    ("lr_schedulers/0", []),
    ("callbacks", 3),
    ("callbacks/History/rows", DELETE),
    ("callbacks/History/rows", 3),
    ("callbacks/History/rows", []),
    ("callbacks/History/rows/0", {}),
    ("callbacks/History/rows/0/epoch", "one"),
    ("callbacks/History", DELETE),
    ("callbacks/EpochCheckpoints/first", None),
    ("pytorch-lightning_version", DELETE),
    ("pytorch-lightning_version", 7),
]


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "scan.npz"
    made = simulate_scan(photons=1e5, n_side=5, step_px=3.0, pattern_size=32, seed=1)
    write_scan(path, made.scan)
    return path


@pytest.fixture(scope="module")
def config(scan, tmp_path_factory):
    return TrainingConfig(
        train_data_file=[scan],
        output_dir=tmp_path_factory.mktemp("trained") / "run",
        max_epochs=1,
        accelerator="cpu",
        quiet=True,
    )


@pytest.fixture(scope="module")
def sound(config):
    return torch.load(train(config).last_checkpoint, weights_only=True)


def spoiled(content, place, value):
    """The content with one part replaced or deleted."""
    content = copy.deepcopy(content)
    part, keys = content, place.split("/")
    for key in keys[:-1]:
        part = part[int(key) if isinstance(part, list) or key.isdecimal() else key]
    key = int(keys[-1]) if isinstance(part, list) or keys[-1].isdecimal() else keys[-1]
    if value is DELETE:
        del part[key]
    else:
        part[key] = value
    return content


def case_name(value) -> str:
    """Name of a place or a value that is not too long."""
    if value is DELETE or (isinstance(value, int) and value > 10**30):
        return "deleted" if value is DELETE else "huge"
    return str(value)[:30]


def assert_one_sentence(error, path):
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(("place", "value"), FOR_BOTH + FOR_INFERENCE, ids=case_name)
def test_inference_refuses(place, value, sound, scan, tmp_path):
    path = tmp_path / "spoiled.ckpt"
    torch.save(spoiled(sound, place, value), path)
    options = {"accelerator": "cpu", "quiet": True}
    with pytest.raises(InputError) as error:
        reconstruct(
            InferenceConfig(
                model_path=path, test_data=scan, output_dir=tmp_path / "image", **options
            )
        )
    assert_one_sentence(error, path)
    assert not (tmp_path / "image").exists()


@pytest.mark.parametrize(("place", "value"), FOR_BOTH + FOR_RESUME, ids=case_name)
def test_resume_refuses(place, value, sound, config, tmp_path):
    path = tmp_path / "spoiled.ckpt"
    torch.save(spoiled(sound, place, value), path)
    again = replace(config, output_dir=tmp_path / "run", resume=str(path), max_epochs=2)
    with pytest.raises(InputError) as error:
        train(again)
    assert_one_sentence(error, path)
    assert not (tmp_path / "run" / "checkpoints" / "best.ckpt").exists()


def test_nothing_else_than_these_parts_is_wrong(sound, config, scan, tmp_path):
    path = tmp_path / "sound.ckpt"
    torch.save(copy.deepcopy(sound), path)
    again = replace(config, output_dir=tmp_path / "run", resume=str(path), max_epochs=2)
    assert train(again).last_checkpoint.is_file()
    options = {"accelerator": "cpu", "quiet": True}
    reconstruct(
        InferenceConfig(model_path=path, test_data=scan, output_dir=tmp_path / "image", **options)
    )

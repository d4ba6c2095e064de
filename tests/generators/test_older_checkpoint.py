"""A checkpoint from before some names changed still loads."""

import logging
from pathlib import Path

import pytest
import torch

from ptycho_torch.config import InferenceConfig
from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.generators.checkpoint import load_generator, read_checkpoint
from ptycho_torch.inference import reconstruct
from ptycho_torch.io.writers import write_scan

CHECKPOINT = Path(__file__).with_name("checkpoint_before_group_size.ckpt")


def test_the_file_has_the_older_name():
    content = torch.load(CHECKPOINT, weights_only=True)
    assert content["hyper_parameters"]["settings"] == {"members": 4, "width": 4}


def test_older_names_are_read_and_warned_of_once(caplog):
    with caplog.at_level(logging.WARNING, logger="ptycho_torch"):
        generator, about = load_generator(CHECKPOINT)
    assert generator.settings == {"group_size": 4, "width": 4}
    assert about["group_size"] == 4
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "older" in caplog.text


def test_its_weights_are_those_of_the_file():
    stored = read_checkpoint(CHECKPOINT)["state_dict"]
    generator, _ = load_generator(CHECKPOINT)
    for name, value in generator.state_dict().items():
        assert torch.equal(value, stored[f"generator.{name}"])


@pytest.mark.filterwarnings("ignore")
def test_inference_runs_with_it(tmp_path):
    made = simulate_scan(photons=1e6, n_side=4, step_px=3.0, pattern_size=16, seed=1)
    write_scan(tmp_path / "scan.npz", made.scan)
    run = reconstruct(
        InferenceConfig(
            model_path=CHECKPOINT,
            test_data=tmp_path / "scan.npz",
            output_dir=tmp_path / "image",
            accelerator="cpu",
            quiet=True,
        )
    )
    assert run.reconstruction.is_file()

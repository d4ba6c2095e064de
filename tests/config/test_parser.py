"""A command line and a YAML file become the options of a command."""

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ptycho_torch.config import (
    CompareConfig,
    DemoConfig,
    InferenceConfig,
    ReportConfig,
    SimulationConfig,
    TrainingConfig,
)
from ptycho_torch.config.parser import build_parser, parse, to_yaml
from ptycho_torch.errors import InputError

REQUIRED = ["--train_data_file", "a.npz", "--output_dir", "out"]


def parsed(*words):
    return parse(TrainingConfig, [*REQUIRED, *words], prog="train")


def test_brief_commands_are_understood():
    words = (
        "--train_data_file D.npz --test_data_file D.npz --output_dir OUT "
        "--max_epochs 2 --n_images 64 --batch_size 4"
    )
    config = parse(
        TrainingConfig, [*words.split(), "--device", "cpu", "--disable_mlflow"], prog="train"
    )
    assert config.train_data_file == [Path("D.npz")]
    assert (config.max_epochs, config.n_images, config.batch_size) == (2, 64, 4)
    assert config.accelerator == "cpu"
    words = "--model_path OUT --test_data D.npz --output_dir OUT2 --n_images 32 --device cpu"
    assert parse(InferenceConfig, words.split(), prog="infer").n_images == 32


@pytest.mark.parametrize(
    "words", [["--n-images", "5"], ["--n_images", "5"], ["--n-images=5"], ["--n_images=5"]]
)
def test_hyphen_and_underscore_are_the_same(words):
    assert parsed(*words).n_images == 5


@pytest.mark.parametrize(
    ("words", "field", "value", "newer"),
    [
        (["--device", "cpu"], "accelerator", "cpu", "--accelerator"),
        (["--torch-loss-mode", "mae"], "loss", "amplitude", "--loss"),
        (["--torch_loss_mode=mae"], "loss", "amplitude", "--loss"),
        (["--torch-loss-mode", "poisson"], "loss", "poisson", "--loss"),
    ],
)
def test_an_older_name_works_and_warns_once_with_the_newer(words, field, value, newer, caplog):
    with caplog.at_level(logging.WARNING, logger="ptycho_torch"):
        assert getattr(parsed(*words), field) == value
    assert len(caplog.records) == 1
    assert newer in caplog.text


def test_deterministic_is_on_and_can_be_switched_off():
    assert parsed().deterministic
    assert not parsed("--no-deterministic").deterministic


def test_positional_arguments_stand_anywhere_among_the_flags():
    for words in ("a b --pair half", "--pair half a b", "a --pair=half b"):
        config = parse(CompareConfig, words.split(), prog="compare")
        assert (config.result, config.reference, config.pair) == (Path("a"), Path("b"), "half")
    with pytest.raises(InputError, match="REFERENCE must be given"):
        parse(CompareConfig, ["a"], prog="compare")
    with pytest.raises(InputError, match="c"):
        parse(CompareConfig, ["a", "b", "c"], prog="compare")


def test_a_positional_argument_may_have_several_values(tmp_path):
    for words in (["a", "b", "--quiet"], ["--quiet", "a", "b"]):
        assert parse(ReportConfig, words, prog="report").folder == [Path("a"), Path("b")]
    file = tmp_path / "report.yaml"
    file.write_text("folder: [a, b]")
    config = parse(ReportConfig, ["--config", str(file)], prog="report")
    assert config.folder == [Path("a"), Path("b")]
    with pytest.raises(InputError, match="FOLDER must be given"):
        parse(ReportConfig, [], prog="report")


def test_flags_override_the_file(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("train_data_file: [b.npz, c.npz]\noutput_dir: other\nseed: 7\nmax_epochs: 3\n")
    config = parse(TrainingConfig, ["--config", str(file), "--seed", "8"], prog="train")
    assert config.train_data_file == [Path("b.npz"), Path("c.npz")]
    assert (config.seed, config.max_epochs) == (8, 3)
    early = parse(TrainingConfig, ["--seed", "8", "--config", str(file)], prog="train")
    assert early.seed == 8


def test_a_written_configuration_is_read_back_with_absolute_paths(tmp_path):
    config = parsed(
        "--n_images", "9", "--no_deterministic", "--loss", "amplitude", "--early_stop_patience", "4"
    )
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config))
    absolute = replace(
        config,
        train_data_file=[Path("a.npz").absolute()],
        output_dir=Path("out").absolute(),
    )
    assert parse(TrainingConfig, ["--config", str(file)], prog="train") == absolute


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--n_images", "many"], "n_images"),
        (["--n_images", "0"], "--n_images is 0; it must be at least 1"),
        (["--learning_rate", "nan"], "learning_rate"),
        (["--learning_rate", "-1"], "--learning_rate is -1"),
        (["--loss", "huber"], "loss"),
        (["--colour", "red"], "colour"),
        (["--resume", "auto", "--overwrite"], "give one of them"),
        (["--config", "missing.yaml"], "missing.yaml"),
    ],
)
def test_a_bad_word_gets_one_sentence(words, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        parsed(*words)
    assert "\n" not in str(error.value)


BAD_FILES = [
    "seed: [1, 2]",
    "seed: {a: 1}",
    "sede: 1",
    "- 1\n- 2",
    "seed: 'x",
    "!!python/object/apply:os.getcwd []",
]


@pytest.mark.parametrize("text", BAD_FILES)
def test_a_bad_file_gets_one_sentence(tmp_path, text):
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(InputError):
        parsed("--config", str(file))


@pytest.mark.parametrize(
    "config_type", [TrainingConfig, InferenceConfig, SimulationConfig, CompareConfig, DemoConfig]
)
def test_every_option_has_a_help_text(config_type):
    text = build_parser(config_type, "prog").format_help()
    for line in ("--output_dir", "--overwrite", "--quiet", "--debug", "--config"):
        assert line in text
    assert "default" in text


@pytest.mark.parametrize(
    "module", ["ptycho_torch.train", "ptycho_torch.inference", "ptycho_torch.cli"]
)
def test_help_does_not_import_torch(module):
    """A child process, because this one has imported torch already."""
    code = f"""
import sys, {module} as command
try:
    command.main(["--help"])
except SystemExit:
    pass
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert "usage" in done.stdout

"""A wrong flag gets the name that was meant; no sentence is in words of the parser."""

import dataclasses
import re

import pytest

from ptycho_torch import cli
from ptycho_torch.config import (
    CompareConfig,
    ConversionConfig,
    DoctorConfig,
    InferenceConfig,
    TrainingConfig,
)
from ptycho_torch.config.commands import COMMANDS
from ptycho_torch.config.flag_names import SYNONYMS
from ptycho_torch.config.parser import parse
from ptycho_torch.config.registry import load
from ptycho_torch.errors import InputError

TRAIN = "--train_data_file a.npz --output_dir out"
INFER = "--model_path run --test_data a.npz --output_dir out"
OF_THE_PARSER = re.compile(r"typing|<class|Parser key|Literal|argument|None|null")


def refusal(config_type, words):
    """The sentence with which a command line is refused."""
    with pytest.raises(InputError) as error:
        parse(config_type, words.split(), prog="ptycho-torch command")
    assert not OF_THE_PARSER.search(str(error.value))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("config_type", "words", "meant"),
    [
        (TrainingConfig, f"{TRAIN} --epochs 3", "--max_epochs"),
        (TrainingConfig, f"{TRAIN} --lr 1e-3", "--learning_rate"),
        (TrainingConfig, f"{TRAIN} --num-epochs=3", "--max_epochs"),
        (TrainingConfig, f"{TRAIN} --learning_rat 1", "--learning_rate"),
        (TrainingConfig, f"{TRAIN} --outptu_dir x", "--output_dir"),
        (TrainingConfig, f"{TRAIN} --gpu", "--accelerator"),
        (InferenceConfig, f"{INFER} --checkpoint a.ckpt", "--model_path"),
        (InferenceConfig, f"{INFER} --iterations 30", "--refine"),
        (DoctorConfig, "--data a.npz", "FILE"),
    ],
)
def test_a_wrong_flag_gets_the_right_one(config_type, words, meant):
    assert meant in re.split(r"[ ?;]", refusal(config_type, words))


@pytest.mark.parametrize("word", ["--max_epoch", "--max-epoch", "--max_ep=3", "--qui", "--conf"])
def test_an_abbreviation_is_refused_with_the_name_in_full(word):
    text = refusal(TrainingConfig, f"{TRAIN} {word} 3")
    assert "is not written in full; expected --" in text


def test_an_abbreviation_of_several_names_gets_all_of_them():
    assert refusal(TrainingConfig, f"{TRAIN} --max 3").endswith("--max_epochs or --max_time")


@pytest.mark.parametrize(
    ("config_type", "words", "sentence"),
    [
        (TrainingConfig, f"{TRAIN} --colour red", "there is no option --colour; see"),
        (TrainingConfig, f"{TRAIN} --max_epochs three", "--max_epochs is three; expected a whole"),
        (TrainingConfig, f"{TRAIN} --seed 1.5", "--seed is 1.5; expected a whole number"),
        (TrainingConfig, f"{TRAIN} --learning_rate x", "--learning_rate is x; expected a number"),
        (
            TrainingConfig,
            f"{TRAIN} --loss mse",
            "--loss is mse; expected one of poisson, ",
        ),
        (TrainingConfig, f"{TRAIN} --max_epochs", "--max_epochs needs a value"),
        (TrainingConfig, "--train_data_file --output_dir out", "--train_data_file needs a value"),
        (TrainingConfig, f"{TRAIN} -e 3", "'-e 3' belongs to no option"),
        (TrainingConfig, "", "--train_data_file, --output_dir must be given"),
        (ConversionConfig, "a.npz", "OUTPUT must be given"),
        (CompareConfig, "a b c", "'c' belongs to no option"),
        (CompareConfig, "--result a b", "RESULT is given without a flag"),
        (InferenceConfig, f"{INFER} --refine_probe maybe", "--refine_probe is maybe; expected one"),
        (DoctorConfig, "a --picture doc.txt", "--picture is doc.txt; its name must end with .png"),
    ],
)
def test_a_wrong_value_gets_a_sentence_of_the_user(config_type, words, sentence):
    assert refusal(config_type, words).startswith(sentence)


def test_a_wrong_name_in_a_file_gets_the_right_one(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("epochs: 3\n")
    text = refusal(TrainingConfig, f"{TRAIN} --config {file}")
    assert text == f"{file}: there is no option 'epochs'; is max_epochs meant?"


def test_every_suggested_name_is_an_option_and_no_synonym_is():
    names = {
        item.name
        for command in COMMANDS.values()
        for item in dataclasses.fields(load(command.options))
    }
    assert {name for meant in SYNONYMS.values() for name in meant} <= names
    shadowed = {name for name, meant in SYNONYMS.items() if {name, *meant} <= names}
    assert shadowed <= {"background", "output", "photons"}  # options of one command only


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_is_in_plain_words(command, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert not re.search(r"type:|<class|: null|%%|Literal", text)
    defaults = re.findall(r"\(default: ([^)]*)", text)
    assert defaults
    assert not {"None", "True", "False", "", "[]"} & set(defaults)

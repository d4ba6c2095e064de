"""Hostile configuration files are refused in one sentence, natural ones are read as meant."""

import os
import time
from pathlib import Path

import pytest

from ptycho_torch.config import (
    CompareConfig,
    InferenceConfig,
    ReadingOptions,
    SimulationConfig,
    TrainingConfig,
)
from ptycho_torch.config.parser import parse, to_yaml
from ptycho_torch.config.yaml_file import MAX_BYTES
from ptycho_torch.errors import InputError
from ptycho_torch.io.run_dir import RunDir

BASE = "train_data_file: [scan.npz]\noutput_dir: out\n"
BOMB = "a0: &a0 [l, l, l, l, l, l, l, l, l]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)
HOSTILE = {
    "aliases": BASE + BOMB,
    "alias of itself": BASE + "a: &a [*a]",
    "merge of an alias": BASE + "a: &a {seed: 1}\n<<: *a",
    "brackets": "[" * 3000,
    "very many brackets": "[" * 100_000,
    "braces": "{" * 100_000,
    "dashes": "- " * 100_000,
    "questions": "? " * 50_000,
    "quoted brackets": f"{BASE}seed: '{'[' * 100_000}'",
    "quoted dashes": f"{BASE}seed: '{'- ' * 2000}'",
    "long": "a" * (MAX_BYTES + 1),
    "python": BASE + "seed: !!python/object/apply:os.getcwd []",
    "tag": BASE + "seed: !!int 3",
    "bytes": "\x00\x01",
    "list": "- 1\n- 2",
    "text": "seed",
    "nothing": "",
    "impossible date as a key": "2024-13-45: 1",
    "list as a key": "? [a]\n: 3",
    "unknown": BASE + "sede: 1",
    "twice": BASE + "seed: 1\nseed: 2",
    "no scan": "output_dir: out\ntrain_data_file: []",
    "mapping of scans": "output_dir: out\ntrain_data_file: {a: b}",
    "list of lists": "output_dir: out\ntrain_data_file: [[a]]",
    "null in a list": "output_dir: out\ntrain_data_file: [null]",
    "list for one": BASE + "seed: [1, 2]",
    "zero byte": BASE + 'probe: "a\\0b"',
    "empty path": BASE + 'probe: ""',
    "no truth value": BASE + "quiet: perhaps",
    "seed beyond 32 bits": BASE + "seed: 4294967296",
    "huge seed": BASE + "seed: 99999999999999999999999",
    "seed of 5000 digits": BASE + "seed: " + "9" * 5000,
    "infinite energy": BASE + "energy_ev: .inf",
    "zero energy": BASE + "energy_ev: 0",
    "zero pixel": BASE + "pixel_size_m: 0",
    "zero detector pixel": BASE + "detector_pixel_m: 0.0",
    "zero distance": BASE + "distance_m: 0",
    "negative distance": BASE + "distance_m: -1",
    "energy that overflows": BASE + "energy_ev: 1e400",
    "infinite rate": BASE + "learning_rate: .inf",
    "rate that is no number": BASE + "learning_rate: .nan",
    "rate beyond float32": BASE + "learning_rate: 1e300",
    "infinite centre": BASE + "center: 1,inf",
    "too many workers": BASE + "num_workers: 1000000",
    "too many epochs": BASE + "max_epochs: 1000000000000000000000",
}


def parsed(path: Path, config_type=TrainingConfig):
    return parse(config_type, ["--config", str(path)], prog="train")


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "c.yaml"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_gets_one_short_sentence_soon(name, file):
    file.write_text(HOSTILE[name])
    started = time.monotonic()
    with pytest.raises(InputError) as error:
        parsed(file)
    assert time.monotonic() - started < 10
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"seed: \xe9", b"\x80" * 100])
def test_a_file_that_is_no_text_is_named(data, file):
    file.write_bytes(data)
    with pytest.raises(InputError, match=str(file)):
        parsed(file)


@pytest.mark.parametrize("path", ["/dev/zero", "/", "/nowhere/c.yaml"])
def test_what_is_no_file_is_named(path):
    with pytest.raises(InputError, match=path):
        parsed(Path(path))


NATURAL = {
    "one path": ("train_data_file: scan.npz\noutput_dir: a", "train_data_file", [Path("scan.npz")]),
    "numeric path": (
        "train_data_file: [20240101]\noutput_dir: a",
        "train_data_file",
        [Path("20240101")],
    ),
    "path like a date": (
        "train_data_file: a\noutput_dir: 2024-13-45",
        "output_dir",
        Path("2024-13-45"),
    ),
    "path like yes": ("train_data_file: yes\noutput_dir: a", "train_data_file", [Path("yes")]),
    "path with a dash": (BASE + "probe: -x", "probe", Path("-x")),
    "time": (BASE + "max_time: 10:10:10:10", "max_time", "10:10:10:10"),
    "exponent without a point": (BASE + "learning_rate: 1e-3", "learning_rate", 1e-3),
    "centre": (BASE + "center: 63,64.5", "center", "63,64.5"),
    "yes": (BASE + "quiet: yes", "quiet", True),
    "Off": (BASE + "deterministic: Off", "deterministic", False),
    "null": (BASE + "max_epochs: null", "max_epochs", None),
    "nothing": (BASE + "max_epochs:", "max_epochs", None),
    "JSON": ('{"train_data_file": ["a"], "output_dir": "b", "seed": 3}', "seed", 3),
    "byte order mark": ("\ufeff" + BASE + "seed: 3", "seed", 3),
    "line ends of Windows": ((BASE + "seed: 3").replace("\n", "\r\n"), "seed", 3),
}


@pytest.mark.parametrize("name", NATURAL)
def test_natural_values_are_read_as_meant(name, file):
    text, field, value = NATURAL[name]
    file.write_text(text, encoding="utf-8", newline="")
    assert getattr(parsed(file), field) == value


def test_a_number_where_a_word_is_expected_is_read(file):
    file.write_text("model_path: a\ntest_data: s\noutput_dir: b\nrefine: 3\nformat: cxi")
    config = parsed(file, InferenceConfig)
    assert (config.refine, config.format) == ("3", ["cxi"])


def test_positional_arguments_may_stand_in_the_file(file):
    file.write_text("result: a\nreference: b")
    config = parsed(file, CompareConfig)
    assert (config.result, config.reference) == (Path("a"), Path("b"))


@pytest.mark.parametrize(
    "words", [["--output_dir", ""], ["--output_dir="], ["--train_data_file", ""]]
)
def test_an_empty_value_is_an_unset_variable_of_the_shell(words):
    with pytest.raises(InputError, match="empty value"):
        parse(TrainingConfig, ["--train_data_file", "a", *words], prog="train")


@pytest.mark.parametrize("value", ["[" * 4000, "- " * 2000, "{" * 100_000, "9" * 5000])
def test_a_nested_or_endless_word_of_the_command_line_is_refused(value):
    with pytest.raises(InputError) as error:
        parse(
            TrainingConfig,
            ["--train_data_file", "a", "--output_dir", "b", f"--seed={value}"],
            prog="",
        )
    assert len(str(error.value)) < 600


def test_a_written_configuration_means_the_same_files_in_any_folder(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    config = TrainingConfig(
        train_data_file=[Path("s/a.npz"), Path("../b.npz")],
        output_dir=Path("run"),
        probe=Path("/data/probe.npy"),
        resume="run/checkpoints/last.ckpt",
    )
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config))
    monkeypatch.chdir(tmp_path / "there")
    read = parsed(file)
    assert [os.path.normpath(path) for path in read.train_data_file] == [
        str(tmp_path / "here/s/a.npz"),
        str(tmp_path / "b.npz"),
    ]
    assert read.output_dir == tmp_path / "here/run"
    assert read.probe == Path("/data/probe.npy")
    assert read.resume == str(tmp_path / "here/run/checkpoints/last.ckpt")
    assert to_yaml(read) == file.read_text()


@pytest.mark.parametrize("resume", [None, "auto"])
def test_a_resume_that_is_no_path_stays_as_it_is(resume, file):
    config = TrainingConfig(train_data_file=[Path("a")], output_dir=Path("b"), resume=resume)
    file.write_text(to_yaml(config))
    assert parsed(file).resume == resume


@pytest.mark.parametrize("option", ["energy_ev", "distance_m", "detector_pixel_m", "pixel_size_m"])
@pytest.mark.parametrize("value", [0.0, -1.0, 1e-320, 1e308, float("inf"), float("nan")])
def test_options_are_checked_in_python_too(option, value):
    with pytest.raises(InputError, match=f"--{option}"):
        ReadingOptions(**{option: value})


@pytest.mark.parametrize("photons", [float("inf"), float("nan"), 1e19, 0.0])
def test_no_impossible_number_of_photons_is_simulated(photons, tmp_path):
    with pytest.raises(InputError, match="--photons"):
        SimulationConfig(output_dir=tmp_path, photons=photons)


@pytest.mark.parametrize("name", ["aliases", "very many brackets", "list", "nothing"])
def test_a_hostile_configuration_in_a_run_folder_is_of_nobody(name, tmp_path):
    run = RunDir(tmp_path)
    run.config.write_text(HOSTILE[name])
    with pytest.raises(InputError, match="is not of a run of 'train'"), run.claim("train"):
        pass
    assert run.config.read_text() == HOSTILE[name]

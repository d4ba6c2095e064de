"""Files and folders may have any name that Linux allows, also one that is no text."""

import json
import logging
import os
import shutil
from pathlib import Path

import pytest

from ptycho_torch.cli import main
from ptycho_torch.io.run_dir import RunDir

# Latin-1, of older cameras, with the marks of mathematics and of rich; what YAML may take for a
# list, a comment, a number.
NO_TEXT = b"caf\xe9 $x^^$["
NAMES = [NO_TEXT, b"a: [b, #c", b"1e3", "Ångström".encode()]


# A worker of pytest-xdist cannot send warnings and captured logs in which a name is no text.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def no_captured_log():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def folder(name, tmp_path, monkeypatch):
    """A folder of that name in the working folder."""
    monkeypatch.chdir(tmp_path)
    text = os.fsdecode(name)
    Path(text).mkdir()
    return text


def run(*words):
    assert main([str(word) for word in words]) == 0


def test_every_command_takes_a_name_that_is_no_text(scan_file, tmp_path, monkeypatch, capsysbinary):
    name = folder(NO_TEXT, tmp_path, monkeypatch)
    scan = f"{name}/{name}.npz"
    shutil.copy(scan_file, scan)
    run("simulate", "--output_dir", f"{name}/sim", "--n_side", 4, "--pattern_size", 32, "--quiet")
    metres = ["--energy_ev", 8000, "--distance_m", 1, "--detector_pixel_m", 75e-6]
    run("convert", scan, f"{name}/{name}.cxi", "--format", "cxi", *metres, "--quiet")
    run("doctor", f"{name}/{name}.cxi", "--picture", f"{name}/{name}.png", "--quiet")
    small = ["--max_epochs", 1, "--n_images", 40, "--quiet"]
    train = ["train", "--train_data_file", scan, "--output_dir", f"{name}/run{name}", *small]
    run(*train)
    run(*train, "--resume", "auto")
    infer = ["infer", "--model_path", f"{name}/run{name}", "--test_data", scan, "--n_images", 40]
    run(*infer, "--output_dir", f"{name}/image", "--movie", f"{name}/m{name}.gif", "--refine", 2)
    capsysbinary.readouterr()
    run("report", f"{name}/image")
    assert capsysbinary.readouterr().out.strip() == os.fsencode(f"{name}/image/report.html")
    run("compare", f"{name}/image", f"{name}/image", "--output_dir", f"{name}/c{name}")


@pytest.mark.parametrize("given", NAMES, ids=ascii)
def test_a_run_is_repeated_by_its_configuration(given, scan_file, tmp_path, monkeypatch):
    name = folder(given, tmp_path, monkeypatch)
    shutil.copy(scan_file, f"{name}/scan{name}.npz")
    small = ["--max_epochs", 1, "--n_images", 40, "--quiet"]
    first, again = (RunDir(Path(name, one)) for one in ("run", "again"))
    run("train", "--train_data_file", f"{name}/scan{name}.npz", "--output_dir", first.path, *small)
    run("train", "--config", first.config, "--output_dir", again.path)
    assert first.metrics_csv.read_text() == again.metrics_csv.read_text()


def test_a_report_shows_the_bytes_that_are_no_text(tmp_path, monkeypatch, scan_file, capsys):
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"caf\xe9")
    shutil.copy(scan_file, f"{name}.npz")
    run("doctor", f"{name}.npz", "--json", "--picture", "picture.png")
    assert all(one["verdict"] != "error" for one in json.loads(capsys.readouterr().out))
    assert main(["doctor", f"nothing{name}.npz"]) == 2
    assert capsys.readouterr().err.startswith("error: nothingcaf")


@pytest.mark.parametrize("logger", ["tensorboard"])
def test_a_tracker_that_cannot_write_there_is_refused(tmp_path, scan_file, logger, capsys):
    output = tmp_path / os.fsdecode(NO_TEXT)
    words = ["--train_data_file", scan_file, "--output_dir", output, "--logger", logger]
    assert main(["train", *map(str, words)]) == 2
    assert "whose name is not UTF-8; choose another --output_dir" in capsys.readouterr().err
    assert not output.exists()

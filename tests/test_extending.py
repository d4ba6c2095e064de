"""Each example of docs/extending.md is one new file and one new line, and works."""

import difflib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\w+ title=(\S+)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
EXAMPLES = [(*BLOCKS[i], *BLOCKS[i + 1]) for i in range(0, len(BLOCKS), 2)]  # file and line
TABLES = {"COMMANDS": "config/commands.py"}  # the others stand in the registry
REGISTRY = "config/registry.py"

TRAINING = """
import sys
from ptycho_torch.cli import main
scan = sys.argv[1]
train = ["train", "--train_data_file", scan, "--max_epochs", "1", "--accelerator", "cpu", "--quiet"]
for flags in (["--generator", "one_step"], ["--loss", "anscombe"]):
    assert main([*train, *flags, "--output_dir", flags[1]]) == 0, flags
words = ["--model_path", "one_step", "--test_data", scan, "--output_dir", "image", "--quiet"]
assert main(["infer", *words, "--accelerator", "cpu"]) == 0
"""


@pytest.fixture(scope="module")
def extended(tmp_path_factory) -> Path:
    """A copy of the package with all examples."""
    folder = tmp_path_factory.mktemp("extended")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "ptycho_torch", folder / "ptycho_torch", ignore=ignored)
    for name, content, table, line in EXAMPLES:
        assert not (folder / name).exists(), "an example is a new file"
        (folder / name).write_text(content, encoding="utf-8")
        path = folder / "ptycho_torch" / TABLES.get(table, REGISTRY)
        before = path.read_text(encoding="utf-8").splitlines(keepends=True)
        (start,) = (i for i, text in enumerate(before) if text.startswith(f"{table} = "))
        path.write_text("".join([*before[: start + 1], line, *before[start + 1 :]]))
    return folder


def python(folder: Path, *words: object, cwd: Path) -> subprocess.CompletedProcess:
    """Run Python with the copy in place of the package."""
    env = {**os.environ, "PYTHONPATH": str(folder), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def test_the_document_has_four_examples_of_a_file_and_a_line():
    assert [table for _, _, table, _ in EXAMPLES] == ["GENERATORS", "READERS", "LOSSES", "COMMANDS"]
    assert all(line.count("\n") == 1 and len(line) <= 101 for *_, line in EXAMPLES)


def test_an_example_changes_one_line_of_the_files_that_were_there(extended):
    new, changed = [], []
    for path in sorted(extended.rglob("*.py")):
        original = ROOT / path.relative_to(extended)
        if not original.exists():
            new.append(str(path.relative_to(extended)))
            continue
        before, after = (one.read_text(encoding="utf-8").splitlines() for one in (original, path))
        changed += [text for text in difflib.ndiff(before, after) if text[0] in "+-"]
    assert new == sorted(name for name, *_ in EXAMPLES)
    assert sorted(changed) == sorted(f"+ {line.rstrip()}" for *_, line in EXAMPLES)


def test_the_generator_and_the_loss_train_and_the_generator_reconstructs(
    extended, tmp_path, scan_file
):
    result = python(extended, "-c", TRAINING, scan_file, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    with np.load(tmp_path / "image" / "reconstruction.npz") as content:
        assert np.isfinite(content["object"]).all()
        assert np.std(content["object"]) > 0.01


def test_the_reader_reads_its_files_and_is_among_the_known_formats(extended, tmp_path):
    frames = np.random.default_rng(0).poisson(5.0, (4, 16, 16))
    distance_m, pixel_um, energy_kev = 2.0, 50.0, 8.0
    object_pixel_m = 1.23984198e-9 / energy_kev * distance_m / (16 * pixel_um * 1e-6)
    stage_px = np.array([[0.0, 0.0], [0.0, 4.0], [5.0, 0.0], [5.0, 4.0]])
    with h5py.File(tmp_path / "lab.h5", "w") as file:
        file["frames"], file["stage_yx"] = frames, stage_px * object_pixel_m * 1e6
        file["energy"], file["distance"], file["pixel"] = energy_kev, distance_m, pixel_um
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["something"] = frames
    code = """
import numpy as np
from ptycho_torch import InputError, read_scan
scan = read_scan("lab.h5")
np.savez("read.npz", counts=scan.counts[:], positions_px=scan.positions_px)
try:
    read_scan("other.h5")
except InputError as error:
    print(error)
"""
    result = python(extended, "-c", code, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "lab HDF5" in result.stdout
    with np.load(tmp_path / "read.npz") as content:
        assert np.array_equal(content["counts"], frames)
        found = content["positions_px"]
    assert np.allclose(found - found[0], stage_px, atol=1e-6)


def test_the_command_has_help_and_runs(extended, tmp_path, scan_file):
    shown = python(extended, "-m", "ptycho_torch", "info", "--help", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "--totals" in shown.stdout
    run = python(extended, "-m", "ptycho_torch", "info", scan_file, "--totals", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("64 patterns of 32x32 pixels\n")

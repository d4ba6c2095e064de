"""Same bits from any process; what is left when a training is killed, stopped, or runs out of disk.
All of it for real.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from child import Moment, finish, train, wait_for

from ptycho_torch.config import InferenceConfig
from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.inference import reconstruct
from ptycho_torch.io.readers.reconstruction import read_reconstruction
from ptycho_torch.io.run_dir import RunDir
from ptycho_torch.io.writers import write_scan

EPOCHS = 4


def arguments(scan_file, folder, *more):
    words = [
        "--train_data_file",
        scan_file,
        "--output_dir",
        folder,
        "--max_epochs",
        EPOCHS,
        "--gridsize",
        4,
    ]
    words += ["--scheduler", "constant", "--accelerator", "cpu", "--quiet", *more]
    return [str(word) for word in words]


def weights(run):
    return torch.load(run.last_checkpoint, weights_only=True)["state_dict"]


def leftovers(run):
    return run.leftovers("train")


def one_sentence(output: Path) -> str:
    """The error that a command ended with, and nothing like a traceback before it."""
    text = output.read_text()
    assert "Traceback" not in text
    assert text.splitlines()[-1].startswith("error: "), text
    return text.splitlines()[-1]


@pytest.fixture(scope="module")
def scan_file(tmp_path_factory) -> Path:
    """A scan of 25 patterns, two groups: what is lost or kept does not depend on its size."""
    path = tmp_path_factory.mktemp("scan") / "scan.npz"
    made = simulate_scan(photons=1e5, n_side=5, step_px=3.0, pattern_size=32, seed=1)
    write_scan(path, made.scan)
    return path


@pytest.fixture(scope="module")
def straight(scan_file, tmp_path_factory) -> RunDir:
    """A training that nobody disturbed."""
    folder = tmp_path_factory.mktemp("straight")
    assert finish(train(arguments(scan_file, folder / "run"), folder / "said")) == 0
    return RunDir(folder / "run")


@pytest.fixture(scope="module")
def straight_picture(straight, scan_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight_picture")
    words = {
        "model_path": straight.last_checkpoint,
        "test_data": scan_file,
        "accelerator": "cpu",
        "quiet": True,
    }
    return read_reconstruction(
        reconstruct(InferenceConfig(output_dir=folder, **words)).reconstruction
    )


def test_other_processes_give_the_same_bits(
    scan_file, straight, straight_picture, run_command, cuda_cpu_env, tmp_path
):
    """With interpreters and hash seeds of their own, and two workers that load where there was
    none.
    """
    run, image = RunDir(tmp_path / "run"), RunDir(tmp_path / "image")
    words = arguments(scan_file, run.path, "--num_workers", 2)
    run_command(
        [sys.executable, "-m", "ptycho_torch.train", *words],
        env=cuda_cpu_env | {"PYTHONHASHSEED": "1"},
    )
    assert_same_weights(straight, run)
    words = [
        "--model_path",
        run.last_checkpoint,
        "--test_data",
        scan_file,
        "--output_dir",
        image.path,
        "--accelerator",
        "cpu",
    ]
    run_command(
        [sys.executable, "-m", "ptycho_torch.inference", *words],
        env=cuda_cpu_env | {"PYTHONHASHSEED": "2"},
    )
    found = read_reconstruction(image.reconstruction)
    for name in ("object", "coverage", "origin_yx", "probe", "positions_px"):
        assert getattr(found, name).tobytes() == getattr(straight_picture, name).tobytes(), name


def assert_same_weights(run, other):
    expected, found = weights(run), weights(other)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def assert_resumes_to(straight, scan_file, run, output):
    """--resume auto ends with the same bits as the undisturbed run, and nothing is left behind."""
    assert finish(train(arguments(scan_file, run.path, "--resume", "auto"), output)) == 0, (
        output.read_text()
    )
    assert_same_weights(straight, run)
    assert run.metrics_csv.read_text() == straight.metrics_csv.read_text()
    assert leftovers(run) == []
    assert sorted(path.name for path in run.files("train")) == sorted(
        path.name for path in straight.files("train")
    )


MOMENTS = {
    "before the first checkpoint is whole": Moment("open", ".last.ckpt."),
    "when the first epoch is in the table and in no checkpoint": Moment("os.rename", "metrics.csv"),
    "when a checkpoint is written and not yet in its place": Moment("os.rename", "last.ckpt", 3),
    "between the last and the best checkpoint": Moment("open", ".best.ckpt.", 3),
    "when a checkpoint is written in part": Moment("open", ".best.ckpt.", 2),
}


@pytest.mark.parametrize("name", MOMENTS)
def test_a_killed_training_resumes_to_the_same_bits(name, scan_file, straight, tmp_path):
    run = RunDir(tmp_path / "run")
    assert (
        finish(train(arguments(scan_file, run.path), tmp_path / "said", MOMENTS[name]))
        == -signal.SIGKILL
    )
    for checkpoint in run.checkpoints.glob("[!.]*.ckpt"):
        torch.load(checkpoint, weights_only=True)
    assert_resumes_to(straight, scan_file, run, tmp_path / "said")


@pytest.mark.parametrize("epochs", [0, 2])
def test_a_training_killed_within_an_epoch_resumes_to_the_same_bits(
    epochs, scan_file, straight, tmp_path
):
    run = RunDir(tmp_path / "run")
    process = train(arguments(scan_file, run.path), tmp_path / "said")
    wait_for(
        process, run.metrics_csv if epochs else run.last_checkpoint, epochs + 1 if epochs else 0
    )
    os.kill(process.pid, signal.SIGKILL)
    assert finish(process) == -signal.SIGKILL
    assert_resumes_to(straight, scan_file, run, tmp_path / "said")


def test_inference_warns_of_weights_that_were_not_trained_yet(
    scan_file, straight, tmp_path, caplog
):
    run = RunDir(tmp_path / "run")
    process = train(
        arguments(scan_file, run.path), tmp_path / "said", Moment("os.rename", "metrics.csv")
    )
    assert finish(process) == -signal.SIGKILL
    for trained, warned in ((run, True), (straight, False)):
        caplog.clear()
        words = {
            "model_path": trained.last_checkpoint,
            "test_data": scan_file,
            "accelerator": "cpu",
            "quiet": True,
        }
        image = reconstruct(InferenceConfig(output_dir=tmp_path / str(warned), **words))
        assert ("not trained yet" in caplog.text) == warned
        assert ("run train --resume auto" in image.inference_log.read_text()) == warned
        assert ("epoch 0 was not finished" in image.report.read_text()) == warned
        assert (json.loads(image.metrics.read_text())["trained"]["steps"] == 0) == warned


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("epochs", [0, 1])
def test_a_stopped_training_leaves_a_checkpoint(
    number, status, epochs, scan_file, straight, tmp_path
):
    run = RunDir(tmp_path / "run")
    process = train(arguments(scan_file, run.path), tmp_path / "said")
    wait_for(
        process, run.metrics_csv if epochs else run.last_checkpoint, epochs + 1 if epochs else 0
    )
    os.kill(process.pid, number)
    assert finish(process) == status
    assert f"ended by {signal.Signals(number).name}" in one_sentence(tmp_path / "said")
    assert all(torch.isfinite(value).all() for value in weights(run).values())
    assert leftovers(run) == []
    assert_resumes_to(straight, scan_file, run, tmp_path / "said")


def test_two_trainings_on_one_folder(scan_file, tmp_path):
    run = RunDir(tmp_path / "run")
    first = train(arguments(scan_file, run.path, "--max_epochs", 10_000), tmp_path / "first")
    try:
        wait_for(first, run.last_checkpoint)
        for more in ((), ("--overwrite",), ("--resume", "auto")):
            second = train(arguments(scan_file, run.path, *more), tmp_path / "second")
            assert finish(second) == 2
            assert "in use by another run" in one_sentence(tmp_path / "second")
        assert first.is_alive()
    finally:
        first.kill()
        first.join()


def test_a_file_that_cannot_grow_ends_the_run_with_a_sentence(scan_file, tmp_path):
    """A limit of the process's own, where a full disk needs a disk."""
    run = RunDir(tmp_path / "run")
    assert (
        finish(train(arguments(scan_file, run.path), tmp_path / "said", largest_file=50_000)) == 1
    )
    assert "too large" in one_sentence(tmp_path / "said")
    assert list(run.checkpoints.iterdir()) == []


def test_a_full_disk_ends_the_run_with_a_sentence(scan_file, straight, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    made = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=1500k", "tmpfs", disk], capture_output=True, check=False
    )
    if not made or made.returncode != 0:
        pytest.skip("a small disk needs the right to mount one")
    try:
        run = RunDir(disk / "run")
        assert (
            finish(
                train(
                    arguments(scan_file, run.path, "--checkpoint_save_top_k", 4), tmp_path / "said"
                )
            )
            == 1
        )
        assert "No space left" in one_sentence(tmp_path / "said")
        torch.load(run.last_checkpoint, weights_only=True)
        assert leftovers(run) == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_folder_that_is_read_only(scan_file, tmp_path):
    folder = (
        Path("/proc/ptycho_torch") if os.geteuid() == 0 else tmp_path / "closed" / "run"
    )  # root may write anywhere else
    if os.geteuid() != 0:
        folder.parent.mkdir(mode=0o555)
    started = time.monotonic()
    assert finish(train(arguments(scan_file, folder), tmp_path / "said")) == 2
    assert f"cannot write to {folder}" in one_sentence(tmp_path / "said")
    assert time.monotonic() - started < 60

"""Several processes train and reconstruct as one does. Real processes on the CPU, started as users
start them.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric.strategies.launchers import subprocess_script

from ptycho_torch.config import InferenceConfig, TrainingConfig
from ptycho_torch.errors import InputError
from ptycho_torch.inference import reconstruct
from ptycho_torch.io.run_dir import RunDir
from ptycho_torch.train import train
from ptycho_torch.train.datamodule import GroupSampler, ScanDataModule

NOTED = Path(__file__).with_name("noted_training.py")
TORCHRUN = [
    *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
    *("--local-addr", "localhost"),  # needs no name of this machine that others know
]
TOO_LONG = "Timeout ("  # how the stack of a process begins that took too long
START_S = 120.0  # more than two processes need to start on a busy machine
END_S = 30.0  # more than a process needs to notice that another is gone; Lightning looks every 5 s

pytestmark = pytest.mark.timeout(300)


def words(config) -> list[str]:
    """The command line of what differs from the defaults."""
    flags = {
        name: value
        for name, value in vars(config).items()
        if value != getattr(type(config), name, None)
    }
    given = (
        (f"--{name}", *map(str, value if isinstance(value, list) else [value]))
        for name, value in flags.items()
    )
    return [word for flag in given for word in (flag if flag[1:] != ("True",) else flag[:1])]


@pytest.fixture(scope="module")
def config(scan_file, tmp_path_factory) -> TrainingConfig:
    """One epoch of the U-Net: 16 groups of 4 patterns, a batch of two, eight steps.

    Its canvases do not depend on the other groups of a batch, so that the order of sums is all
    that differs between one process and two.
    """
    return TrainingConfig(
        train_data_file=[scan_file],
        output_dir=tmp_path_factory.mktemp("one") / "run",
        generator="unet",
        gridsize=2,
        max_epochs=1,
        batch_size=2,
        scheduler="constant",
        accelerator="cpu",
        quiet=True,
    )


@pytest.fixture(scope="module")
def single(config) -> RunDir:
    """The training by one process."""
    return train(config)


@pytest.fixture(scope="module")
def pair(config, tmp_path_factory) -> Path:
    """The same training by two processes of torchrun, and their notes."""
    folder, said = by_torchrun(config, tmp_path_factory.mktemp("two"))
    if said.returncode != 0 and not_connected(said.stderr):
        folder, said = by_torchrun(config, tmp_path_factory.mktemp("two"))
    assert said.returncode == 0, said.stderr
    return folder


def not_connected(said: str) -> bool:
    """Whether two processes waited for each other for ever, with a warning; they may start once
    more.

    Seen once in some forty starts, in torch's connection or in its first collective, where no line
    of the project takes part. A fault of the project would stop the second start as well.
    """
    if TOO_LONG not in said:
        return False
    warnings.warn(f"the two processes did not find each other:\n{said}", stacklevel=2)
    return True


def by_torchrun(
    config: TrainingConfig, folder: Path
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A training by two processes with half of each batch, where its notes are, and what it
    said.
    """
    both = replace(config, output_dir=folder / "run", batch_size=1, devices=2, strategy="ddp")
    command = [*TORCHRUN, NOTED, folder, *words(both)]
    return folder, subprocess.run(command, capture_output=True, text=True, timeout=START_S + END_S)


def reads(folder: Path, rank: int) -> list[list[int]]:
    return [json.loads(line) for line in (folder / f"{rank}.reads").read_text().splitlines()]


def test_each_pattern_is_read_by_one_process_once_an_epoch(pair):
    groups = [reads(pair, rank) for rank in (0, 1)]
    assert len(groups[0]) == len(groups[1]) == 8
    assert sorted(point for part in groups for group in part for point in group) == list(range(64))


def test_both_processes_end_with_the_same_weights(pair):
    ours, theirs, saved = (
        torch.load(pair / name, weights_only=True)
        for name in ("0.pt", "1.pt", "run/checkpoints/last.ckpt")
    )
    assert all(
        torch.equal(ours[key], theirs[key]) and torch.equal(ours[key], saved["state_dict"][key])
        for key in ours
    )


def test_two_processes_learn_what_one_learns_from_the_same_batch(single, pair):
    """Sums of float32 in another order; Adam makes steps of equal size from small gradients and
    large ones. Measured: 3e-5.
    """
    weights = torch.load(single.last_checkpoint, weights_only=True)["state_dict"]
    shared = torch.load(pair / "0.pt", weights_only=True)
    error, size = (
        torch.sqrt(sum(part.double().square().sum() for part in parts))
        for parts in ([weights[key] - shared[key] for key in weights], weights.values())
    )
    assert error < 3e-4 * size


def test_the_run_folder_is_that_of_one_process(single, pair):
    two = RunDir(pair / "run")
    assert [path.relative_to(single.path) for path in single.files("train")] == [
        path.relative_to(two.path) for path in two.files("train")
    ]
    assert len(two.metrics_csv.read_text().splitlines()) == 2
    assert two.train_log.read_text().count("training 'unet'") == 1
    assert "by 2 processes" in two.train_log.read_text()


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("points", [64, 61, 50])
def test_any_number_of_processes_shares_a_scan_of_any_size(simulation, processes, points):
    """Equal numbers of groups, of at most 16 points, and no point twice."""
    scan = simulation.scan.subset(np.arange(points))
    parts = [
        list(
            GroupSampler(
                [scan, scan], 16, pad_to=None, seed=3, shuffle=True, rank=rank, world_size=processes
            )
        )
        for rank in range(processes)
    ]
    assert len({len(part) for part in parts}) == 1
    groups = [group for part in parts for group in part]
    assert max(len(members) for _, members in groups) <= 16
    assert sorted((number, point) for number, members in groups for point in members) == [
        (number, point) for number in (0, 1) for point in range(points)
    ]


def test_groups_of_a_batch_are_completed_to_one_size(simulation):
    """61 points in 4 groups of 15 or 16: three of them are in two groups."""
    data = ScanDataModule(
        [simulation.scan.subset(np.arange(61))],
        [],
        group_size=16,
        variable_group_size=True,
        batch_size=2,
        num_workers=0,
        seed=0,
    )
    assert [batch.counts.shape[:2] for batch in data.train_dataloader()] == [(2, 16), (2, 16)]


def test_two_processes_reconstruct_the_image_of_one(trained, scan_file, tmp_path):
    """Eight regions by the network in batches of three, and an epoch of refinement. Only the order
    of its sums differs, in single precision, which two epochs multiply to below a thousandth.
    """
    alone = InferenceConfig(
        model_path=trained.path,
        test_data=scan_file,
        output_dir=tmp_path / "one",
        gridsize=3,
        inference_batch_size=3,
        refine="1",
        metrics=True,
        accelerator="cpu",
        quiet=True,
    )
    shared = replace(alone, output_dir=tmp_path / "two", devices=2, quiet=False)
    command = [sys.executable, "-m", "ptycho_torch.inference", *words(shared)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=START_S)
    assert said.returncode == 0, said.stderr
    assert (said.stdout + said.stderr).count(
        "reconstructing 64 patterns"
    ) == 1  # the first process speaks for both
    one, two = reconstruct(alone), RunDir(shared.output_dir)
    assert [path.name for path in one.files("infer")] == [path.name for path in two.files("infer")]
    first, second = np.load(one.reconstruction), np.load(two.reconstruction)
    for key in first:
        assert first[key].dtype.kind not in "fc" or same_image(first[key], second[key]), key
        assert first[key].dtype.kind in "fc" or np.array_equal(first[key], second[key]), key
    figures = [json.loads(run.metrics.read_text()) for run in (one, two)]
    free = [run["refinement"]["r_free"] for run in figures]
    assert free[0] == pytest.approx(free[1], rel=1e-4)
    frc = [run["frc_halves"]["correlation"] for run in figures]
    assert frc[0] == pytest.approx(frc[1], abs=1e-3)
    assert two.inference_log.read_text().count("reconstructing 64 patterns") == 1


def same_image(one, other) -> bool:
    """Whether two arrays agree within what single precision leaves."""
    return np.linalg.norm(one - other) < 1e-3 * np.linalg.norm(one)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s} s"
        time.sleep(0.05)


def under_way(config: TrainingConfig, folder: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """A training by two processes that has finished an epoch, or has failed to, and the file of
    what it says.
    """
    text = folder / "said"
    with open(text, "w") as said:
        run = subprocess.Popen(
            [sys.executable, NOTED, folder, *words(config)], stdout=said, stderr=said
        )
    try:
        wait_until(
            lambda: RunDir(config.output_dir).metrics_csv.is_file() or run.poll() is not None,
            START_S + END_S,
        )
    except AssertionError:
        run.kill()
        raise
    return run, text


@pytest.mark.usefixtures("trained")
def test_a_quiet_training_lets_lightning_say_which_process_ended():
    """It may see the loss before the others do, and then ends them at once."""
    observer = subprocess_script._ChildProcessObserver
    assert logging.getLogger(observer.__module__).isEnabledFor(logging.INFO)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
@pytest.mark.parametrize(
    ("victim", "number", "ends"),
    [
        (
            1,
            signal.SIGKILL,
            {1: "of this run was ended by SIGKILL", -signal.SIGKILL: "terminated with code -9"},
        ),
        (0, signal.SIGKILL, {-signal.SIGKILL: "another process of this run ended"}),
        (0, signal.SIGTERM, {143: "ended by SIGTERM"}),
    ],
)
def test_a_process_that_ends_ends_the_others_with_a_sentence(
    victim, number, ends, scan_file, tmp_path
):
    """The first process ends in one of two ways: Lightning, which looks every 5 s, may see the loss
    first, say so and kill it.
    """
    config = TrainingConfig(
        train_data_file=[scan_file],
        output_dir=tmp_path / "run",
        max_epochs=100_000,
        gridsize=4,
        devices=2,
        accelerator="cpu",
        quiet=True,
    )
    run, said = under_way(config, tmp_path)
    if run.poll() is not None and not_connected(said.read_text()):
        config = replace(config, output_dir=tmp_path / "again")
        run, said = under_way(config, tmp_path)
    pids = [run.pid]
    try:
        pids = [int((tmp_path / f"{rank}.pid").read_text()) for rank in (0, 1)]
        os.kill(pids[victim], number)
        wait_until(lambda: run.poll() is not None and not any(map(alive, pids)), END_S)
    finally:
        for pid in filter(alive, pids):
            os.kill(pid, signal.SIGKILL)
    text = said.read_text()
    assert run.wait() in ends, text
    assert ends[run.wait()] in text
    assert "Traceback" not in text
    assert torch.load(RunDir(config.output_dir).last_checkpoint, weights_only=True)


def test_a_number_of_processes_that_torchrun_did_not_start_is_refused(
    config, tmp_path, monkeypatch
):
    for name, value in {
        "RANK": 0,
        "LOCAL_RANK": 0,
        "GROUP_RANK": 0,
        "LOCAL_WORLD_SIZE": 2,
        "WORLD_SIZE": 2,
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.raises(InputError, match="torchrun started 2 processes, but --devices 3"):
        train(replace(config, output_dir=tmp_path / "run", devices=3))


def test_a_scan_smaller_than_the_number_of_processes_is_refused(config, tmp_path):
    with pytest.raises(InputError, match="4 patterns cannot be shared by 8 processes"):
        train(replace(config, output_dir=tmp_path / "run", n_images=4, devices=8))

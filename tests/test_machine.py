"""Mishaps of the machine, with real processes: full disks, lost folders, signals, clocks."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from child import context, finish

from ptycho_torch.io.run_dir import RunDir

LARGEST_FILE = 3000  # bytes; some result of every command is larger
OPTIONS = ["--quiet"]


def command(words, output: Path, largest_file: int | None = None, env=None, backwards=False):
    """Start a command of `ptycho-torch` in a process of its own, which has imported everything."""
    arguments = ([str(word) for word in words], str(output), largest_file, env or {}, backwards)
    process = context.Process(target=_command, args=arguments)
    process.start()
    return process


def _command(words, output, largest_file, env, backwards) -> None:
    """Runs in the child."""
    from ptycho_torch.cli import main

    os.environ.update(env)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    if backwards:
        begun = time.time()
        time.time = lambda: begun - 3600 * (time.monotonic() % 100)
    sys.argv = ["ptycho-torch", *words]
    sys.exit(main())


def run(words, output: Path, **options) -> int | None:
    return finish(command(words, output, **options))


def one_sentence(output: Path) -> str:
    text = output.read_text()
    assert "Traceback" not in text
    assert "Logging error" not in text
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, text
    return errors[0]


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A scan, a training and an image, as the commands leave them."""
    folder = tmp_path_factory.mktemp("made")
    for words in (
        [
            "simulate",
            "--output_dir",
            folder / "sim",
            "--n_side",
            6,
            "--pattern_size",
            32,
            "--step_px",
            4,
        ],
        [
            "train",
            "--train_data_file",
            folder / "sim/scan.npz",
            "--output_dir",
            folder / "run",
            "--max_epochs",
            1,
        ],
        [
            "infer",
            "--model_path",
            folder / "run",
            "--test_data",
            folder / "sim/scan.npz",
            "--output_dir",
            folder / "image",
        ],
        ["convert", folder / "sim/scan.npz", folder / "scan.cxi"],
    ):
        assert run([*words, *OPTIONS], folder / "said") == 0, (folder / "said").read_text()
    return folder


def commands(made: Path, out: Path) -> dict[str, list]:
    """Every command, with its results in a folder."""
    scan = made / "sim/scan.npz"
    metres = ["--energy_ev", 8000, "--distance_m", 1, "--detector_pixel_m", 75e-6]
    train = [
        "train",
        "--train_data_file",
        scan,
        "--output_dir",
        out / "run",
        "--max_epochs",
        2,
        "--scheduler",
        "constant",
    ]
    return {
        "simulate": ["simulate", "--output_dir", out / "sim", "--n_side", 4, "--pattern_size", 32],
        "train": train,
        "train with TensorBoard": [*train, "--logger", "tensorboard"],
        "infer": ["infer", "--model_path", made / "run", "--test_data", scan,
                  "--output_dir", out / "image"],
        "live": ["live", made / "scan.cxi", "--model_path", made / "run", "--n_frames", 36,
                 "--output_dir", out / "live"],
        "compare": ["compare", made / "image", made / "sim/truth.npz",
                    "--output_dir", out / "comparison"],
        "convert to npz": ["convert", scan, out / "scan.npz", "--format", "npz"],
        "convert to cxi": ["convert", scan, out / "scan.cxi", "--format", "cxi", *metres],
        "convert to ptychodus": ["convert", scan, out / "pair", "--format", "ptychodus", *metres],
        "convert to ptyd": ["convert", scan, out / "scan.ptyd", "--format", "ptyd", *metres],
        "doctor": ["doctor", scan, "--picture", out / "doctor.png"],
        "demo": ["demo", "--output_dir", out / "demo", "--max_epochs", 1],
    }  # fmt: skip


NAMES = list(commands(Path(), Path()))


@pytest.mark.parametrize("name", NAMES)
def test_a_disk_without_room_is_named_and_nothing_is_left_half(name, made, tmp_path):
    """A limit of the process's own, where a full disk needs a disk."""
    out = tmp_path / "out"
    out.mkdir()
    said = tmp_path / "said"
    assert run([*commands(made, out)[name], *OPTIONS], said, largest_file=LARGEST_FILE) == 1, (
        said.read_text()
    )
    sentence = one_sentence(said)
    assert str(out) in sentence
    assert "too large" in sentence
    assert not list(out.rglob("*.part"))


@pytest.fixture
def small_disk(tmp_path):
    """A disk of a few megabytes, and a function that fills it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=6m tmpfs {disk} 2>/dev/null") != 0:
        pytest.skip("a small disk needs the right to mount one")

    def fill() -> None:
        file = os.open(disk / "filler", os.O_WRONLY | os.O_CREAT)
        try:
            while True:
                os.write(file, bytes(4096))
        except OSError:
            os.close(file)

    try:
        yield disk, fill
    finally:
        os.system(f"umount {disk}")


def test_a_full_disk_leaves_the_former_version(small_disk, made, tmp_path):
    disk, fill = small_disk
    said = tmp_path / "said"
    again = {
        "convert": [*commands(made, disk)["convert to cxi"], "--overwrite"],
        "report": ["report", disk / "image"],
        "doctor": commands(made, disk)["doctor"],
        "live": [*commands(made, disk)["live"], "--overwrite"],
        "compare": [*commands(made, disk)["compare"], "--overwrite"],
        "train": [*commands(made, disk)["train"][:-4], "--max_epochs", 2, "--resume", "auto"],
    }
    shutil.copytree(made / "run", disk / "run")
    shutil.copytree(made / "image", disk / "image")
    assert run([*again["convert"], *OPTIONS], said) == 0, said.read_text()
    for name in ("doctor", "live", "compare"):
        assert run([*again[name], *OPTIONS], said) == 0, said.read_text()
    fill()
    before = content(disk)
    for name, words in again.items():
        assert run([*words, *OPTIONS], said) == 1, (name, said.read_text())
        sentence = one_sentence(said)
        assert str(disk) in sentence
        assert "No space left" in sentence
        after = content(disk)
        for log in ("run/train_debug.log", "image/inference.log", "live/inference.log"):
            after[log] = before[log]
        assert after == before, name


@pytest.mark.parametrize("name", ["simulate", "train", "infer", "compare", "convert to cxi"])
@pytest.mark.parametrize("largest_file", [300, 60_000], ids=["at once", "later"])
def test_a_disk_without_room_leaves_what_overwrite_was_to_replace(
    name, largest_file, made, tmp_path
):
    said, words = tmp_path / "said", [*commands(made, tmp_path / "out")[name], *OPTIONS]
    (tmp_path / "out").mkdir()
    assert run(words, said) == 0, said.read_text()
    before = content(tmp_path / "out")
    if name == "simulate":
        words += ["--n_side", 12]
    assert run([*words, "--overwrite"], said, largest_file=largest_file) == 1, said.read_text()
    assert str(tmp_path / "out") in one_sentence(said)
    assert content(tmp_path / "out") == before


def wait_until(ready, process) -> None:
    """Return once something is there; the process must be running."""
    deadline = time.monotonic() + 60
    while not ready():
        assert process.is_alive(), f"ended with {finish(process)}"
        assert time.monotonic() < deadline
        time.sleep(0.001)


def long_training(made: Path, out: Path) -> list:
    return [*commands(made, out)["train"][:-4], "--max_epochs", 10_000, *OPTIONS]


@pytest.mark.parametrize("logger", ["csv", "none", "tensorboard"])
def test_a_folder_that_is_deleted_ends_the_run_and_is_not_made_again(logger, made, tmp_path):
    folder = RunDir(tmp_path / "out/run")
    process = command(
        [*long_training(made, tmp_path / "out"), "--logger", logger], tmp_path / "said"
    )
    wait_until(folder.best_checkpoint.is_file, process)
    folder.path.rename(tmp_path / "trash")
    assert finish(process) == 1
    assert str(folder.path) in one_sentence(tmp_path / "said")
    assert not folder.checkpoints.exists()
    torch.load(tmp_path / "trash/checkpoints/last.ckpt", weights_only=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("pause_s", [0.0, 0.02, 0.2])
def test_a_signal_that_comes_twice_is_answered_once(number, pause_s, made, tmp_path):
    folder = RunDir(tmp_path / "out/run")
    process = command(long_training(made, tmp_path / "out"), tmp_path / "said")
    wait_until(folder.best_checkpoint.is_file, process)
    for _ in range(2):
        if process.is_alive():
            os.kill(process.pid, number)
        time.sleep(pause_s)
    assert finish(process) in (128 + number, -number)  # the latter after its sentence
    assert f"ended by {signal.Signals(number).name}" in one_sentence(tmp_path / "said")
    assert not list(folder.path.rglob("*.part"))
    torch.load(folder.last_checkpoint, weights_only=True)


def _take_much_memory(output: str, words: list[str]) -> None:
    """Runs in the child: a simulation in which torch needs a petabyte."""
    import ptycho_torch.cli.simulate

    ptycho_torch.cli.simulate.simulate = lambda _config: torch.zeros(2**48)
    _command(words, output, None, {}, False)


def test_too_little_memory_for_torch_is_a_sentence(tmp_path):
    words = ["simulate", "--output_dir", str(tmp_path / "sim")]
    process = context.Process(target=_take_much_memory, args=(str(tmp_path / "said"), words))
    process.start()
    assert finish(process) == 2
    assert "more memory than there is" in one_sentence(tmp_path / "said")


def _lose_a_signal(output: str, words: list[str]) -> None:
    """Runs in the child: a simulation in which a library loses the exception of a signal."""
    import ptycho_torch.cli.simulate
    from ptycho_torch.errors import Stopped

    def simulate(_config) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        except Stopped:
            pass
        time.sleep(30)

    ptycho_torch.cli.simulate.simulate = simulate
    _command(words, output, None, {}, False)


def test_a_signal_that_a_library_lost_is_raised_again(tmp_path):
    words = ["simulate", "--output_dir", str(tmp_path / "sim")]
    process = context.Process(target=_lose_a_signal, args=(str(tmp_path / "said"), words))
    started = time.monotonic()
    process.start()
    assert finish(process) == 128 + signal.SIGTERM
    assert time.monotonic() - started < 20
    assert "ended by SIGTERM" in one_sentence(tmp_path / "said")


def test_a_clock_that_runs_backwards_changes_nothing(made, tmp_path):
    """Also between two runs: the files of the first are of tomorrow."""
    said = tmp_path / "said"
    straight, back = (RunDir(tmp_path / name / "run") for name in ("straight", "back"))
    options = [*OPTIONS, "--logger", "tensorboard", "--max_time", "00:01:00:00"]
    assert run([*commands(made, tmp_path / "straight")["train"], *options], said) == 0
    words = commands(made, tmp_path / "back")["train"]
    assert run([*words, *options, "--max_epochs", 1], said, backwards=True) == 0
    for path in back.path.rglob("*"):
        os.utime(path, (time.time() + 86400,) * 2)
    assert run([*words, *options, "--resume", "auto"], said, backwards=True) == 0, said.read_text()
    assert straight.metrics_csv.read_text() == back.metrics_csv.read_text()
    found, expected = (
        torch.load(folder.last_checkpoint, weights_only=True)["state_dict"]
        for folder in (back, straight)
    )
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense"])
@pytest.mark.parametrize("name", ["simulate", "infer"])
def test_the_backend_of_a_notebook_is_not_needed(backend, name, made, tmp_path):
    """A fresh interpreter: matplotlib reads the variable when it is imported."""
    words = [str(word) for word in [*commands(made, tmp_path)[name], *OPTIONS]]
    code = "import sys; from ptycho_torch.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env=os.environ | {"MPLBACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NAME": "job.sh",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_NODELIST": "node1",
}


@pytest.mark.parametrize("name", ["train", "infer"])
def test_a_batch_job_of_several_tasks_without_srun_runs_in_one_process(name, made, tmp_path):
    said = tmp_path / "said"
    assert run([*commands(made, tmp_path)[name], *OPTIONS], said, env=SLURM) == 0, said.read_text()


def test_several_tasks_of_srun_for_one_process_are_a_sentence(made, tmp_path):
    said = tmp_path / "said"
    words = [*commands(made, tmp_path)["train"], *OPTIONS]
    assert run(words, said, env=SLURM | {"SLURM_STEP_ID": "0"}) == 2
    assert "--ntasks" in one_sentence(said)


@pytest.mark.parametrize(
    "name", ["checkpoints", "train_debug.log", "metrics.csv", ".lock", "tensorboard"]
)
def test_a_link_out_of_the_run_folder_is_not_written_through(name, made, tmp_path):
    folder, outside, said = tmp_path / "run", tmp_path / "outside", tmp_path / "said"
    folder.mkdir()
    outside.mkdir()
    (outside / "mine").write_text("precious")
    target = outside if name in ("checkpoints", "tensorboard") else outside / "mine"
    (folder / name).symlink_to(target)
    words = [*commands(made, tmp_path)["train"], *OPTIONS]
    for more in ([], ["--overwrite"], ["--resume", "auto"]):
        assert run([*words, *more], said) == 2, said.read_text()
        assert str(folder / name) in one_sentence(said)
        assert content(outside) == {"mine": b"precious"}


def test_a_run_folder_may_itself_be_a_link(made, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    said = tmp_path / "said"
    assert run([*commands(made, tmp_path)["train"], *OPTIONS], said) == 0, said.read_text()
    assert (tmp_path / "elsewhere/checkpoints/best.ckpt").is_file()


def test_a_checkpoint_may_be_given_by_its_bare_name(made, tmp_path, monkeypatch):
    shutil.copy(made / "run/checkpoints/best.ckpt", tmp_path)
    monkeypatch.chdir(tmp_path)
    words = commands(made, tmp_path)["infer"]
    words[2] = "best.ckpt"
    with (tmp_path / "said").open("w") as said:
        code = "import sys; from ptycho_torch.cli import main; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, [*words, *OPTIONS])], stderr=said, check=False
        )
    assert done.returncode == 0, (tmp_path / "said").read_text()


@pytest.mark.parametrize("option", ["n_side 1000000", "step_px 1e9", "step_px 1e300"])
def test_too_little_memory_is_a_sentence(option, tmp_path):
    """Also for what no memory could hold."""
    said = tmp_path / "said"
    words = ["simulate", "--output_dir", tmp_path / "sim", *f"--{option}".split(), *OPTIONS]
    assert run(words, said) == 2
    assert "more memory than there is" in one_sentence(said)


def test_a_run_is_repeated_from_another_folder(made, tmp_path, monkeypatch):
    """The configuration that a run of relative paths left, given in another folder."""
    there = tmp_path / "there"
    there.mkdir()
    said = tmp_path / "said"
    for name, start in (("run", "train"), ("image", "infer")):
        config = made / name / "config.yaml"
        assert "\noutput_dir: /" in config.read_text()
        words = [start, "--config", config, "--output_dir", there / name, *OPTIONS]
        assert run(words, said) == 0, said.read_text()
    one, other = (
        torch.load(RunDir(path / "run").last_checkpoint, weights_only=True)["state_dict"]
        for path in (made, there)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)

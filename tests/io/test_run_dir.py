"""A command replaces its own files and no others, and never a file that it was given to read."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ptycho_torch
from ptycho_torch import cli
from ptycho_torch.config.commands import COMMANDS
from ptycho_torch.errors import InputError, NotTrustedError
from ptycho_torch.io.run_dir import CONFIG_KEYS, FILES, USABLE_WITH, RunDir

WRITING = sorted({command for file in FILES.values() for command in file.commands})
USERS = ("notes.txt", ".2024-11-notes.txt", ".2024-config.yaml", "scan_old.npz", "report.pdf")


def fill(run, command):
    """Write a file of every name that any command may write, and files of the user."""
    for file in FILES.values():
        path = run.path / file.name.replace("*", "a").replace("[0-9]", "0")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("written")
    for name in USERS:
        (run.path / name).write_text("mine")
    (run.path / ".2024-backup").mkdir()
    write_config(run, command, "x")


def write_config(run, command, value):
    config = {"debug": "false"} | dict.fromkeys(CONFIG_KEYS.get(command, ()), value)
    run.config.write_text("\n".join(f"{key}: {value}" for key, value in config.items()))


@pytest.mark.parametrize("command", WRITING)
def test_overwrite_deletes_the_files_of_the_command_and_nothing_else(command, tmp_path):
    run = RunDir(tmp_path)
    fill(run, command)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    own = set(run.files(command))
    with (
        pytest.raises(InputError, match=rf"already holds a run of '{command}'.*--overwrite"),
        run.claim(command),
    ):
        pass
    assert own <= before
    with run.claim(command, overwrite=True):
        assert run.files(command) == []
    left = {path for path in tmp_path.rglob("*") if path.is_file()} - {tmp_path / ".lock"}
    assert left == before - own
    assert (tmp_path / ".2024-backup").is_dir()


@pytest.mark.parametrize("name", [".lock", "train_debug.log", "inference.log", "checkpoints"])
def test_a_link_to_what_is_not_there_yet_is_not_followed(name, tmp_path):
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    (run.path / name).symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match="link out of the folder") as error, run.claim("train"):
        pass
    assert str(run.path / name) in str(error.value)
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("name", ["metrics.csv", "reconstruction.npz", "checkpoints/last.ckpt"])
def test_a_folder_in_the_place_of_a_file_is_refused_before_the_work(name, tmp_path):
    (tmp_path / name).mkdir(parents=True)
    with (
        pytest.raises(InputError, match="is a folder, where a file") as error,
        RunDir(tmp_path).claim("train", overwrite=True),
    ):
        pass
    assert str(tmp_path / name) in str(error.value)


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_in_part(run, command, *, usable):
    """What a run leaves that ends too early."""
    if command in CONFIG_KEYS:
        write_config(run, command, "of the run that ended too early")
    if usable:
        path = getattr(run, USABLE_WITH[command])
        path.parent.mkdir(exist_ok=True)
        path.write_text("new")


def fail(run, command, usable):
    with contextlib.suppress(InputError), run.claim(command, overwrite=True):
        write_in_part(run, command, usable=usable)
        raise InputError("it failed")


def killed(run, command, usable):
    """In a process that ends without a word, while it holds the folder."""
    child = os.fork()
    if child == 0:
        with run.claim(command, overwrite=True):
            write_in_part(run, command, usable=usable)
            os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(InputError, match="already holds a run"), run.claim(command):
        pass


def killed_while_it_began(run, command, usable):
    """When some of the former files are hidden and others are not."""
    hidden = run.files(command)[0]
    hidden.rename(hidden.with_name(f".{hidden.name}.{command}.former"))
    with pytest.raises(InputError, match="already holds a run"), run.claim(command):
        pass


@pytest.mark.parametrize("end", [fail, killed, killed_while_it_began])
@pytest.mark.parametrize("command", WRITING)
def test_a_run_that_replaces_another_and_does_not_end_well_leaves_it(command, end, tmp_path):
    run = RunDir(tmp_path)
    fill(run, command)
    (tmp_path / ".lock").touch()
    before = content(tmp_path)
    end(run, command, usable=False)
    assert content(tmp_path) == before


@pytest.mark.parametrize("end", [fail, killed])
@pytest.mark.parametrize("command", sorted(USABLE_WITH))
def test_unless_it_left_what_can_be_used(command, end, tmp_path):
    run = RunDir(tmp_path)
    fill(run, command)
    end(run, command, usable=True)
    assert getattr(run, USABLE_WITH[command]).read_text() == "new"
    assert not run.former_files(command)
    assert len(run.files(command)) <= 2


def test_a_training_that_is_resumed_does_not_go_on_with_the_one_that_it_was_to_replace(tmp_path):
    run = RunDir(tmp_path)
    fill(run, "train")
    child = os.fork()
    if child == 0:
        with run.claim("train", overwrite=True):
            os._exit(0)
    os.waitpid(child, 0)
    with run.claim("train", resume=True):
        assert not run.last_checkpoint.exists()
    assert not run.former_files("train")


def test_a_result_that_is_not_trusted_is_kept(tmp_path):
    run = RunDir(tmp_path)
    fill(run, "infer")
    with contextlib.suppress(NotTrustedError), run.claim("infer", overwrite=True):
        run.metrics.write_text("new")
        raise NotTrustedError("doubtful")
    assert run.files("infer") == [run.metrics]


@pytest.mark.parametrize("command", WRITING)
def test_half_written_files_of_a_killed_run_are_deleted(command, tmp_path):
    run = RunDir(tmp_path)
    name = next(file.name for file in FILES.values() if command in file.commands)
    kept = [tmp_path / ".notes.txt.123.part", tmp_path / ".notes.txt"]
    half = (tmp_path / name).with_name(f".{(tmp_path / name).name}.123.part")
    for path in (half, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    with run.claim(command):
        assert not half.exists()
        assert all(path.exists() for path in kept)


@pytest.mark.parametrize("command", sorted(CONFIG_KEYS))
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_configuration_of_somebody_else_is_never_replaced(command, overwrite, tmp_path):
    run = RunDir(tmp_path)
    others = [keys for name, keys in CONFIG_KEYS.items() if name != command]
    for keys in [{"beamline"}, *others]:
        text = "\n".join(f"{key}: 1" for key in keys)
        run.config.write_text(text)
        with (
            pytest.raises(InputError, match="choose another --output_dir"),
            run.claim(command, overwrite=overwrite),
        ):
            pass
        assert run.config.read_text() == text


def test_a_file_that_is_read_is_not_deleted(tmp_path):
    run = RunDir(tmp_path)
    run.product.write_text("measured")
    with (
        pytest.raises(InputError, match="is read by this run and would be replaced"),
        run.claim("infer", overwrite=True, inputs=[run.product]),
    ):
        pass
    assert run.product.read_text() == "measured"


def test_a_folder_in_use_is_refused(tmp_path):
    with (
        RunDir(tmp_path).claim("train"),
        pytest.raises(InputError, match="in use by another run"),
        RunDir(tmp_path).claim("infer"),
    ):
        pass


def test_every_writing_command_is_a_command():
    assert set(WRITING) <= set(COMMANDS)


@pytest.fixture(scope="module")
def trained(scan_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    words = ["--max_epochs", "1", "--accelerator", "cpu", "--quiet"]
    assert train(scan_file, folder, *words) == 0
    return folder


def train(scan, folder, *words):
    return cli.main(["train", "--train_data_file", str(scan), "--output_dir", str(folder), *words])


def infer(model, scan, folder, *words):
    named = ["--model_path", str(model), "--test_data", str(scan), "--output_dir", str(folder)]
    return cli.main(["infer", *named, "--accelerator", "cpu", "--quiet", *words])


def test_a_folder_that_holds_a_run_is_refused_before_the_scan_is_read(
    trained, scan_file, tmp_path, capsys
):
    """The file is not even one of a scan."""
    wrong = tmp_path / "no_scan.npz"
    wrong.write_bytes(b"whoever reads it refuses it")
    assert train(wrong, trained) == 2
    assert "already holds a run of 'train'" in capsys.readouterr().err
    assert infer(trained, wrong, trained) == 2
    assert "is not of a run of 'infer'" in capsys.readouterr().err
    assert train(wrong, trained, "--overwrite") == 2
    assert "no_scan.npz" in capsys.readouterr().err
    assert (trained / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.parametrize("words", [[], ["--overwrite"]])
def test_inference_into_the_folder_of_its_model_keeps_the_model(words, trained, scan_file, capsys):
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    assert infer(trained, scan_file, trained, *words) == 2
    assert "choose another --output_dir" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before


def test_training_into_a_folder_of_the_user_keeps_scan_and_configuration(scan_file, tmp_path):
    scan = tmp_path / "scan.npz"
    scan.write_bytes(scan_file.read_bytes())
    (tmp_path / "config.yaml").write_text("beamline: notes")
    assert train(scan, tmp_path, "--overwrite", "--max_epochs", "1", "--quiet") == 2
    assert scan.read_bytes() == scan_file.read_bytes()
    assert (tmp_path / "config.yaml").read_text() == "beamline: notes"


def test_a_pair_in_the_output_folder_is_kept(trained, simulation, tmp_path):
    """The pair is given as a folder; `product.h5` is also a file that inference may write."""
    from ptycho_torch.io.writers import write_scan

    write_scan(tmp_path, simulation.scan, format_name="ptychodus")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert infer(trained, tmp_path, tmp_path, "--overwrite") == 2
    assert all(path.read_bytes() == content for path, content in before.items())


def test_a_probe_in_the_output_folder_is_kept(scan_file, simulation, tmp_path):
    import numpy as np

    probe = tmp_path / "probe_0.npy"
    np.save(probe, simulation.scan.probe)
    words = ["--probe", str(probe), "--overwrite", "--max_epochs", "1", "--quiet"]
    assert train(scan_file, tmp_path, *words) == 2
    assert np.array_equal(np.load(probe), simulation.scan.probe)


def test_a_configuration_that_is_given_is_not_overwritten(trained, scan_file, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_bytes((trained / "config.yaml").read_bytes())
    words = ["--config", str(config), "--overwrite", "--quiet"]
    assert train(scan_file, tmp_path, *words) == 2
    assert config.read_bytes() == (trained / "config.yaml").read_bytes()


def test_a_run_needs_no_installed_package(tmp_path):
    """As from a copy of the code on a machine whose torch is that of its GPU."""
    packages = Path(np.__file__).parents[1]
    for one in packages.iterdir():
        if "ptycho_torch" not in one.name:
            (tmp_path / one.name).symlink_to(one)
    (tmp_path / "ptycho_torch").symlink_to(Path(ptycho_torch.__file__).parent)
    script = "from ptycho_torch.io.run_dir import provenance; print(provenance()['ptycho_torch'])"
    command = [sys.executable, "-S", "-c", script]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    output = subprocess.run(
        command, env=environment, cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    assert output.strip() == ptycho_torch.__version__

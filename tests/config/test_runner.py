"""Exit statuses and error sentences of the commands."""

import subprocess
import sys

import numpy as np
import pytest

from ptycho_torch import cli, inference, train


def status(main, *words):
    """Exit status of a command run in process; --help leaves by SystemExit."""
    try:
        return main([str(word) for word in words])
    except SystemExit as leaving:
        return leaving.code


@pytest.fixture
def one_sentence(capsys):
    """Assert that stderr ends with one sentence of an error, and return it."""

    def check() -> str:
        text = capsys.readouterr().err
        assert "Traceback" not in text
        errors = [line for line in text.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, text
        assert text.splitlines()[-1] == errors[0]
        return errors[0]

    return check


@pytest.mark.parametrize(
    "content",
    [None, b"", b"PK\x03\x04 cut", b"not a scan at all"],
    ids=["missing", "empty", "cut", "text"],
)
def test_a_bad_scan_ends_with_status_2_and_no_folder(tmp_path, one_sentence, content):
    path, out = tmp_path / "scan.npz", tmp_path / "out"
    if content is not None:
        path.write_bytes(content)
    assert status(train.main, "--train_data_file", path, "--output_dir", out) == 2
    assert str(path) in one_sentence()
    assert not out.exists()


@pytest.mark.parametrize("main", [train.main, inference.main])
def test_missing_and_unknown_flags_end_with_status_2(main, one_sentence):
    assert status(main) == 2
    assert "must be given" in one_sentence()
    assert status(main, "--colour", "red") == 2
    one_sentence()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train", ["--train_data_file", "none.npz"]),
        ("train", ["--train_data_file", "here.npz", "--test_data_file", "none.npz"]),
        ("inference", ["--model_path", "here.npz", "--test_data", "none.npz"]),
    ],
)
def test_a_mistyped_path_does_not_wait_for_torch(tmp_path, command, words):
    (tmp_path / "here.npz").write_bytes(b"PK")
    script = (
        f"import sys; from ptycho_torch.{command} import main\n"
        f"print(main({[*words, '--output_dir', 'out']}), 'torch' in sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert ended.stdout.split() == ["2", "False"]
    assert ended.stderr.startswith("error: none.npz: no such file")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path, scan_file, one_sentence):
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    words = ("--train_data_file", scan_file, "--output_dir", blocker / "run")
    assert status(train.main, *words, "--accelerator", "cpu") == 2
    assert f"cannot write to {blocker / 'run'}" in one_sentence()
    assert blocker.read_text() == "in the way"


def test_a_file_that_is_no_model_is_named(tmp_path, scan_file, one_sentence):
    wrong = tmp_path / "model.ckpt"
    wrong.write_text("no weights")
    for model in (tmp_path / "nowhere", wrong, tmp_path):
        words = ("--model_path", model, "--test_data", scan_file, "--output_dir", tmp_path / "out")
        assert status(inference.main, *words) == 2
        assert str(model) in one_sentence()
    assert not (tmp_path / "out").exists()


def test_debug_shows_the_traceback(tmp_path):
    words = ("--train_data_file", tmp_path / "a.npz", "--output_dir", tmp_path / "out")
    with pytest.raises(ValueError, match="no such file"):
        status(train.main, *words, "--debug")


@pytest.mark.skipif(
    "__import__('torch').cuda.is_available()", reason="this machine has a CUDA device"
)
@pytest.mark.parametrize("name", ["gpu", "cuda"])
def test_a_missing_accelerator_ends_with_status_2(tmp_path, scan_file, name, one_sentence):
    words = ("--train_data_file", scan_file, "--output_dir", tmp_path / "out")
    assert status(train.main, *words, "--accelerator", name) == 2
    assert "--accelerator cpu" in one_sentence()


@pytest.mark.parametrize(
    "words", [["--help"], *([name, "--help"] for name in cli.COMMANDS)], ids=" ".join
)
def test_help_ends_with_status_0(words, capsys):
    assert status(cli.main, *words) == 0
    assert "usage" in capsys.readouterr().out


def test_the_console_command_lists_its_commands(capsys):
    assert status(cli.main) == 2
    assert "simulate" in capsys.readouterr().out
    assert status(cli.main, "paint") == 2
    assert "expected one of simulate, train, infer" in capsys.readouterr().err
    assert status(cli.main, "--version") == 0


def test_simulate_writes_a_scan_its_truth_and_a_picture(tmp_path):
    size = ("--n_side", 4, "--pattern_size", 32, "--photons", 1e4)
    words = ("--output_dir", tmp_path / "made", *size, "--quiet")
    assert status(cli.main, "simulate", *words) == 0
    names = [path.name for path in (tmp_path / "made").iterdir()]
    assert sorted(name for name in names if not name.startswith(".")) == [
        "config.yaml", "scan.npz", "simulation.png", "truth.npz",
    ]  # fmt: skip
    with np.load(tmp_path / "made" / "scan.npz", allow_pickle=False) as scan:
        assert scan["diff3d"].shape == (16, 32, 32)
    assert status(cli.main, "simulate", *words) == 2


def test_quiet_prints_nothing(tmp_path, capfd):
    words = ("--output_dir", tmp_path / "made", "--n_side", 2, "--pattern_size", 16)
    status(cli.main, "simulate", *words, "--quiet")
    assert capfd.readouterr() == ("", "")


def test_without_torch_the_commands_say_how_to_install_it(tmp_path, scan_file):
    """POLICY-001: a child process in which torch cannot be imported."""
    code = (
        "import sys; sys.modules['torch'] = None; from ptycho_torch.train import main; "
        "sys.exit(main(sys.argv[1:]))"
    )
    words = ["--train_data_file", str(scan_file), "--output_dir", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "ptycho_torch needs PyTorch: pip install torch" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_module_that_needs_torch_names_it_on_import():
    code = "import sys; sys.modules['torch'] = None\nimport ptycho_torch.physics"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ptycho_torch needs PyTorch: pip install torch" in done.stderr.splitlines()[-1]


def test_the_package_root_imports_no_torch():
    code = "import sys, ptycho_torch; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_public_names_are_there():
    import ptycho_torch

    for name in ptycho_torch.__all__:
        assert getattr(ptycho_torch, name) is not None
    assert set(ptycho_torch.__all__) <= set(dir(ptycho_torch))
    with pytest.raises(AttributeError, match="no attribute 'utils'"):
        _ = ptycho_torch.utils

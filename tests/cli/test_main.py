"""`--help`, `--version` and `help`, for every way to start a command."""

import os
import subprocess
import sys
import time

import pytest

import ptycho_torch
from ptycho_torch import cli
from ptycho_torch.config.commands import COMMANDS

TEST = """
def test_one(run_archive):
    run_archive.metric("ssim", 0.5)
"""
MAX_CPU_S = 0.5  # of a child that answers --help; measured 0.1 to 0.3
TRIES = 3  # on a busy machine the best of some counts
STARTS = {
    "train": ["-m", "ptycho_torch.train"],
    "inference": ["-m", "ptycho_torch.inference"],
    "package": ["-m", "ptycho_torch"],
    **{name: ["-m", "ptycho_torch", name] for name in COMMANDS},
}


def cpu_of(words) -> tuple[float, str]:
    """CPU seconds of a child process, and its output."""
    before = os.times()
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True)
    after = os.times()
    spent = after.children_user + after.children_system
    return spent - before.children_user - before.children_system, done.stdout


@pytest.mark.parametrize("name", STARTS)
def test_help_is_fast_and_version_is_known(name):
    best = float("inf")
    for _ in range(TRIES):
        spent, text = cpu_of([*STARTS[name], "--help"])
        best = min(best, spent)
        if best < MAX_CPU_S:
            break
        time.sleep(0.5)
    assert best < MAX_CPU_S
    assert "usage" in text
    _, text = cpu_of([*STARTS[name], "--version"])
    assert text.strip() == ptycho_torch.__version__


def test_help_lists_the_commands_and_the_options_of_one(capsys):
    assert cli.main(["help"]) == 0
    listed = capsys.readouterr().out
    assert all(command.help in listed for command in COMMANDS.values())
    with pytest.raises(SystemExit) as left:
        cli.main(["help", "train"])
    assert left.value.code == 0
    assert "--max_epochs" in capsys.readouterr().out


def test_without_a_command_the_list_is_an_error(capsys):
    assert cli.main([]) == 2
    assert "usage" in capsys.readouterr().out
    assert cli.main(["tarin"]) == 2
    assert "no command 'tarin'" in capsys.readouterr().err


def test_a_report_needs_no_pytest(tmp_path):
    """A child process without pytest makes the page of an archive, which a first one wrote."""
    archive, test = tmp_path / "archive", tmp_path / "test_one.py"
    test.write_text(TEST)
    words = ["-m", "pytest", "-p", "ptycho_torch.testing.plugin", "--archive", str(archive)]
    subprocess.run([sys.executable, *words, str(test)], cwd=tmp_path, check=True)
    before = (archive / "index.html").read_bytes()
    (archive / "index.html").unlink()
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "from ptycho_torch.cli import main\n"
        f"sys.exit(main(['report', {str(archive)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(archive / "index.html")
    assert (archive / "index.html").read_bytes() == before

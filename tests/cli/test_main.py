"""Every way to start a command answers at once."""

import os
import subprocess
import sys
import time

import pytest

import ptycho_torch
from ptycho_torch import cli
from ptycho_torch.config.commands import COMMANDS

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
    """The page of an archive of tests is made where the package is installed without its tests."""
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "from ptycho_torch.cli import main\n"
        f"sys.exit(main(['report', {str(tmp_path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert "neither a reconstruction nor an archive" in done.stderr

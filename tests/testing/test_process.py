"""Laws of `run_command`: bounded, measured, nothing left behind, everything in the error."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ptycho_torch.testing.process import CommandError, CommandResult, cpu_environment, run_command

PYTHON = (sys.executable, "-c")
MIB = 2**20

# Starts a child in the same group, and a daemon in a session of its own whose parent has ended, and
# writes their ids.
FAMILY = """
import os, subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
ids = [os.getpid(), subprocess.Popen(sleep).pid]
start = "import subprocess; print(subprocess.Popen(%r, start_new_session=True, stdout=2).pid)"
command = [sys.executable, "-c", start % (sleep,)]
ids.append(int(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))
with open("ids.part", "w") as file:
    file.write(" ".join(map(str, ids)))
os.rename("ids.part", "ids")
"""


def is_alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def family(folder: Path) -> list[int]:
    return [int(word) for word in (folder / "ids").read_text().split()]


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")


def test_output_and_exit_status_are_kept_and_nothing_is_shown(
    capfd: pytest.CaptureFixture[str],
) -> None:
    result = run_command([*PYTHON, "import sys; print('out'); print('err', file=sys.stderr)"])
    assert (result.state, result.exit_status, result.stdout, result.stderr) == (
        "exited",
        0,
        "out\n",
        "err\n",
    )
    assert capfd.readouterr() == ("", "")


def test_failure_is_a_runtime_error_with_command_and_output() -> None:
    code = (
        "import sys; print('some', 'output'); print('some', 'complaint', file=sys.stderr); "
        "sys.exit(3)"
    )
    with pytest.raises(RuntimeError, match="failed with exit status 3: some complaint\n") as caught:
        run_command([*PYTHON, code])
    assert all(
        part in str(caught.value) for part in (sys.executable, "some output", "some complaint")
    )


def test_failure_can_be_looked_at_instead() -> None:
    assert run_command([*PYTHON, "raise SystemExit(2)"], check=False).exit_status == 2


def test_missing_program_and_missing_folder_are_named() -> None:
    with pytest.raises(CommandError, match=r"could not be started.*no-such-program"):
        run_command(["no-such-program"])
    with pytest.raises(CommandError, match=r"could not be started.*no-such-folder"):
        run_command([*PYTHON, ""], cwd=Path("no-such-folder"))


def test_child_ended_by_a_signal_is_told_as_such() -> None:
    with pytest.raises(CommandError, match="ended by SIGKILL") as caught:
        run_command([*PYTHON, "import os; print('before', flush=True); os.kill(os.getpid(), 9)"])
    assert caught.value.result.exit_status == -signal.SIGKILL
    assert caught.value.result.stdout == "before\n"


def test_child_sees_exactly_the_environment_it_was_given() -> None:
    given = {
        "PATH": os.environ["PATH"],
        "ONE": "1",
        "ODD": b"\xff".decode(errors="surrogateescape"),
    }
    seen = run_command(["env", "-0"], env=given).stdout
    assert sorted(seen.split("\0")[:-1]) == sorted(
        ["ODD=\ufffd", "ONE=1", f"PATH={os.environ['PATH']}"]
    )


def test_child_has_no_standard_input_and_default_signals() -> None:
    code = (
        "import signal, sys; print(repr(sys.stdin.read()), signal.getsignal(signal.SIGTERM).name)"
    )
    assert run_command([*PYTHON, code]).stdout == "'' SIG_DFL\n"


def test_own_environment_is_never_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    before = dict(os.environ)
    env = cpu_environment()
    run_command([*PYTHON, ""], env=env)
    assert dict(os.environ) == before
    assert env["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize(
    ("asked", "given"), [("64", "2"), ("1", "1"), ("", "1"), ("0", "1"), ("2,1", "1")]
)
def test_threads_of_a_child_are_bounded(
    monkeypatch: pytest.MonkeyPatch, asked: str, given: str
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert cpu_environment()["OMP_NUM_THREADS"] == given


@linux_only
def test_time_limit_ends_child_group_and_daemon_and_keeps_the_output(tmp_path: Path) -> None:
    code = f"{FAMILY}\nprint('ready', flush=True)\ntime.sleep(600)"
    with pytest.raises(CommandError, match="timed out after") as caught:
        run_command([*PYTHON, code], cwd=tmp_path, timeout_s=1.5)
    assert caught.value.result.stdout == "ready\n"
    assert caught.value.result.wall_s < 10
    assert not any(map(is_alive, family(tmp_path)))


@linux_only
def test_time_limit_ends_a_child_that_ignores_sigterm(tmp_path: Path) -> None:
    code = (
        f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{FAMILY}\ntime.sleep(600)"
    )
    result = run_command([*PYTHON, code], cwd=tmp_path, timeout_s=1.0, check=False)
    assert (result.state, result.exit_status) == ("timed out", -signal.SIGKILL)
    assert not any(map(is_alive, family(tmp_path)))


@linux_only
def test_normal_end_leaves_no_group_and_no_daemon_behind(tmp_path: Path) -> None:
    run_command([*PYTHON, FAMILY], cwd=tmp_path, timeout_s=20)
    assert not any(map(is_alive, family(tmp_path)))


@linux_only
@pytest.mark.usefixtures("interruptible")
def test_interrupt_ends_the_command_and_records_it(tmp_path: Path) -> None:
    recorded: list[CommandResult] = []

    def interrupt_when_started() -> None:
        wait_for((tmp_path / "ids").exists)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt_when_started).start()
    with pytest.raises(KeyboardInterrupt):
        run_command([*PYTHON, f"{FAMILY}\ntime.sleep(600)"], cwd=tmp_path, record=recorded.append)
    assert [result.state for result in recorded] == ["interrupted"]
    assert not any(map(is_alive, family(tmp_path)))


@linux_only
def test_killed_test_process_leaves_nothing_behind(tmp_path: Path) -> None:
    code = f"{FAMILY}\ntime.sleep(600)"
    call = f"from ptycho_torch.testing.process import run_command; run_command({[*PYTHON, code]!r})"
    root = Path(__file__).parents[2]
    parent = subprocess.Popen(
        [*PYTHON, call], cwd=tmp_path, env=dict(os.environ) | {"PYTHONPATH": str(root)}
    )
    try:
        assert wait_for((tmp_path / "ids").exists)
        assert all(map(is_alive, family(tmp_path)))
    finally:
        parent.kill()
        parent.wait()
    assert wait_for(lambda: not any(map(is_alive, family(tmp_path))))


def test_peak_memory_is_the_childs_and_not_that_of_a_large_parent() -> None:
    ballast = bytearray(300 * MIB)
    ballast[:: 4 * 1024] = b"1" * len(range(0, len(ballast), 4 * 1024))  # touch every page
    small = run_command([*PYTHON, ""]).peak_memory_bytes
    large = run_command([*PYTHON, f"x = b'1' * {150 * MIB}"]).peak_memory_bytes
    assert 2 * MIB < small < 60 * MIB  # an empty Python takes about 10 MiB
    assert 150 * MIB < large < 150 * MIB + 60 * MIB
    del ballast


def test_cpu_time_counts_work_of_grandchildren_and_not_sleep() -> None:
    spin = "import time\nwhile time.process_time() < 0.4: pass"
    result = run_command(
        [*PYTHON, f"import subprocess, sys; subprocess.run([sys.executable, '-c', {spin!r}])"]
    )
    asleep = run_command([*PYTHON, "import time; time.sleep(0.4)"])
    assert 0.4 <= result.cpu_s < 1.5  # two interpreters' start-up on top
    assert asleep.wall_s >= 0.4
    assert asleep.cpu_s < 0.3


def test_output_larger_than_a_pipe_does_not_block() -> None:
    result = run_command(
        [
            *PYTHON,
            "import sys; sys.stdout.write('x' * 3_000_000); sys.stderr.write('y' * 3_000_000)",
        ]
    )
    assert (len(result.stdout), len(result.stderr)) == (3_000_000, 3_000_000)

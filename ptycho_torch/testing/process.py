"""Run a command as a child process: with a time limit, measured, with nothing left behind."""

import hashlib
import json
import os
import select
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

SUPERVISOR = Path(__file__).with_name("supervise.py")
DEFAULT_TIMEOUT_S = 600.0
GRACE_S = 2.0  # between SIGTERM and SIGKILL: enough to print a traceback, too short to hide a hang
ANSWER_S = GRACE_S + 10.0  # by when the supervisor has ended the command, unless it hangs itself
POLL_S = 0.5  # how late an interrupt may be noticed that the kernel hands to another thread
MESSAGE_LIMIT = 200_000  # characters of each stream in an error, which a terminal still shows
COMPLAINT_LIMIT = 200  # characters of the last line of stderr, in the first line of an error
READ_LIMIT_BYTES = 64 * 2**20  # of each stream in memory; no test looks at more text than that
MEASURED_BYTES = 2**20  # of output at a time
MAX_THREADS = 2  # compute threads of a child; on a small machine more of them are slower


class Printed(NamedTuple):
    """All that a command wrote to one stream: its size, and its hexadecimal SHA-256."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class CommandResult:
    """What one command did.

    Attributes:
        args: The command, program first.
        state: "exited", "timed out", "interrupted" (the test process was) or "not started".
        exit_status: As in `subprocess`: negative is the signal that ended it; None if it was never
            started.
        stdout: Its output, undecodable bytes replaced; over 64 MiB its beginning and end.
        stderr: The same of its error output.
        wall_s: Duration.
        cpu_s: User plus system time of the child and the children that it waited for.
        peak_memory_bytes: The largest resident size of any one of those.
        problem: Why it was not started.
        printed: Size and SHA-256 of all that it wrote to "stdout" and "stderr".
    """

    args: tuple[str, ...]
    state: str
    exit_status: int | None = None
    stdout: str = ""
    stderr: str = ""
    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_memory_bytes: int = 0
    problem: str = ""
    printed: Mapping[str, Printed] = field(default_factory=dict)

    @property
    def succeeded(self) -> bool:
        """Ran to its own end, with exit status 0."""
        return self.state == "exited" and self.exit_status == 0

    @property
    def how_it_ended(self) -> str:
        """One clause for a reader: "failed with exit status 3"."""
        if self.state == "not started":
            return f"could not be started: {self.problem}"
        if self.state != "exited":
            return (
                f"was {self.state}"
                if self.state == "interrupted"
                else f"timed out after {self.wall_s:.1f} s"
            )
        status = self.exit_status or 0
        if status < 0:
            known = -status in {
                one.value for one in signal.Signals
            }  # those for real-time use have no names
            return f"was ended by {signal.Signals(-status).name if known else f'signal {-status}'}"
        return f"failed with exit status {status}" if status else "succeeded"


class CommandError(RuntimeError):
    """A command failed; the message holds the command and its output, `result` the rest.

    Args:
        result: Of the command.
        mask: Removes secrets from the message.
    """

    def __init__(self, result: CommandResult, mask: Callable[[str], str] = str) -> None:
        self.result = result
        super().__init__(
            mask(
                f"command {result.how_it_ended}{last_complaint(result.stderr)}\n"
                f"  {shlex.join(result.args)}\n"
                f"--- stdout ---\n{shorten(result.stdout, MESSAGE_LIMIT)}\n"
                f"--- stderr ---\n{shorten(result.stderr, MESSAGE_LIMIT)}"
            )
        )


def last_complaint(stderr: str) -> str:
    """The last line that a command wrote to stderr, after a colon; of a Python it is the error."""
    line = stderr.strip().rpartition("\n")[2].strip()
    return f": {line[:COMPLAINT_LIMIT]}" if line else ""


def shorten(text: str, limit: int) -> str:
    """The text, or its beginning and end with a note of what was left out between."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"


class Environment(Mapping[str, str]):
    """A read-only environment that prints no values; `dict(...)` of it can be changed."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = dict(variables)

    def __getitem__(self, name: str) -> str:
        return self._variables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    def __or__(self, changes: Mapping[str, str]) -> dict[str, str]:
        return self._variables | dict(changes)

    def __repr__(self) -> str:
        return f"<environment of {len(self)} variables>"


def cpu_environment() -> dict[str, str]:
    """A copy of this process's environment without GPUs and with few compute threads."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    threads = str(min(int(asked), MAX_THREADS)) if asked.isdecimal() and int(asked) else "1"
    return dict(os.environ) | {
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def run_command(
    args: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    check: bool = True,
    record: Callable[[CommandResult], None] | None = None,
    mask: Callable[[str], str] = str,
) -> CommandResult:
    """Run a command to its end and return what it did; its output is kept, not shown.

    It gets a copy of the environment, no standard input, and a session of its own. At its end, at
    the time limit (SIGTERM, then SIGKILL) and when this process is interrupted or killed, every
    process that it started is ended, on Linux also one that has made itself a daemon.

    Args:
        args: Program and arguments; no shell is involved.
        env: Environment of the child; None is this process's.
        cwd: Folder to run in.
        timeout_s: Wall-clock limit in seconds.
        check: Raise unless it exits with status 0.
        record: Called with the result in every case, before anything is raised.
        mask: Removes secrets from the message of an error.

    Raises:
        CommandError: A RuntimeError, if `check` and the command failed, timed out or could not be
            started.
    """
    __tracebackhide__ = True  # a failure is shown at the line that asked for the command
    words = tuple(os.fspath(word) for word in args)
    request: dict[str, object] = {"args": words, "env": dict(os.environ if env is None else env)}
    request |= {"cwd": cwd and os.fspath(cwd), "timeout_s": timeout_s, "grace_s": GRACE_S}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        supervisor = start_supervisor(out.fileno(), err.fileno())
        assert supervisor.stdin
        assert supervisor.stdout
        try:
            supervisor.stdin.write(json.dumps(request).encode() + b"\n")
            supervisor.stdin.flush()
            while not select.select([supervisor.stdout], [], [], POLL_S)[0]:
                pass
        finally:
            supervisor.stdin.close()  # ends the command if this process is interrupted
            if not select.select([supervisor.stdout], [], [], ANSWER_S)[0]:
                supervisor.kill()
            outcome = json.loads(supervisor.stdout.read() or '{"state": "interrupted"}')
            supervisor.stdout.close()
            supervisor.wait()
            printed = {"stdout": measure(out), "stderr": measure(err)}
            result = CommandResult(
                words, stdout=read_back(out), stderr=read_back(err), printed=printed, **outcome
            )
            if record:
                record(result)
    if check and not result.succeeded:
        raise CommandError(result, mask)
    return result


def start_supervisor(out: int, err: int) -> subprocess.Popen[bytes]:
    """Start the process that runs one command with these file descriptors as its output."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(SUPERVISOR), str(out), str(err)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=(out, err),
        start_new_session=True,
    )


def measure(stream: IO[bytes]) -> Printed:
    """Size and SHA-256 of everything that was written to a temporary file."""
    stream.seek(0)
    digest = hashlib.sha256()
    while block := stream.read(MEASURED_BYTES):
        digest.update(block)
    return Printed(stream.tell(), digest.hexdigest())


def read_back(stream: IO[bytes]) -> str:
    """Everything that was written to a temporary file, or its beginning and its end."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    if size <= READ_LIMIT_BYTES:
        return stream.read().decode(errors="replace")
    head = stream.read(READ_LIMIT_BYTES // 2)
    stream.seek(-(READ_LIMIT_BYTES // 2), os.SEEK_END)
    parts = head, f"\n[... {size - READ_LIMIT_BYTES} bytes left out ...]\n".encode(), stream.read()
    return b"".join(parts).decode(errors="replace")

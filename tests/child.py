"""A command in a process of its own, forked from a server that has imported everything:
real, and soon there.
"""

import contextlib
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

START_S = 120.0  # more than any child needs on a busy machine

context = multiprocessing.get_context("forkserver")
PRELOADED = ["ptycho_torch.train.fit", "ptycho_torch.train", "ptycho_torch.inference.live.follow"]
context.set_forkserver_preload(PRELOADED)


@dataclass(frozen=True)
class Moment:
    """The n-th time that the process does something to a file whose path contains a word, as the
    interpreter audits it.
    """

    event: str
    word: str
    number: int = 1


def train(
    argv: Sequence[str], output: Path, moment: Moment | None = None, largest_file: int | None = None
) -> ForkServerProcess:
    """Start `python -m ptycho_torch.train`; see `start`."""
    return start("train", argv, output, moment, largest_file)


def start(
    command: str,
    argv: Sequence[str],
    output: Path,
    moment: Moment | None = None,
    largest_file: int | None = None,
) -> ForkServerProcess:
    """Start a command; what it says goes to a file.

    Args:
        command: Its name.
        argv: Words of the command line.
        output: Where its stdout and stderr go.
        moment: When it kills itself with SIGKILL.
        largest_file: Bytes that a file may have, as on a full disk.
    """
    given = (command, list(argv), str(output), moment, largest_file)
    process = context.Process(target=_run, args=given)
    process.start()
    return process


def finish(process: ForkServerProcess) -> int | None:
    """Exit status of a process; negative is the signal that ended it.

    One that does not end is killed, and so are the processes that it started and left.
    """
    process.join(START_S)
    if process.is_alive():
        process.kill()
        process.join()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.exitcode


def wait_for(process: ForkServerProcess, path: Path, lines: int = 0) -> None:
    """Return once a file is there and has so many lines."""
    deadline = time.monotonic() + START_S
    while not (path.is_file() and path.read_bytes().count(b"\n") >= lines):
        if not process.is_alive() or time.monotonic() > deadline:
            raise AssertionError(f"no {path.name}; the process ended with {finish(process)}")
        time.sleep(0.001)


def _run(
    command: str, argv: list[str], output: str, moment: Moment | None, largest_file: int | None
) -> None:
    """Runs in the child."""
    from ptycho_torch.config.runner import run

    os.setpgrp()
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    if moment is not None:
        left = [moment.number]

        def watch(event: str, args: tuple) -> None:
            if event == moment.event and any(moment.word in str(arg) for arg in args[:2]):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    sys.exit(run(command, argv))

"""Run one command and leave nothing of it behind: the script between a test and its command.

It is a process of its own for three reasons. The kernel counts a child's peak memory from the size
of the process that started it, so a large test process would hide a small child. On Linux it adopts
what the command orphans, so that a daemon with a session of its own is found and ended too. And it
outlives a killed test process: when its standard input closes, it ends the command.

Standard input: one line of JSON (args, env, cwd, timeout_s, grace_s), then open for as long as the
command may run.
Arguments: the file descriptors of the command's stdout and stderr. Standard output: one line of
JSON, the outcome.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
STDIN = 0
MAXRSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024  # getrusage(2)

Ended = tuple[int, int, float]  # exit status, peak memory in bytes, CPU time in seconds


def reap(pid: int, *, options: int = 0) -> Ended | None:
    """Exit status and resource usage of a child that has ended, else None."""
    reaped, status, usage = os.wait4(pid, options)
    if reaped == 0:
        return None
    return (
        os.waitstatus_to_exitcode(status),
        usage.ru_maxrss * MAXRSS_UNIT_BYTES,
        usage.ru_utime + usage.ru_stime,
    )


def wait(
    pid: int, wakeup: int, deadline: float, *, lifeline: int | None
) -> tuple[str, Ended | None]:
    """Wait for the end of the child, the deadline or the closing of the lifeline; tell which."""
    sources = [wakeup] if lifeline is None else [wakeup, lifeline]
    while True:
        if (ended := reap(pid, options=os.WNOHANG)) is not None:
            return "exited", ended
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            return "timed out", None
        ready, _, _ = select.select(sources, [], [], left_s)
        if lifeline in ready:
            return "interrupted", None
        if wakeup in ready:
            os.read(wakeup, 4096)


def children() -> list[int]:
    """Processes whose parent is this one, adopted ones included; empty without Linux's /proc."""
    found = []
    for name in os.listdir("/proc") if sys.platform == "linux" else []:  # noqa: PTH208
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as stat:
                if int(stat.read().rpartition(")")[2].split()[1]) == os.getpid():
                    found.append(int(name))
    return found


def signal_group(group: int, number: int) -> None:
    """Send a signal to a process group that may have gone."""
    with contextlib.suppress(
        ProcessLookupError, PermissionError
    ):  # macOS: EPERM for a group of zombies
        os.killpg(group, number)


def end_descendants() -> None:
    """Kill and reap children until there are none; orphans of a killed one come next."""
    while True:
        for pid in children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def watch_children() -> int:
    """A file descriptor that becomes readable when a child ends."""
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return readable


def supervise(request: dict[str, object], out: int, err: int) -> dict[str, object]:
    """Run the command to its end, its time limit or the end of standard input."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wakeup = watch_children()
    started = time.monotonic()
    try:
        child = subprocess.Popen(
            request["args"],  # type: ignore[call-overload]
            env=request["env"],
            cwd=request["cwd"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return {"state": "not started", "problem": str(error)}
    state, ended = wait(
        child.pid, wakeup, started + float(str(request["timeout_s"])), lifeline=STDIN
    )
    if ended is None:
        signal_group(child.pid, signal.SIGTERM)
        _, ended = wait(
            child.pid, wakeup, time.monotonic() + float(str(request["grace_s"])), lifeline=None
        )
    wall_s = time.monotonic() - started
    signal_group(child.pid, signal.SIGKILL)
    exit_status, peak_memory_bytes, cpu_s = ended or reap(child.pid) or (0, 0, 0.0)
    end_descendants()
    usage = {"wall_s": wall_s, "cpu_s": cpu_s, "peak_memory_bytes": peak_memory_bytes}
    return {"state": state, "exit_status": exit_status, **usage}


if __name__ == "__main__":
    outcome = supervise(json.loads(sys.stdin.buffer.readline()), int(sys.argv[1]), int(sys.argv[2]))
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(outcome), flush=True)

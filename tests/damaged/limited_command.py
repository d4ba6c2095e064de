"""A public command in a child process with limits, and what it did to the files around it.

The child is forked from a process that has imported everything, so that a command takes no longer
than its own work. It cannot crash, block or fill the memory of its parent.
"""

import faulthandler
import hashlib
import io
import os
import re
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MEMORY = 6 * 2**30  # bytes of addresses of a child; its libraries take one of the six
CPU_SECONDS = 30  # of a command; the slowest sound one needs three
WALL_SECONDS = 150.0  # after which it waits for what never comes, however busy the machine is
TRACEBACK = 99  # exit status of a child with an error that the command did not catch
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
RUNS_CODE = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen")
CHANGES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.link", "os.truncate")
# Words that a user cannot act on: classes, parts of libraries, places in their source code.
INTERNALS = re.compile(
    r"Traceback|\b[A-Z]\w*(Error|Exception|Warning)\b|NoneType|ndarray|dtype\(|<class|object at 0x"
    r"|Errno|\.py\b|\bh5py\b|\bnumpy\b(?!\.(fft|moveaxis))|\bnp\."
    r"|jsonargparse|argparse|(?<!Python )\bpickle\b|ckpt_path"
    r"|weights_only|\.cc:|H5[A-Z]|eof =|base_addr|synchronously|Lightning"
)
MAX_SENTENCE = 800  # characters beside the paths; the longest lists all keys of a map


@dataclass(frozen=True)
class Ending:
    """How a command ended.

    Attributes:
        status: Exit status; negative is the signal that ended it; None where it did not end.
        said: What it wrote on stdout and stderr.
        events: What it did beyond its folders: paths that it changed, programs that it started.
        memory: Largest resident memory, bytes.
        seconds: By the wall clock.
    """

    status: int | None
    said: str
    events: tuple[str, ...]
    memory: int
    seconds: float


def run_limited(argv: Sequence[str], room: Path, *, seconds: float = WALL_SECONDS) -> Ending:
    """Run ``ptycho-torch`` with some words in a forked child.

    Args:
        argv: Words of the command line.
        room: Folder of the case: the command may write into ``out`` and ``tmp`` of it, and its
            working folder is ``cwd``.
        seconds: After which it is killed.
    """
    said, events, started = room / "tmp" / "said", room / "tmp" / "events", time.monotonic()
    for name in ("out", "tmp", "cwd"):
        (room / name).mkdir(exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _run_in_child(argv, room, said, events)
    watch = os.pidfd_open(child)
    ended, _, _ = select.select([watch], [], [], seconds)
    os.close(watch)
    if not ended:
        os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)  # what it left running
    return Ending(
        os.waitstatus_to_exitcode(status) if ended else None,
        said.read_text(errors="surrogateescape"),
        tuple(dict.fromkeys(events.read_text(errors="surrogateescape").splitlines())),
        usage.ru_maxrss * 1024,
        time.monotonic() - started,
    )


def _run_in_child(argv: Sequence[str], room: Path, said: Path, events: Path) -> None:
    """Runs in the child, and ends it."""
    status = TRACEBACK
    try:
        os.setpgid(0, 0)
        for descriptor in (1, 2):
            os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), line_buffering=True)
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), line_buffering=True)
        faulthandler.enable(file=2)
        os.chdir(room / "cwd")
        os.environ["TMPDIR"] = tempfile.tempdir = str(room / "tmp")
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _note_events(os.open(events, os.O_WRONLY | os.O_CREAT | os.O_APPEND), room)
        from ptycho_torch.cli import main

        status = main(argv)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001  # the outcome of the child, whatever it is
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _note_events(file: int, room: Path) -> None:
    """Write down what this process does to files beyond its own, and the programs it starts."""
    own = (str(room / "out") + os.sep, str(room / "tmp") + os.sep, "/dev/null", "/proc/self/")

    def note(event: str, args: tuple) -> None:
        if event in RUNS_CODE:
            os.write(file, f"{event} {args[0]!r}\n".encode())
        elif event in CHANGES or (
            event == "open" and isinstance(args[2], int) and args[2] & WRITES
        ):
            if isinstance(args[0], int):
                return
            path = os.path.abspath(os.fsdecode(args[0]))  # noqa: PTH100  # links are not followed
            if not (path + os.sep).startswith(own):
                os.write(file, os.fsencode(f"{event} {path}\n"))

    sys.addaudithook(note)


def contents(folder: Path) -> dict[str, str]:
    """What lies in a folder: path -> kind, size and SHA-256, or the target of a link."""
    found = {}
    for where, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(where, name)
            if path.is_symlink():
                found[str(path)] = f"link to {path.readlink()}"
            elif path.is_file():
                size = path.stat().st_size
                with open(path, "rb") as file:
                    head = file.read(2**22)
                found[str(path)] = f"{size} bytes, {hashlib.sha256(head).hexdigest()}"
            else:
                found[str(path)] = "folder" if path.is_dir() else "special"
    return found


def fault(argv: Sequence[str], ending: Ending, names: Sequence[str]) -> str:
    """What is wrong with the ending of a command; empty where nothing is.

    Args:
        argv: Words of the command line.
        ending: How it ended.
        names: Of which the sentence must hold one: files and flags.
    """
    lines = [line for line in ending.said.splitlines() if line.strip()]
    if ending.status is None:
        return f"hung for {ending.seconds:.0f} s"
    if ending.status == -signal.SIGXCPU:
        return f"more than {CPU_SECONDS} s of CPU time"
    if ending.status == TRACEBACK:
        return f"traceback: {lines[-1] if lines else ''}"
    if ending.status < 0:
        return f"killed by {signal.Signals(-ending.status).name}"
    if ending.events:
        return f"beyond its folders: {'; '.join(ending.events[:3])}"
    wrong = "certainly wrong" in ending.said and argv[0] == "doctor"
    if ending.status not in (0, 2) and not wrong:
        return f"exit status {ending.status}: {lines[-1] if lines else ''}"
    foreign = [line for line in lines if re.search(r"\.py:\d+: \w*Warning", line)]
    if foreign:
        return f"a warning of a library: {foreign[0]}"
    if ending.status == 2:
        return sentence_fault(lines, names)
    return ""


def sentence_fault(lines: Sequence[str], names: Sequence[str]) -> str:
    """What is wrong with the words of a refusal: one sentence, which names a file or a flag."""
    errors = [line for line in lines if line.startswith("error: ")]
    if len(errors) != 1 or lines[-1] != errors[0]:
        return f"{len(errors)} sentences: {' | '.join(lines)[:300]}"
    sentence = errors[0]
    plain = sentence
    for name in sorted(names, key=len, reverse=True):
        plain = plain.replace(name, "")
    if plain == sentence and not re.search(r"--\w", sentence):
        return f"names neither a file nor a flag: {sentence}"
    if len(plain) > MAX_SENTENCE:
        return f"{len(plain)} characters: {sentence[:300]}"
    found = INTERNALS.search(plain)
    return f"'{found[0]}' in: {sentence}" if found else ""

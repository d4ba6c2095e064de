"""Record a run in a folder of evidence: commands, inputs, artifacts and metrics of a test."""

import contextlib
import functools
import hashlib
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import pytest

from ptycho_torch.testing.environment import recorded_variables
from ptycho_torch.testing.manifest import (
    SCHEMA,
    Entry,
    now,
    sha256,
    write_atomically,
    write_manifest,
)
from ptycho_torch.testing.privacy import Redactor
from ptycho_torch.testing.process import DEFAULT_TIMEOUT_S, CommandResult, run_command, shorten

KEPT_LIMIT_BYTES = 50 * 2**20  # a larger artifact is listed with its SHA-256, not copied
# Characters of a failure's message; the command's whole output is in files of its own.
MESSAGE_LIMIT = 20_000
BETTER = ("higher", "lower", "equal")
RESULT_KEYS = (
    "state",
    "exit_status",
    "wall_s",
    "cpu_s",
    "peak_memory_bytes",
    "problem",
)  # of a command, as the manifest has them


@dataclass
class Collected:
    """A file or folder to keep, and the last known (size, mtime) of its files, by path."""

    source: Path
    name: str
    caption: str
    seen: dict[Path, tuple[int, int]]


class RunArchive:
    """Records a run; made by the fixtures `run_archive` and `run_archive_factory`.

    Without a folder (no `--archive`) every method checks and does the same, and writes nothing.

    Attributes:
        folder: Where the evidence lies, or None.
        commands: Results of the commands run so far.
    """

    def __init__(
        self,
        folder: Path | None,
        redactor: Redactor,
        *,
        test: str,
        attempt: int,
        worker: str | None,
        environment: Entry,
    ) -> None:
        self.folder = folder
        self.commands: list[CommandResult] = []
        self._redactor = redactor
        self._collected: list[Collected] = []
        self._artifacts: dict[str, Entry] = {}
        self._started = time.monotonic()
        self._manifest: Entry = {
            "schema": SCHEMA,
            "kind": "run",
            "test": test,
            "attempt": attempt,
            "worker": worker,
            "verdict": "running",
            "message": "",
            "started": now(),
            "finished": None,
            "duration_s": 0.0,
            "seeds": {},
            "inputs": [],
            "commands": [],
            "artifacts": [],
            "metrics": [],
            "groups": [],
            "environment": environment,
        }
        self._write()

    def seed(self, name: str, value: int) -> int:
        """Record a random seed and return it."""
        self._manifest["seeds"][name] = int(value)
        self._write()
        return value

    def input(self, path: Path) -> Path:
        """Record an input file with its size and SHA-256, without a copy, and return its path."""
        size = path.stat().st_size
        if self.folder:
            self._manifest["inputs"].append(
                {"path": str(path), "bytes": size, "sha256": sha256(path)}
            )
            self._write()
        return path

    def artifact(self, path: Path, *, name: str = "", caption: str = "") -> Path:
        """Keep a copy of a file, or of all files in a folder, and return its path.

        It may not exist yet: it is looked at again after every command and at the end, so ask
        before the commands run, and what they left is kept when they fail, too.

        Args:
            path: File or folder.
            name: What it is called in the archive; by default the path's last part.
            caption: One sentence on what the picture shows.
        """
        name = self._redactor.text(name or path.name)
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"artifact name {name!r} must stay inside the archive")
        if any(other.name == name and other.source != path for other in self._collected):
            raise ValueError(f"another artifact is already called {name!r}; give a name")
        self._collected.append(Collected(path, name, caption, {}))
        self._collect()
        self._write()
        return path

    def metric(
        self,
        name: str,
        value: float,
        *,
        unit: str = "",
        better: Literal["higher", "lower", "equal"] | None = None,
        tolerance: float | None = None,
    ) -> float:
        """Record a number and return it.

        Args:
            name: Of the metric, unlike any other in this archive.
            value: The number; one that is not finite is kept as a word.
            unit: Of the value.
            better: Which way is an improvement; None is a number that is only shown.
            tolerance: By how much, in the metric's unit, it may be worse than in another archive
                before `--archive-compare` fails; None states none, and nothing is judged.
        """
        if better not in (None, *BETTER):
            raise ValueError(
                f"metric {name!r}: better is {better!r}; give one of {', '.join(BETTER)} or None"
            )
        if tolerance is not None and (better is None or not 0 <= tolerance < math.inf):
            raise ValueError(
                f"metric {name!r}: tolerance {tolerance} must be finite, at least 0, and needs "
                "`better`"
            )
        if any(metric["name"] == name for metric in self._manifest["metrics"]):
            raise ValueError(
                f"metric {name!r} is already recorded in this archive; use another name"
            )
        number = float(value)
        entry = {"name": name, "value": number if math.isfinite(number) else str(number)}
        self._manifest["metrics"].append(
            entry | {"unit": unit, "better": better, "tolerance": tolerance}
        )
        self._write()
        return number

    @contextlib.contextmanager
    def assertions(self, name: str) -> Iterator[None]:
        """Name the assertions in a `with` block, and record whether they held."""
        test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
        entry: Entry = {"name": name, "test": test, "verdict": "running", "message": ""}
        self._manifest["groups"].append(entry)
        self._write()
        try:
            yield
        except BaseException as error:
            entry |= {"verdict": verdict_of(error), "message": describe(error)}
            raise
        else:
            entry["verdict"] = verdict_of(None)
        finally:
            self._write()

    def run_command(
        self,
        args: Sequence[str | os.PathLike[str]],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        check: bool = True,
    ) -> CommandResult:
        """Run a command as `process.run_command` does, and keep command, output and usage."""
        __tracebackhide__ = True
        words = [os.fspath(word) for word in args]
        variables = recorded_variables(dict(os.environ if env is None else env))
        entry: Entry = {
            "args": words,
            "cwd": str(cwd or Path.cwd()),
            "env": variables,
            "started": now(),
        }
        entry |= {key: getattr(CommandResult((), "running"), key) for key in RESULT_KEYS} | {
            "stdout": None,
            "stderr": None,
        }
        self._manifest["commands"].append(entry)
        self._write()
        record = functools.partial(self._record, entry, len(self._manifest["commands"]))
        return run_command(words, env=env, cwd=cwd, timeout_s=timeout_s, check=check, record=record)

    def _record(self, entry: Entry, number: int, result: CommandResult) -> None:
        """Complete a command's entry with its result."""
        self.commands.append(result)
        for key in RESULT_KEYS:
            entry[key] = getattr(result, key)
        for stream in ("stdout", "stderr"):
            text = self._redactor.text(getattr(result, stream))
            entry[stream] = self._keep(
                f"commands/{number:02d}-{stream}.txt", text.encode(errors="replace")
            )
        self._collect()
        self._write()

    def close(self, verdict: str, message: str = "") -> None:
        """Write the verdict; a later call replaces it."""
        self._collect()
        duration_s = round(time.monotonic() - self._started, 3)
        self._manifest |= {"verdict": verdict, "message": shorten(message, MESSAGE_LIMIT)}
        self._manifest |= {"finished": now(), "duration_s": duration_s}
        self._write()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        broken = any(group["verdict"] in ("failed", "error") for group in self._manifest["groups"])
        self.close(
            "failed" if error is None and broken else verdict_of(error),
            describe(error) if error else "",
        )

    def _collect(self) -> None:
        """Copy the artifacts that are new or have changed, and list the missing ones."""
        if not self.folder:
            return
        for wanted in self._collected:
            files = files_under(wanted.source)
            if not files and not wanted.seen:
                self._artifacts[wanted.name] = artifact_entry(
                    str(wanted.source), wanted.caption
                ) | {"problem": "missing"}
            elif files and not wanted.seen:
                self._artifacts.pop(wanted.name, None)
            for path in files:
                self._collect_file(wanted, path)
        self._manifest["artifacts"] = list(self._artifacts.values())

    def _collect_file(self, wanted: Collected, path: Path) -> None:
        """Copy one file if it is not the one that was copied last."""
        inner = "" if path == wanted.source else "/" + path.relative_to(wanted.source).as_posix()
        name = self._redactor.text(wanted.name + inner).encode(errors="replace").decode()
        entry = artifact_entry(str(path), wanted.caption)
        try:
            state = path.stat()
            if wanted.seen.get(path) == (state.st_size, state.st_mtime_ns):
                return
            wanted.seen[path] = (state.st_size, state.st_mtime_ns)
            entry |= {"bytes": state.st_size, "sha256": sha256(path)}
            if state.st_size > KEPT_LIMIT_BYTES:
                entry["problem"] = f"not kept: larger than {KEPT_LIMIT_BYTES} bytes"
            else:
                entry |= self._keep_copy(f"artifacts/{name}", path.read_bytes())
        except OSError as error:
            entry["problem"] = f"not kept: {error.strerror}"
        self._artifacts[name] = entry

    def _keep_copy(self, name: str, data: bytes) -> Entry:
        """Keep an artifact: text without private words, other bytes as they are or not."""
        try:
            text = data.decode() if b"\0" not in data else None
        except UnicodeDecodeError:
            text = None
        if text is None:
            problem = (
                "not kept: names this computer, its user or a folder"
                if self._redactor.is_private(data)
                else ""
            )
            return {"kept": None if problem else self._keep(name, data), "problem": problem}
        public = self._redactor.text(text)
        return {
            "kept": self._keep(name, public.encode()),
            "problem": "" if public == text else "kept with paths removed",
        }

    def _keep(self, name: str, data: bytes) -> Entry | None:
        """Write a file into the archive; how the manifest refers to it."""
        if not self.folder:
            return None
        write_atomically(self.folder / name, data)
        return {"path": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def _write(self) -> None:
        """Write the manifest as it stands."""
        if self.folder:
            write_manifest(self.folder, self._redactor.tree(self._manifest))


def artifact_entry(path: str, caption: str) -> Entry:
    """An artifact of which nothing is known yet."""
    return {
        "path": path,
        "caption": caption,
        "bytes": 0,
        "sha256": None,
        "kept": None,
        "problem": "",
    }


def files_under(path: Path) -> list[Path]:
    """The path itself if it is a file, else the files below it; no links, no devices."""
    found = [path] if not path.is_dir() else sorted(path.rglob("*"))
    return [file for file in found if file.is_file() and not file.is_symlink()]


def verdict_of(error: BaseException | None) -> str:
    """The verdict of a block that ended with this exception, or without one."""
    if error is None:
        return "passed"
    if isinstance(error, AssertionError | pytest.fail.Exception):
        return "failed"
    if isinstance(error, pytest.skip.Exception):
        return "skipped"
    return "error" if isinstance(error, Exception) else "interrupted"


def describe(error: BaseException) -> str:
    """The exception's kind and message, shortened."""
    return shorten(f"{type(error).__name__}: {error}", MESSAGE_LIMIT)

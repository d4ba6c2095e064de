"""Record a run in a folder of evidence: commands, inputs, artifacts and metrics of a test."""

import contextlib
import functools
import math
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from ptycho_torch.testing.environment import recorded_variables
from ptycho_torch.testing.evidence_folder import EvidenceFolder, head_and_tail
from ptycho_torch.testing.manifest import SCHEMA, Entry, now, sha256
from ptycho_torch.testing.outcomes import FAILING
from ptycho_torch.testing.privacy import Redacted, Redactor, secret_arguments, secret_values
from ptycho_torch.testing.process import DEFAULT_TIMEOUT_S, CommandResult, run_command, shorten
from ptycho_torch.testing.pytest_reports import MESSAGE_LIMIT, verdict_of_error

BETTER = ("higher", "lower", "equal")
RESULT_KEYS = (
    "state",
    "exit_status",
    "wall_s",
    "cpu_s",
    "peak_memory_bytes",
    "problem",
)  # of a command, as the manifest has them
STREAMS = ("stdout", "stderr")
# Sections of the manifest that grow while the run goes on.
SECTIONS = ("seeds", "inputs", "commands", "artifacts", "metrics", "series", "groups", "redactions")
PROSE = {".txt", ".log", ".md", ".rst", ".out", ".err", ".html"}  # artifacts that people read
PASSED = ("passed", "skipped", "xfailed")  # --archive-keep failed leaves out the files of these


@dataclass(frozen=True)
class RunIdentity:
    """Which run it is.

    Attributes:
        test: Id of the test, or the name of a run that several tests share.
        attempt: Number of the try, from 1.
        worker: Of pytest-xdist, or None.
        shared: Whether several tests look at it.
    """

    test: str
    attempt: int = 1
    worker: str | None = None
    shared: bool = False


@dataclass
class Collected:
    """A file or folder to keep, and the last known (size, mtime) of its files, by path."""

    source: Path
    name: str
    caption: str
    tolerance: float | None
    seen: dict[Path, tuple[int, int]]


class RunArchive:
    """Records a run; made by the fixtures `run_archive` and `run_archive_factory`.

    Without a folder (no `--archive`) every method checks and does the same, and writes nothing.

    Attributes:
        folder: Where the evidence lies, or None.
        commands: Results of the commands run so far.
        keep_files: Whether a test that looked at this run failed, so that all files stay.
    """

    def __init__(
        self,
        evidence: EvidenceFolder,
        redactor: Redactor,
        identity: RunIdentity,
        environment: Entry,
    ) -> None:
        self.folder = evidence.path
        self.commands: list[CommandResult] = []
        self.keep_files = False
        self._evidence = evidence
        self._redactor = redactor
        self._collected: list[Collected] = []
        self._sections: dict[str, dict[str | int, Any]] = {name: {} for name in SECTIONS}
        self._started = time.monotonic()
        self._head: Entry = {
            "schema": SCHEMA,
            "kind": "run",
            "test": self._key(identity.test, "test"),
            "shared": identity.shared,
            "requested_by": self._current_test(),
            "attempt": identity.attempt,
            "worker": identity.worker,
            "verdict": "running",
            "message": "",
            "started": now(),
            "finished": None,
            "duration_s": 0.0,
            "environment": environment,
        }
        self._evidence.write_manifest(self._manifest())

    def seed(self, name: str, value: int) -> int:
        """Record a random seed and return it."""
        self._put("seeds", self._key(name, "seeds"), int(value))
        return value

    def input(self, path: Path) -> Path:
        """Record an input file with its size and SHA-256, without a copy, and return its path."""
        size = path.stat().st_size
        if self.folder:
            place = len(self._sections["inputs"])
            public = self._text(str(path), f"inputs[{place}].path")
            self._put("inputs", place, {"path": public, "bytes": size, "sha256": sha256(path)})
        return path

    def artifact(
        self, path: Path, *, name: str = "", caption: str = "", tolerance: float | None = None
    ) -> Path:
        """Keep a copy of a file, or of all files in a folder, and return its path.

        It may not exist yet: it is looked at again after every command and at the end, so ask
        before the commands run, and what they left is kept when they fail, too.

        Args:
            path: File or folder.
            name: What it is called in the archive; by default the path's last part.
            caption: One sentence on what the picture shows.
            tolerance: By how much a PNG may differ from the one in another archive before
                `--archive-compare` fails: root mean square of the difference of the colour
                values, as a part of the full scale, from 0 to 1. None states none.
        """
        name = self._key(name or path.name, "artifacts")
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"artifact name {name!r} must stay inside the archive")
        if tolerance is not None and not 0 <= tolerance <= 1:
            raise ValueError(f"artifact {name!r}: tolerance {tolerance} must be from 0 to 1")
        if any(other.name == name and other.source != path for other in self._collected):
            raise ValueError(f"another artifact is already called {name!r}; give a name")
        self._collected.append(Collected(path, name, caption, tolerance, {}))
        self._collect()
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
                before `--archive-compare` fails; None states none, and any value is accepted.
        """
        check_metric(name, better, tolerance)
        name = self._unused(name)
        number = float(value)
        entry: Entry = {"name": name, "test": self._current_test(), "value": spelled(number)}
        self._put("metrics", name, entry | {"unit": unit, "better": better, "tolerance": tolerance})
        return number

    def series(
        self,
        name: str,
        values: Sequence[float],
        *,
        x: Sequence[float] | None = None,
        unit: str = "",
        better: Literal["higher", "lower", "equal"] | None = None,
        tolerance: float | None = None,
    ) -> None:
        """Record numbers that belong together, such as a loss over epochs; the page plots them.

        Args:
            name: Of the series, unlike any other series or metric in this archive.
            values: The numbers; one that is not finite is a gap.
            x: Where each was taken; by default 1, 2, 3 and so on.
            unit: Of the values.
            better: Which way is an improvement.
            tolerance: As of a metric; the last value is compared.
        """
        check_metric(name, better, tolerance)
        places = [float(place) for place in (range(1, len(values) + 1) if x is None else x)]
        if not values or len(places) != len(values):
            raise ValueError(
                f"series {name!r} has {len(values)} values and {len(places)} places; give as many "
                "places as values, and at least one"
            )
        name = self._unused(name)
        numbers = [spelled(float(value)) for value in values]
        entry: Entry = {"name": name, "test": self._current_test(), "x": places, "values": numbers}
        self._put("series", name, entry | {"unit": unit, "better": better, "tolerance": tolerance})

    @contextlib.contextmanager
    def assertions(self, name: str) -> Iterator[None]:
        """Name the assertions in a `with` block, and record whether they held."""
        place = len(self._sections["groups"])
        entry: Entry = {"name": self._key(name, f"groups[{place}].name"), "message": ""}
        entry |= {"test": self._current_test(), "verdict": "running"}
        self._put("groups", place, entry)
        try:
            yield
        except BaseException as error:
            message = self._text(describe(error), f"groups[{place}].message")
            self._put(
                "groups", place, entry | {"verdict": verdict_of_error(error), "message": message}
            )
            raise
        self._put("groups", place, entry | {"verdict": "passed"})

    def run_command(
        self,
        args: Sequence[str | os.PathLike[str]],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        check: bool = True,
        secrets: Sequence[str] = (),
    ) -> CommandResult:
        """Run a command as `process.run_command` does, and keep command, output and usage.

        Args:
            args: Program and arguments; no shell is involved.
            env: Environment of the child; None is this process's.
            cwd: Folder to run in.
            timeout_s: Wall-clock limit in seconds.
            check: Raise unless it exits with status 0.
            secrets: Words that appear neither in the archive nor in the message of an error.
                Values of variables and arguments that are called a key, token, password or secret
                are treated alike.
        """
        __tracebackhide__ = True
        words = [os.fspath(word) for word in args]
        variables = dict(os.environ if env is None else env)
        self._redactor.learn([*secrets, *secret_values(variables), *secret_arguments(words)])
        number = len(self._sections["commands"]) + 1
        where = f"commands[{number - 1}]"
        recorded = recorded_variables(variables)
        entry: Entry = {
            "args": [
                self._note(one, f"{where}.args[{at}]")
                for at, one in enumerate(self._redactor.arguments(words))
            ],
            "cwd": self._text(str(cwd or Path.cwd()), f"{where}.cwd"),
            "env": {key: self._text(recorded[key], f"{where}.env.{key}") for key in recorded},
            "started": now(),
        }
        entry |= {key: getattr(CommandResult((), "running"), key) for key in RESULT_KEYS}
        entry |= {"stdout": None, "stderr": None, "printed": {}}
        self._put("commands", number, entry)
        return run_command(
            words,
            env=env,
            cwd=cwd,
            timeout_s=timeout_s,
            check=check,
            record=functools.partial(self._record, entry, number),
            mask=self._redactor.mask,
        )

    def _record(self, entry: Entry, number: int, result: CommandResult) -> None:
        """Complete a command's entry with its result."""
        self.commands.append(result)
        entry |= {key: getattr(result, key) for key in RESULT_KEYS}
        entry["problem"] = self._text(result.problem, f"commands[{number - 1}].problem")
        entry["printed"] = {name: printed._asdict() for name, printed in result.printed.items()}
        for stream in STREAMS:
            name = f"commands/{number:02d}-{stream}.txt"
            shown = head_and_tail(getattr(result, stream), self._evidence.limits.stream_bytes)
            text = self._text(shown, name)
            entry[stream], _ = self._evidence.keep(name, text.encode(errors="replace"))
        self._put("commands", number, entry)
        self._collect()

    def mask(self, text: str) -> str:
        """The text without the secrets that this run knows."""
        return self._redactor.mask(text)

    def close(self, verdict: str, message: str = "") -> None:
        """Write the verdict and the whole manifest; a later call replaces it."""
        self._collect()
        self._head |= {"verdict": verdict, "finished": now()}
        self._head["message"] = self._text(shorten(message, MESSAGE_LIMIT), "message")
        self._head["duration_s"] = round(time.monotonic() - self._started, 3)
        self._evidence.finish(self._manifest())

    def keep_or_discard_files(self) -> None:
        """Remove the files of a run that passed, where only those of failed ones are kept."""
        passed = self._head["verdict"] in PASSED and not self.keep_files
        if self._evidence.limits.keep_passed or not passed or not self.folder:
            return
        self._evidence.discard_files()
        for command in self._sections["commands"].values():
            command |= {"stdout": None, "stderr": None}
        for artifact in self._sections["artifacts"].values():
            if artifact["kept"]:
                artifact |= {"kept": None, "problem": "not kept: the run passed"}
        self._evidence.finish(self._manifest())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        groups = self._sections["groups"].values()
        broken = [group for group in groups if group["verdict"] in FAILING]
        if error is None and broken:
            self.close("failed", f"{broken[0]['name']}: {broken[0]['message']}")
        else:
            self.close(verdict_of_error(error), describe(error) if error else "")
        self.keep_or_discard_files()

    def _collect(self) -> None:
        """Copy the artifacts that are new or have changed, and list the missing ones."""
        for wanted in self._collected if self.folder else ():
            files = files_under(wanted.source)
            if not files and not wanted.seen:
                self._put_artifact(wanted, wanted.source, wanted.name, {"problem": "missing"})
            elif files and not wanted.seen and wanted.source not in files:
                self._put("artifacts", wanted.name, None)
            for path in files:
                self._collect_file(wanted, path)

    def _collect_file(self, wanted: Collected, path: Path) -> None:
        """Copy one file if it is not the one that was copied last."""
        inner = "" if path == wanted.source else "/" + path.relative_to(wanted.source).as_posix()
        name = self._key(wanted.name + inner, "artifacts").encode(errors="replace").decode()
        try:
            state = path.lstat()
            if wanted.seen.get(path) == (state.st_size, state.st_mtime_ns):
                return
            wanted.seen[path] = (state.st_size, state.st_mtime_ns)
            self._put_artifact(wanted, path, name, self._kept_file(name, path, state.st_size))
        except OSError as error:
            problem = f"not kept: {error.strerror}"
            self._put_artifact(wanted, path, name, {"problem": problem})

    def _put_artifact(self, wanted: Collected, path: Path, name: str, found: Entry) -> None:
        """Add an artifact, or what has become of it."""
        entry: Entry = {"name": name, "path": self._text(str(path), f"artifacts/{name}: path")}
        entry["caption"] = self._text(wanted.caption, f"artifacts/{name}: caption")
        entry |= {"tolerance": wanted.tolerance, "bytes": 0, "sha256": None}
        self._put("artifacts", name, entry | {"kept": None, "problem": ""} | found)

    def _kept_file(self, name: str, path: Path, size: int) -> Entry:
        """What is known of a file, and its copy; a link is called one and not followed."""
        if path.is_symlink():
            target = self._text(str(path.readlink()), f"artifacts/{name}: link")
            return {"problem": f"not kept: a symbolic link to {target}"}
        found: Entry = {"bytes": size, "sha256": sha256(path)}
        if size > self._evidence.limits.file_bytes:
            limit = self._evidence.limits.file_bytes
            return found | {"problem": f"not kept: larger than {limit} bytes"}
        return found | self._kept_copy(name, path.read_bytes())

    def _kept_copy(self, name: str, data: bytes) -> Entry:
        """Keep an artifact as it is; text with private words under a name that says so."""
        text = decoded(data)
        if text is None:
            if self._redactor.is_private(data):
                return {"problem": "not kept: names this computer, its user, a folder or a secret"}
            kept, problem = self._evidence.keep(f"artifacts/{name}", data)
            return {"kept": kept, "problem": problem}
        is_prose = Path(name).suffix.lower() in PROSE
        public = (self._redactor.text if is_prose else self._redactor.data)(text)
        if not public.replaced:
            kept, problem = self._evidence.keep(f"artifacts/{name}", data)
            return {"kept": kept, "problem": problem}
        changed = f"artifacts/{redacted_name(name)}"
        kept, problem = self._evidence.keep(changed, public.text.encode())
        self._note(public, changed)
        words = ", ".join(
            f"{{{label}}} {count}" for label, count in sorted(public.replaced.items())
        )
        return {"kept": kept, "problem": problem or f"kept with words replaced: {words}"}

    def _unused(self, name: str) -> str:
        """The name of a metric or series as it is recorded.

        Raises:
            ValueError: If there is one of this name.
        """
        public = self._key(name, "metrics")
        if public in self._sections["metrics"] or public in self._sections["series"]:
            raise ValueError(
                f"metric {name!r} is already recorded in this archive; use another name"
            )
        return public

    def _current_test(self) -> str:
        """Id of the test that is running, or the empty string."""
        test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
        return self._redactor.key(test).text

    def _text(self, text: str, where: str) -> str:
        """Words for a reader without anything private; what was replaced is recorded."""
        return self._note(self._redactor.text(text), where)

    def _key(self, text: str, where: str) -> str:
        """A name that programs compare, without paths and secrets."""
        return self._note(self._redactor.key(text), where)

    def _note(self, public: Redacted, where: str) -> str:
        """Record what was replaced, and return the text."""
        if public.replaced:
            self._put(
                "redactions", where, {"where": where, "replaced": dict(Counter(public.replaced))}
            )
        return public.text

    def _put(self, section: str, at: str | int, entry: Any) -> None:
        """Add or replace an entry of a section, or remove it."""
        if entry is None:
            self._sections[section].pop(at, None)
        else:
            self._sections[section][at] = entry
        self._evidence.put(section, at, entry)

    def _manifest(self) -> Entry:
        """The manifest as it stands."""
        lists = {name: list(entries.values()) for name, entries in self._sections.items()}
        return self._head | lists | {"seeds": dict(self._sections["seeds"])}


def check_metric(name: str, better: str | None, tolerance: float | None) -> None:
    """Refuse a direction or tolerance that means nothing.

    Raises:
        ValueError: With what would be right.
    """
    if better not in (None, *BETTER):
        raise ValueError(
            f"metric {name!r}: better is {better!r}; give one of {', '.join(BETTER)} or None"
        )
    if tolerance is not None and (better is None or not 0 <= tolerance < math.inf):
        raise ValueError(
            f"metric {name!r}: tolerance {tolerance} must be finite, at least 0, and needs `better`"
        )


def spelled(number: float) -> float | str:
    """The number, or the word for one that JSON lacks."""
    return number if math.isfinite(number) else str(number)


def decoded(data: bytes) -> str | None:
    """The text of a file, or None if it is not text."""
    try:
        return data.decode() if b"\0" not in data else None
    except UnicodeDecodeError:
        return None


def redacted_name(name: str) -> str:
    """What a copy with words replaced is called, so that nobody takes it for the original."""
    path = Path(name)
    return path.with_name(f"{path.stem}.redacted{path.suffix}").as_posix()


def files_under(path: Path) -> list[Path]:
    """The path itself if it is a file or a link, else the files and links below it; no devices."""
    is_folder = path.is_dir() and not path.is_symlink()
    found = sorted(path.rglob("*")) if is_folder else [path]
    return [file for file in found if file.is_file() or file.is_symlink()]


def describe(error: BaseException) -> str:
    """The exception's kind and message, shortened."""
    return shorten(f"{type(error).__name__}: {error}", MESSAGE_LIMIT)

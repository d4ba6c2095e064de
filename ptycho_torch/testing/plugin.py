"""The pytest plugin: `--archive`, `--archive-compare`, and fixtures that also work without.

Loaded by the entry point `pytest11` of an installed package, else by `-p
ptycho_torch.testing.plugin`. The entry point bears the module's own name, so that asking twice
(also by `pytest_plugins`) loads one plugin.
"""

import shutil
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ptycho_torch.testing.archive import RunArchive
from ptycho_torch.testing.compare import Comparison, compare_archives, write_comparison
from ptycho_torch.testing.environment import describe_environment
from ptycho_torch.testing.manifest import (
    MANIFEST,
    SCHEMA,
    Entry,
    folder_name,
    now,
    read_manifest,
    run_folders,
    write_manifest,
)
from ptycho_torch.testing.privacy import Redactor
from ptycho_torch.testing.process import CommandResult, Environment, cpu_environment, shorten
from ptycho_torch.testing.views import build_views, read_runs

SHOWN_LIMIT = 20_000  # characters of each stream under a failing test
VERDICTS = {
    0: "passed",
    1: "failed",
    2: "interrupted",
    5: "passed",
}  # by pytest's exit status; others are errors

archive_key = pytest.StashKey[RunArchive]()
phases_key = pytest.StashKey[dict[str, tuple[str, str]]]()
session_key = pytest.StashKey["ArchiveSession"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The two options."""
    group = parser.getgroup("archive", "evidence of what the tests ran")
    group.addoption(
        "--archive",
        metavar="DIR",
        help="keep the evidence of every test that uses run_archive in DIR",
    )
    group.addoption(
        "--archive-compare",
        metavar="DIR",
        help="compare with the archive in DIR; exit 1 if a metric is worse",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Begin the archive, in the process that sees every report."""
    chosen, reference = config.getoption("archive"), config.getoption("archive_compare")
    if "" in (chosen, reference):
        raise pytest.UsageError(
            "--archive and --archive-compare need the name of a folder; an empty one was given"
        )
    if reference and not chosen:
        raise pytest.UsageError(
            "--archive-compare needs --archive, the folder for the run that is compared"
        )
    if not chosen or config.getoption("collectonly"):
        return
    config.option.archive = str(
        (config.invocation_params.dir / chosen).resolve()
    )  # for xdist's workers, too
    if not hasattr(config, "workerinput"):
        session = ArchiveSession(
            config,
            Path(config.option.archive),
            reference and config.invocation_params.dir / reference,
        )
        config.stash[session_key] = session
        config.pluginmanager.register(session, "archive-session")


class ArchiveSession:
    """The archive as a whole; lives in the one process that sees every test's report."""

    def __init__(self, config: pytest.Config, folder: Path, reference: Path | None) -> None:
        self._folder, self._reference = folder, reference
        self._comparison: Comparison | None = None
        self._started = time.monotonic()
        self._redactor = Redactor([("archive", folder), ("project", config.rootpath)])
        try:
            if reference and reference.resolve() == folder.resolve():
                raise ValueError(
                    "--archive and --archive-compare are the same folder; the comparison needs "
                    "both runs"
                )
            if reference:
                compare_archives(reference, reference)
            make_room(folder)
        except (ValueError, OSError) as error:
            raise pytest.UsageError(str(error)) from error
        self._manifest: Entry = {
            "schema": SCHEMA,
            "kind": "session",
            "command": ["pytest", *config.invocation_params.args],
            "verdict": "running",
            "exit_status": None,
            "started": now(),
            "finished": None,
            "duration_s": 0.0,
            "tests": {},
            "runs": [],
            "environment": describe_environment(config.rootpath, folder),
        }
        self._write()

    def _write(self) -> None:
        write_manifest(self._folder, self._redactor.tree(self._manifest))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take down the verdict of a test."""
        verdict, _ = verdict_of_report(report)
        tests = self._manifest["tests"]
        if report.when == "call" or verdict != "passed":
            tests[report.nodeid] = verdict

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Close what was left open, compare, and make the pages."""
        for folder, run in read_runs(self._folder).items():
            if run["verdict"] == "running":
                write_manifest(
                    folder,
                    run
                    | {"verdict": "interrupted", "message": run["message"] or "the process ended"},
                )
        self._manifest["runs"] = [path.name for path in read_runs(self._folder)]
        self._finish(exitstatus)
        if self._reference:
            self._comparison = compare_archives(self._reference, self._folder)
            write_comparison(self._comparison, self._folder)
            if self._comparison.worse and exitstatus in (0, pytest.ExitCode.NO_TESTS_COLLECTED):
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
                self._finish(session.exitstatus)
        build_views(self._folder)

    def _finish(self, exitstatus: int) -> None:
        """Write how the session ended."""
        self._manifest |= {
            "verdict": VERDICTS.get(exitstatus, "error"),
            "exit_status": int(exitstatus),
        }
        self._manifest |= {
            "finished": now(),
            "duration_s": round(time.monotonic() - self._started, 3),
        }
        self._write()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say where the evidence lies, and what became worse."""
        terminalreporter.section("archive")
        terminalreporter.line(
            f"{len(self._manifest['runs'])} runs kept: {self._folder / 'index.html'}"
        )
        if self._comparison:
            for sentence in self._comparison.worse:
                terminalreporter.line(sentence, red=True)
            terminalreporter.line(
                f"{len(self._comparison.worse)} metrics worse: {self._folder / 'compare.html'}"
            )


def make_room(folder: Path) -> None:
    """Create the folder, or remove an earlier archive from it; other files stay.

    Raises:
        ValueError: If the folder holds something and no archive.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"--archive {folder} is a file; give a folder")
        folder.mkdir(parents=True, exist_ok=True)
        return
    try:
        earlier = read_manifest(folder)
    except ValueError as error:
        raise ValueError(
            f"--archive {folder} is neither empty nor an archive; give another folder ({error})"
        ) from error
    if earlier["kind"] != "session":
        raise ValueError(f"--archive {folder} is one run of an archive; give another folder")
    for run in run_folders(folder):
        shutil.rmtree(run)
    for name in ("index.html", "summary.md", "compare.html", "compare.md", MANIFEST):
        (folder / name).unlink(missing_ok=True)


class RunArchiveFactory:
    """Makes archives for runs; as `tmp_path_factory`, it serves fixtures that outlive a test."""

    def __init__(self, config: pytest.Config, scratch: Path) -> None:
        collecting = config.getoption("collectonly")
        self._folder = (
            Path(config.option.archive) if config.option.archive and not collecting else None
        )
        self._project = config.rootpath
        self._worker: str | None = getattr(config, "workerinput", {}).get("workerid")
        folders = [("archive", self._folder)] if self._folder else []
        self._redactor = Redactor([*folders, ("tmp", scratch), ("project", self._project)])

    def __call__(self, name: str, *, shared: bool = True) -> RunArchive:
        """A new archive; use it in a `with` block, which gives it its verdict.

        Args:
            name: What the run is called, such as a test's id.
            shared: Whether every worker of pytest-xdist makes one of its own under this name.
        """
        name = self._redactor.text(name)
        if self._folder is None:
            return RunArchive(
                None, self._redactor, test=name, attempt=1, worker=self._worker, environment={}
            )
        stem = folder_name(name) + (f"-{self._worker}" if shared and self._worker else "")
        environment = describe_environment(self._project, self._folder)
        for attempt in range(1, 10_000):
            folder = self._folder / (stem if attempt == 1 else f"{stem}-attempt-{attempt}")
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                continue
            return RunArchive(
                folder,
                self._redactor,
                test=name,
                attempt=attempt,
                worker=self._worker,
                environment=environment,
            )
        raise RuntimeError(f"no free folder for {name} in {self._folder}")


@pytest.fixture(scope="session")
def cuda_cpu_env() -> Environment:
    """A read-only environment for children, without GPUs and with few compute threads."""
    return Environment(cpu_environment())


@pytest.fixture(scope="session")
def run_archive_factory(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> RunArchiveFactory:
    """Makes archives for fixtures that outlive a test; each is used in a `with` block."""
    return RunArchiveFactory(pytestconfig, tmp_path_factory.getbasetemp())


@dataclass(frozen=True)
class Workflow:
    """Commands that ran once, and what they left.

    Attributes:
        archive: Of the run.
        folder: Where the commands ran and wrote.
        results: Of the commands, in their order.
    """

    archive: RunArchive
    folder: Path
    results: list[CommandResult] = field(default_factory=list)


WorkflowCommands = Callable[[RunArchive, Path], Iterable[Sequence[str | Path]]]


@pytest.fixture(scope="session")
def workflow(
    workflow_commands: WorkflowCommands,
    run_archive_factory: RunArchiveFactory,
    cuda_cpu_env: Environment,
    tmp_path_factory: pytest.TempPathFactory,
) -> Generator[Workflow]:
    """The results of `workflow_commands`, run once without GPUs for all tests.

    A project defines `workflow_commands`, a session fixture that returns a function of archive and
    folder. It yields one command after the other, and may read what those before have written.
    """
    with run_archive_factory("workflow") as archive:
        made = Workflow(archive, tmp_path_factory.mktemp("workflow"))
        for command in workflow_commands(archive, made.folder):
            made.results.append(archive.run_command(command, env=cuda_cpu_env, cwd=made.folder))
        yield made


@pytest.fixture
def run_archive(
    request: pytest.FixtureRequest, run_archive_factory: RunArchiveFactory
) -> Generator[RunArchive]:
    """Records what this test runs, reads, makes and measures; writes only under `--archive`."""
    phases: dict[str, tuple[str, str]] = {}
    request.node.stash[phases_key] = phases
    archive = request.node.stash[archive_key] = run_archive_factory(
        request.node.nodeid, shared=False
    )
    yield archive
    finish(archive, phases)


@pytest.fixture
def run_command(run_archive: RunArchive) -> Callable[..., CommandResult]:
    """`RunArchive.run_command` of this test: runs a command and records it in the archive."""
    return run_archive.run_command


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Give the archive of a test its verdict, and show what its commands printed if it failed."""
    report = yield
    archive = item.stash.get(archive_key, None)
    if archive is None:
        return report
    phases = item.stash[phases_key]
    phases[report.when or ""] = verdict_of_report(report)
    if report.failed and call.excinfo:
        for number, result in enumerate(archive.commands, 1):
            if result is not getattr(
                call.excinfo.value, "result", None
            ):  # that one's output is in the message
                report.sections += sections(
                    f"command {number}, which {result.how_it_ended}", result
                )
    if report.when == "teardown":
        finish(archive, phases)
        del item.stash[archive_key]
    return report


def sections(command: str, result: CommandResult) -> list[tuple[str, str]]:
    """What a command printed, as pytest shows it under a failing test."""
    streams = (("stdout", result.stdout), ("stderr", result.stderr))
    return [
        (f"{name} of {command}", shorten(words, SHOWN_LIMIT)) for name, words in streams if words
    ]


def verdict_of_report(report: pytest.TestReport) -> tuple[str, str]:
    """The verdict of one phase of a test, and why."""
    if hasattr(report, "wasxfail"):
        return ("xfailed" if report.skipped else "xpassed"), report.wasxfail
    if report.skipped:
        return "skipped", report.longreprtext
    if report.failed:
        return ("failed" if report.when == "call" else "error"), report.longreprtext
    return "passed" if report.outcome == "passed" else "failed", ""


def finish(archive: RunArchive, phases: dict[str, tuple[str, str]]) -> None:
    """Give a test's archive the verdict of its worst phase, or "interrupted" without a call."""
    decided = [phase for phase in phases.values() if phase[0] != "passed"]
    archive.close(
        *(decided[-1] if decided else ("passed" if "call" in phases else "interrupted", ""))
    )
    if archive.folder:
        build_views(archive.folder)

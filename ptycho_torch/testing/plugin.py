"""The pytest plugin: `--archive` and its kin, and fixtures that also work without.

Loaded by the entry point `pytest11` of an installed package, else by `-p
ptycho_torch.testing.plugin`. The entry point bears the module's own name, so that asking twice
(also by `pytest_plugins`) loads one plugin.
"""

import os
import re
import shlex
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ptycho_torch.testing.archive import RunArchive, RunIdentity
from ptycho_torch.testing.compare import Rules, compare_archives, read_renamed
from ptycho_torch.testing.environment import describe_environment
from ptycho_torch.testing.evidence_folder import (
    MIB,
    Budget,
    EvidenceFolder,
    Limits,
    describe_os_error,
)
from ptycho_torch.testing.manifest import JOURNAL, MANIFEST, folder_name
from ptycho_torch.testing.outcomes import verdict_of_attempt
from ptycho_torch.testing.privacy import Redactor
from ptycho_torch.testing.process import CommandResult, Environment, cpu_environment, shorten
from ptycho_torch.testing.pytest_reports import message_of_report, verdict_of_report
from ptycho_torch.testing.room import make_room
from ptycho_torch.testing.rootdir import forget_archive_folders
from ptycho_torch.testing.selection import SelectionRecorder
from ptycho_torch.testing.session import WORKER_PROBLEMS, WORKER_SELECTION, ArchiveSession

SHOWN_LIMIT = 20_000  # characters of each stream under a failing test
KEEP_ALL, KEEP_FAILED = "all", "failed"

archive_key = pytest.StashKey[RunArchive]()
phases_key = pytest.StashKey[list[dict[str, object]]]()
problems_key = pytest.StashKey[list[str]]()
session_key = pytest.StashKey[ArchiveSession]()
shared_key = pytest.StashKey[list[RunArchive]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options, which all begin with --archive."""
    group = parser.getgroup("archive", "evidence of what the tests ran")
    add = group.addoption
    add("--archive", metavar="DIR", help="keep the evidence of what the tests ran in DIR")
    add(
        "--archive-compare",
        metavar="DIR",
        help="compare with the archive in DIR; exit 1 if something is worse or missing",
    )
    add(
        "--archive-allow-missing",
        action="store_true",
        help="list what the reference has and this session has not, and do not fail",
    )
    add(
        "--archive-renamed",
        metavar="FILE",
        help="JSON object of new ids of tests (or files) by the ids in the reference",
    )
    add(
        "--archive-keep",
        choices=(KEEP_ALL, KEEP_FAILED),
        default=KEEP_ALL,
        help="whose files to keep; metrics and verdicts of all tests are kept in any case",
    )
    add(
        "--archive-redact",
        metavar="REGEX",
        action="append",
        default=[],
        help="replace what matches in everything that is written; may be given again",
    )
    for name, default, what in (
        ("stream", Limits.stream_bytes, "each output of a command; head and tail are kept"),
        ("run", Limits.run_bytes, "each test"),
        ("session", Limits.session_bytes, "the session"),
    ):
        add(
            f"--archive-{name}-limit",
            metavar="MIB",
            type=float,
            default=default / MIB,
            help=f"most MiB to keep of {what} (default {default / MIB:g})",
        )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    """Keep pytest from taking the folders of archives for folders of tests."""
    forget_archive_folders(early_config, args)


def pytest_configure(config: pytest.Config) -> None:
    """Begin the archive, in the process that sees every report."""
    chosen, reference = config.getoption("archive"), config.getoption("archive_compare")
    config.stash[problems_key], config.stash[shared_key] = [], []
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
    folder = (config.invocation_params.dir / chosen).resolve()
    config.option.archive = str(folder)  # for xdist's workers, too
    if hasattr(config, "workerinput"):
        config.pluginmanager.register(WorkerSession(config), "archive-worker")
        return
    try:
        redactor = make_redactor(config, [])
        rules = make_rules(config, folder)
        aside = make_room(folder)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error
    except OSError as error:
        config.stash[problems_key].append(describe_os_error(error))
        aside = None
    session = ArchiveSession(config, folder, redactor, rules, config.stash[problems_key])
    session.moved_aside = aside
    config.stash[session_key] = session
    config.pluginmanager.register(session, "archive-session")


def make_redactor(config: pytest.Config, folders: Sequence[tuple[str, Path]]) -> Redactor:
    """Removes what is private from the archive of this session.

    Raises:
        ValueError: If a pattern of --archive-redact is no regular expression.
    """
    archive = [("archive", Path(config.option.archive))] if config.option.archive else []
    try:
        return Redactor(
            [*archive, *folders, ("project", config.rootpath)],
            config.getoption("archive_redact"),
        )
    except re.error as error:
        raise ValueError(f"--archive-redact: {error} in {error.pattern!r}") from error


def make_rules(config: pytest.Config, folder: Path) -> Rules | None:
    """How to compare, or None.

    Raises:
        ValueError: If the reference is no archive, or the one that is being made.
    """
    reference = config.getoption("archive_compare")
    if not reference:
        return None
    path = config.invocation_params.dir / reference
    if path.resolve() == folder:
        raise ValueError(
            "--archive and --archive-compare are the same folder; the comparison needs both runs"
        )
    renamed = config.getoption("archive_renamed")
    names = read_renamed(config.invocation_params.dir / renamed if renamed else None)
    rules = Rules(path, config.getoption("archive_allow_missing"), names)
    compare_archives(path, path, rules)
    return rules


def make_limits(config: pytest.Config) -> Limits:
    """How much evidence to keep."""
    return Limits(
        stream_bytes=int(config.getoption("archive_stream_limit") * MIB),
        run_bytes=int(config.getoption("archive_run_limit") * MIB),
        session_bytes=int(config.getoption("archive_session_limit") * MIB),
        keep_passed=config.getoption("archive_keep") == KEEP_ALL,
    )


class WorkerSession:
    """Hands what a worker of pytest-xdist has seen to the process that writes the archive."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._recorder = SelectionRecorder()
        config.pluginmanager.register(self._recorder, "archive-selection")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Add to what the worker sends at its end."""
        output = self._config.workeroutput  # type: ignore[attr-defined]
        output[WORKER_SELECTION] = vars(self._recorder)
        output[WORKER_PROBLEMS] = self._config.stash[problems_key]


class RunArchiveFactory:
    """Makes archives for runs; as `tmp_path_factory`, it serves fixtures that outlive a test."""

    def __init__(self, config: pytest.Config, scratch: Path) -> None:
        self._config = config
        chosen = None if config.getoption("collectonly") else config.option.archive
        self._folder = Path(chosen) if chosen else None
        worker = getattr(config, "workerinput", {})
        self._worker: str | None = worker.get("workerid")
        self._budget = Budget(make_limits(config), worker.get("workercount", 1))
        self._scratch = scratch

    def __call__(self, name: str, *, shared: bool = True) -> RunArchive:
        """A new archive; use it in a `with` block, which gives it its verdict.

        Args:
            name: What the run is called, such as a test's id.
            shared: Whether every worker of pytest-xdist makes one of its own under this name.
        """
        redactor = make_redactor(self._config, [("tmp", self._scratch)])
        name = redactor.key(name).text
        stem = folder_name(name) + (f"-{self._worker}" if shared and self._worker else "")
        folder, attempt = self._claim(stem)
        environment = describe_environment(self._config.rootpath, folder.parent) if folder else {}
        archive = RunArchive(
            EvidenceFolder(folder, self._budget, self._report),
            redactor,
            RunIdentity(name, attempt, self._worker, shared),
            environment,
        )
        if shared:
            self._config.stash[shared_key].append(archive)
        return archive

    def _claim(self, stem: str) -> tuple[Path | None, int]:
        """A folder that no other run has, and the number of the attempt; none if it cannot be."""
        for attempt in range(1, 10_000) if self._folder else ():
            folder = Path(
                f"{self._folder}/{stem}"
                if attempt == 1
                else f"{self._folder}/{stem}-attempt-{attempt}"
            )
            try:
                folder.mkdir(parents=True, exist_ok=True)
                if (folder / MANIFEST).exists():
                    continue
                (folder / JOURNAL).touch(exist_ok=False)
            except FileExistsError as error:
                if folder.is_dir():
                    continue
                self._report(describe_os_error(error))
                return None, 1
            except OSError as error:
                self._report(describe_os_error(error))
                return None, 1
            return folder, attempt
        return None, 1

    def _report(self, problem: str) -> None:
        """Keep a sentence on what could not be written, once."""
        problems = self._config.stash[problems_key]
        if problem not in problems:
            problems.append(problem)


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
    phases: list[dict[str, object]] = []
    request.node.stash[phases_key] = phases
    archive = request.node.stash[archive_key] = run_archive_factory(
        request.node.nodeid, shared=False
    )
    properties = [one for one in request.node.user_properties if one[0] != "archive"]
    if archive.folder:
        path = os.path.relpath(archive.folder, request.config.invocation_params.dir)
        properties.append(("archive", path))
    request.node.user_properties[:] = properties
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
    if report.failed:
        for shared in item.config.stash[shared_key]:
            shared.keep_files = True
    archive = item.stash.get(archive_key, None)
    if archive is None:
        return report
    phases = item.stash[phases_key]
    phases.append(
        {
            "when": report.when,
            "rerun": False,
            "verdict": verdict_of_report(report),
            "message": message_of_report(report),
        }
    )
    if report.failed and call.excinfo:
        hide_secrets(report, archive)
        for number, result in enumerate(archive.commands, 1):
            if result is not getattr(
                call.excinfo.value, "result", None
            ):  # that one's output is in the message
                report.sections += sections(
                    f"command {number}, which {result.how_it_ended}", result, archive.mask
                )
    if report.when == "teardown":
        finish(archive, phases)
        archive.keep_or_discard_files()
        del item.stash[archive_key]
    return report


def hide_secrets(report: pytest.TestReport, archive: RunArchive) -> None:
    """Show the failure without its secrets; only then without pytest's colours."""
    shown = report.longreprtext
    masked = archive.mask(shown)
    if masked != shown:
        report.longrepr = masked


def sections(
    command: str, result: CommandResult, mask: Callable[[str], str]
) -> list[tuple[str, str]]:
    """A command and what it printed, as pytest shows them under a failing test."""
    streams = (("stdout", result.stdout), ("stderr", result.stderr))
    return [(command, mask(shlex.join(result.args)))] + [
        (f"{name} of {command}", mask(shorten(words, SHOWN_LIMIT)))
        for name, words in streams
        if words
    ]


def finish(archive: RunArchive, phases: list[dict[str, object]]) -> None:
    """Give a test's archive the verdict of its worst phase, or "interrupted" without a call."""
    verdict = verdict_of_attempt(phases, [])
    if verdict == "interrupted" and any(phase["when"] == "call" for phase in phases):
        verdict = "passed"  # the teardown is still to come, and may replace this
    decided = [str(phase["message"]) for phase in phases if phase["verdict"] == verdict != "passed"]
    archive.close(verdict, decided[0] if decided else "")

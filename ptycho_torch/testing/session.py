"""The archive of a whole session: made in the one process that sees the report of every test."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from ptycho_torch.testing.archive_comparison import Comparison
from ptycho_torch.testing.ci_outputs import annotations, write_summary
from ptycho_torch.testing.closing import close_runs, close_session, digest
from ptycho_torch.testing.compare import Rules, compare_archives
from ptycho_torch.testing.comparison_page import write_comparison
from ptycho_torch.testing.environment import describe_environment
from ptycho_torch.testing.evidence_folder import describe_os_error
from ptycho_torch.testing.manifest import (
    SCHEMA,
    Entry,
    append_to_journal,
    file_entry,
    now,
    read_manifest,
    write_manifest,
)
from ptycho_torch.testing.outcomes import gather_tests
from ptycho_torch.testing.privacy import Redactor
from ptycho_torch.testing.pytest_reports import (
    message_of_report,
    place_of_report,
    reason_of_report,
    subtest_of_report,
    verdict_of_report,
)
from ptycho_torch.testing.selection import SelectionRecorder, describe_selection
from ptycho_torch.testing.views import build_views

NOT_WRITTEN = 74  # exit status where the tests passed and the archive is incomplete; EX_IOERR
SIGNALLED = 128  # exit statuses above it are of a session that a signal ended
VERDICTS = {
    0: "passed",
    1: "failed",
    2: "interrupted",
    5: "passed",
}  # by pytest's exit status; others are errors
WORKER_SELECTION, WORKER_PROBLEMS = "archive_selection", "archive_problems"


class ArchiveSession:
    """Writes the archive's journal report by report, and its manifest and pages at the end.

    Args:
        config: Of the session.
        folder: Of the archive; it exists, or it could not be made.
        rules: How to compare, or None.
        problems: Sentences on what could not be written.
    """

    def __init__(
        self,
        config: pytest.Config,
        folder: Path,
        redactor: Redactor,
        rules: Rules | None,
        problems: list[str],
    ) -> None:
        self._config = config
        self._folder, self._rules, self._problems = folder, rules, problems
        self._redactor = redactor
        self._comparison: Comparison | None = None
        self._recorder = SelectionRecorder()
        config.pluginmanager.register(self._recorder, "archive-selection")
        self._worker_selections: list[Entry] = []
        self._reports: list[Entry] = []
        self.moved_aside: Path | None = None
        self._redactions: dict[str, Entry] = {}
        self._started = time.monotonic()
        self._sigterm = end_by_sigterm()
        command = redactor.arguments(["pytest", *config.invocation_params.args])
        self._manifest: Entry = {
            "schema": SCHEMA,
            "kind": "session",
            "command": [self._note(one, f"command[{at}]") for at, one in enumerate(command)],
            "verdict": "running",
            "exit_status": None,
            "started": now(),
            "finished": None,
            "duration_s": 0.0,
            "selection": self._public_selection(describe_selection(config)),
            "tests": [],
            "runs": [],
            "comparison": None,
            "problems": [],
            "redactions": [],
            "environment": describe_environment(config.rootpath, folder),
        }
        self._try(lambda: write_manifest(folder, self._manifest))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take down one phase of a test at once, so that it outlives a killed process."""
        run = [str(value) for name, value in report.user_properties if name == "archive"]
        reason, message = reason_of_report(report), message_of_report(report)
        test = self._redactor.key(report.nodeid).text
        where = f"{test}, {report.when}"
        entry = {
            "test": test,
            "when": report.when,
            "verdict": verdict_of_report(report),
            "duration_s": round(report.duration, 3),
            "reason": self._note(self._redactor.text(reason), f"{where}: reason"),
            "message": self._note(self._redactor.text(message), f"{where}: message"),
            "place": self._redactor.text(place_of_report(report)).text.removeprefix("{project}/"),
            "rerun": str(report.outcome) == "rerun",
            "subtest": subtest_of_report(report),
            "worker": getattr(report, "worker_id", None),
            "run": Path(run[-1]).name if run else None,
            "started": moment(report.start),
        }
        self._reports.append(entry)
        self._try(lambda: append_to_journal(self._folder, "reports", len(self._reports), entry))

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self) -> None:
        """Take down what will run, so that a killed session tells what it left out."""
        self._note_collected(self._recorder.collected)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """Take down what the workers of pytest-xdist will run."""
        self._note_collected(ids)

    def _note_collected(self, ids: Sequence[str]) -> None:
        found = self._public_selection({"collected": sorted(ids)})["collected"]
        self._try(lambda: append_to_journal(self._folder, "selection", "collected", found))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what a worker of pytest-xdist selected, and what it could not write."""
        output = getattr(node, "workeroutput", {})
        self._worker_selections.append(output.get(WORKER_SELECTION, {}))
        for problem in output.get(WORKER_PROBLEMS, []):
            self._report_problem(problem)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Close what was left open, compare, and make the pages."""
        if self._sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        selections = [*self._worker_selections, vars(self._recorder)]
        found = max(selections, key=lambda one: len(one.get("collected", [])))
        self._manifest["selection"] |= self._public_selection(
            {name: sorted(found.get(name, [])) for name in ("collected", "deselected")}
        )
        self._manifest["tests"] = gather_tests(self._reports)
        self._try(lambda: self._close(session, int(exitstatus)))
        if self._problems and session.exitstatus in (0, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = NOT_WRITTEN
            self._try(lambda: self._write_end(NOT_WRITTEN))
        self._try(lambda: write_summary(self._folder, os.environ))

    def _close(self, session: pytest.Session, exitstatus: int) -> None:
        """Write how the session ended, and the comparison."""
        self._problems += missing_runs(self._folder, self._manifest["tests"])
        self._finish_manifest(exitstatus)
        if self._rules:
            close_runs(self._folder)
            self._comparison = compare_archives(self._rules.reference, self._folder, self._rules)
            files = write_comparison(self._comparison, self._folder)
            self._manifest["comparison"] = {
                "verdict": self._comparison.verdict,
                "worse": self._comparison.worse,
                "metrics": self._comparison.metric_entries,
                "not_compared": self._comparison.not_compared,
                "files": [file_entry(name, data) for name, data in files.items()],
            }
            if self._comparison.worse and exitstatus in (0, pytest.ExitCode.NO_TESTS_COLLECTED):
                session.exitstatus = exitstatus = pytest.ExitCode.TESTS_FAILED
        self._write_end(exitstatus)

    def _finish_manifest(self, exitstatus: int) -> None:
        """Take down how the session ended, for the comparison to read."""
        verdict = "interrupted" if exitstatus > SIGNALLED else VERDICTS.get(exitstatus, "error")
        self._manifest |= {"verdict": verdict, "exit_status": int(exitstatus), "finished": now()}
        self._manifest["duration_s"] = round(time.monotonic() - self._started, 3)
        self._manifest["problems"] = [self._redactor.text(one).text for one in self._problems]
        self._manifest["redactions"] = list(self._redactions.values())
        write_manifest(self._folder, self._manifest)

    def _write_end(self, exitstatus: int) -> None:
        """Write the last manifest and the pages."""
        self._finish_manifest(exitstatus)
        close_session(self._folder, self._manifest)
        build_views(self._folder)

    def pytest_terminal_summary(self, terminalreporter: "pytest.TerminalReporter") -> None:
        """Say where the evidence lies, what stands for all of it, and what became worse."""
        terminalreporter.section("archive")
        if self.moved_aside:
            page = self.moved_aside / "index.html"
            terminalreporter.line(f"archive of an interrupted session: {page}")
        for problem in self._problems:
            terminalreporter.line(f"archive incomplete: {problem}", red=True)
        if not (self._folder / "index.html").is_file():
            return
        terminalreporter.line(
            f"{len(self._manifest['runs'])} runs kept: {self._folder / 'index.html'}"
        )
        if self._comparison:
            self._say_comparison(terminalreporter, self._comparison)
        for line in annotations(self._manifest, os.environ):
            terminalreporter.line(line)
        terminalreporter.line(f"sha256 {digest(self._folder)} stands for the whole archive")

    def _say_comparison(self, reporter: "pytest.TerminalReporter", found: Comparison) -> None:
        """Say what became worse, and what could not be compared."""
        for sentence in found.worse:
            reporter.line(sentence, red=True)
        for sentence in found.not_compared:
            reporter.line(f"not compared: {sentence}")
        reporter.line(f"comparison: {found.summary}: {self._folder / 'compare.html'}")

    def pytest_unconfigure(self) -> None:
        """Leave the handling of SIGTERM as it was."""
        if self._sigterm and signal.getsignal(signal.SIGTERM) is exit_on_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _public_selection(self, selection: Entry) -> Entry:
        """The selection with the ids of tests as they are recorded."""
        return {
            name: [self._redactor.key(one).text for one in value]
            if isinstance(value, list)
            else value
            for name, value in selection.items()
        }

    def _note(self, public: Any, where: str) -> str:
        """Record what was replaced, added up over the reports of a phase, and return the text."""
        if public.replaced:
            before = self._redactions.get(where, {"replaced": {}})["replaced"]
            replaced = Counter(before) + public.replaced
            self._redactions[where] = {"where": where, "replaced": dict(replaced)}
        return str(public.text)

    def _report_problem(self, problem: str) -> None:
        """Keep a sentence on what could not be written, once."""
        if problem not in self._problems:
            self._problems.append(problem)

    def _try(self, write: Any) -> None:
        """Write; what the file system refuses is reported, and pytest goes on."""
        try:
            write()
        except OSError as error:
            self._report_problem(describe_os_error(error))


def missing_runs(folder: Path, tests: Sequence[Entry]) -> list[str]:
    """A sentence for each run that a test recorded and that is no longer there."""
    names = {attempt["run"] for test in tests for attempt in test["attempts"]} - {None}
    lost = []
    for name in sorted(names):
        try:
            read_manifest(folder / name)
        except ValueError:
            lost.append(f"the run {name} was not written or has been removed")
    return lost


def end_by_sigterm() -> bool:
    """Let SIGTERM end the session as an interrupt does; tell whether it was free to be set."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return False
    signal.signal(signal.SIGTERM, exit_on_sigterm)
    return True


def exit_on_sigterm(number: int, _: FrameType | None) -> None:
    """End the session with the exit status of a process that a signal ended."""
    pytest.exit("ended by SIGTERM", returncode=SIGNALLED + number)


def moment(seconds: float) -> str:
    """A time since the epoch, as the manifest writes it."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")

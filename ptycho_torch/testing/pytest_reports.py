"""Read a report of pytest: verdict, reason, place and message of one phase of a test."""

from pathlib import Path

import pytest

from ptycho_torch.testing.process import shorten

MESSAGE_LIMIT = 20_000  # characters of a failure's message; the whole output is in files of its own
QUOTATION = "'\""
LINE_LIMIT = 300  # characters of the one line that says why


def verdict_of_error(error: BaseException | None) -> str:
    """The verdict of a block that ended with this exception, or without one."""
    if error is None:
        return "passed"
    if isinstance(error, AssertionError | pytest.fail.Exception):
        return "failed"
    if isinstance(error, pytest.skip.Exception):
        return "skipped"
    if isinstance(error, pytest.exit.Exception):
        return "interrupted"
    return "error" if isinstance(error, Exception) else "interrupted"


def verdict_of_report(report: pytest.TestReport) -> str:
    """The verdict of one phase of a test."""
    if hasattr(report, "wasxfail"):
        return "xfailed" if report.skipped else "xpassed"
    if report.outcome in ("passed", "skipped"):
        return str(report.outcome)
    return "failed" if report.when == "call" else "error"


def message_of_report(report: pytest.TestReport) -> str:
    """Why a phase did not pass, as pytest prints it."""
    if hasattr(report, "wasxfail"):
        return str(report.wasxfail)
    return "" if report.passed else shorten(report.longreprtext, MESSAGE_LIMIT)


def reason_of_report(report: pytest.TestReport) -> str:
    """One line that says why a phase did not pass."""
    if report.passed or hasattr(report, "wasxfail"):
        return message_of_report(report).partition("\n")[0][:LINE_LIMIT]
    if isinstance(report.longrepr, tuple):  # file, line and reason of a skip
        return report.longrepr[2].partition("\n")[0][:LINE_LIMIT]
    crash = getattr(report.longrepr, "reprcrash", None)
    words = crash.message if crash else report.longreprtext.strip().rpartition("\n")[2]
    return " ".join(words.splitlines()[:1])[:LINE_LIMIT]


def place_of_report(report: pytest.TestReport) -> str:
    """`file:line` of the line that failed, as pytest prints it, else of the test.

    A line of this plugin, where a command of `workflow` failed, tells nothing about the project.
    """
    crash = getattr(report.longrepr, "reprcrash", None)
    file, line, _ = report.location
    if report.failed and crash and Path(crash.path).parent != Path(__file__).parent:
        return f"{crash.path}:{crash.lineno}"
    return f"{file}:{(line or 0) + 1}"


def subtest_of_report(report: pytest.TestReport) -> str | None:
    """What a subtest is called; None for the report of a whole test."""
    context = getattr(report, "context", None)
    if context is None:
        return None
    words = [str(context.msg)] if context.msg is not None else []
    # pytest-xdist hands them on with quotation marks around them.
    words += [f"{name}={str(value).strip(QUOTATION)}" for name, value in context.kwargs.items()]
    return ", ".join(words) or "subtest"

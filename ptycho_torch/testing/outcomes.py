"""Make one verdict of many reports: of the phases, subtests and attempts of each test."""

from collections.abc import Iterable, Sequence
from typing import Any

Entry = dict[str, Any]
SEVERITY = ("passed", "xfailed", "xpassed", "skipped", "interrupted", "error", "failed")
FAILING = ("failed", "error", "interrupted")
ENDING = ("teardown", "???")  # the last phase; pytest-xdist reports a crashed worker as "???"


def worst(verdicts: Iterable[str]) -> str:
    """The verdict that says most: one failure makes a failure."""
    return max(verdicts, key=SEVERITY.index, default="interrupted")


def verdict_of_attempt(phases: Sequence[Entry], subtests: Sequence[Entry]) -> str:
    """The verdict of an attempt: its worst phase, or failed where a subtest failed.

    An attempt without its last phase was interrupted, unless it had failed before.
    """
    verdicts = [phase["verdict"] for phase in phases]
    verdicts += [sub["verdict"] for sub in subtests if sub["verdict"] in FAILING]
    ended = any(phase["when"] in ENDING or phase["rerun"] for phase in phases)
    return worst([*verdicts, "passed" if ended else "interrupted"])


def gather_tests(reports: Iterable[Entry]) -> list[Entry]:
    """Every test with its attempts, phases and subtests, in the order of their first report."""
    attempts: dict[str, list[Entry]] = {}
    for report in reports:
        made = attempts.setdefault(report["test"], [])
        if not made or begins_attempt(report, made[-1]):
            made.append(
                {"worker": report["worker"], "run": None, "started": report["started"]}
                | {"phases": [], "subtests": []}
            )
        attempt = made[-1]
        attempt["run"] = report["run"] or attempt["run"]
        part = {
            name: report[name] for name in ("verdict", "place", "duration_s", "reason", "message")
        }
        if report["subtest"] is not None:
            attempt["subtests"].append({"name": report["subtest"]} | part)
        else:
            extra = {name: report[name] for name in ("when", "rerun")}
            attempt["phases"].append(extra | part)
    return [whole_test(test, made) for test, made in attempts.items()]


def begins_attempt(report: Entry, last: Entry) -> bool:
    """Whether a report is of a new attempt: the last one has ended.

    pytest-rerunfailures hands on the phases of an attempt at its end, after its subtests.
    """
    ended = any(phase["when"] in ENDING or phase["rerun"] for phase in last["phases"])
    return ended and (report["when"] == "setup" or report["subtest"] is not None)


def whole_test(test: str, attempts: Sequence[Entry]) -> Entry:
    """A test with the verdict of its last attempt; flaky if an earlier one had failed."""
    for number, attempt in enumerate(attempts, 1):
        attempt["attempt"] = number
        attempt["verdict"] = verdict_of_attempt(attempt["phases"], attempt["subtests"])
        attempt["duration_s"] = round(sum(phase["duration_s"] for phase in attempt["phases"]), 3)
    verdict = attempts[-1]["verdict"]
    return {
        "test": test,
        "verdict": verdict,
        "flaky": verdict not in FAILING and any(one["verdict"] in FAILING for one in attempts),
        "duration_s": round(sum(attempt["duration_s"] for attempt in attempts), 3),
        "attempts": list(attempts),
    }


def failing_part(attempt: Entry) -> dict[str, Any] | None:
    """The phase or subtest of an attempt that decided its verdict; None if all passed."""
    parts = [*attempt["subtests"], *attempt["phases"]]
    decided = [part for part in parts if part["verdict"] == attempt["verdict"] != "passed"]
    return decided[0] if decided else None


def reason(test: Entry) -> str:
    """One line that says why the last attempt of a test did not pass, or an earlier one."""
    attempts = [one for one in test["attempts"] if one["verdict"] != "passed"]
    part = failing_part(attempts[-1]) if attempts else None
    if part is None:
        return "the process ended" if test["verdict"] == "interrupted" else ""
    name = f"[{part['name']}] " if "name" in part else ""
    when = f"in {part['when']}: " if part.get("when") in ("setup", "teardown") else ""
    return f"{name}{when if part['verdict'] in FAILING else ''}{part['reason']}"

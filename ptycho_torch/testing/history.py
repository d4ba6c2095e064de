"""The history of several archives: each metric and each test's duration over the sessions."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from ptycho_torch.html.line_plot import draw_line
from ptycho_torch.html.page import (
    Block,
    Cell,
    Drawing,
    Link,
    Note,
    Page,
    Section,
    Table,
    Verdict,
    render_html,
)
from ptycho_torch.testing.manifest import Entry, read_manifest, read_runs, write_atomically
from ptycho_torch.testing.run_page import outcome

HISTORY = Path("history.html")  # where no other page is named
UNITS = {"days": 86_400.0, "hours": 3600.0, "minutes": 60.0, "seconds": 1.0}
MOST_DURATIONS = 20  # tests, those that took longest in any session

Values = dict[str, list[float]]  # a value for each archive, NaN where there is none


def write_history(archives: Sequence[Path], page: Path) -> Path:
    """Write a page of several archives, in the order of time, and return its path.

    Raises:
        ValueError: If a folder is not an archive.
    """
    sessions = {folder: read_session(folder) for folder in archives}
    ordered = dict(sorted(sessions.items(), key=lambda item: item[1]["started"]))
    write_atomically(page, render_html(history_page(ordered, page.parent)).encode())
    return page


def read_session(folder: Path) -> Entry:
    """The manifest of a session.

    Raises:
        ValueError: If the folder is not an archive.
    """
    session = read_manifest(folder)
    if session["kind"] != "session":
        raise ValueError(f"{folder} is the folder of one run; give the archive that it lies in")
    return session


def history_page(sessions: Mapping[Path, Entry], beside: Path) -> Page:
    """A plot of each metric and of the durations, and a table of the sessions."""
    times, unit = since_first([session["started"] for session in sessions.values()])
    axis = f"{unit} since the first session"
    sections = [
        Section("Sessions", [session_table(sessions, beside)]),
        Section(
            "Metrics",
            plots(times, axis, metrics_over(sessions)) or [Note("No metric was recorded.")],
        ),
        Section("Durations", plots(times, axis, durations_over(sessions))),
    ]
    return Page(f"History of {len(sessions)} test session{'s' * (len(sessions) > 1)}", sections)


def session_table(sessions: Mapping[Path, Entry], beside: Path) -> Block:
    """The sessions with their verdicts."""
    rows: list[Sequence[Cell]] = []
    for folder, session in sessions.items():
        target = folder.resolve() / "index.html"
        name: Cell = str(folder)
        if target.is_relative_to(beside.resolve()):
            name = Link(str(folder), target.relative_to(beside.resolve()).as_posix())
        git = session["environment"]["git"]
        revision = git["revision"][:12] if git else ""
        tests = len(session["tests"])
        rows.append(
            (name, Verdict(outcome(session)), session["started"], revision, tests,
             session["duration_s"])
        )  # fmt: skip
    columns = ("Archive", "Verdict", "Started", "Revision", "Tests", "Duration / s")
    return Table("Sessions in the order of time", columns, rows)


def since_first(moments: Sequence[str]) -> tuple[list[float], str]:
    """The time since the first of the moments, and its unit: the largest that the last reaches."""
    times = [datetime.fromisoformat(moment).timestamp() for moment in moments]
    passed = [time - times[0] for time in times]
    unit = next((name for name, length in UNITS.items() if passed[-1] >= length), "days")
    return [time / UNITS[unit] for time in passed], unit


def metrics_over(sessions: Mapping[Path, Entry]) -> Values:
    """Each metric, and the last value of each series, by its run and name."""
    values: Values = {}
    for at, folder in enumerate(sessions):
        for run in read_runs(folder).values():
            found = {metric["name"]: metric["value"] for metric in run["metrics"]}
            found |= {series["name"]: series["values"][-1] for series in run["series"]}
            for name, value in found.items():
                gaps = values.setdefault(f"{run['test']}: {name}", [math.nan] * len(sessions))
                gaps[at] = float(value)
    return values


def durations_over(sessions: Mapping[Path, Entry]) -> Values:
    """The duration of the session, and of the tests that took longest, in seconds."""
    values: Values = {}
    for at, session in enumerate(sessions.values()):
        for test in session["tests"]:
            gaps = values.setdefault(f"{test['test']} / s", [math.nan] * len(sessions))
            gaps[at] = test["duration_s"]
    longest = sorted(values, key=lambda name: -max(v for v in values[name] if not math.isnan(v)))
    whole = [session["duration_s"] for session in sessions.values()]
    return {"whole session / s": whole} | {name: values[name] for name in longest[:MOST_DURATIONS]}


def plots(times: Sequence[float], axis: str, values: Values) -> list[Block]:
    """A plot of each quantity over the time since the first session."""
    drawn: list[Block] = []
    for name, numbers in values.items():
        finite = [number for number in numbers if math.isfinite(number)]
        ends = f": first {finite[0]:.6g}, last {finite[-1]:.6g}" if finite else ""
        drawing = draw_line(times, numbers, x_label=axis)
        drawn.append(Drawing(drawing, alt=f"{name}{ends}", caption=f"{name}{ends}"))
    return drawn

"""The first page of an archive: failures first, then numbers, pictures and every test."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ptycho_torch.html.page import (
    Block,
    Cell,
    Command,
    Facts,
    Gallery,
    Link,
    Note,
    Output,
    Page,
    Picture,
    Section,
    Table,
    Verdict,
)
from ptycho_torch.testing.closing import digest
from ptycho_torch.testing.manifest import Entry
from ptycho_torch.testing.outcomes import FAILING, failing_part, reason
from ptycho_torch.testing.run_page import (
    count_in_words,
    environment,
    groups_in_brief,
    outcome,
    pictures,
    replaced_section,
    timing,
)

MOST_METRICS = 200  # rows on this page; the pages of the runs have all
MOST_THUMBNAILS = 12
MOST_OPEN_MESSAGES = 3  # failures that are shown in full without a click
COMMAND_LIMIT = 160  # characters of a command in a table; the page of the run has all of it

Runs = Mapping[Path, Entry]


def session_page(folder: Path, session: Entry, runs: Runs, problems: Sequence[str]) -> Page:
    """The page of a session.

    Args:
        folder: Of the archive.
        session: Its manifest.
        runs: Manifests of its runs by their folders.
        problems: What is not as the session wrote it.
    """
    sections = [
        *problem_section(problems),
        *failure_section(session, runs),
        *comparison_section(session),
        *flaky_section(session),
        *metric_section(session, runs),
        *picture_section(runs),
        *run_section(runs),
        Section("All tests", [all_tests(session)]),
        *not_run_section(session),
        Section("Environment", environment(session["environment"])),
        *replaced_section(session),
    ]
    return Page(
        "Archive of a test session",
        sections,
        lead=lead(folder, session, problems),
        verdict="altered" if problems and session["verdict"] != "running" else outcome(session),
    )


def lead(folder: Path, session: Entry, problems: Sequence[str]) -> list[Block]:
    """How it went, in one sentence and a few numbers."""
    tests = session["tests"]
    facts: list[tuple[str, Cell]] = [
        ("Tests", count_in_words(Counter(test["verdict"] for test in tests))),
        *timing(session),
        ("Exit status", "none" if session["exit_status"] is None else str(session["exit_status"])),
        ("Archive", Verdict("altered" if problems else "as written")),
        ("SHA-256 of manifest.json", digest(folder)),
    ]
    return [Note(in_one_sentence(session)), Facts(facts), Command(session["command"])]


def in_one_sentence(session: Entry) -> str:
    """What a reader needs to know first."""
    tests = session["tests"]
    cut_off = sum(test["verdict"] == "interrupted" for test in tests)
    failing = sum(test["verdict"] in FAILING for test in tests) - cut_off
    parts = [
        f"{failing} of {len(tests)} tests failed" if failing else f"{len(tests)} tests, none failed"
    ]
    parts += [f"{cut_off} cut off"] if cut_off else []
    flaky = sum(test["flaky"] for test in tests)
    parts += [f"{flaky} passed only when run again"] if flaky else []
    if session["verdict"] in ("interrupted", "running"):
        left = len(not_run(session))
        rest = f" and {left} {'tests were' if left > 1 else 'test was'} not run" if left else ""
        parts.append(f"the session was interrupted{rest}")
    if session["comparison"]:
        parts.append(f"compared with the reference: {session['comparison']['verdict']}")
    words = "; ".join(parts)
    return f"{words[0].upper()}{words[1:]}."


def problem_section(problems: Sequence[str]) -> list[Section]:
    """What is not as the session wrote it."""
    notes = [Note(problem) for problem in problems]
    return [Section("This archive is not as it was written", notes)] if notes else []


def failure_section(session: Entry, runs: Runs) -> list[Section]:
    """Each test that failed, with one line why, where, and how to repeat it."""
    failing = [test for test in session["tests"] if test["verdict"] in FAILING]
    failing.sort(key=lambda test: test["verdict"] == "interrupted")
    broken = [run for run in runs.values() if run["shared"] and run["verdict"] in FAILING]
    if not failing and not broken:
        return []
    rows = [
        (link(test, runs), Verdict(test["verdict"]), reason(test), place(test), test["duration_s"])
        for test in failing
    ]
    rows += [
        (
            run_link(run, runs),
            Verdict(run["verdict"]),
            first_line(run["message"]),
            "",
            run["duration_s"],
        )
        for run in broken
    ]
    columns = ("Test", "Verdict", "Why", "Where", "Duration / s")
    blocks: list[Block] = [filled_table("What failed", columns, rows)]
    for number, test in enumerate(failing):
        message = last_message(test)
        if message:
            is_open = number < MOST_OPEN_MESSAGES
            shown = essence(message)
            blocks.append(Output(f"{test['test']}: {reason(test)}", shown, is_open))
            if shown != message:
                blocks.append(Output(f"{test['test']}: all that pytest prints", message))
    if failing:
        blocks += [
            Note("To run them again:"),
            Command(["pytest", *(one["test"] for one in failing)]),
        ]
    return [Section("Failures", blocks)]


def comparison_section(session: Entry) -> list[Section]:
    """What the comparison found."""
    comparison = session["comparison"]
    if not comparison:
        return []
    notes = [Note(sentence) for sentence in comparison["worse"]] or [
        Note("Nothing is worse or missing.")
    ]
    left_out = comparison["not_compared"]
    notes += (
        [Note(f"{len(left_out)} not compared, since they were not selected.")] if left_out else []
    )
    row = (Link("compare.html", "compare.html"), Verdict(comparison["verdict"]))
    table = Table("The whole comparison", ("Page", "Verdict"), [row])
    return [Section("Compared with the reference", [*notes, table])]


def flaky_section(session: Entry) -> list[Section]:
    """Tests that passed only when they were run again, with the reasons."""
    rows = [
        (test["test"], attempt["attempt"], Verdict(attempt["verdict"]),
         reason({"attempts": [attempt], "verdict": attempt["verdict"]}), attempt["duration_s"])
        for test in session["tests"] if len(test["attempts"]) > 1 for attempt in test["attempts"]
    ]  # fmt: skip
    columns = ("Test", "Attempt", "Verdict", "Why", "Duration / s")
    table = Table("Every attempt of a test that was run again", columns, rows)
    return [Section("Run again", [table])] if rows else []


def metric_section(session: Entry, runs: Runs) -> list[Section]:
    """Every number, with its value in the reference and the change where there is one."""
    before = {
        (row["test"], row["name"]): row
        for row in (session["comparison"] or {"metrics": []})["metrics"]
    }
    rows: list[Sequence[Cell]] = []
    tries = Counter(run["test"] for run in runs.values())
    for folder, run in runs.items():
        again = f", attempt {run['attempt']}" if tries[run["test"]] > 1 else ""
        for metric in [*run["metrics"], *map(last_of, run["series"])]:
            row = before.get((run["test"], metric["name"]))
            changed: list[Cell] = [Verdict(row["verdict"]), row["before"]] if row else ["", ""]
            changed = changed if before else []
            name = Link(metric["name"], f"{folder.name}/index.html")
            rows.append((name, metric["value"], metric["unit"], *changed, run["test"] + again))
    if not rows:
        return []
    changes = ("Change", "Before") if before else ()
    columns = ("Metric", "Value", "Unit", *changes, "Run")
    blocks: list[Block] = [filled_table("What was measured", columns, rows[:MOST_METRICS])]
    if len(rows) > MOST_METRICS:
        blocks.append(Note(f"{len(rows) - MOST_METRICS} more are on the pages of the runs."))
    return [Section("Metrics", blocks)]


def last_of(series: Entry) -> Entry:
    """A series as the metric that is its last value."""
    return series | {"value": series["values"][-1]}


def picture_section(runs: Runs) -> list[Section]:
    """Small pictures, of failing runs first."""
    ordered = sorted(runs.items(), key=lambda item: item[1]["verdict"] not in FAILING)
    found: list[Picture] = []
    for folder, run in ordered:
        for one in pictures(folder, run) if len(found) < MOST_THUMBNAILS else []:
            words = f"{run['test'].rpartition('::')[2]}, {one.caption}"
            found.append(Picture(one.png, one.alt, words))
    return [Section("Pictures", [Gallery(found[:MOST_THUMBNAILS], small=True)])] if found else []


def run_section(runs: Runs) -> list[Section]:
    """Every run with its verdict and its commands."""
    rows = [
        (run_link(run, runs), Verdict(outcome(run)), run["attempt"], groups_in_brief(run),
         commands_in_brief(run), run["duration_s"])
        for run in runs.values()
    ]  # fmt: skip
    columns = ("Run", "Verdict", "Attempt", "Assertion groups", "Commands", "Duration / s")
    table = Table("One folder for each run", columns, rows)
    return [Section("Runs with evidence", [table])] if rows else []


def all_tests(session: Entry) -> Block:
    """Every test of the session, those that failed first."""
    ordered = sorted(session["tests"], key=lambda test: test["verdict"] not in FAILING)
    rows = [
        (test["test"], Verdict(test["verdict"]), "flaky" if test["flaky"] else "",
         len(test["attempts"]), len(test["attempts"][-1]["subtests"]) or "", test["duration_s"],
         test["attempts"][-1]["worker"] or "", "yes" if test["attempts"][-1]["run"] else "")
        for test in ordered
    ]  # fmt: skip
    columns = (
        "Test",
        "Verdict",
        "Remark",
        "Attempts",
        "Subtests",
        "Duration / s",
        "Worker",
        "Archive",
    )
    if not rows:
        return Note("No test was run.")
    return filled_table("Every test of the session", columns, rows)


def filled_table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Table:
    """A table without the columns in which every cell is empty."""
    used = [at for at in range(len(columns)) if any(row[at] != "" for row in rows)]
    return Table(caption, [columns[at] for at in used], [[row[at] for at in used] for row in rows])


def not_run(session: Entry) -> list[str]:
    """Tests that were collected and of which no report came."""
    reported = {test["test"] for test in session["tests"]}
    return [test for test in session["selection"]["collected"] if test not in reported]


def not_run_section(session: Entry) -> list[Section]:
    """Tests that were collected and not run."""
    left = not_run(session)
    return [Section("Not run", [Output(f"{len(left)} tests", "\n".join(left))])] if left else []


def link(test: Entry, runs: Runs) -> Cell:
    """A test, linked to its evidence where it has some."""
    folders = {folder.name for folder in runs}
    run = test["attempts"][-1]["run"]
    return Link(test["test"], f"{run}/index.html") if run in folders else str(test["test"])


def run_link(run: Entry, runs: Runs) -> Cell:
    """A run, linked to its page."""
    folder = next(folder for folder, one in runs.items() if one is run)
    return Link(run["test"], f"{folder.name}/index.html")


def place(test: Entry) -> str:
    """Where the last attempt failed: file and line."""
    part = failing_part(test["attempts"][-1])
    return str(part["place"]) if part else ""


def last_message(test: Entry) -> str:
    """What pytest printed about the last attempt that failed."""
    found = [failing_part(one) for one in test["attempts"] if one["verdict"] in FAILING]
    parts = [part for part in found if part and part["message"]]
    return str(parts[-1]["message"]) if parts else ""


def essence(message: str) -> str:
    """The lines that failed and what pytest says of them; the whole message where it marks none."""
    marked = [line for line in message.splitlines() if line.startswith((">", "E "))]
    return "\n".join(marked) or message


def first_line(text: str) -> str:
    """The first line of a message."""
    return text.partition("\n")[0]


def commands_in_brief(run: Entry) -> str:
    """The commands of a run, one after the other, shortened."""
    words = "; ".join(" ".join(command["args"]) for command in run["commands"])
    words = " ".join(words.split())
    return f"{words[:COMMAND_LIMIT]} …" if len(words) > COMMAND_LIMIT else words

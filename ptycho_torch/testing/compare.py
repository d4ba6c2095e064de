"""Compare two archives; the exit status tells whether a metric is worse than its tolerance.

python -m ptycho_torch.testing.compare REFERENCE NEW
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ptycho_torch.html.page import (
    Block,
    Cell,
    Facts,
    Gallery,
    Note,
    Page,
    Picture,
    Section,
    Table,
    Verdict,
    plain,
    render_html,
    render_markdown,
)
from ptycho_torch.testing.manifest import Entry, read_manifest, write_atomically
from ptycho_torch.testing.views import kept_name, outcome, pictures, read_runs, stated

# Relative; a loss of exactly the tolerance is allowed, in spite of binary fractions.
ROUND_OFF = 1e-12
FAILING = ("worse", "missing")
QUANTITIES = (
    ("wall time / s", "wall_s", 1.0),
    ("CPU time / s", "cpu_s", 1.0),
    ("peak memory / MiB", "peak_memory_bytes", 2**20),
)

Row = tuple[Cell, ...]
Run = tuple[Path, Entry]  # folder and manifest
NOTHING: Entry = {"verdict": "missing", "metrics": [], "commands": [], "artifacts": []}
Item = TypeVar("Item")


@dataclass
class Comparison:
    """Rows of each table, which begin with the test, and changed pictures as (before, now)."""

    metrics: list[Row] = field(default_factory=list)
    verdicts: list[Row] = field(default_factory=list)
    times: list[Row] = field(default_factory=list)
    artifacts: list[Row] = field(default_factory=list)
    pictures: list[tuple[Picture, Picture]] = field(default_factory=list)

    @property
    def worse(self) -> list[str]:
        """One sentence for each metric that is worse than its tolerance or has gone."""
        failing = [
            row for row in self.metrics if isinstance(row[-1], Verdict) and row[-1].word in FAILING
        ]
        words = [[plain(value) or "not recorded" for value in row] for row in failing]
        return [f"{test}: {name} was {before}, is {now} (tolerance {allowed}): {verdict}"
                for test, name, before, now, allowed, verdict in words]  # fmt: skip


def compare_archives(reference: Path, new: Path) -> Comparison:
    """What changed between two archives.

    The reference states direction and tolerance of a metric, so that a change cannot loosen its
    own. A metric that the new session ran the test for and did not record is missing, which counts
    as worse; a test that the new session did not have at all is listed as not run.

    Raises:
        ValueError: If one of the folders is not an archive.
    """
    selected = read_manifest(new)["tests"]
    found = Comparison()
    for test, before, now in paired(latest_runs(reference), latest_runs(new)):
        was = Verdict(outcome(before[1])) if before else ""
        if before is None or (now is None and test not in selected):
            found.verdicts.append((test, was, Verdict(outcome(now[1]) if now else "not run")))
            continue
        old, run = before[1], now[1] if now else NOTHING
        found.verdicts.append((test, was, Verdict(outcome(run))))
        found.metrics += compare_metrics(test, old, run)
        found.times += compare_times(test, old, run)
        found.artifacts += compare_artifacts(test, old, run)
        found.pictures += changed_pictures(before, now) if now else []
    return found


def paired(
    before: dict[str, Item], now: dict[str, Item]
) -> list[tuple[str, Item | None, Item | None]]:
    """(name, before, now) for every name of either; None where it is missing."""
    return [(name, before.get(name), now.get(name)) for name in before | now]


def latest_runs(archive: Path) -> dict[str, Run]:
    """The last attempt of each test."""
    if read_manifest(archive)["kind"] != "session":
        raise ValueError(f"{archive} is the folder of one run; give the archive that it lies in")
    runs = sorted(
        read_runs(archive).items(), key=lambda item: (item[1]["attempt"], item[1]["finished"] or "")
    )
    return {manifest["test"]: (folder, manifest) for folder, manifest in runs}


def compare_metrics(test: str, old: Entry, new: Entry) -> list[Row]:
    """(test, metric, before, now, tolerance, verdict) for every metric of either run."""
    rows: list[Row] = []
    for name, before, now in paired(
        *({metric["name"]: metric for metric in run["metrics"]} for run in (old, new))
    ):
        values = [side["value"] if side else "" for side in (before, now)]
        tolerances = [
            side["tolerance"] for side in (before, now) if side and side["tolerance"] is not None
        ]
        rows.append(
            (
                test,
                name,
                *values,
                stated(tolerances[0] if tolerances else None),
                Verdict(judge(before, now)),
            )
        )
    return rows


def judge(before: Entry | None, now: Entry | None) -> str:
    """One of "same", "better", "changed", "worse", "missing", "new"; NaN is worse than any."""
    if before is None:
        return "new"
    if now is None:
        return "missing" if before["tolerance"] is not None else "not recorded"
    stating = now if before["tolerance"] is None else before
    old, value = float(before["value"]), float(now["value"])
    if old == value or (math.isnan(old) and math.isnan(value)):
        return "same"
    loss = {"higher": old - value, "lower": value - old}.get(stating["better"], abs(value - old))
    if stating["tolerance"] is not None and not math.isnan(old):
        slack = (
            ROUND_OFF * max(abs(old), abs(value))
            if math.isfinite(value) and math.isfinite(old)
            else 0.0
        )
        if math.isnan(loss) or loss - stating["tolerance"] > slack:
            return "worse"
    return "better" if loss < 0 and stating["better"] in ("higher", "lower") else "changed"


def compare_times(test: str, old: Entry, new: Entry) -> list[Row]:
    """(test, command, quantity, before, now, ratio) for the commands of both runs, in order."""
    rows: list[Row] = []
    for number, (before, now) in enumerate(zip(old["commands"], new["commands"], strict=False), 1):
        for label, key, unit in QUANTITIES:
            ratio: Cell = round(now[key] / before[key], 2) if before[key] else ""
            rows.append(
                (
                    test,
                    f"{number}",
                    label,
                    round(before[key] / unit, 3),
                    round(now[key] / unit, 3),
                    ratio,
                )
            )
    return rows


def compare_artifacts(test: str, old: Entry, new: Entry) -> list[Row]:
    """(test, artifact, "same", "changed", "added" or "removed", bytes before, bytes now)."""
    rows: list[Row] = []
    for name, before, now in paired(
        *({kept_name(entry): entry for entry in run["artifacts"]} for run in (old, new))
    ):
        if before and now:
            change = "same" if before["sha256"] == now["sha256"] else "changed"
        else:
            change = "removed" if before else "added"
        rows.append(
            (test, name, change, *(side["bytes"] if side else "" for side in (before, now)))
        )
    return rows


def changed_pictures(old: Run, new: Run) -> list[tuple[Picture, Picture]]:
    """Pictures of one name that are not the same, byte for byte."""
    both = paired(*({picture.caption: picture for picture in pictures(*run)} for run in (old, new)))
    return [(before, now) for _, before, now in both if before and now and before.png != now.png]


def comparison_page(found: Comparison) -> Page:
    """The comparison as a page."""
    tables = (
        (
            "Metrics",
            "Metrics side by side",
            ("Test", "Metric", "Before", "Now", "Tolerance", "Verdict"),
            found.metrics,
        ),
        ("Verdicts", "Verdict of each run", ("Test", "Before", "Now"), found.verdicts),
        (
            "Times",
            "What the commands took",
            ("Test", "Command", "Quantity", "Before", "Now", "Ratio"),
            found.times,
        ),
        (
            "Artifacts",
            "Produced files",
            ("Test", "File", "Change", "Bytes before", "Bytes now"),
            found.artifacts,
        ),
    )
    sections = [
        Section(title, [Table(caption, columns, rows) if rows else Note("Nothing to compare.")])
        for title, caption, columns, rows in tables
    ]
    pairs: list[Block] = [
        Gallery([side(old, "before"), side(new, "now")]) for old, new in found.pictures
    ]
    sections.append(Section("Changed pictures", pairs or [Note("No picture changed.")]))
    lead = Facts(
        [
            ("Metrics worse than their tolerance", f"{len(found.worse)}"),
            ("Pictures changed", f"{len(pairs)}"),
        ]
    )
    return Page(
        "Two archives side by side",
        sections,
        lead=[lead],
        verdict="worse" if found.worse else "no worse",
    )


def write_comparison(found: Comparison, folder: Path) -> None:
    """Write `compare.html` and `compare.md` into a folder."""
    page = comparison_page(found)
    write_atomically(folder / "compare.html", render_html(page).encode())
    write_atomically(folder / "compare.md", render_markdown(page).encode())


def side(picture: Picture, when: str) -> Picture:
    """The picture, labelled as the earlier or the later one."""
    return Picture(picture.png, alt=f"{picture.alt}, {when}", caption=f"{when}: {picture.caption}")


def main(argv: Sequence[str] | None = None) -> int:
    """Print the comparison; 0 if nothing is worse, 1 if something is, 2 for no archive."""
    parser = argparse.ArgumentParser(
        prog="python -m ptycho_torch.testing.compare", description=main.__doc__
    )
    parser.add_argument("reference", type=Path, help="archive to compare with")
    parser.add_argument("new", type=Path, help="archive to judge")
    options = parser.parse_args(argv)
    try:
        found = compare_archives(options.reference, options.new)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(render_markdown(comparison_page(found)))
    return 1 if found.worse else 0


if __name__ == "__main__":
    sys.exit(main())

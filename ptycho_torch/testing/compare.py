"""Put two archives side by side; the exit status says whether a metric is worse than its stated tolerance.

python -m ptycho_torch.testing.compare REFERENCE NEW
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ptycho_torch.testing.archive import Entry, read_manifest, write_atomically
from ptycho_torch.testing.page import (
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
    render_html,
    render_markdown,
)
from ptycho_torch.testing.views import kept_name, outcome, pictures, read_runs, stated

ROUND_OFF = 1e-12  # relative; a loss of exactly the tolerance is allowed, in spite of binary fractions
FAILING = ("worse", "missing")


@dataclass(frozen=True)
class Run:
    """One run of an archive: where it lies and what its manifest says."""

    folder: Path
    manifest: Entry


@dataclass(frozen=True)
class Comparison:
    """Rows of (test, what, before, now, ...) for each table, and changed pictures as (before, now)."""

    metrics: list[tuple[Cell, ...]]
    verdicts: list[tuple[Cell, ...]]
    times: list[tuple[Cell, ...]]
    artifacts: list[tuple[Cell, ...]]
    pictures: list[tuple[Picture, Picture]]

    @property
    def worse(self) -> list[str]:
        """One sentence for each metric that is worse than its tolerance or has gone."""
        failing = [row for row in self.metrics if isinstance(row[-1], Verdict) and row[-1].word in FAILING]
        return [f"{test}: {name} was {show(before)}, is {show(new)} (tolerance {show(allowed)}): {show(verdict)}"
                for test, name, before, new, allowed, verdict in failing]  # fmt: skip


def compare_archives(reference: Path, new: Path) -> Comparison:
    """What changed between two archives.

    The reference states direction and tolerance of a metric, so that a change cannot loosen its own. A metric that
    the new session ran the test for and did not record is missing, which counts as worse; a test that the new
    session did not have at all is listed as not run.

    Raises:
        ValueError: If one of the folders is not an archive.
    """
    before, now = latest_runs(reference), latest_runs(new)
    had = set(read_manifest(new)["tests"])
    both = [(test, before[test], now[test]) for test in before if test in now]
    gone = [test for test in before if test not in now]
    verdicts: list[tuple[Cell, ...]] = [
        (test, Verdict(outcome(old.manifest)), Verdict(outcome(run.manifest))) for test, old, run in both
    ]
    verdicts += [
        (test, Verdict(outcome(before[test].manifest)), Verdict("missing" if test in had else "not run")) for test in gone
    ]
    verdicts += [(test, "", Verdict(outcome(now[test].manifest))) for test in now if test not in before]
    return Comparison(
        metrics=[row for test, old, run in both for row in compare_metrics(test, old.manifest, run.manifest)]
        + [row for test in gone if test in had for row in compare_metrics(test, before[test].manifest, {"metrics": []})],
        verdicts=verdicts,
        times=[row for test, old, run in both for row in compare_times(test, old.manifest, run.manifest)],
        artifacts=[row for test, old, run in both for row in compare_artifacts(test, old.manifest, run.manifest)],
        pictures=[pair for _, old, run in both for pair in changed_pictures(old, run)],
    )


def latest_runs(archive: Path) -> dict[str, Run]:
    """The last attempt of each test."""
    if read_manifest(archive)["kind"] != "session":
        raise ValueError(f"{archive} is the folder of one run; give the archive that it lies in")
    runs = sorted(read_runs(archive).items(), key=lambda item: (item[1]["attempt"], item[1]["finished"] or ""))
    return {manifest["test"]: Run(folder, manifest) for folder, manifest in runs}


def compare_metrics(test: str, old: Entry, new: Entry) -> list[tuple[Cell, ...]]:
    """(test, metric, before, now, tolerance, verdict) for every metric of either run."""
    before, now = ({metric["name"]: metric for metric in run["metrics"]} for run in (old, new))
    rows: list[tuple[Cell, ...]] = []
    for name in [*before, *(name for name in now if name not in before)]:
        stating = before.get(name) or now[name]
        if stating["tolerance"] is None and name in now:
            stating = now[name]
        values = [side[name]["value"] if name in side else "" for side in (before, now)]
        verdict = judge(stating, before.get(name), now.get(name))
        rows.append((test, name, *values, stated(stating["tolerance"]), Verdict(verdict)))
    return rows


def judge(stating: Entry, before: Entry | None, now: Entry | None) -> str:
    """The verdict: "same", "better", "changed", "worse", "missing" or "new"; not a number is worse than any."""
    if before is None:
        return "new"
    if now is None:
        return "missing" if stating["tolerance"] is not None else "not recorded"
    old, value = float(before["value"]), float(now["value"])
    if old == value or (math.isnan(old) and math.isnan(value)):
        return "same"
    loss = {"higher": old - value, "lower": value - old}.get(stating["better"], abs(value - old))
    if stating["tolerance"] is not None and not math.isnan(old):
        slack = ROUND_OFF * max(abs(old), abs(value)) if math.isfinite(value) and math.isfinite(old) else 0.0
        if math.isnan(loss) or loss - stating["tolerance"] > slack:
            return "worse"
    return "better" if loss < 0 and stating["better"] in ("higher", "lower") else "changed"


def compare_times(test: str, old: Entry, new: Entry) -> list[tuple[Cell, ...]]:
    """(test, command, quantity, before, now, ratio) for the commands that both ran, by their order."""
    quantities = (
        ("wall time / s", "wall_s", 1.0),
        ("CPU time / s", "cpu_s", 1.0),
        ("peak memory / MiB", "peak_memory_bytes", 2**20),
    )
    return [
        (test, f"{number}", label, *(round(one[key] / unit, 3) for one in (a, b)), ratio(a[key], b[key]))
        for number, (a, b) in enumerate(zip(old["commands"], new["commands"], strict=False), 1)
        for label, key, unit in quantities
    ]


def ratio(before: float, now: float) -> Cell:
    """How many times as much it is now."""
    return round(now / before, 2) if before else ""


def compare_artifacts(test: str, old: Entry, new: Entry) -> list[tuple[Cell, ...]]:
    """(test, artifact, "same", "changed", "added" or "removed", bytes before, bytes now)."""
    before, now = ({kept_name(entry): entry for entry in run["artifacts"]} for run in (old, new))
    rows: list[tuple[Cell, ...]] = []
    for name in [*before, *(name for name in now if name not in before)]:
        a, b = before.get(name), now.get(name)
        change = "added" if a is None else "removed" if b is None else "same" if a["sha256"] == b["sha256"] else "changed"
        rows.append((test, name, change, a["bytes"] if a else "", b["bytes"] if b else ""))
    return rows


def changed_pictures(old: Run, new: Run) -> list[tuple[Picture, Picture]]:
    """Pictures of one name that are not the same, byte for byte."""
    before, now = ({picture.caption: picture for picture in pictures(run.folder, run.manifest)} for run in (old, new))
    return [(before[name], now[name]) for name in before if name in now and before[name].png != now[name].png]


def tables(found: Comparison) -> list[tuple[str, Block]]:
    """Title and table of each part of a comparison."""
    parts: list[tuple[str, str, Sequence[str], list[tuple[Cell, ...]]]] = [
        ("Metrics", "Metrics side by side", ("Test", "Metric", "Before", "Now", "Tolerance", "Verdict"), found.metrics),
        ("Verdicts", "Verdict of each run", ("Test", "Before", "Now"), found.verdicts),
        ("Times", "What the commands took", ("Test", "Command", "Quantity", "Before", "Now", "Ratio"), found.times),
        ("Artifacts", "Produced files", ("Test", "File", "Change", "Bytes before", "Bytes now"), found.artifacts),
    ]
    return [
        (title, Table(caption, columns, rows) if rows else Note("Nothing to compare.")) for title, caption, columns, rows in parts
    ]


def comparison_page(found: Comparison) -> Page:
    """The comparison as a page."""
    pairs: list[Block] = [Gallery([side(old, "before"), side(new, "now")]) for old, new in found.pictures]
    sections = [Section(title, [block]) for title, block in tables(found)]
    sections.append(Section("Changed pictures", pairs or [Note("No picture changed.")]))
    lead = Facts([("Metrics worse than their tolerance", f"{len(found.worse)}"), ("Pictures changed", f"{len(pairs)}")])
    return Page("Two archives side by side", sections, lead=[lead], verdict="worse" if found.worse else "no worse")


def write_comparison(found: Comparison, folder: Path) -> None:
    """Write `compare.html` and `compare.md` into a folder."""
    page = comparison_page(found)
    write_atomically(folder / "compare.html", render_html(page).encode())
    write_atomically(folder / "compare.md", render_markdown(page).encode())


def side(picture: Picture, when: str) -> Picture:
    """The picture, labelled as the earlier or the later one."""
    return Picture(picture.png, alt=f"{picture.alt}, {when}", caption=f"{when}: {picture.caption}")


def show(value: Cell) -> str:
    """A cell as plain text."""
    return value.word if isinstance(value, Verdict) else str(value) or "not recorded"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the comparison of two archives; 0 if nothing is worse, 1 if something is, 2 if a folder is no archive."""
    parser = argparse.ArgumentParser(prog="python -m ptycho_torch.testing.compare", description=main.__doc__)
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

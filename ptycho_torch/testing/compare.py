"""Compare two archives; the exit status tells whether something is worse or has gone.

python -m ptycho_torch.testing.compare REFERENCE NEW

Strict by default: every test, metric, assertion group and artifact of the reference must be there
again. A test that this session was not asked for (`-k`, `-m`, a test named on the command line) is
listed as not compared, and is no failure.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ptycho_torch.html.page import PNG_SIGNATURE, Cell, Picture, Verdict, plain
from ptycho_torch.testing.archive_comparison import (
    MISSING,
    NOT_COMPARED,
    WORSE,
    Comparison,
    PictureChange,
    Row,
)
from ptycho_torch.testing.comparison_page import comparison_text
from ptycho_torch.testing.integrity import find_problems
from ptycho_torch.testing.manifest import Entry, read_kept, read_manifest, read_runs
from ptycho_torch.testing.outcomes import FAILING
from ptycho_torch.testing.png_difference import Difference, compare_png
from ptycho_torch.testing.run_page import stated

# Relative; a loss of exactly the tolerance is allowed, in spite of binary fractions.
ROUND_OFF = 1e-12
HELD = ("passed", "xpassed")  # verdicts that a change must not lose
QUANTITIES = (
    ("wall time / s", "wall_s", 1.0),
    ("CPU time / s", "cpu_s", 1.0),
    ("peak memory / MiB", "peak_memory_bytes", 2**20),
)


@dataclass(frozen=True)
class Rules:
    """How to compare.

    Attributes:
        reference: Folder of the archive to compare with.
        allow_missing: Whether what has gone is listed only.
        renamed: New id by old id, of a test or of the beginning of ids, such as a file.
    """

    reference: Path
    allow_missing: bool = False
    renamed: Mapping[str, str] = field(default_factory=dict)


class Run(NamedTuple):
    """What one test has recorded, over its workers: its folder and manifest."""

    folder: Path
    manifest: Entry


class ArchiveReader:
    """An archive as the comparison looks at it.

    Args:
        folder: Of the archive.
        renamed: Ids to replace, as `Rules.renamed`.

    Raises:
        ValueError: If the folder is not an archive.
    """

    def __init__(self, folder: Path, renamed: Mapping[str, str]) -> None:
        session = read_manifest(folder)
        if session["kind"] != "session":
            raise ValueError(f"{folder} is the folder of one run; give the archive that it lies in")
        self.folder = folder
        self.selection = session["selection"]
        self.used: set[str] = set()
        self._renamed = renamed
        self.tests = {self.new_id(test["test"]): test for test in session["tests"]}
        self.runs: dict[str, list[Run]] = {}
        for path, run in read_runs(folder).items():
            self.runs.setdefault(self.new_id(run["test"]), []).append(Run(path, run))

    def new_id(self, test: str) -> str:
        """The id that a test has now."""
        for old in sorted(self._renamed, key=len, reverse=True):
            if test == old or (test.startswith(old) and test[len(old)] in ":/["):
                self.used.add(old)
                return self._renamed[old] + test[len(old) :]
        return test

    def last_runs(self, test: str) -> list[Run]:
        """The last attempt of a test in each worker; a shared run is made once by each."""
        last: dict[str | None, Run] = {}
        shared = any(run.manifest["shared"] for run in self.runs.get(test, []))
        for run in sorted(self.runs.get(test, []), key=lambda run: run.manifest["attempt"]):
            last[run.manifest["worker"] if shared else None] = run
        return list(last.values())

    def why_not_selected(self, test: str) -> str:
        """Why this session was not asked for a test; empty if it was."""
        selection = self.selection
        if test in self.tests or test in selection["collected"]:
            return ""
        if selection["named"] and not any(covers(one, test) for one in selection["named"]):
            return "not among the tests that were named"
        asked = [f"-k {selection['keyword']}"] if selection["keyword"] else []
        asked += [f"-m {selection['marker']}"] if selection["marker"] else []
        if selection["last_failed"]:
            return "left out by --last-failed or --stepwise"
        return f"left out by {' '.join(asked)}" if asked and test in selection["deselected"] else ""


def covers(named: str, test: str) -> bool:
    """Whether an argument of pytest (a folder, file, class or test) selects a test."""
    return (
        named == "." or test == named or test.startswith((f"{named}/", f"{named}::", f"{named}["))
    )


def compare_archives(reference: Path, new: Path, rules: Rules | None = None) -> Comparison:
    """What changed between two archives.

    The reference states direction and tolerance of a metric, so that a change cannot loosen its
    own.

    Raises:
        ValueError: If one of the folders is not an archive.
    """
    rules = rules or Rules(reference)
    before, now = ArchiveReader(reference, rules.renamed), ArchiveReader(new, {})
    found = Comparison()
    found.worse += [f"the reference is not as it was written: {problem}"
                    for problem in find_problems(reference)]  # fmt: skip
    if not before.tests:
        found.worse.append("nothing to compare: the reference has no test")
    found.worse += [
        f"{old}: renamed to {rules.renamed[old]}, but the reference has no such test"
        for old in sorted(set(rules.renamed) - before.used)
    ]
    for test, entry in before.tests.items():
        compare_test(found, rules, test, entry, now)
    for name in [*before.runs, *(name for name in now.runs if name not in before.runs)]:
        compare_runs(found, rules, name, before, now)
    if not found.compared and not found.not_compared and before.tests and not found.worse:
        found.worse.append("nothing was compared: the two archives have no test in common")
    return found


def compare_test(
    found: Comparison, rules: Rules, test: str, before: Entry, now: ArchiveReader
) -> None:
    """Compare the verdicts of one test of the reference."""
    was = before["verdict"]
    if test in now.tests:
        verdict = now.tests[test]["verdict"]
        found.compared += 1
        lost = was in HELD and verdict not in HELD
        fails = verdict in FAILING and was not in FAILING
        word = WORSE if fails or (lost and not rules.allow_missing) else ""
        if word:
            found.worse.append(f"{test}: was {was}, is {verdict}")
        found.verdicts.append((test, Verdict(was), Verdict(verdict), Verdict(word) if word else ""))
        return
    why = now.why_not_selected(test)
    if why:
        found.not_compared.append(f"{test} ({why})")
        found.verdicts.append((test, Verdict(was), NOT_COMPARED, why))
        return
    found.verdicts.append((test, Verdict(was), "", Verdict(MISSING)))
    if not rules.allow_missing:
        found.worse.append(f"{test}: was {was}, has gone; it was not run in this session")


def compare_runs(
    found: Comparison, rules: Rules, name: str, before: ArchiveReader, now: ArchiveReader
) -> None:
    """Compare what one test, or a fixture for several tests, has recorded."""
    old, new = before.last_runs(name), now.last_runs(name)
    found.metrics += compare_metrics(name, old, new, before, now)
    if old and new:
        found.times += compare_times(name, old[0].manifest, new[0].manifest)
    found.artifacts += compare_artifacts(found, name, old, new, now)
    found.artifacts += compare_groups(name, old, new, before, now)
    rows = [row for row in (*found.metrics, *found.artifacts) if row[0] == name]
    for row in rows:
        word = plain(row[-1])
        if word == WORSE or (word == MISSING and not rules.allow_missing):
            found.worse.append(sentence(row))
        elif word == NOT_COMPARED:
            found.not_compared.append(f"{name}: {row[1]} (its test was not selected)")


def sentence(row: Row) -> str:
    """One sentence on a metric or artifact that is worse or has gone."""
    test, name, before, now, allowed, verdict = [plain(value) for value in row]
    if verdict == MISSING:
        return f"{test}: {name} was {before}, is not recorded: missing"
    return f"{test}: {name} was {before}, is {now} (tolerance {allowed}): {verdict}"


def by_name(runs: Sequence[Run], section: str) -> dict[str, list[Entry]]:
    """The entries of a section by their names, over the workers."""
    found: dict[str, list[Entry]] = {}
    for run in runs:
        for entry in run.manifest[section]:
            found.setdefault(entry["name"], []).append(entry)
    return found


def measured(runs: Sequence[Run]) -> dict[str, list[Entry]]:
    """Metrics by name; of a series its last value."""
    found = by_name(runs, "metrics")
    for name, entries in by_name(runs, "series").items():
        found[name] = [entry | {"value": entry["values"][-1]} for entry in entries]
    return found


def gone(test: str, owner: str, before: ArchiveReader, now: ArchiveReader) -> str:
    """The verdict on an entry that has gone: "not compared" if its test was not selected."""
    maker = before.new_id(owner) or test
    return NOT_COMPARED if maker in before.tests and now.why_not_selected(maker) else MISSING


def compare_metrics(
    test: str, old: Sequence[Run], new: Sequence[Run], before: ArchiveReader, now: ArchiveReader
) -> list[Row]:
    """(test, metric, before, now, tolerance, verdict) for every metric of either run."""
    rows: list[Row] = []
    was, found = measured(old), measured(new)
    for name in was | found:
        first = was[name][0] if name in was else None
        tolerance = stated(stated_tolerance(first, found.get(name, [None])[0]))
        if name not in found:
            verdict = gone(test, was[name][0]["test"], before, now)
            rows.append((test, name, was[name][0]["value"], "", tolerance, Verdict(verdict)))
            continue
        judged = [(judge(first, entry), entry["value"]) for entry in found[name]]
        verdict, value = next((one for one in judged if one[0] == WORSE), judged[0])
        rows.append(
            (test, name, first["value"] if first else "", value, tolerance, Verdict(verdict))
        )
    return rows


def stated_tolerance(before: Entry | None, now: Entry | None) -> float | None:
    """The tolerance of the reference, else of the new run."""
    given = [side["tolerance"] for side in (before, now) if side]
    return next((one for one in given if one is not None), None)


def judge(before: Entry | None, now: Entry) -> str:
    """One of "same", "better", "changed", "worse", "new"; NaN is worse than any number."""
    if before is None:
        return "new"
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
            return WORSE
    return "better" if loss < 0 and stating["better"] in ("higher", "lower") else "changed"


def compare_times(test: str, old: Entry, new: Entry) -> list[Row]:
    """(test, command, quantity, before, now, ratio) for the commands of both runs, in order."""
    rows: list[Row] = []
    for number, (before, now) in enumerate(zip(old["commands"], new["commands"], strict=False), 1):
        for label, key, unit in QUANTITIES:
            ratio: Cell = round(now[key] / before[key], 2) if before[key] else ""
            values = round(before[key] / unit, 3), round(now[key] / unit, 3)
            rows.append((test, f"{number}", label, *values, ratio))
    return rows


def compare_groups(
    test: str, old: Sequence[Run], new: Sequence[Run], before: ArchiveReader, now: ArchiveReader
) -> list[Row]:
    """A row for each group of assertions that was there and is not, in the form of an artifact."""
    names = {entry["name"] for run in new for entry in run.manifest["groups"]}
    lost = [entry for run in old for entry in run.manifest["groups"] if entry["name"] not in names]
    return [
        (test, f"assertions {entry['name']!r}", entry["verdict"], "", "",
         Verdict(gone(test, entry["test"], before, now)))
        for entry in lost
    ]  # fmt: skip


def compare_artifacts(
    found: Comparison, test: str, old: Sequence[Run], new: Sequence[Run], now: ArchiveReader
) -> list[Row]:
    """(test, artifact, bytes before and now, tolerance, verdict) for every artifact of either."""
    rows: list[Row] = []
    was, have = artifacts(old), artifacts(new)
    for name in was | have:
        if name not in have:
            size = was[name][1]["bytes"]
            skipped = not new and not was_selected(test, old, now)
            verdict = NOT_COMPARED if skipped else MISSING
            rows.append((test, name, f"{size} bytes", "", "", Verdict(verdict)))
            continue
        size = have[name][1]["bytes"]
        if name not in was:
            rows.append((test, name, "", f"{size} bytes", "", Verdict("added")))
            continue
        change, distance = compare_artifact(found, name, was[name], have[name])
        before, after = f"{was[name][1]['bytes']} bytes", f"{size} bytes{distance}"
        tolerance = stated_tolerance(was[name][1], have[name][1])
        rows.append((test, name, before, after, stated(tolerance), Verdict(change)))
    return rows


def was_selected(test: str, old: Sequence[Run], now: ArchiveReader) -> bool:
    """Whether this session was asked for a test, or for one that looks at a shared run."""
    users = {run.manifest["requested_by"] for run in old}
    for run in old:
        users |= {
            one["test"] for name in ("metrics", "series", "groups") for one in run.manifest[name]
        }
    shared = any(run.manifest["shared"] for run in old)
    return any(not now.why_not_selected(one) for one in ((users - {""}) if shared else {test}))


def artifacts(runs: Sequence[Run]) -> dict[str, tuple[Path, Entry]]:
    """Produced files by name, with the folder of their run."""
    return {
        entry["name"]: (run.folder, entry)
        for run in runs
        for entry in run.manifest["artifacts"]
        if entry["problem"] != "missing"
    }


def compare_artifact(
    found: Comparison, name: str, before: tuple[Path, Entry], now: tuple[Path, Entry]
) -> tuple[str, str]:
    """One of "same", "changed" and "worse", and by how much a picture differs, in words.

    Pictures that changed are added to the comparison.
    """
    if before[1]["sha256"] == now[1]["sha256"]:
        return "same", ""
    tolerance = stated_tolerance(before[1], now[1])
    old, new = (picture_bytes(*side) for side in (before, now))
    if not old or not new:
        return (WORSE if tolerance is not None else "changed"), ""
    difference = compare_png(old, new)
    verdict = judge_difference(difference, tolerance)
    found.pictures.append(show_change(name, (old, new), difference, tolerance, verdict))
    return verdict, "" if difference.rms is None else f", rms difference {difference.rms:.3g}"


def picture_bytes(folder: Path, entry: Entry) -> bytes:
    """The content of a kept PNG; empty for another file or one that was not kept."""
    data = (read_kept(folder, entry["kept"]) or b"") if entry["kept"] else b""
    return data if data.startswith(PNG_SIGNATURE) else b""


def judge_difference(difference: Difference, tolerance: float | None) -> str:
    """Worse if the difference is larger than the tolerance, or cannot be taken."""
    if tolerance is None:
        return "changed"
    return "changed" if difference.rms is not None and difference.rms <= tolerance else WORSE


def show_change(
    name: str,
    pictures: tuple[bytes, bytes],
    difference: Difference,
    tolerance: float | None,
    verdict: str,
) -> PictureChange:
    """Before, now and the difference with their captions."""
    before, now = (
        Picture(data, alt=f"{name}, {when}", caption=f"{when}: {name}")
        for data, when in zip(pictures, ("before", "now"), strict=True)
    )
    if difference.rms is None:
        caption = f"{name}: {difference.problem}"
        return PictureChange(
            before, Picture(now.png, now.alt, f"{now.caption}; {caption}"), None, verdict
        )
    words = (
        f"difference, white where they agree: rms {difference.rms:.3g} of full scale, "
        f"tolerance {plain(stated(tolerance))}"
    )
    shown = Picture(difference.png, alt=f"{name}, difference", caption=f"{words}: {verdict}")
    return PictureChange(before, now, shown, verdict)


def read_renamed(path: Path | None) -> dict[str, str]:
    """A mapping of renamed tests: a JSON object of new ids by old ids.

    Raises:
        ValueError: If it is not one.
    """
    if path is None:
        return {}
    try:
        renamed = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"the file of renamed tests {path} cannot be read: {error}") from error
    if not is_text_mapping(renamed):
        raise ValueError(
            f'the file of renamed tests {path} must be a JSON object such as {{"old id": "new id"}}'
        )
    return renamed


def is_text_mapping(value: object) -> bool:
    """Whether a value is a dictionary of words by words."""
    return isinstance(value, dict) and all(
        isinstance(word, str) for pair in value.items() for word in pair
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print the comparison; 0 if nothing is worse or missing, 1 if it is, 2 for no archive."""
    parser = argparse.ArgumentParser(
        prog="python -m ptycho_torch.testing.compare", description=main.__doc__
    )
    parser.add_argument("reference", type=Path, help="archive to compare with")
    parser.add_argument("new", type=Path, help="archive to judge")
    parser.add_argument("--allow-missing", action="store_true", help="list what has gone only")
    parser.add_argument("--renamed", type=Path, help="JSON object of new ids of tests by old ids")
    options = parser.parse_args(argv)
    try:
        rules = Rules(options.reference, options.allow_missing, read_renamed(options.renamed))
        found = compare_archives(options.reference, options.new, rules)
        found.worse += [f"the new archive is not as it was written: {problem}"
                        for problem in find_problems(options.new)]  # fmt: skip
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(comparison_text(found))
    return 1 if found.worse else 0


if __name__ == "__main__":
    sys.exit(main())

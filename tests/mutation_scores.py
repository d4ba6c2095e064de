"""What `make mutation` found of each module: its record, `mutation_scores.json`, and the tables in
`docs/testing.md` that are made from it.

A sweep replaces the rows of the modules that it swept, and no others, so that a table never mixes
two sweeps of one module.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from equivalent_mutants import EQUIVALENT, EQUIVALENT_KINDS

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "testing.md"
RECORD = ROOT / "tests" / "mutation_scores.json"
BEGIN, END = "<!-- mutation scores -->\n", "<!-- end of mutation scores -->\n"


@dataclass(frozen=True)
class Survivor:
    """A mutant that no test noticed.

    Attributes:
        function: That holds it.
        wrong: The changed lines, joined.
    """

    function: str
    wrong: str


@dataclass(frozen=True)
class Score:
    """What became of the mutants of a module.

    Attributes:
        module: File in the package.
        made: How many mutants there are.
        tried: How many of them were tried.
        seed: Of the sample.
        by_the_clock: How many were noticed only since their tests did not end; None where that was
            not counted.
        minutes: Of the sweep, its share by the number of mutants.
        survivors: Those that no test noticed.
    """

    module: str
    made: int
    tried: int
    seed: int
    by_the_clock: int | None
    minutes: float
    survivors: list[Survivor] = field(default_factory=list)

    def reason(self, survivor: Survivor) -> str | None:
        """Why a mutant is equivalent to the package; None if it is not known to be."""
        for kind, reason in EQUIVALENT_KINDS:
            if re.search(kind, survivor.wrong):
                return reason
        return EQUIVALENT.get((self.module, survivor.function, survivor.wrong))

    @property
    def unnoticed(self) -> list[Survivor]:
        """The survivors that are not known to be equivalent."""
        return [survivor for survivor in self.survivors if not self.reason(survivor)]

    @property
    def counted(self) -> int:
        """How many were tried that are not known to be equivalent."""
        return self.tried - len(self.survivors) + len(self.unnoticed)

    @property
    def noticed(self) -> int:
        return self.tried - len(self.survivors)


def recorded() -> dict[str, dict[str, Score]]:
    """The scores by room and module, of modules that are still there."""
    rooms = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    return {
        room: {
            row["module"]: Score(**{**row, "survivors": [Survivor(*s) for s in row["survivors"]]})
            for row in rows
            if (ROOT / "ptycho_torch" / row["module"]).exists()
        }
        for room, rows in rooms.items()
    }


def record(room: str, scores: Iterable[Score]) -> list[Score]:
    """Replace the scores of some modules of a room; those of the room as they are now."""
    rooms = recorded()
    rows = {**rooms.get(room, {}), **{score.module: score for score in scores}}
    rooms[room] = {name: rows[name] for name in sorted(rows)}
    plain = {
        name: [
            {**asdict(score), "survivors": [[s.function, s.wrong] for s in score.survivors]}
            for score in room_scores.values()
        ]
        for name, room_scores in sorted(rooms.items())
    }
    RECORD.write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n")
    return list(rooms[room].values())


def document() -> str:
    """The document with the tables of the record between the marks."""
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    tables = "".join(_table(room, list(scores.values())) for room, scores in recorded().items())
    return f"{before}{BEGIN}\n{tables}{END}{rest.partition(END)[2]}"


def _table(room: str, scores: list[Score]) -> str:
    """The scores of a room, its equivalent mutants, and those that should have been noticed."""
    lines = [
        f"### `{room}`",
        "",
        f"Swept in {sum(score.minutes for score in scores):.0f} min.",
        "",
        "| module | mutants | tried | seed | equivalent | noticed | by the clock | of the others |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_row(f"`{score.module}`", str(score.seed), [score]) for score in scores),
        _row("**all**", "", scores),
    ]
    known = sorted(
        {
            (score.module, survivor.wrong, reason)
            for score in scores
            for survivor in score.survivors
            if (reason := score.reason(survivor))
        }
    )
    if known:
        lines += ["", "| equivalent | in | why |", "| --- | --- | --- |"]
        lines += [
            f"| `{wrong.replace('|', chr(92) + '|')}` | `{module}` | {reason} |"
            for module, wrong, reason in known
        ]
    unnoticed = [(score.module, survivor) for score in scores for survivor in score.unnoticed]
    if unnoticed:
        lines += ["", "Not noticed, and not known to be equivalent:", ""]
        lines += [f"- `{module}`, `{one.function}`: `{one.wrong}`" for module, one in unnoticed]
    return "\n".join(lines) + "\n\n"


def _row(name: str, seed: str, scores: list[Score]) -> str:
    """A line of the table: the sums over some modules."""
    made, tried, noticed, counted = (
        sum(getattr(score, what) for score in scores)
        for what in ("made", "tried", "noticed", "counted")
    )
    by_the_clock = [score.by_the_clock for score in scores if score.by_the_clock is not None]
    clock = sum(by_the_clock) if len(by_the_clock) == len(scores) else "-"
    share = f"{100 * noticed / counted:.0f} %" if counted else "-"
    return (
        f"| {name} | {made} | {tried} | {seed} | {tried - counted} | {noticed} | {clock} "
        f"| {share} |"
    )


if __name__ == "__main__":
    DOCUMENT.write_text(document())

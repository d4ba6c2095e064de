"""Change the package in every small way that mutmut knows, and see that the tests of the room
notice: `make mutation`.

Mutmut imports torch once and forks a process for each mutant. It runs only the tests that call
the mutated function. Several thousand mutants take many hours, so that a seeded sample of each
module is the default; `--all` takes every one. Writes the scores of the rooms that were swept to
`docs/testing.md`, and ends with status 1 if a room notices less than nine tenths.
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from equivalent_mutants import EQUIVALENT
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.mutation.file_mutation import mutate_file_contents
from mutmut.stats import status_by_exit_code
from mutmut.utils.format_utils import get_mutant_name, orig_function_and_class_names_from_key

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "testing.md"
WORK = ROOT / "build" / "mutation"
BEGIN, END = "<!-- mutation scores -->\n", "<!-- end of mutation scores -->\n"
SEED = 0
ENOUGH = 0.9  # of the mutants of a room that change something
UNNOTICED = ("survived", "no tests")
PATIENCE = (
    40.0  # times the duration of its tests, until a mutant counts as endless; on a busy machine
)

# The tests of a room, without those that take more than four seconds of a processor each: a mutant
# that no fast test notices counts as a survivor.
ROOMS = {
    "physics": ("tests/physics",),
    "data": ("tests/data",),
    "refinement": (
        "tests/refinement",
        "--deselect=tests/refinement/test_probe_retrieval.py::"
        "test_training_keeps_what_it_found_for_inference",
        "--deselect=tests/refinement/test_probe_retrieval.py::"
        "test_a_coherent_beam_stays_one_mode_and_a_mixed_one_gets_more",
        "--deselect=tests/refinement/test_refinement.py::"
        "test_inference_with_refinement_keeps_patterns_out_and_reports",
    ),
    "evaluation/metrics": ("tests/evaluation/metrics",),
    "io/readers": (
        "tests/io/readers",
        "tests/io/writers",
        "--ignore=tests/io/readers/test_clients.py",
    ),
    "io/writers": (
        "tests/io/writers",
        "tests/io/test_near_field_formats.py",
        "tests/io/test_radiation.py",
    ),
}

# The words of a message are no law; tests match those that name what to do next.
MESSAGES = (
    r"raise \w+\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)",
    r"(?:logger\.\w+|log_omitted|decisions\.append)\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)",
)


@dataclass(frozen=True)
class Survivor:
    """A mutant that no test noticed.

    Attributes:
        module: File in the package.
        function: That holds it.
        wrong: The changed lines, joined.
        diff: As mutmut shows it.
    """

    module: str
    function: str
    wrong: str
    diff: str

    @property
    def reason(self) -> str | None:
        """Why the mutant is equivalent to the package; None if it is not known to be."""
        return EQUIVALENT.get((self.module, self.function, self.wrong))


@dataclass
class Score:
    """What became of the mutants of a module; `endless` ones were noticed by the clock."""

    module: str
    made: int
    tried: int
    endless: int
    survivors: list[Survivor]

    @property
    def equivalent(self) -> int:
        return sum(survivor.reason is not None for survivor in self.survivors)

    @property
    def noticed(self) -> int:
        return self.tried - len(self.survivors)


def main() -> int:
    """Sweep rooms, and write their scores."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help=f"of {', '.join(ROOMS)}; all")
    parser.add_argument("--sample", type=int, default=25, help="mutants of a module (%(default)s)")
    parser.add_argument("--all", action="store_true", help="every mutant, not a sample")
    parser.add_argument("--module", help="only modules whose name holds this; writes no scores")
    options = parser.parse_args()
    if unknown := set(options.rooms) - set(ROOMS):
        parser.error(f"no room {', '.join(sorted(unknown))}; there are {', '.join(ROOMS)}")
    good = True
    for room in options.rooms or ROOMS:
        started = time.monotonic()
        sample = None if options.all else options.sample
        scores = sweep(room, sample, options.module or "")
        minutes = (time.monotonic() - started) / 60
        for survivor in (one for score in scores for one in score.survivors if not one.reason):
            print(f"\nnot noticed in {survivor.module}, {survivor.function}:\n{survivor.diff}")
        tried = sum(score.tried - score.equivalent for score in scores)
        noticed = sum(score.noticed for score in scores)
        print(f"{room}: {noticed} of {tried} noticed, in {minutes:.0f} min", flush=True)
        good &= noticed >= ENOUGH * tried
        if not options.module:
            write_scores(room, scores, minutes, sample)
    return 0 if good else 1


def sweep(room: str, sample: int | None, part: str) -> list[Score]:
    """Try the mutants of a room in a copy of the repository."""
    copy = WORK / room.replace("/", "_")
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(parents=True)
    for name in ("ptycho_torch", "tests", "docs", "specs", "benchmarks"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("conftest.py", "README.md", "Makefile", "constraints.txt"):
        shutil.copy(ROOT / name, copy / name)
    settings = (ROOT / "pyproject.toml").read_text() + mutmut_settings(room)
    (copy / "pyproject.toml").write_text(settings)
    os.chdir(copy)  # mutmut takes its settings from there
    modules = [
        path
        for path in sorted(Path("ptycho_torch", room).rglob("*.py"))
        if part in path.name and path.name != "__init__.py"
    ]
    names = {
        path: [
            get_mutant_name(path, name)
            for name in mutate_file_contents(str(path), path.read_text()).mutant_names
        ]
        for path in modules
    }
    chosen = {path: draw(path, made, sample) for path, made in names.items()}
    command = [Path(sys.executable).with_name("mutmut"), "run", "--max-children", "1"]
    with open("sweep.log", "w") as log:
        status = subprocess.run(
            [*command, *(name for drawn in chosen.values() for name in drawn)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
            stdout=log,
            stderr=log,
        ).returncode
    if status != 0:
        raise SystemExit(f"mutmut ended with {status}; see {copy / 'sweep.log'}")
    return [
        Score(str(path.relative_to("ptycho_torch")), len(names[path]), len(drawn),
              endless(path, drawn), list(survivors(path, drawn)))
        for path, drawn in chosen.items()
        if drawn
    ]  # fmt: skip


def mutmut_settings(room: str) -> str:
    """The table of mutmut in the copy's ``pyproject.toml``."""
    settings = {
        "source_paths": ["ptycho_torch"],
        "only_mutate": [f"ptycho_torch/{room}/*"],
        "also_copy": ["conftest.py", "README.md", "Makefile", "constraints.txt", "docs", "specs",
                      "benchmarks"],
        "do_not_mutate_patterns": list(MESSAGES),
        "pytest_add_cli_args": ["-p", "no:cacheprovider", "-p", "no:xdist"],
        "pytest_add_cli_args_test_selection": list(ROOMS[room]),
        "process_isolation": "forkserver",  # torch is not safe to fork after it has computed
        "timeout_multiplier": PATIENCE,
        "track_dependencies": False,
        "use_git_change_detection": False,
    }  # fmt: skip
    lines = (f"{key} = {json.dumps(value)}" for key, value in settings.items())
    return "\n\n[tool.mutmut]\n" + "\n".join(lines) + "\n"


def draw(path: Path, names: list[str], sample: int | None) -> list[str]:
    """The mutants to try: all, or as many as wanted, the same in every sweep."""
    if sample is None or sample >= len(names):
        return names
    return sorted(random.Random(f"{SEED} {path}").sample(names, sample))


def endless(path: Path, names: list[str]) -> int:
    """How many mutants of a module were noticed by the clock alone."""
    data = SourceFileMutationData(path=path)
    data.load()
    return sum(status_by_exit_code[data.exit_code_by_key[name]] == "timeout" for name in names)


def survivors(path: Path, names: list[str]) -> Iterator[Survivor]:
    """The mutants of a module that no test noticed."""
    data = SourceFileMutationData(path=path)
    data.load()
    for name in names:
        status = status_by_exit_code[data.exit_code_by_key[name]]
        if status in ("not checked", "suspicious", "check was interrupted by user"):
            raise SystemExit(f"{name} was not tried to the end: {status}")
        if status not in UNNOTICED:
            continue
        diff = get_diff_for_mutant(name, path=path)
        changed = [line[1:].strip() for line in diff.splitlines()[3:] if line.startswith("+")]
        function, owner = orig_function_and_class_names_from_key(name)
        yield Survivor(
            str(path.relative_to("ptycho_torch")),
            f"{owner}.{function}" if owner else function,
            " ".join(changed),
            diff,
        )


def write_scores(room: str, scores: list[Score], minutes: float, sample: int | None) -> None:
    """Replace the rows of a room in the document; those of other rooms stay."""
    text = DOCUMENT.read_text()
    if BEGIN not in text or END not in text:
        raise SystemExit(f"{DOCUMENT} has no place for the scores")
    before, _, rest = text.partition(BEGIN)
    old, _, after = rest.partition(END)
    sections = {one.split("\n", 1)[0]: one for one in re.split(r"^### ", old, flags=re.M)[1:]}
    chosen = "every mutant" if sample is None else f"at most {sample} of a module, seed {SEED}"
    lines = [
        f"`{room}`",
        "",
        f"Swept in {minutes:.0f} min with `{' '.join(map(short, ROOMS[room]))}`: {chosen}.",
        "",
        "| module | mutants | tried | equivalent | noticed | by the clock | of the others |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    sums = (sum(getattr(one, name) for one in scores) for name in ("made", "tried", "endless"))
    total = Score("all", *sums, [survivor for one in scores for survivor in one.survivors])
    for one in (*scores, total):
        rest_of = one.tried - one.equivalent
        share = f"{100 * one.noticed / rest_of:.0f} %" if rest_of else "-"
        name = "**all**" if one is total else f"`{one.module}`"
        lines.append(
            f"| {name} | {one.made} | {one.tried} | {one.equivalent} | {one.noticed} "
            f"| {one.endless} | {share} |"
        )
    known = sorted({(one.module, one.wrong, one.reason) for one in total.survivors if one.reason})
    if known:
        lines += ["", "| equivalent | in | why |", "| --- | --- | --- |"]
        lines += [
            f"| `{wrong.replace('|', chr(92) + '|')}` | `{module}` | {reason} |"
            for module, wrong, reason in known
        ]
    open_ones = [one for one in total.survivors if not one.reason]
    if open_ones:
        lines += ["", "Not noticed, and not known to be equivalent:", ""]
        lines += [f"- `{one.module}`, `{one.function}`: `{one.wrong}`" for one in open_ones]
    sections[f"`{room}`"] = "\n".join(lines) + "\n\n"
    ordered = [sections[f"`{name}`"] for name in ROOMS if f"`{name}`" in sections]
    text = "".join(f"### {section}" for section in ordered)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{text}{END}{after}")


def short(argument: str) -> str:
    """An argument of pytest, with the name of the test alone where it is left out."""
    option, _, node = argument.partition("=")
    return f"{option}=…{node.partition('::')[1]}{node.rpartition('::')[2]}" if node else option


if __name__ == "__main__":
    sys.exit(main())

"""Change the package in every small way that mutmut knows, and see that the tests of the room
notice: `make mutation`.

Mutmut imports torch once and forks a process for each mutant. It runs only the tests that call
the mutated function. Several thousand mutants take many hours, so that a seeded sample of each
module is the default; `--all` takes every one. Writes the scores of the modules that were swept to
`mutation_scores.json`, and the tables of all of them to `docs/testing.md`. Ends with status 1 if a
room notices less than nine tenths.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from mutation_scores import DOCUMENT, Score, Survivor, document, record
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.mutation.file_mutation import mutate_file_contents
from mutmut.stats import status_by_exit_code
from mutmut.utils.format_utils import get_mutant_name, orig_function_and_class_names_from_key

ROOT = Path(__file__).parent.parent
WORK = ROOT / "build" / "mutation"
ENOUGH = 0.9  # of the mutants of a room that change something
UNNOTICED = ("survived", "no tests")
NOT_RUN = 255  # exit code where pytest does not start, which mutmut takes for an endless mutant
# A mutant counts as endless after six times the duration of its tests and two minutes: a busy
# machine makes tests slower by a factor of four, and short ones by more.
PATIENCE = {"timeout_multiplier": 6.0, "timeout_constant": 20.0}

# The tests of a room, without those that take more than four seconds of a processor each: a mutant
# that no fast test notices counts as a survivor.
ROOMS = {
    "physics": ("tests/physics",),
    "data": ("tests/data", "tests/evaluation/test_notebook.py"),
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

# Functions that run on a GPU alone, where `tests/refinement/test_device.py` compares them with the
# CPU; their mutants are not drawn.
ON_A_GPU = ("replay_steps", "_stream_and_keeper", "_RecordedStep")

# The words of a message are no law; tests match those that name what to do next.
MESSAGES = (
    r"^\s*raise \w+\(",
    r"^\s*(?:logger\.\w+|log_omitted|decisions\.append|bar\.update)\(",
    r"bar\.add_task\(",
)


def main() -> int:
    """Sweep rooms, and write their scores."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help=f"of {', '.join(ROOMS)}; all")
    parser.add_argument("--sample", type=int, default=25, help="mutants of a module (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (%(default)s)")
    parser.add_argument("--all", action="store_true", help="every mutant, not a sample")
    parser.add_argument("--modules", nargs="+", metavar="FILE.py", help="of the rooms; all")
    options = parser.parse_args()
    if unknown := set(options.rooms) - set(ROOMS):
        parser.error(f"no room {', '.join(sorted(unknown))}; there are {', '.join(ROOMS)}")
    good = True
    found = {room: modules_of(room) for room in options.rooms or ROOMS}
    names = {path.name for modules in found.values() for path in modules}
    if unknown := set(options.modules or ()) - names:
        parser.error(f"no module {', '.join(sorted(unknown))} in {', '.join(found)}")
    for room, modules in found.items():
        if options.modules is not None:
            modules = [path for path in modules if path.name in options.modules]
        if not modules:
            continue
        sample = None if options.all else options.sample
        scores = record(room, sweep(room, modules, sample, options.seed))
        DOCUMENT.write_text(document())
        counted = sum(score.counted for score in scores)
        noticed = sum(score.noticed for score in scores)
        print(f"{room}: {noticed} of {counted} noticed", flush=True)
        good &= noticed >= ENOUGH * counted
    return 0 if good else 1


def modules_of(room: str) -> list[Path]:
    """Of which mutants are made."""
    paths = sorted((ROOT / "ptycho_torch" / room).rglob("*.py"))
    return [path for path in paths if path.name != "__init__.py"]


def sweep(room: str, modules: list[Path], sample: int | None, seed: int) -> list[Score]:
    """Try mutants of some modules of a room in a copy of the repository."""
    started = time.monotonic()
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
    names = {
        path: [
            get_mutant_name(path, name)
            for name in mutate_file_contents(str(path), path.read_text()).mutant_names
            if not set(ON_A_GPU).intersection(orig_function_and_class_names_from_key(name))
        ]
        for path in (module.relative_to(ROOT) for module in modules)
    }
    chosen = {path: draw(path, made, sample, seed) for path, made in names.items()}
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
    minutes = (time.monotonic() - started) / 60 / sum(map(len, chosen.values()))
    return [
        judged(path, len(names[path]), drawn, seed, minutes)
        for path, drawn in chosen.items()
        if drawn
    ]


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
        **PATIENCE,
        "track_dependencies": False,
        "use_git_change_detection": False,
    }  # fmt: skip
    lines = (f"{key} = {json.dumps(value)}" for key, value in settings.items())
    return "\n\n[tool.mutmut]\n" + "\n".join(lines) + "\n"


def draw(path: Path, names: list[str], sample: int | None, seed: int) -> list[str]:
    """The mutants to try: all, or as many as wanted, the same in every sweep with a seed."""
    if sample is None or sample >= len(names):
        return names
    return sorted(random.Random(f"{seed} {path}").sample(names, sample))


def judged(path: Path, made: int, names: list[str], seed: int, minutes: float) -> Score:
    """What became of the mutants of a module that were tried, each in so many minutes."""
    data = SourceFileMutationData(path=path)
    data.load()
    codes = [data.exit_code_by_key[name] for name in names]
    if (lost := codes.count(NOT_RUN)) > 0:
        raise SystemExit(f"{path}: {lost} mutants were not tried: pytest finds no test by its id")
    statuses = [status_by_exit_code[code] for code in codes]
    for name, status in zip(names, statuses, strict=True):
        if status in ("not checked", "suspicious", "check was interrupted by user"):
            raise SystemExit(f"{name} was not tried to the end: {status}")
    return Score(
        str(path.relative_to("ptycho_torch")),
        made,
        len(names),
        seed,
        by_the_clock=statuses.count("timeout"),
        minutes=round(minutes * len(names), 2),
        survivors=[
            survivor(path, name)
            for name, status in zip(names, statuses, strict=True)
            if status in UNNOTICED
        ],
    )


def survivor(path: Path, name: str) -> Survivor:
    """A mutant that no test noticed; prints how it differs from the package."""
    diff = get_diff_for_mutant(name, path=path)
    lines = diff.splitlines()[3:]
    changed = [line[1:].strip() for line in lines if line.startswith("+")]
    if not changed:
        changed = ["without", *(line[1:].strip() for line in lines if line.startswith("-"))]
    function, owner = orig_function_and_class_names_from_key(name)
    print(f"\nnot noticed in {path}:\n{diff}", flush=True)
    return Survivor(f"{owner}.{function}" if owner else function, " ".join(changed))


if __name__ == "__main__":
    sys.exit(main())

"""Run the public commands on hostile inputs, and print a table of what became of them:
`make damaged`.

Ends with status 1 if one of them does more than refuse with a sentence or read what is sound.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from hostile_cases import Case, Material, make_material
from hostile_files import other_cases
from hostile_hdf5 import hdf5_cases
from limited_command import contents, fault, run_limited

# Imported before the fork, so that no command has to.
import ptycho_torch.cli.compare_images
import ptycho_torch.cli.convert
import ptycho_torch.cli.rebuild_page
import ptycho_torch.cli.simulate
import ptycho_torch.doctor
import ptycho_torch.inference.workflow
import ptycho_torch.train.fit  # noqa: F401


class Outcome(NamedTuple):
    """What became of a case: its last exit status, the fault or nothing, and the last line."""

    case: Case
    status: int | None
    fault: str
    seconds: float
    sentence: str


def chosen(cases: Sequence[Case], inputs: int, seed: int, skip: int = 0) -> list[Case]:
    """As many of the cases by a seed, of each kind equally many while there are.

    Args:
        cases: All of them.
        inputs: Number of cases.
        seed: Of their order.
        skip: Number of cases at the start of this order that are left out.
    """
    kinds: dict[str, list[Case]] = {}
    for case in cases:
        kinds.setdefault(case.kind, []).append(case)
    for members in kinds.values():
        random.Random(seed).shuffle(members)
    turns = max(len(members) for members in kinds.values())
    in_turn = [one[at] for at in range(turns) for one in kinds.values() if at < len(one)]
    return in_turn[skip : skip + inputs]


def try_case(case: Case) -> Outcome:
    """Make the input in a folder of its own, run its commands, and look at what is left."""
    room = Path(tempfile.mkdtemp(prefix="damaged"))
    try:
        for name in ("in", "user", "out", "tmp", "cwd"):
            (room / name).mkdir()
        (room / "user" / "notes.txt").write_text("of the user\n")
        return _try_in(room, case)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _try_in(room: Path, case: Case) -> Outcome:
    commands = case.make(room)
    own = [room / name for name in ("in", "user", "cwd")]
    before = [contents(folder) for folder in own]
    names = [str(room), *(path.name for folder in own for path in folder.rglob("*"))]
    status, wrong, seconds, sentence = 0, "", 0.0, ""
    for argv in commands:
        ending = run_limited(argv, room)
        status, seconds = ending.status, max(seconds, ending.seconds)
        sentence = (ending.said.splitlines() or [""])[-1].replace(str(room), "")
        wrong = fault(argv, ending, names)
        after = [contents(folder) for folder in own]
        if not wrong and after != before:
            wrong = f"files of the user changed: {changed(before, after)}"
        if not wrong and status and (left := list(room.glob("out/**/.*.part"))):
            wrong = f"half a file is left: {left[0].name}"
        for name in ("said", "events"):
            (room / "tmp" / name).unlink()
        if wrong or status != 0:
            wrong = wrong and f"{argv[0]}: {wrong}".replace(str(room), "")
            break
    return Outcome(case, status, wrong, seconds, sentence)


def changed(before: Sequence[dict[str, str]], after: Sequence[dict[str, str]]) -> str:
    """The names of the files that are not as they were."""
    items = [set(one.items()) ^ set(two.items()) for one, two in zip(before, after, strict=True)]
    return ", ".join(sorted({Path(path).name for part in items for path, _ in part}))


def all_outcomes(cases: Sequence[Case], processes: int) -> Iterator[Outcome]:
    """Of all cases. The processes share the cases by their numbers: functions cannot be sent."""
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()

    def work(first: int) -> None:
        for number in range(first, len(cases), processes):
            try:
                _, *rest = try_case(cases[number])
            except Exception as error:  # noqa: BLE001  # a case that cannot be made is a fault
                rest = [None, f"not made: {error!r}", 0.0, ""]
            results.put((number, *rest))

    workers = [context.Process(target=work, args=(first,)) for first in range(processes)]
    for worker in workers:
        worker.start()
    for _ in cases:
        number, *rest = results.get()
        yield Outcome(cases[number], *rest)
    for worker in workers:
        worker.join()


def table(outcomes: Sequence[Outcome]) -> str:
    """Kind, number of inputs, and how many of them ended in which way."""
    lines = ["| kind | tried | status 0 | status 2 | faults |", "| --- | --- | --- | --- | --- |"]
    kinds = {one.case.kind: 0 for one in outcomes}
    for kind in (*sorted(kinds), "all"):
        part = [one for one in outcomes if kind in (one.case.kind, "all")]
        faults = sum(bool(one.fault) for one in part)
        read = sum(not one.fault and one.status == 0 for one in part)
        lines.append(f"| {kind} | {len(part)} | {read} | {len(part) - read - faults} | {faults} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the commands on hostile inputs, and print the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--inputs", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip", type=int, default=0, help="cases of this seed that were tried")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", default="", help="cases whose label contains this text")
    parser.add_argument("--show", action="store_true", help="the last line of each command")
    options = parser.parse_args(argv)
    # A child that is forked beside threads of OpenMP waits for them without end.
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="material"))
    outcomes = []
    try:
        material: Material = make_material(folder)
        every = [*hdf5_cases(material), *other_cases(material)]
        wanted = [one for one in every if options.only in label(one)]
        cases = chosen(wanted, options.inputs, options.seed, options.skip)
        print(f"{len(cases)} of {len(every)} cases; made in {time.monotonic() - started:.0f} s")
        for one in all_outcomes(cases, options.processes):
            outcomes.append(one)
            if one.fault:
                print(f"FAULT {label(one.case)}\n    {one.fault}", flush=True)
            elif options.show:
                print(f"{one.status} {one.seconds:.1f}s {label(one.case)}\n    {one.sentence}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(table(outcomes))
    print(f"{time.monotonic() - started:.0f} s")
    return int(any(one.fault for one in outcomes))


def label(case: Case) -> str:
    """Source, kind and name of a case."""
    return f"{case.source} | {case.kind} | {case.name}"


if __name__ == "__main__":
    sys.exit(main())

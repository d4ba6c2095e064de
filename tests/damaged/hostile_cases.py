"""What a hostile input is: a kind of damage, the files, and the commands that read them."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from beamline_files import as_measured
from limited_command import run_limited

from ptycho_torch.data.simulation import simulate_scan

Commands = list[list[str]]  # each the words of a command line


@dataclass(frozen=True)
class Case:
    """A hostile input.

    Attributes:
        source: What was damaged, such as "CXI".
        kind: Of the damage, such as "wrong type"; a row of the table.
        name: Of the case, unique among those of a source.
        make: Writes the files into the folder ``in`` of a room, and gives the commands to run one
            after another, until one of them refuses.
    """

    source: str
    kind: str
    name: str
    make: Callable[[Path], Commands]


@dataclass(frozen=True)
class Material:
    """Sound files that the cases are made from.

    Attributes:
        folder: That holds them.
        measured: A simulated scan as a beamline knows it.
        scan: The same in an NPZ file.
        truth: Its object.
        probe: Its probe, NPY.
        run: Folder of a training on it.
        image: Folder of an inference.
    """

    folder: Path
    measured: SimpleNamespace
    scan: Path
    truth: Path
    probe: Path
    run: Path
    image: Path


def make_material(folder: Path) -> Material:
    """Write the sound files.

    Raises:
        RuntimeError: If a command fails on them.
    """
    out = folder / "out"
    simulated, run, image = out / "simulated", out / "run", out / "image"
    scan = simulated / "scan.npz"
    for words in (
        f"simulate --n_side 5 --pattern_size 32 --step_px 3 --photons 1e5 --output_dir {simulated}",
        f"train --train_data_file {scan} --output_dir {run} --max_epochs 1 --refine_measurement",
        f"infer --model_path {run} --test_data {scan} --output_dir {image} --metrics",
    ):
        ending = run_limited([*words.split(), "--quiet"], folder)
        if ending.status != 0:
            raise RuntimeError(f"{words}: {ending.status}: {ending.said}")
    made = simulate_scan(photons=1e5, n_side=5, step_px=3.0, pattern_size=32, seed=0)
    probe = out / "probe.npy"
    np.save(probe, made.scan.probe)
    return Material(
        folder=out,
        measured=as_measured(made),
        scan=scan,
        truth=simulated / "truth.npz",
        probe=probe,
        run=run,
        image=image,
    )


def reading(
    room: Path, material: Material, words: Sequence[str], *, number: int = 0, probe: bool = True
) -> Commands:
    """The commands that read a scan: all of them for some cases, the quick one for each.

    Args:
        room: Of the case.
        material: Holds the network for an inference.
        words: The scan, and the flags that it needs.
        number: Of the case; every 24th is examined, and every 120th trained on.
        probe: Whether the probe of the material is given, as the file has none.
    """
    scan, *flags = words
    if probe:
        flags += ["--probe", str(material.probe)]
    quiet, out = ["--quiet", "--accelerator", "cpu"], room / "out"
    commands = [["convert", scan, str(out / "scan.npz"), "--format", "npz", "--quiet", *flags]]
    if number % 24 == 0:
        commands.append(["doctor", scan, *flags])
    if number % 120 == 0:
        train = ["--train_data_file", scan, "--output_dir", str(out / "run"), "--max_epochs", "1"]
        commands.append(["train", *train, *quiet, *flags])
        infer = ["--model_path", str(material.run), "--test_data", scan]
        commands.append(["infer", *infer, "--output_dir", str(out / "image"), *quiet, *flags])
    return commands


def bytes_damaged(data: bytes, seed: int) -> bytes:
    """Bytes with a few bits turned; for even seeds near the start, where a file has its head."""
    rng = np.random.default_rng(seed)
    changed = bytearray(data)
    reach = len(data) if seed % 2 else min(len(data), 4096)
    for at in rng.integers(reach, size=1 + seed % 12):
        changed[at] ^= 1 << int(rng.integers(8))
    return bytes(changed)


PARTS = (0.0, 0.01, 0.1, 0.5, 0.9, 0.999)  # of a file, after which it is cut off


def of_bytes(
    source: str,
    file: Path,
    commands: Callable[[Path, Path, int], Commands],
    *,
    flips: int = 12,
    waits: bool = False,
) -> Iterator[Case]:
    """A sound file cut off, with other bytes, and things that are no such file under its name.

    Args:
        source: Of the cases.
        file: The sound file.
        commands: That read a file: of the room, the file, and the number of the case.
        flips: Number of files with other bytes.
        waits: Whether a pipe is no fault, as a shell makes one of ``--config <(...)``.
    """
    data = file.read_bytes()

    def written(content: bytes, number: int) -> Callable[[Path], Commands]:
        def make(room: Path) -> Commands:
            path = room / "in" / file.name
            path.write_bytes(content)
            return commands(room, path, number)

        return make

    for number, part in enumerate(PARTS):
        kind = "empty" if part == 0 else "cut off"
        yield Case(source, kind, f"{part:g} of it", written(data[: int(part * len(data))], number))
    for seed in range(flips):
        yield Case(source, "other bytes", f"seed {seed}", written(bytes_damaged(data, seed), seed))
    for name, put in NO_FILES.items():
        if waits and name == "pipe":
            continue

        def make(room: Path, put: Callable[[Path], None] = put) -> Commands:
            path = room / "in" / file.name
            put(path)
            return commands(room, path, 1)

        yield Case(source, "no file", name, make)


def _loop(path: Path) -> None:
    other = path.with_name("other")
    path.symlink_to(other)
    other.symlink_to(path)


def _sparse(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(2**40)


NO_FILES: dict[str, Callable[[Path], None]] = {
    "folder": lambda path: path.mkdir(),
    "link in a circle": _loop,
    "link to nothing": lambda path: path.symlink_to("gone"),
    "pipe": lambda path: os.mkfifo(path),
    "zeros without end": lambda path: path.symlink_to("/dev/zero"),
    "a tebibyte of zeros": _sparse,
    "not there": lambda path: None,
    "below a file": lambda path: path.write_bytes(b"x"),
}

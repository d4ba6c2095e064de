"""A scan larger than memory: `python benchmarks/large_scan.py --output_dir DIR`.

Writes 200,704 patterns of 64 x 64 as a pair of Ptychodus files, trains and reconstructs with the
commands, refines in a process of its own, prints the peak memory of these processes, and compares
the speed of training steps, of inference and of an epoch of refinement with the speed for the same
patterns in memory. Ends with status 1 if the refined images are not the same, bit by bit. The
results are in `benchmarks/large_scan.md`.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from quality import network_alone
from speed import untrained_module
from tabulate import tabulate

from ptycho_torch.data.grouping import join_groups
from ptycho_torch.data.lazy_patterns import LazyPatterns
from ptycho_torch.data.probe import annular_probe
from ptycho_torch.data.scan import Scan
from ptycho_torch.data.simulation import (
    MARGIN_PX,
    XRAYS,
    expected_counts,
    random_object,
    raster_positions,
)
from ptycho_torch.generators import Generator
from ptycho_torch.generators.checkpoint import find_checkpoint, load_generator
from ptycho_torch.io.files import write_text
from ptycho_torch.io.readers import read_scan
from ptycho_torch.io.writers import write_scan
from ptycho_torch.refinement import RefineOptions, draw_held_out, refine
from ptycho_torch.refinement.loop import EpochSettings, run_epoch
from ptycho_torch.refinement.prepared_patterns import prepare
from ptycho_torch.refinement.probe_retrieval import empty_object
from ptycho_torch.refinement.step import State, working_set
from ptycho_torch.testing.process import CommandResult, run_command
from ptycho_torch.train.datamodule import GroupDataset, GroupSampler
from ptycho_torch.train.module import PtychoModule

N_SIDE = 448
STEP_PX = 5.0
PATTERN_SIZE = 64
PHOTONS = 1e5
PERIOD_PX = 512  # of the object, which repeats itself; a larger random one takes hours to draw
GROUP = 64
STEPS = 30  # training steps in each turn
TURNS = 5
PART = 8192  # patterns in the timing of inference
REFINED_PART = 40_000  # in that of refinement; more than are kept in memory
EPOCHS = 1 + 2  # of the refinement, the last two with the held-out patterns
LIMIT_S = 3600.0


class SimulatedPatterns(LazyPatterns):
    """Patterns that are simulated when they are read.

    The noise depends on the first index of a read, so only equal reads give equal counts.
    """

    def __init__(
        self,
        truth: NDArray[np.complex64],
        probe: NDArray[np.complex64],
        positions_px: NDArray[np.float64],
    ) -> None:
        self.truth, self.probe, self.positions_px = truth, probe, positions_px

    @property
    def shape(self) -> tuple[int, int, int]:
        """See `LazyPatterns`."""
        return len(self.positions_px), *self.probe.shape[-2:]

    @property
    def dtype(self) -> np.dtype:
        """See `LazyPatterns`."""
        return np.dtype(np.uint16)

    def read(self, indices: NDArray[np.int64]) -> NDArray:
        """See `LazyPatterns`."""
        intensity, _ = expected_counts(self.truth, self.probe, self.positions_px[indices])
        return np.random.default_rng(indices[:1]).poisson(intensity).astype(self.dtype)


def large_scan(n_side: int, pattern_size: int = PATTERN_SIZE) -> Scan:
    """A scan that takes no memory, of a periodic object; larger patterns lie farther apart."""
    rng = np.random.default_rng(0)
    finer = pattern_size / PATTERN_SIZE
    positions = raster_positions(n_side, STEP_PX * finer, rng) + pattern_size / 2 + MARGIN_PX
    size = int(np.ceil(positions.max() + pattern_size / 2)) + MARGIN_PX
    tile = random_object(PERIOD_PX, rng)
    repeats = -(-size // PERIOD_PX)
    probe = annular_probe(pattern_size) * np.float32(finer * np.sqrt(PHOTONS))
    return Scan(
        counts=SimulatedPatterns(np.tile(tile, (repeats, repeats))[:size, :size], probe, positions),
        positions_px=positions,
        probe=probe,
        mask=np.ones((pattern_size, pattern_size), dtype=bool),
        scan_index=np.arange(len(positions)),
        pixel_size_m=XRAYS.object_pixel_m((pattern_size, pattern_size)),
        instrument=XRAYS,
        source="simulation",
    )


def steps(module: PtychoModule, scan: Scan) -> Iterator[None]:
    """Training steps without end: read a group, compute the loss, back-propagate."""
    dataset = GroupDataset([scan])
    sampler = GroupSampler([scan], GROUP, pad_to=GROUP, seed=0, shuffle=False)
    for index in chain.from_iterable(repeat(sampler)):
        group = join_groups([dataset[index]])
        module.group_loss(group, group).sum().backward()
        yield


def run_steps(step: Iterator[None]) -> None:
    """Run the training steps of a turn."""
    for _ in range(STEPS):
        next(step)


def relative_speed(one: Callable[[], object], other: Callable[[], object]) -> float:
    """Speed of one work relative to another: the median over turns."""
    return statistics.median(duration_s(other) / duration_s(one) for _ in range(TURNS))


def duration_s(work: Callable[[], object]) -> float:
    """Duration of some work, in seconds."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def training_speed(stored: Scan, loaded: Scan) -> float:
    """Speed of training from the file, relative to training from memory."""
    module = untrained_module()
    from_file, from_memory = steps(module, stored), steps(module, loaded)
    return relative_speed(lambda: run_steps(from_file), lambda: run_steps(from_memory))


def inference_speed(generator: Generator, stored: Scan, loaded: Scan) -> float:
    """Speed of inference on a part of the scan, from the file relative to from memory."""
    from_file, from_memory = stored.central_subset(PART), loaded.central_subset(PART)
    return relative_speed(
        lambda: network_alone(generator, from_file), lambda: network_alone(generator, from_memory)
    )


def refine_beside_a_network(scan: Scan) -> None:
    """Refine from an object and beside another, as `inference --refine 1` does."""
    start = empty_object(scan)
    held_out = draw_held_out(len(scan), 0.04, 0).numpy()
    options = RefineOptions(epochs=1)
    refine(scan, start, options, held_out=held_out, network_object=start.object.copy())


def refining(scan: Scan) -> Iterator[State]:
    """Epochs of refinement of the object without end: the state after each."""
    origin, shape = scan.canvas()
    patterns = prepare(scan, torch.from_numpy(origin), shape)
    probe = torch.from_numpy(scan.need_probe())
    state = State(torch.ones(shape, dtype=probe.dtype), probe)
    work = working_set(patterns, patterns.everything)
    rng = torch.Generator().manual_seed(0)
    while True:
        run_epoch(patterns, state, work, EpochSettings(step=0.3, smoothness=120.0), rng=rng)
        yield state


@torch.no_grad()
def refinement_speed(stored: Scan, loaded: Scan) -> float:
    """Speed of refinement of a part of the scan, from the file relative to from memory.

    Raises:
        SystemExit: If the images differ.
    """
    from_file = refining(stored.central_subset(REFINED_PART))
    from_memory = refining(loaded.central_subset(REFINED_PART))
    same = torch.equal(next(from_file).obj, next(from_memory).obj)  # and what comes first is read
    speed = relative_speed(lambda: next(from_file), lambda: next(from_memory))
    if not (same and torch.equal(next(from_file).obj, next(from_memory).obj)):
        raise SystemExit("the image refined from the file is not that from memory")
    return speed


def row(name: str, result: CommandResult, patterns: int, speed: float) -> list[object]:
    """A line of the table."""
    rate = patterns / result.wall_s
    return [name, f"{result.peak_memory_bytes / 1e9:.2f}", f"{rate:.0f}", f"{speed:.2f}"]


def main() -> None:
    """Write the scan, run both commands, compare the speeds, and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output_dir",
        type=Path,
        required=True,
        help="folder for the scan, the runs and large_scan.md",
    )
    parser.add_argument("--n_side", type=int, default=N_SIDE, help="positions along each side")
    parser.add_argument(
        "--refine_in_this_process", action="store_true", help="refine the scan that is there, once"
    )
    arguments = parser.parse_args()
    folder: Path = arguments.output_dir
    scan, run, image = folder / "scan", folder / "run", folder / "image"
    if arguments.refine_in_this_process:
        refine_beside_a_network(read_scan(scan))
        return
    write_scan(scan, large_scan(arguments.n_side), format_name="ptychodus")
    common = ["--accelerator", "cpu", "--overwrite", "--quiet"]
    command = [sys.executable, "-m"]
    train: list[str | Path] = ["ptycho_torch.train", "--train_data_file", scan, "--output_dir", run]
    train += ["--max_epochs", "1"]
    infer: list[str | Path] = ["ptycho_torch.inference", "--model_path", run, "--test_data", scan]
    infer += ["--output_dir", image]
    trained = run_command([*command, *train, *common], timeout_s=LIMIT_S)
    made = run_command([*command, *infer, *common], timeout_s=LIMIT_S)
    alone: list[str | Path] = [
        sys.executable,
        __file__,
        "--output_dir",
        folder,
        "--refine_in_this_process",
    ]
    refined = run_command(alone, timeout_s=LIMIT_S)
    stored = read_scan(scan)
    loaded = replace(stored, counts=np.asarray(stored.counts[:]))
    generator, _ = load_generator(find_checkpoint(run))
    rows = [
        row("training, an epoch", trained, len(stored), training_speed(stored, loaded)),
        row("inference", made, len(stored), inference_speed(generator, stored, loaded)),
        row(
            f"refinement, {EPOCHS} epochs",
            refined,
            EPOCHS * len(stored),
            refinement_speed(stored, loaded),
        ),
    ]
    heads = [
        f"{len(stored)} patterns",
        "peak memory [GB]",
        "patterns / s of the command",
        "speed relative to patterns in memory",
    ]
    text = tabulate(rows, headers=heads, tablefmt="github", disable_numparse=True)
    print(text)
    write_text(folder / "large_scan.md", text + "\n")


if __name__ == "__main__":
    main()

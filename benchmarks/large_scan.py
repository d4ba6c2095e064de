"""A scan that is larger than what it may take of memory: `python benchmarks/large_scan.py --output_dir DIR`.

Writes 200,704 patterns of 64 x 64 as a pair of Ptychodus files, trains and reconstructs with the
commands, in processes whose peak memory it prints, and compares the speed of training steps and of
inference with that of the same patterns in memory.
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
from numpy.typing import NDArray
from quality import picture
from tabulate import tabulate

from ptycho_torch.checkpoint import find_checkpoint, load_generator
from ptycho_torch.data import GroupDataset, GroupSampler
from ptycho_torch.generators import Generator
from ptycho_torch.grouping import join_groups, nearest_to_middle
from ptycho_torch.module import PtychoModule
from ptycho_torch.patterns import PatternView
from ptycho_torch.readers import read_scan
from ptycho_torch.run_dir import write_text
from ptycho_torch.scan import Scan
from ptycho_torch.simulate import INSTRUMENT, MARGIN_PX, annular_probe, expected_counts, random_object, raster_positions
from ptycho_torch.testing.process import CommandResult, run_command
from ptycho_torch.writers import write_scan

N_SIDE = 448
STEP_PX = 5.0
PATTERN_SIZE = 64
PHOTONS = 1e5
TILE_PX = 512  # the object repeats itself; a random one of this size would take hours to draw
GROUP = 64
STEPS = 30  # of training, in each turn
TURNS = 5
PART = 8192  # patterns of which inference is timed
LIMIT_S = 3600.0


class SimulatedPatterns(PatternView):
    """Patterns that are simulated when they are read; one index gives the same counts only in the same stretch."""

    def __init__(self, truth: NDArray[np.complex64], probe: NDArray[np.complex64], positions_px: NDArray[np.float64]) -> None:
        self.truth, self.probe, self.positions_px = truth, probe, positions_px

    @property
    def shape(self) -> tuple[int, int, int]:
        """See `PatternView`."""
        return len(self.positions_px), *self.probe.shape[-2:]

    @property
    def dtype(self) -> np.dtype:
        """See `PatternView`."""
        return np.dtype(np.uint16)

    def read(self, indices: NDArray[np.int64]) -> NDArray:
        """See `PatternView`."""
        intensity, _ = expected_counts(self.truth, self.probe, self.positions_px[indices])
        return np.random.default_rng(indices[:1]).poisson(intensity).astype(self.dtype)


def large_scan(n_side: int) -> Scan:
    """A scan that takes no memory, of a periodic object."""
    rng = np.random.default_rng(0)
    positions = raster_positions(n_side, STEP_PX, rng) + PATTERN_SIZE / 2 + MARGIN_PX
    size = int(np.ceil(positions.max() + PATTERN_SIZE / 2)) + MARGIN_PX
    tile = random_object(TILE_PX, rng)
    repeats = -(-size // TILE_PX)
    probe = annular_probe(PATTERN_SIZE) * np.float32(np.sqrt(PHOTONS))
    return Scan(
        counts=SimulatedPatterns(np.tile(tile, (repeats, repeats))[:size, :size], probe, positions),
        positions_px=positions,
        probe=probe,
        mask=np.ones((PATTERN_SIZE, PATTERN_SIZE), dtype=bool),
        scan_index=np.arange(len(positions)),
        pixel_size_m=INSTRUMENT.object_pixel_m((PATTERN_SIZE, PATTERN_SIZE)),
        instrument=INSTRUMENT,
        source="simulation",
    )


def steps(module: PtychoModule, scan: Scan) -> Iterator[None]:
    """Training steps without end: a group is read, seen and judged, and the gradient taken."""
    dataset = GroupDataset([scan])
    sampler = GroupSampler([scan], GROUP, complete_to=GROUP, seed=0, anew=False)
    for index in chain.from_iterable(repeat(sampler)):
        group = join_groups([dataset[index]])
        module.mismatch(group, group).sum().backward()  # type: ignore[no-untyped-call]
        yield


def several(turns: Iterator[None]) -> None:
    """Take some steps."""
    for _ in range(STEPS):
        next(turns)


def share_of_speed(one: Callable[[], object], other: Callable[[], object]) -> float:
    """Speed of one in that of the other, taken in turns: the median over them."""
    return statistics.median(seconds(other) / seconds(one) for _ in range(TURNS))


def seconds(work: Callable[[], object]) -> float:
    """How long some work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def training_speed(stored: Scan, loaded: Scan) -> float:
    """Speed of training from the file, in that of training from memory."""
    module = PtychoModule(
        generator="unrolled", settings={}, loss="poisson", learning_rate=1e-3, scheduler="constant", seed=0, about={}
    )
    from_file, from_memory = steps(module, stored), steps(module, loaded)
    return share_of_speed(lambda: several(from_file), lambda: several(from_memory))


def inference_speed(generator: Generator, stored: Scan, loaded: Scan) -> float:
    """Speed of inference from the file, in that of inference from memory, on a part of the scan."""
    part = nearest_to_middle(stored.positions_px, min(PART, len(stored)))
    from_file, from_memory = stored.subset(part), loaded.subset(part)
    return share_of_speed(lambda: picture(generator, from_file), lambda: picture(generator, from_memory))


def row(name: str, result: CommandResult, patterns: int, share: float) -> list[object]:
    """A line of the table."""
    rate = patterns / result.wall_s
    return [name, f"{result.peak_memory_bytes / 1e9:.2f}", f"{rate:.0f}", f"{share:.2f}"]


def main() -> None:
    """Write the scan, run both commands, compare the speeds, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for the scan, the runs and large_scan.md")
    parser.add_argument("--n_side", type=int, default=N_SIDE, help="positions along each side")
    arguments = parser.parse_args()
    folder: Path = arguments.output_dir
    scan, run, image = folder / "scan", folder / "run", folder / "image"
    write_scan(scan, large_scan(arguments.n_side), format_name="ptychodus")
    common = ["--accelerator", "cpu", "--overwrite", "--quiet"]
    command = [sys.executable, "-m"]
    epoch = ["--max_epochs", "1"]
    trained = run_command(
        [*command, "ptycho_torch.train", "--train_data_file", scan, "--output_dir", run, *epoch, *common], timeout_s=LIMIT_S
    )
    made = run_command(
        [*command, "ptycho_torch.inference", "--model_path", run, "--test_data", scan, "--output_dir", image, *common],
        timeout_s=LIMIT_S,
    )
    stored = read_scan(scan)
    loaded = replace(stored, counts=np.asarray(stored.counts[:]))
    rows = [
        row("training, an epoch", trained, len(stored), training_speed(stored, loaded)),
        row("inference", made, len(stored), inference_speed(load_generator(find_checkpoint(run))[0], stored, loaded)),
    ]
    heads = [f"{len(stored)} patterns", "peak memory [GB]", "patterns / s, all told", "speed, of that from memory"]
    text = tabulate(rows, headers=heads, tablefmt="github", disable_numparse=True)
    print(text)
    write_text(folder / "large_scan.md", text + "\n")


if __name__ == "__main__":
    main()

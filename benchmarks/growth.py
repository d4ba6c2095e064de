"""How the refinement grows: `python benchmarks/growth.py --output_dir DIR`.

An epoch of object and probe for more patterns, larger ones, more modes of the probe and more
processes, each in processes of its own: seconds, CPU seconds of a process, the time beside that of
two Fourier transforms of each pattern and mode, and the peak memory of a process. What the patterns
show does not matter here, so all are equal. Other programs lengthen seconds; CPU seconds of two
processes are those that they would take on two idle cores. The results are in `docs/scaling.md`.
"""

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tabulate import tabulate

from ptycho_torch.data.lazy_patterns import LazyPatterns
from ptycho_torch.data.probe import annular_probe
from ptycho_torch.data.scan import Scan
from ptycho_torch.data.simulation import raster_positions
from ptycho_torch.distributed.communicator import SingleProcess
from ptycho_torch.distributed.fabric import FabricProcesses
from ptycho_torch.io.files import write_text
from ptycho_torch.physics.forward import diffraction_intensity
from ptycho_torch.physics.probe_modes import add_modes
from ptycho_torch.refinement.loop import EpochSettings, run_epoch
from ptycho_torch.refinement.prepared_patterns import prepare
from ptycho_torch.refinement.step import State, working_set
from ptycho_torch.testing.process import run_command

PHOTONS, STEP_PX = 1e6, 5.0  # STEP_PX for patterns of 64 x 64; in proportion for others
TURNS = 3
AT_ONCE = 64  # patterns in the transforms that are compared with
LIMIT_S = 3600.0


@dataclass(frozen=True)
class Case:
    """Positions along each side, pixels along each side of a pattern, modes, processes."""

    n_side: int
    size: int = 64
    modes: int = 1
    processes: int = 1


CASES = (
    *(Case(n_side) for n_side in (16, 32, 64, 128, 256, 448)),
    *(Case(16, size) for size in (128, 256)),
    *(Case(32, modes=modes) for modes in (3, 5)),
    *(Case(n_side, processes=2) for n_side in (32, 128)),
    Case(32, modes=3, processes=2),
    Case(16, 256, processes=2),
)


@dataclass(frozen=True)
class EqualPatterns(LazyPatterns):
    """The same pattern at all positions, as if it were read from a file."""

    pattern: NDArray[np.float32]
    count: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """See `LazyPatterns`."""
        height, width = self.pattern.shape
        return self.count, height, width

    @property
    def dtype(self) -> np.dtype:
        """See `LazyPatterns`."""
        return self.pattern.dtype

    def read(self, indices: NDArray[np.int64]) -> NDArray:
        """See `LazyPatterns`."""
        return np.repeat(self.pattern[None], len(indices), axis=0)


def scan_of(case: Case) -> Scan:
    """A scan of empty space."""
    size, rng = case.size, np.random.default_rng(0)
    positions = raster_positions(case.n_side, STEP_PX * size / 64, rng) + size / 2
    probe = annular_probe(size) * np.float32(np.sqrt(PHOTONS))
    empty = torch.ones(size, size, dtype=torch.complex64)
    return Scan(
        counts=EqualPatterns(
            diffraction_intensity(empty, torch.from_numpy(probe)).numpy(), len(positions)
        ),
        positions_px=positions,
        probe=probe,
        mask=np.ones((size, size), dtype=bool),
        scan_index=np.arange(len(positions)),
    )


def median_times(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and CPU seconds of this process, of some work: medians over turns."""
    times = []
    for _ in range(TURNS):
        began = time.perf_counter(), time.process_time()
        work()
        times.append((time.perf_counter() - began[0], time.process_time() - began[1]))
    seconds, cpu_s = map(statistics.median, zip(*times, strict=True))
    return seconds, cpu_s


@torch.no_grad()
def measure(case: Case, comm: SingleProcess) -> dict[str, float]:
    """Times of an epoch, CPU seconds of the transforms alone, and peak memory."""
    scan = scan_of(case)
    origin, shape = scan.canvas()
    patterns = prepare(scan, torch.from_numpy(origin), shape, comm=comm)
    probe = add_modes(torch.from_numpy(scan.need_probe()), case.modes)
    state = State(torch.ones(shape, dtype=probe.dtype), probe)
    work = working_set(patterns, patterns.everything)
    settings = EpochSettings(step=0.1, smoothness=120.0, update_probe=True)
    rng = torch.Generator().manual_seed(0)

    def epoch() -> None:
        run_epoch(patterns, state, work, settings, rng=rng)

    waves = torch.randn(AT_ONCE, case.modes, case.size, case.size, dtype=probe.dtype)

    def transforms() -> None:
        for _ in range(len(scan) // AT_ONCE):
            torch.fft.ifft2(torch.fft.fft2(waves))

    epoch()
    seconds, cpu_s = median_times(epoch)
    return {
        "seconds": seconds,
        "cpu_s": cpu_s,
        "transforms_cpu_s": median_times(transforms)[1],
        "memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }


def measure_here(case: Case) -> None:
    """Measure a case in this process, or in one of those that share it, and print the figures."""
    comm = SingleProcess(torch.device("cpu"))
    if case.processes > 1:
        comm = FabricProcesses("cpu", case.processes, 1)
    with comm.launch():
        found = measure(case, comm)
        if comm.is_global_zero:
            print(json.dumps(found))


def main() -> None:
    """Measure all cases and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output_dir", type=Path, help="folder for growth.md")
    parser.add_argument(
        "--case",
        type=int,
        nargs=4,
        metavar=("N_SIDE", "SIZE", "MODES", "PROCESSES"),
        help="measure one case and print it as JSON",
    )
    arguments = parser.parse_args()
    if arguments.case:
        measure_here(Case(*arguments.case))
        return
    rows = []
    for case in CASES:
        words = [case.n_side, case.size, case.modes, case.processes]
        child = run_command(
            [sys.executable, __file__, "--case", *map(str, words)], timeout_s=LIMIT_S
        )
        found = json.loads(child.stdout.splitlines()[-1])
        times = case.processes * found["cpu_s"] / found["transforms_cpu_s"]
        figures = [found["seconds"], found["cpu_s"], times, found["memory_gb"]]
        rows.append([case.n_side**2, f"{case.size}²", *words[2:], *figures])
        print(rows[-1], flush=True)
    heads = ["patterns", "pixels", "modes", "processes", "seconds", "CPU s of a process"]
    heads += ["times its transforms", "peak memory of a process [GB]"]
    text = tabulate(rows, headers=heads, tablefmt="github", floatfmt=".3g")
    print(text)
    if arguments.output_dir:
        arguments.output_dir.mkdir(parents=True, exist_ok=True)
        write_text(arguments.output_dir / "growth.md", text + "\n")


if __name__ == "__main__":
    main()

"""Time and memory of training, inference and refinement, as one table: `python benchmarks/speed.py`.

Each size is measured in a process of its own, whose peak memory is that of the line. Ratios to the
first line compare machines; the times themselves hold for the machine that was idle. Two more figures
say how close it comes to what cannot be avoided: the part of a training step that is Fourier
transforms and convolutions, and that of a pass of the refinement that is two transforms a pattern.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate
from torch.profiler import ProfilerActivity, profile
from torch.utils.benchmark import Timer

from ptycho_torch.config import InferenceConfig, TrainingConfig
from ptycho_torch.grouping import divide, join_groups, make_group
from ptycho_torch.inference import reconstruct
from ptycho_torch.module import PtychoModule
from ptycho_torch.refinement import refine
from ptycho_torch.scan import Scan
from ptycho_torch.simulate import simulate_scan
from ptycho_torch.testing.process import run_command
from ptycho_torch.train import train
from ptycho_torch.writers import write_scan

SIZES = {
    "256 x 64²": (16, 64),
    "1024 x 64²": (32, 64),
    "4096 x 64²": (64, 64),
    "16384 x 64²": (128, 64),
    "256 x 128²": (16, 128),
    "256 x 256²": (16, 256),
}
GROUP = 64
PASSES = 4
TURNS = 3
RUN_S = 2.0  # at least, for each line; several runs of a short one
LIMIT_S = 3600.0
INEVITABLE = ("aten::_fft", "aten::mkldnn_convolution", "aten::convolution", "aten::_slow_conv", "aten::thnn_conv")


def training_step(scan: Scan) -> Callable[[], object]:
    """Forward and backward through one group."""
    module = PtychoModule(
        generator="unrolled", settings={}, loss="poisson", learning_rate=1e-3, scheduler="constant", seed=0, about={}
    )
    group = join_groups([make_group(scan, divide(scan.positions_px, core=GROUP, size=GROUP)[0].members)])
    return lambda: module.mismatch(group, group).sum().backward()  # type: ignore[no-untyped-call]


def inference(scan: Scan, folder: Path) -> Callable[[], object]:
    """From the file to all files of the result, in a process that runs already."""
    common = {"quiet": True, "accelerator": "cpu"}
    write_scan(folder / "scan.npz", scan)
    run = train(
        TrainingConfig(train_data_file=[folder / "scan.npz"], output_dir=folder / "run", n_images=64, max_epochs=1, **common)  # type: ignore[arg-type]
    )
    number = count()
    return lambda: reconstruct(
        InferenceConfig(model_path=run.path, test_data=folder / "scan.npz", output_dir=folder / str(next(number)), **common)  # type: ignore[arg-type]
    )


def refinement(scan: Scan) -> Callable[[], object]:
    """A few passes over all patterns, object alone, from nothing."""
    counts = torch.from_numpy(np.asarray(scan.counts[:], dtype=np.float32))
    positions, probe = torch.from_numpy(scan.positions_px), torch.from_numpy(scan.probe)
    extent = np.ceil(scan.positions_px.max(axis=0)).astype(int) + scan.pattern_shape
    start = torch.ones(int(extent[0]), int(extent[1]), dtype=torch.complex64)
    return lambda: refine(counts, positions, probe, start, origin_yx=(0.0, 0.0), epochs=PASSES)


def transforms(scan: Scan) -> Callable[[], object]:
    """Two Fourier transforms of every pattern, a group at a time, as often as the refinement passes."""
    waves = torch.randn(GROUP, *scan.pattern_shape, dtype=torch.complex64)
    return lambda: [torch.fft.ifft2(torch.fft.fft2(waves)) for _ in range(PASSES * len(scan) // GROUP)]


def median_s(work: Callable[[], object]) -> float:
    """Of several runs."""
    return Timer("run()", globals={"run": work}).blocked_autorange(min_run_time=RUN_S).median


def alternating_ratio(one: Callable[[], object], other: Callable[[], object]) -> float:
    """Time of one in that of the other, taken in turns: the median over them."""
    ratios = []
    for _ in range(TURNS):
        times = []
        for work in (one, other):
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
        ratios.append(times[0] / times[1])
    return statistics.median(ratios)


def inevitable_share(step: Callable[[], object]) -> float:
    """The part of a step's time that is Fourier transforms and convolutions."""
    step()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(TURNS):
            step()
    averages = profiled.key_averages()
    wanted = sum(one.self_cpu_time_total for one in averages if one.key.startswith(INEVITABLE))
    return wanted / sum(one.self_cpu_time_total for one in averages)


def measure(size: str) -> dict[str, list[float]]:
    """Seconds and patterns of each kind of work on a scan, and the shares of what cannot be avoided."""
    n_side, pattern_size = SIZES[size]
    scan = simulate_scan(photons=1e6, n_side=n_side, pattern_size=pattern_size).scan
    step, refining = training_step(scan), refinement(scan)
    with tempfile.TemporaryDirectory() as folder:
        found = {
            "training step": [median_s(step), GROUP],
            "inference, file to files": [median_s(inference(scan, Path(folder))), len(scan)],
            f"refinement, {PASSES} passes": [median_s(refining), PASSES * len(scan)],
        }
    return found | {"shares": [inevitable_share(step), alternating_ratio(transforms(scan), refining)]}


def main() -> None:
    """Measure everything for every size and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--in_this_process", choices=list(SIZES), help="measure one size and print it as JSON")
    arguments = parser.parse_args()
    if arguments.in_this_process:
        print(json.dumps(measure(arguments.in_this_process)))
        return
    rows: list[list[object]] = []
    first = 0.0
    for size in arguments.sizes:
        child = run_command([sys.executable, __file__, "--in_this_process", size], timeout_s=LIMIT_S)
        found = json.loads(child.stdout.splitlines()[-1])
        convolved, transformed = found.pop("shares")
        for name, (seconds, patterns) in found.items():
            first = first or seconds / patterns
            share = {"training step": convolved, f"refinement, {PASSES} passes": transformed}.get(name)
            memory = child.peak_memory_bytes / 1e9
            rows.append([size, name, seconds, patterns / seconds, seconds / patterns / first, share, memory])
    heads = [
        "patterns",
        "what",
        "median [s]",
        "patterns / s",
        "time a pattern, in those of the first line",
        "part that cannot be avoided",
        "peak memory of all three [GB]",
    ]
    print(tabulate(rows, headers=heads, tablefmt="github", floatfmt=(None, None, ".3f", ".0f", ".2f", ".2f", ".2f")))


if __name__ == "__main__":
    main()

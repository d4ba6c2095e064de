"""Time and memory of training, inference and refinement: `python benchmarks/speed.py`.

Each size is measured in a process of its own, whose peak memory is printed. Ratios to the first
line compare machines; the times themselves hold for an idle machine. Two more figures are shares of
work that cannot be avoided: Fourier transforms and convolutions in a training step, and two
transforms a pattern in an epoch of the refinement. The results are in `benchmarks/speed.md`.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate
from torch.profiler import ProfilerActivity, profile
from torch.utils.benchmark import Timer

from ptycho_torch.config import InferenceConfig, TrainingConfig
from ptycho_torch.data.grouping import divide, join_groups, make_group
from ptycho_torch.data.scan import Scan
from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.distributed.device import keep_freed_memory
from ptycho_torch.inference import reconstruct
from ptycho_torch.io.writers import write_scan
from ptycho_torch.refinement import RefineOptions
from ptycho_torch.refinement.probe_retrieval import refine_from_uniform
from ptycho_torch.testing.process import run_command
from ptycho_torch.train import train
from ptycho_torch.train.module import PtychoModule

SIZES = {
    "256 x 64²": (16, 64),
    "1024 x 64²": (32, 64),
    "4096 x 64²": (64, 64),
    "16384 x 64²": (128, 64),
    "256 x 128²": (16, 128),
    "256 x 256²": (16, 256),
}
GROUP = 64
EPOCHS = 4  # of the refinement
TURNS = 3
RUN_S = 2.0  # smallest duration of the measurement of a line; several runs of a short one
LIMIT_S = 3600.0
INEVITABLE = (  # kernels of the Fourier transforms and convolutions, as torch names them
    "aten::_fft",
    "aten::mkldnn_convolution",
    "aten::convolution",
    "aten::_slow_conv",
    "aten::thnn_conv",
)


def untrained_module() -> PtychoModule:
    """The default network before its training."""
    return PtychoModule(
        generator="unrolled",
        settings={},
        loss="poisson",
        learning_rate=1e-3,
        scheduler="constant",
        seed=0,
        about={},
    )


def training_step(scan: Scan) -> Callable[[], object]:
    """Forward and backward through one group."""
    keep_freed_memory()  # as `fit` does
    module = untrained_module()
    central = divide(scan.positions_px, n_core=GROUP, n_total=GROUP)[0]
    group = join_groups([make_group(scan, central.points)])
    return lambda: module.group_loss(group, group).sum().backward()


def inference(scan: Scan, folder: Path) -> Callable[[], object]:
    """From the file to all files of the result, in a process that runs already."""
    file = folder / "scan.npz"
    write_scan(file, scan)
    run = train(
        TrainingConfig(
            train_data_file=[file],
            output_dir=folder / "run",
            n_images=64,
            max_epochs=1,
            quiet=True,
            accelerator="cpu",
        )
    )
    number = count()
    return lambda: reconstruct(
        InferenceConfig(
            model_path=run.path,
            test_data=file,
            output_dir=folder / str(next(number)),
            quiet=True,
            accelerator="cpu",
        )
    )


def refinement(scan: Scan) -> Callable[[], object]:
    """A few epochs of the object alone, from an empty one."""
    scan = replace(scan, counts=np.asarray(scan.counts[:], dtype=np.float32))
    return lambda: refine_from_uniform(scan, RefineOptions(epochs=EPOCHS))


def transforms(scan: Scan) -> Callable[[], object]:
    """Two Fourier transforms of every pattern, a group at a time, for as many epochs."""
    waves = torch.randn(GROUP, *scan.pattern_shape, dtype=torch.complex64)
    return lambda: [
        torch.fft.ifft2(torch.fft.fft2(waves)) for _ in range(EPOCHS * len(scan) // GROUP)
    ]


def median_s(work: Callable[[], object]) -> float:
    """Median of several runs, in seconds."""
    return Timer("run()", globals={"run": work}).blocked_autorange(min_run_time=RUN_S).median


def alternating_ratio(one: Callable[[], object], other: Callable[[], object]) -> float:
    """Time of one work relative to another: the median over turns."""
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
    """Share of Fourier transforms and convolutions in the time of a step."""
    step()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(TURNS):
            step()
    averages = profiled.key_averages()
    inevitable = sum(one.self_cpu_time_total for one in averages if one.key.startswith(INEVITABLE))
    return inevitable / sum(one.self_cpu_time_total for one in averages)


def measure(size: str) -> dict[str, list[float]]:
    """Seconds and patterns of each kind of work on a scan, and the inevitable shares."""
    n_side, pattern_size = SIZES[size]
    scan = simulate_scan(photons=1e6, n_side=n_side, pattern_size=pattern_size).scan
    step, refining = training_step(scan), refinement(scan)
    with tempfile.TemporaryDirectory() as folder:
        found = {
            "training step": [median_s(step), GROUP],
            "inference, file to files": [median_s(inference(scan, Path(folder))), len(scan)],
            f"refinement, {EPOCHS} epochs": [median_s(refining), EPOCHS * len(scan)],
        }
    return found | {
        "shares": [inevitable_share(step), alternating_ratio(transforms(scan), refining)]
    }


def main() -> None:
    """Measure everything for every size and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument(
        "--in_this_process", choices=list(SIZES), help="measure one size and print it as JSON"
    )
    arguments = parser.parse_args()
    if arguments.in_this_process:
        print(json.dumps(measure(arguments.in_this_process)))
        return
    rows: list[list[object]] = []
    first = 0.0
    for size in arguments.sizes:
        child = run_command(
            [sys.executable, __file__, "--in_this_process", size], timeout_s=LIMIT_S
        )
        found = json.loads(child.stdout.splitlines()[-1])
        convolved, transformed = found.pop("shares")
        for name, (seconds, patterns) in found.items():
            first = first or seconds / patterns
            share = {"training step": convolved, f"refinement, {EPOCHS} epochs": transformed}.get(
                name
            )
            memory = child.peak_memory_bytes / 1e9
            rows.append(
                [size, name, seconds, patterns / seconds, seconds / patterns / first, share, memory]
            )
    heads = [
        "patterns",
        "what",
        "median [s]",
        "patterns / s",
        "time a pattern, relative to the first line",
        "inevitable share",
        "peak memory of all three [GB]",
    ]
    formats = (None, None, ".3f", ".0f", ".2f", ".2f", ".2f")
    print(tabulate(rows, headers=heads, tablefmt="github", floatfmt=formats))


if __name__ == "__main__":
    main()

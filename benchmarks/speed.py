"""Time of what dominates training, inference and refinement, as one table: `python benchmarks/speed.py`.

Ratios to the first line compare machines; the times themselves hold for the machine that was idle.
"""

import argparse
from collections.abc import Callable

import numpy as np
import torch
from tabulate import tabulate
from torch.utils.benchmark import Timer

from ptycho_torch.generators import build_generator
from ptycho_torch.grouping import divide, make_group
from ptycho_torch.module import PtychoModule
from ptycho_torch.reconstruction import reconstruct_scan
from ptycho_torch.refinement import refine
from ptycho_torch.scan import Scan
from ptycho_torch.simulate import simulate_scan

SIZES = {"256 x 64²": (16, 64), "1024 x 64²": (32, 64), "4096 x 64²": (64, 64), "256 x 128²": (16, 128), "256 x 256²": (16, 256)}
GROUP = 64
PASSES = 4
RUN_S = 2.0  # at least, for each line; several runs of a short one


def training_step(scan: Scan) -> Callable[[], object]:
    """Forward and backward through one group."""
    module = PtychoModule(
        generator="unrolled", settings={}, loss="poisson", learning_rate=1e-3, scheduler="constant", seed=0, about={}
    )
    group = make_group(scan, divide(scan.positions_px, core=GROUP, size=GROUP)[0].members)
    return lambda: module.mismatch(group, group).backward()  # type: ignore[no-untyped-call]


def inference(scan: Scan) -> Callable[[], object]:
    """The network's picture, stitched from tiles."""
    generator = build_generator("unrolled", {}).eval()
    core = min(generator.tile, len(scan))
    return lambda: reconstruct_scan(generator, scan, core=core, size=min(2 * core, len(scan)), batch_size=1)


def refinement(scan: Scan) -> Callable[[], object]:
    """A few passes over all patterns, object alone, from nothing."""
    counts = torch.from_numpy(np.asarray(scan.counts[:], dtype=np.float32))
    positions, probe = torch.from_numpy(scan.positions_px), torch.from_numpy(scan.probe)
    extent = np.ceil(scan.positions_px.max(axis=0)).astype(int) + scan.pattern_shape
    start = torch.ones(int(extent[0]), int(extent[1]), dtype=torch.complex64)
    return lambda: refine(counts, positions, probe, start, origin_yx=(0.0, 0.0), epochs=PASSES)


def main() -> None:
    """Measure everything for every size and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    rows = []
    for size in parser.parse_args().sizes:
        n_side, pattern_size = SIZES[size]
        scan = simulate_scan(photons=1e6, n_side=n_side, pattern_size=pattern_size).scan
        for name, prepare, patterns in (
            ("training step", training_step, GROUP),
            ("inference", inference, len(scan)),
            (f"refinement, {PASSES} passes", refinement, PASSES * len(scan)),
        ):
            median = Timer("run()", globals={"run": prepare(scan)}).blocked_autorange(min_run_time=RUN_S).median
            rows.append([size, name, median, patterns / median, rows[0][3] / (patterns / median) if rows else 1.0])
    heads = ["patterns", "what", "median [s]", "patterns / s", "time a pattern, in those of the first line"]
    print(tabulate(rows, headers=heads, tablefmt="github", floatfmt=(None, None, ".3f", ".0f", ".2f")))


if __name__ == "__main__":
    main()

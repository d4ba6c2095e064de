"""What a network's picture saves the refinement at high dose: `python benchmarks/head_start.py --output_dir DIR`.

A network is trained on one scan of 1e9 photons a pattern. Scans of objects that it has not seen are
refined from its picture and from an empty object, with more and more passes, until the picture is
good; the time from its start includes that of the network.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from quality import CASES, UNSEEN, judge, picture, scan_of, trained
from tabulate import tabulate

from ptycho_torch.generators import Generator
from ptycho_torch.polishing import polish
from ptycho_torch.reconstruction import FREE_SHARE
from ptycho_torch.refinement import draw_free
from ptycho_torch.run_dir import write_text

CASE = CASES["1e9"]
GOOD = (0.995, 0.99, 1.0)  # amplitude SSIM, phase SSIM, FRC50
MOST_PASSES = 40


def until_good(generator: Generator, seed: int) -> Iterator[list[object]]:
    """Rows of the table for one object: from the network's picture, and from nothing."""
    made = scan_of(seed, CASE.photons, CASE.every)
    free = draw_free(len(made.scan), FREE_SHARE, 0).numpy()
    started = time.process_time()
    seen = picture(generator, made.scan, without=free)
    network_s = time.process_time() - started
    options = {"refine_probe": False, "refine_positions": False, "probe_modes": None, "show": False}
    for name, start, before_s in (("network", seen, network_s), ("empty", replace(seen, object=np.ones_like(seen.object)), 0.0)):
        for passes in range(MOST_PASSES + 1):
            started = time.process_time()
            result = start
            if passes:
                result, _ = polish(start, made.scan, passes=str(passes), free=free, other=None, seed=0, **options)  # type: ignore[arg-type]
            seconds = time.process_time() - started
            figures = judge(result, made)
            if all(figure >= good for figure, good in zip(figures, GOOD, strict=True)):
                break
        yield [seed, name, passes, before_s, seconds, before_s + seconds, *figures]


def main() -> None:
    """Train, refine, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for the run and head_start.md")
    arguments = parser.parse_args()
    generator, _ = trained([scan_of(0, CASE.photons, CASE.every).scan], arguments.output_dir)
    rows = [row for seed in UNSEEN for row in until_good(generator, seed)]
    heads = [
        "object",
        "start",
        "passes",
        "network [CPU s]",
        "refinement [CPU s]",
        "both",
        "amplitude SSIM",
        "phase SSIM",
        "FRC50",
    ]
    text = tabulate(rows, headers=heads, tablefmt="github", floatfmt=(None, None, None, ".1f", ".1f", ".1f", ".3f", ".3f", ".3f"))
    print(text)
    write_text(arguments.output_dir / "head_start.md", text + "\n")


if __name__ == "__main__":
    main()

"""Epochs that the network saves the refinement: `python benchmarks/head_start.py --output_dir DIR`.

A network is trained on one scan of 1e9 photons a pattern. Scans of objects that it was not trained
on are refined from its reconstruction and from an empty object, with more and more epochs, until
the reconstruction is good. The results are in `benchmarks/head_start.md`.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from quality import CASES, UNSEEN, agreement_with_truth, network_alone, scan_of, trained
from tabulate import tabulate

from ptycho_torch.generators import Generator
from ptycho_torch.inference.in_memory import HELD_OUT_FRACTION
from ptycho_torch.io.files import write_text
from ptycho_torch.refinement import RefineOptions, draw_held_out, refine_reconstruction

CASE = CASES["1e9"]
GOOD = (0.995, 0.99, 1.0)  # amplitude SSIM, phase SSIM, FRC50
MAX_EPOCHS = 40


def until_good(generator: Generator, seed: int) -> Iterator[list[object]]:
    """Rows of the table for one object: from the network's object, and from an empty one."""
    made = scan_of(seed, CASE.photons, CASE.every)
    held_out = draw_held_out(len(made.scan), HELD_OUT_FRACTION, 0).numpy()
    started = time.process_time()
    first = network_alone(generator, made.scan, held_out)
    network_s = time.process_time() - started
    empty = replace(first, object=np.ones_like(first.object))
    for name, start, before_s in (("network", first, network_s), ("empty", empty, 0.0)):
        for epochs in range(MAX_EPOCHS + 1):
            started = time.process_time()
            result = start
            if epochs:
                result, _ = refine_reconstruction(
                    made.scan,
                    start,
                    RefineOptions(epochs=epochs),
                    held_out=held_out,
                    network_object=None,
                    show=False,
                )
            seconds = time.process_time() - started
            figures = agreement_with_truth(result, made)
            if all(figure >= good for figure, good in zip(figures, GOOD, strict=True)):
                break
        yield [seed, name, epochs, before_s, seconds, before_s + seconds, *figures]


def main() -> None:
    """Train, refine, and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output_dir", type=Path, required=True, help="folder for the run and head_start.md"
    )
    arguments = parser.parse_args()
    generator, _ = trained([scan_of(0, CASE.photons, CASE.every).scan], arguments.output_dir)
    rows = [row for seed in UNSEEN for row in until_good(generator, seed)]
    heads = [
        "object",
        "start",
        "epochs",
        "network [CPU s]",
        "refinement [CPU s]",
        "both",
        "amplitude SSIM",
        "phase SSIM",
        "FRC50",
    ]
    formats = (None, None, None, ".1f", ".1f", ".1f", ".3f", ".3f", ".3f")
    text = tabulate(rows, headers=heads, tablefmt="github", floatfmt=formats)
    print(text)
    write_text(arguments.output_dir / "head_start.md", text + "\n")


if __name__ == "__main__":
    main()

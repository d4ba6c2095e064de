"""R-free of every pattern of a scan: `python benchmarks/cross_validation.py --scan FILE`.

Each tenth of the patterns in turn is held out of a refinement of object and probe, which starts
from an empty object and the probe of the file, and is predicted afterwards. So no figure depends on
a random choice of held-out patterns. The results are in `benchmarks/cross_validation.md`.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from against_ptychi import empty_object
from rich.progress import track
from tabulate import tabulate

from ptycho_torch.data.scan import Scan
from ptycho_torch.io.readers import read_scan
from ptycho_torch.refinement import RefineOptions, refine_reconstruction

FOLDS = 10


def r_free(scan: Scan, fold: int, modes: int) -> float:
    """R-free of every tenth pattern, from number ``fold`` on, after a refinement on the others."""
    _, history = refine_reconstruction(
        scan,
        empty_object(scan),
        RefineOptions(update_probe=True, probe_modes=modes),
        held_out=np.arange(fold, len(scan), FOLDS),
        network_object=None,
        show=False,
    )
    return history["r_free"]


def main() -> None:
    """Refine with each tenth held out, and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scan", type=Path, required=True, help="file of a scan")
    parser.add_argument(
        "--probe_modes", type=int, nargs="+", default=[1, 3], help="numbers of modes to try"
    )
    arguments = parser.parse_args()
    scan = read_scan(arguments.scan)
    rows = []
    for modes in arguments.probe_modes:
        started = time.process_time()
        folds = track(range(FOLDS), description=f"{modes} modes")
        each = [r_free(scan, fold, modes) for fold in folds]
        seconds = (time.process_time() - started) / FOLDS
        values = (f"{value:.4f}" for value in (np.mean(each), min(each), max(each)))
        rows.append((modes, *values, f"{seconds:.0f}"))
    heads = ["probe modes", "R-free, mean", "smallest", "largest", "CPU s a refinement"]
    print(tabulate(rows, heads, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()

"""R-free of every pattern of a scan: `python benchmarks/cross_validation.py --scan FILE`.

One tenth of the patterns after the other is kept out of the refinement of object and probe, which starts
from an empty object and the probe of the file, and judges it. So no figure hangs on which patterns
one draw keeps out.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from against_ptychi import empty_object
from rich.progress import track
from tabulate import tabulate

from ptycho_torch.polishing import polish
from ptycho_torch.readers import read_scan
from ptycho_torch.scan import Scan

FOLDS = 10


def r_free(scan: Scan, fold: int, modes: int) -> float:
    """Of every tenth pattern, from this one on, predicted by what the others say."""
    _, history = polish(
        empty_object(scan),
        scan,
        passes="auto",
        refine_probe=True,
        refine_positions=False,
        probe_modes=modes,
        free=np.arange(fold, len(scan), FOLDS),
        other=None,
        seed=0,
        show=False,
    )
    return history["r_free"]


def main() -> None:
    """Refine with each tenth kept out, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scan", type=Path, required=True, help="file of a scan")
    parser.add_argument("--probe_modes", type=int, nargs="+", default=[1, 3], help="numbers of modes to try")
    arguments = parser.parse_args()
    scan = read_scan(arguments.scan)
    rows = []
    for modes in arguments.probe_modes:
        started = time.process_time()
        each = [r_free(scan, fold, modes) for fold in track(range(FOLDS), description=f"{modes} modes")]
        seconds = (time.process_time() - started) / FOLDS
        rows.append((modes, f"{np.mean(each):.4f}", f"{min(each):.4f}", f"{max(each):.4f}", f"{seconds:.0f}"))
    print(
        tabulate(
            rows, ["probe modes", "R-free, mean", "least", "most", "CPU s a refinement"], tablefmt="github", disable_numparse=True
        )
    )


if __name__ == "__main__":
    main()

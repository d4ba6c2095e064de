"""Quality and time on simulated scans whose objects are known: `python benchmarks/quality.py --output_dir DIR`.

For each case a network is trained on one scan, with the defaults, and judged on objects that it has
not seen: alone, refined, and against the same refinement from an empty object.
"""

import argparse
import time
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np

from ptycho_torch.checkpoint import find_checkpoint, load_generator
from ptycho_torch.config import TrainingConfig
from ptycho_torch.metrics import compare
from ptycho_torch.polishing import polish
from ptycho_torch.reconstruction import FREE_SHARE, reconstruct_scan, tile_sizes
from ptycho_torch.refinement import draw_free
from ptycho_torch.run_dir import write_text
from ptycho_torch.scan import Reconstruction, Scan
from ptycho_torch.simulate import Simulation, simulate_scan
from ptycho_torch.train import train
from ptycho_torch.writers import write_scan

UNSEEN = (101, 102, 103)  # seeds of the objects to judge by
CASES = {"1e4": (1e4, 1), "1e4, every third row and column": (1e4, 3), "1e9": (1e9, 1)}
N_SIDE = 32


def scan_of(seed: int, photons: float, every: int) -> Simulation:
    """A scan of 1024 positions, or of every third of its rows and columns."""
    made = simulate_scan(photons=photons, n_side=N_SIDE, seed=seed)
    if every == 1:
        return made
    kept = np.arange(N_SIDE * N_SIDE).reshape(N_SIDE, N_SIDE)[::every, ::every].ravel()
    return replace(made, scan=made.scan.subset(kept))


def measure(run: Path, made: Simulation) -> dict[str, tuple[float, ...]]:
    """Amplitude SSIM, phase SSIM, FRC50 and CPU seconds of each way."""
    generator, _ = load_generator(find_checkpoint(run))
    scan = made.scan
    core, size = tile_sizes(generator, scan, None)
    free = draw_free(len(scan), FREE_SHARE, 0).numpy()

    def network(without: np.ndarray) -> Reconstruction:
        return reconstruct_scan(generator, scan, core=core, size=size, batch_size=1, without=without)

    def refined(start: Reconstruction, judges: np.ndarray) -> Reconstruction:
        options = {"refine_probe": False, "refine_positions": False, "probe_modes": None, "seed": 0, "show": False}
        result, said = polish(start, scan, passes="auto", free=judges, **options)
        return network(np.empty(0, dtype=np.int64)) if said["outcome"] == "start" else result

    rows = {}
    started = time.process_time()
    alone = network(np.empty(0, dtype=np.int64))
    rows["network"] = figures(alone, made, started)
    started = time.process_time()
    rows["network, refined"] = figures(refined(network(free), free), made, started)
    started = time.process_time()
    rows["empty, refined"] = figures(refined(replace(alone, object=np.ones_like(alone.object)), free), made, started)
    return rows


def figures(result: Reconstruction, made: Simulation, started: float) -> tuple[float, ...]:
    """What is put into a row of the table."""
    seconds = time.process_time() - started
    amplitude, phase, frc, *_ = astuple(compare(replace(result, positions_px=made.scan.positions_px), made.truth))
    return amplitude, phase, frc, seconds


def table(case: str, training_s: float, rows: list[dict[str, tuple[float, ...]]]) -> list[str]:
    """Lines of the table for one case: mean and spread over the objects."""
    lines = []
    for way in rows[0]:
        values = np.array([row[way] for row in rows])
        cells = [f"{mean:.3f} ± {spread:.3f}" for mean, spread in zip(values.mean(0)[:3], values.std(0)[:3], strict=True)]
        trained = f"{training_s:.0f}" if way.startswith("network") else ""
        lines.append(f"| {case} | {way} | {' | '.join(cells)} | {np.median(values[:, 3]):.1f} | {trained} |")
    return lines


def main() -> None:
    """Train, judge, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for scans, runs and quality.md")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    arguments = parser.parse_args()
    lines = [
        "| photons | way | amplitude SSIM | phase SSIM | FRC50 | CPU s | training CPU s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for case in arguments.cases:
        folder = arguments.output_dir / case.replace(" ", "_").replace(",", "")
        folder.mkdir(parents=True, exist_ok=True)
        learned: Scan = scan_of(0, *CASES[case]).scan
        write_scan(folder / "scan.npz", learned)
        started = time.process_time()
        run = train(
            TrainingConfig(
                train_data_file=[folder / "scan.npz"], output_dir=folder / "run", quiet=True, overwrite=True, accelerator="cpu"
            )
        )
        training_s = time.process_time() - started
        lines += table(case, training_s, [measure(run.path, scan_of(seed, *CASES[case])) for seed in UNSEEN])
        print("\n".join(lines), flush=True)
    write_text(arguments.output_dir / "quality.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

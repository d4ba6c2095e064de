"""How general a trained network is: `python benchmarks/generality.py --output_dir DIR`.

Studies on simulated scans whose objects are known; the results are in `benchmarks/generality.md`:

- `carry-over`: networks trained on scans of one dose, probe or overlap, used on scans of another.
- `four-scans`: networks trained on four scans of different objects, probes and doses, against
  networks trained on one of them, each with the defaults and a few seeds, on other scans; all have
  few positions, far apart. `four-large-scans` is the same with many.
- `large-scan`: a network trained on 1024 positions, used on 16,384.
- `large-training`: networks trained on 16,384 positions for a few epochs.
- `seeds`: ten trainings that differ in the seed alone; the networks alone, and with refinement.
- `epochs`: the last epoch against the epoch of the smallest training loss.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from quality import (
    BEAM,
    N_SIDE,
    STEP_PX,
    UNSEEN,
    agreement_with_truth,
    empty_refined,
    network_alone,
    network_refined,
    simulated,
    timed,
    trained,
)

from ptycho_torch.data.conditions import Conditions, conditions_of
from ptycho_torch.data.scan import Reconstruction
from ptycho_torch.data.simulation import Simulation
from ptycho_torch.generators import Generator
from ptycho_torch.generators.checkpoint import load_generator
from ptycho_torch.io.files import write_text
from ptycho_torch.io.run_dir import RunDir

SEEDS = 10
FEW_SEEDS = 3  # for the comparison of several trainings
FIELD_PX = N_SIDE * STEP_PX  # extent of the positions along each side
FAR_PX = 15.0  # step of a scan with few positions
MORE_UNSEEN = (*UNSEEN, 104, 105, 106)  # for ratios; the FRC50 varies much from object to object
MANY_UNSEEN = tuple(range(101, 113))  # for the network alone, which takes little time
MOST_UNSEEN = tuple(range(101, 149))  # for seeds; a FRC50 of twelve objects is known to 0.02 only
EVERY_EPOCH = 1000  # number of checkpoints to keep, more than there are epochs
LARGE_SIDE = 128  # positions along each side of a large scan
LARGE_EPOCHS = (3, 8, 16)  # each has 256 steps

Make = Callable[[Simulation], Reconstruction]


@dataclass(frozen=True)
class Kind:
    """A kind of scan.

    Attributes:
        photons: Photons per exposure.
        defocus: Defocus relative to the default probe.
        step_px: Distance of neighbouring positions.
    """

    photons: float = 1e4
    defocus: float = 1.0
    step_px: float = STEP_PX

    def scan(self, seed: int) -> Simulation:
        """A scan of this kind; the seed decides the object."""
        n_side = round(FIELD_PX / self.step_px)
        return simulated(
            seed=seed,
            photons=self.photons,
            n_side=n_side,
            step_px=self.step_px,
            beam=self.defocus * BEAM,
        )


def half_overlap_step() -> float:
    """Distance of positions at which neighbours overlap half as much as by default."""
    beam = conditions_of(Kind().scan(0).scan).beam_px
    return beam * (1 - (1 - STEP_PX / beam) / 2)


def blank(made: Simulation) -> Reconstruction:
    """An empty object on the canvas of the truth."""
    return Reconstruction(**{**vars(made.truth), "object": np.ones_like(made.truth.object)})


def by_network(generator: Generator) -> Make:
    """The method that reconstructs with a network alone."""
    return lambda made: network_alone(generator, made.scan)


def by_refined_network(generator: Generator, trained: Sequence[Conditions] = ()) -> Make:
    """The method that reconstructs with a network and refines; see `quality.network_refined`."""
    return lambda made: network_refined(generator, made.scan, trained)


def mean_figures(make: Make, kind: Kind, objects: Sequence[int] = UNSEEN) -> NDArray[np.float64]:
    """Amplitude SSIM, phase SSIM and FRC50, means over unseen objects."""
    scans = [kind.scan(seed) for seed in objects]
    return np.mean([agreement_with_truth(make(made), made) for made in scans], axis=0)


def carry_over(folder: Path) -> list[str]:
    """Every network on every kind of scan; refined, also relative to the network of that kind."""
    kinds = {
        "1e4": Kind(),
        "1e6": Kind(photons=1e6),
        "1e4, defocus x 1.3": Kind(defocus=1.3),
        "1e4, half the overlap": Kind(step_px=half_overlap_step()),
    }
    trained_with = {name: [conditions_of(kind.scan(0).scan)] for name, kind in kinds.items()}
    networks = {
        name: trained([kind.scan(0).scan], folder / name.replace(" ", "_"))[0]
        for name, kind in kinds.items()
    }
    lines = [
        "| used on | trained on | network | network, refined | relative to its own network |",
        "| --- | --- | --- | --- | --- |",
    ]
    for used, kind in kinds.items():
        mean = partial(mean_figures, kind=kind, objects=MORE_UNSEEN)
        alone = {name: mean(by_network(network)) for name, network in networks.items()}
        refined = {
            name: mean(by_refined_network(network, trained_with[name]))
            for name, network in networks.items()
        }
        refined["empty object"] = mean(lambda made: empty_refined(made.scan, blank(made)))
        for name, figures in refined.items():
            network_cells = cells(alone[name]) if name in alone else ""
            relative = cells(figures / refined[used])
            lines.append(f"| {used} | {name} | {network_cells} | {cells(figures)} | {relative} |")
    return lines


def four_scans(folder: Path, step_px: float = FAR_PX) -> list[str]:
    """Networks of four scans against those of one scan."""
    train_kinds = [
        Kind(3e3, 0.7, step_px),
        Kind(1e4, 1.3, step_px),
        Kind(1e5, 0.85, step_px),
        Kind(1e6, 1.15, step_px),
    ]
    unseen = [Kind(5e3, 1.2, step_px), Kind(3e4, 0.75, step_px), Kind(3e5, 1.0, step_px)]
    scans = [kind.scan(seed).scan for seed, kind in enumerate(train_kinds)]
    lines = [
        "| trained on | network: mean of 1 - SSIM of amplitude and phase | each seed "
        "| amplitude, phase, FRC50 |",
        "| --- | --- | --- | --- |",
    ]
    names = [f"{kind.photons:g} photons, defocus x {kind.defocus:g}" for kind in train_kinds]
    single = zip(names, ([scan] for scan in scans), strict=True)
    for name, chosen in (("all four", scans), *single):
        figures = []
        for seed in range(FEW_SEEDS):
            place = folder / name.replace(" ", "_") / f"seed_{seed}"
            generator, _ = trained(chosen, place, seed=seed)
            each_kind = [mean_figures(by_network(generator), kind) for kind in unseen]
            figures.append(np.mean(each_kind, axis=0))
        errors = [1 - one[:2].mean() for one in figures]
        each = ", ".join(f"{value:.4f}" for value in errors)
        mean = cells(np.mean(figures, axis=0))
        lines.append(f"| {name} | {np.mean(errors):.4f} | {each} | {mean} |")
        print(lines[-1], flush=True)
    return lines


def large_scan(folder: Path) -> list[str]:
    """One object of sixteen times the area: the network, refined, and the refinement alone."""
    scan = Kind().scan(0).scan
    generator, _ = trained([scan], folder)
    made = simulated(seed=UNSEEN[0], photons=Kind().photons, n_side=LARGE_SIDE)
    methods: dict[str, Callable[[], Reconstruction]] = {
        "network": lambda: network_alone(generator, made.scan),
        "network, refined": lambda: network_refined(generator, made.scan, [conditions_of(scan)]),
        "empty, refined": lambda: empty_refined(made.scan, blank(made)),
    }
    lines = ["| method | amplitude, phase, FRC50 | CPU s |", "| --- | --- | --- |"]
    for method, make in methods.items():
        row, _ = timed(make, made)
        figures = cells(np.array([row.amplitude, row.phase, row.frc50]))
        lines.append(f"| {method} | {figures} | {row.cpu_s:.0f} |")
    return lines


def large_training(folder: Path) -> list[str]:
    """Networks trained on an object of sixteen times the area, on objects of the usual size."""
    scan = simulated(seed=0, photons=Kind().photons, n_side=LARGE_SIDE).scan
    lines = [
        "| epochs | network: amplitude, phase, FRC50 | training CPU s |",
        "| --- | --- | --- |",
    ]
    for number in LARGE_EPOCHS:
        generator, cpu_s = trained([scan], folder / f"epochs_{number}", max_epochs=number)
        figures = mean_figures(by_network(generator), Kind(), MANY_UNSEEN)
        lines.append(f"| {number} | {cells(figures)} | {cpu_s:.0f} |")
        print(lines[-1], flush=True)
    return lines


def seeds(folder: Path) -> list[str]:
    """The same training with ten seeds: the networks alone, and with refinement."""
    alone, refined = [], []
    for seed in range(SEEDS):
        generator, _ = trained([Kind().scan(0).scan], folder / f"seed_{seed}", seed=seed)
        alone.append(mean_figures(by_network(generator), Kind(), MOST_UNSEEN))
        refined.append(mean_figures(by_refined_network(generator), Kind(), MANY_UNSEEN))
        print(seed, cells(alone[-1]), cells(refined[-1]), flush=True)
    rows = {
        "mean": lambda figures: np.mean(figures, axis=0),
        "worst of each": lambda figures: np.min(figures, axis=0),
        "worst, relative to the median": lambda figures: (
            np.min(figures, axis=0) / np.median(figures, axis=0)
        ),
        "best of each": lambda figures: np.max(figures, axis=0),
    }
    lines = ["| of ten seeds | network | network, refined |", "| --- | --- | --- |"]
    for name, of in rows.items():
        lines.append(f"| {name} | {cells(of(alone))} | {cells(of(refined))} |")
    return lines


def epochs(folder: Path) -> list[str]:
    """The networks of the last epoch and of the smallest training loss, for two seeds."""
    lines = ["| seed | epoch | amplitude, phase, FRC50 |", "| --- | --- | --- |"]
    for seed in (0, 1):
        place = folder / f"seed_{seed}"
        trained([Kind().scan(0).scan], place, seed=seed, checkpoint_save_top_k=EVERY_EPOCH)
        run = RunDir(place / "run")
        losses = np.loadtxt(run.metrics_csv, delimiter=",", skiprows=1)[:, 2]
        smallest, last = int(losses.argmin()), len(losses) - 1
        for epoch, what in ((smallest, "smallest training loss"), (last, "last")):
            generator, _ = load_generator(run.checkpoints / f"epoch={epoch:04d}.ckpt")
            figures = mean_figures(by_network(generator), Kind(), MANY_UNSEEN)
            lines.append(f"| {seed} | {epoch}, {what} | {cells(figures)} |")
    return lines


def cells(figures: NDArray[np.float64]) -> str:
    """Three figures in a cell."""
    return ", ".join(f"{value:.3f}" for value in figures)


STUDIES: dict[str, Callable[[Path], list[str]]] = {
    "carry-over": carry_over,
    "four-scans": four_scans,
    "four-large-scans": partial(four_scans, step_px=STEP_PX),
    "large-scan": large_scan,
    "large-training": large_training,
    "seeds": seeds,
    "epochs": epochs,
}


def main() -> None:
    """Run the studies and print their tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output_dir", type=Path, required=True, help="folder for scans, runs and tables"
    )
    parser.add_argument("--studies", nargs="+", choices=list(STUDIES), default=list(STUDIES))
    arguments = parser.parse_args()
    for name in arguments.studies:
        lines = STUDIES[name](arguments.output_dir / name)
        print("\n".join(lines), flush=True)
        write_text(arguments.output_dir / f"{name}.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

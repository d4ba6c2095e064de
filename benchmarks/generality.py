"""How far a trained network carries over, and how surely training ends well: `python benchmarks/generality.py --output_dir DIR`.

Studies on simulated scans whose objects are known:

- `carry-over`: networks trained on scans of one dose, probe or overlap, used on scans of another.
- `four-scans`: networks trained on four scans of different objects, probes and doses, against
  networks trained on one of them, each with the defaults and a few seeds, judged on scans of neither;
  all have few positions, far apart. `four-large-scans` is the same with many.
- `large-scan`: a network trained on 1024 positions, used on 16,384.
- `large-training`: networks trained on 16,384 positions for a few epochs.
- `seeds`: ten trainings that differ in the seed alone; the networks alone, and refined.
- `epochs`: the last epoch against that of the least training loss.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from quality import BEAM, N_SIDE, STEP_PX, UNSEEN, empty_refined, judge, network_refined, picture, simulated, timed, trained

from ptycho_torch.checkpoint import load_generator
from ptycho_torch.conditions import conditions_of
from ptycho_torch.run_dir import RunDir, write_text
from ptycho_torch.scan import Reconstruction
from ptycho_torch.simulate import Simulation

SEEDS = 10
FEW_SEEDS = 3  # where several trainings are compared
FIELD_PX = N_SIDE * STEP_PX  # of the positions, along each side
FAR_PX = 15.0  # between positions, where a scan has few
MORE_UNSEEN = (*UNSEEN, 104, 105, 106)  # where shares are compared; a FRC50 jumps from object to object
MANY_UNSEEN = tuple(range(101, 113))  # where the network alone is judged, which takes little time
MOST_UNSEEN = tuple(range(101, 149))  # where seeds are compared; a FRC50 of twelve objects is sure to 0.02 only
EVERY_EPOCH = 1000  # checkpoints
LARGE_SIDE = 128  # positions along each side of a large scan
LARGE_EPOCHS = (3, 8, 16)  # of 256 steps


@dataclass(frozen=True)
class Kind:
    """A kind of scan.

    Attributes:
        photons: Per exposure.
        defocus: Relative to that of the default probe.
        step_px: Between positions.
    """

    photons: float = 1e4
    defocus: float = 1.0
    step_px: float = STEP_PX

    def scan(self, seed: int) -> Simulation:
        """A scan of this kind; the seed decides the object."""
        n_side = round(FIELD_PX / self.step_px)
        return simulated(seed=seed, photons=self.photons, n_side=n_side, step_px=self.step_px, beam=self.defocus * BEAM)


def half_overlap_step() -> float:
    """Distance of positions at which neighbours overlap half as much as by default."""
    beam = conditions_of(Kind().scan(0).scan).beam_px
    return beam * (1 - (1 - STEP_PX / beam) / 2)


def blank(made: Simulation) -> Reconstruction:
    """An empty object on the canvas of the truth."""
    return Reconstruction(**{**vars(made.truth), "object": np.ones_like(made.truth.object)})


def mean_figures(
    make: Callable[[Simulation], Reconstruction], kind: Kind, objects: Sequence[int] = UNSEEN
) -> NDArray[np.float64]:
    """Amplitude SSIM, phase SSIM and FRC50 over unseen objects."""
    scans = [kind.scan(seed) for seed in objects]
    return np.mean([judge(make(made), made) for made in scans], axis=0)


def carry_over(folder: Path) -> list[str]:
    """Every network on every kind of scan, refined; the share of what the network of that kind reaches."""
    kinds = {
        "1e4": Kind(),
        "1e6": Kind(photons=1e6),
        "1e4, defocus x 1.3": Kind(defocus=1.3),
        "1e4, half the overlap": Kind(step_px=half_overlap_step()),
    }
    trained_with = {name: [conditions_of(kind.scan(0).scan)] for name, kind in kinds.items()}
    networks = {name: trained([kind.scan(0).scan], folder / name.replace(" ", "_"))[0] for name, kind in kinds.items()}
    lines = [
        "| used on | trained on | network | network, refined | of its own network's |",
        "| --- | --- | --- | --- | --- |",
    ]
    for used, kind in kinds.items():
        mean = partial(mean_figures, kind=kind, objects=MORE_UNSEEN)
        alone = {name: mean(lambda made, g=g: picture(g, made.scan)) for name, g in networks.items()}  # type: ignore[misc]
        after = {
            name: mean(lambda made, g=g, name=name: network_refined(g, made.scan, trained_with[name]))  # type: ignore[misc]
            for name, g in networks.items()
        }
        lines += [
            f"| {used} | {name} | {cells(alone[name])} | {cells(after[name])} | {cells(after[name] / after[used])} |"
            for name in networks
        ]
        flat = mean(lambda made: empty_refined(made.scan, blank(made)))
        lines.append(f"| {used} | empty object | | {cells(flat)} | {cells(flat / after[used])} |")
    return lines


def four_scans(folder: Path, step_px: float = FAR_PX) -> list[str]:
    """Networks of four scans against those of one scan."""
    taught = [Kind(3e3, 0.7, step_px), Kind(1e4, 1.3, step_px), Kind(1e5, 0.85, step_px), Kind(1e6, 1.15, step_px)]
    unseen = [Kind(5e3, 1.2, step_px), Kind(3e4, 0.75, step_px), Kind(3e5, 1.0, step_px)]
    scans = [kind.scan(seed).scan for seed, kind in enumerate(taught)]
    lines = [
        "| trained on | network: mean of 1 - SSIM of amplitude and phase | each seed | amplitude, phase, FRC50 |",
        "| --- | --- | --- | --- |",
    ]
    names = [f"{kind.photons:g} photons, defocus x {kind.defocus:g}" for kind in taught]
    for name, chosen in (("all four", scans), *zip(names, ([scan] for scan in scans), strict=True)):
        figures = []
        for seed in range(FEW_SEEDS):
            generator, _ = trained(chosen, folder / name.replace(" ", "_") / f"seed_{seed}", seed=seed)
            figures.append(
                np.mean([mean_figures(lambda made, g=generator: picture(g, made.scan), kind) for kind in unseen], axis=0)  # type: ignore[misc]
            )
        lacking = [1 - one[:2].mean() for one in figures]
        each = ", ".join(f"{value:.4f}" for value in lacking)
        lines.append(f"| {name} | {np.mean(lacking):.4f} | {each} | {cells(np.mean(figures, axis=0))} |")
        print(lines[-1], flush=True)
    return lines


def large_scan(folder: Path) -> list[str]:
    """One object of sixteen times the area, by the network alone, refined, and by the refinement alone."""
    scan = Kind().scan(0).scan
    generator, _ = trained([scan], folder)
    made = simulated(seed=UNSEEN[0], photons=Kind().photons, n_side=LARGE_SIDE)
    ways: dict[str, Callable[[], Reconstruction]] = {
        "network": lambda: picture(generator, made.scan),
        "network, refined": lambda: network_refined(generator, made.scan, [conditions_of(scan)]),
        "empty, refined": lambda: empty_refined(made.scan, blank(made)),
    }
    lines = ["| way | amplitude, phase, FRC50 | CPU s |", "| --- | --- | --- |"]
    for way, make in ways.items():
        row, _ = timed(make, made)
        lines.append(f"| {way} | {cells(np.array([row.amplitude, row.phase, row.frc50]))} | {row.cpu_s:.0f} |")
    return lines


def large_training(folder: Path) -> list[str]:
    """Networks trained on an object of sixteen times the area, by epochs, alone on unseen objects of the usual size."""
    scan = simulated(seed=0, photons=Kind().photons, n_side=LARGE_SIDE).scan
    lines = ["| epochs | network: amplitude, phase, FRC50 | training CPU s |", "| --- | --- | --- |"]
    for number in LARGE_EPOCHS:
        generator, cpu_s = trained([scan], folder / f"epochs_{number}", max_epochs=number)
        figures = mean_figures(lambda made, g=generator: picture(g, made.scan), Kind(), MANY_UNSEEN)  # type: ignore[misc]
        lines.append(f"| {number} | {cells(figures)} | {cpu_s:.0f} |")
        print(lines[-1], flush=True)
    return lines


def seeds(folder: Path) -> list[str]:
    """The same training with ten seeds: the networks alone, and refined."""
    alone, after = [], []
    for seed in range(SEEDS):
        generator, _ = trained([Kind().scan(0).scan], folder / f"seed_{seed}", seed=seed)
        alone.append(mean_figures(lambda made, g=generator: picture(g, made.scan), Kind(), MOST_UNSEEN))  # type: ignore[misc]
        after.append(mean_figures(lambda made, g=generator: network_refined(g, made.scan), Kind(), MANY_UNSEEN))  # type: ignore[misc]
        print(seed, cells(alone[-1]), cells(after[-1]), flush=True)
    rows = {
        "mean": lambda figures: np.mean(figures, axis=0),
        "worst of each": lambda figures: np.min(figures, axis=0),
        "worst, of the median": lambda figures: np.min(figures, axis=0) / np.median(figures, axis=0),
        "best of each": lambda figures: np.max(figures, axis=0),
    }
    lines = ["| of ten seeds | network | network, refined |", "| --- | --- | --- |"]
    return lines + [f"| {name} | {cells(of(alone))} | {cells(of(after))} |" for name, of in rows.items()]


def epochs(folder: Path) -> list[str]:
    """The network of the last epoch, and of that with the least training loss, for two seeds."""
    lines = ["| seed | epoch | amplitude, phase, FRC50 |", "| --- | --- | --- |"]
    for seed in (0, 1):
        place = folder / f"seed_{seed}"
        trained([Kind().scan(0).scan], place, seed=seed, checkpoint_save_top_k=EVERY_EPOCH)
        run = RunDir(place / "run")
        losses = np.loadtxt(run.metrics_csv, delimiter=",", skiprows=1)[:, 2]
        for epoch, what in ((int(losses.argmin()), "of the least training loss"), (len(losses) - 1, "last")):
            generator, _ = load_generator(run.checkpoints / f"epoch={epoch:04d}.ckpt")
            figures = mean_figures(lambda made, g=generator: picture(g, made.scan), Kind(), MANY_UNSEEN)  # type: ignore[misc]
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
    """Make the studies and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for scans, runs and tables")
    parser.add_argument("--studies", nargs="+", choices=list(STUDIES), default=list(STUDIES))
    arguments = parser.parse_args()
    for name in arguments.studies:
        lines = STUDIES[name](arguments.output_dir / name)
        print("\n".join(lines), flush=True)
        write_text(arguments.output_dir / f"{name}.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

"""Quality and time on simulated scans: `python benchmarks/quality.py --output_dir DIR`.

For each case a network is trained on one scan, with the defaults. Four methods then reconstruct
scans of objects that the network was not trained on: the network alone, the network with
refinement, the same refinement from an empty object, and an annealed rPIE with the true probe, an
iteration that shares no code with the package. The folder of each case holds pictures of the truth
and of the reconstructions. The results are in `benchmarks/quality.md`.
"""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ptycho_torch.config import InferenceConfig, TrainingConfig
from ptycho_torch.data.conditions import Conditions, conditions_of
from ptycho_torch.data.probe import annular_probe, scaled_to
from ptycho_torch.data.scan import Reconstruction, Scan
from ptycho_torch.data.simulation import (
    MARGIN_PX,
    Simulation,
    measure,
    random_object,
    raster_positions,
)
from ptycho_torch.evaluation.displayed_phase import phase_range
from ptycho_torch.evaluation.metrics.agreement import compare, overlay
from ptycho_torch.evaluation.plots import phase_colours, save_figure
from ptycho_torch.generators import Generator
from ptycho_torch.generators.checkpoint import find_checkpoint, load_generator
from ptycho_torch.inference.in_memory import HELD_OUT_FRACTION, reconstruct_and_refine
from ptycho_torch.inference.tiling import reconstruct_scan, tile_sizes
from ptycho_torch.io.files import write_text
from ptycho_torch.io.writers import write_scan
from ptycho_torch.physics.patches import split_corners
from ptycho_torch.physics.probe_shift import shift_probe
from ptycho_torch.refinement import RefineOptions, draw_held_out, refine_reconstruction
from ptycho_torch.train import train

UNSEEN = (101, 102, 103)  # seeds of the objects on which methods are compared
N_SIDE = 32
STEP_PX = 5.0
PATTERN_SIZE = 64
BEAM = 0.5  # diameter of the beam, as a share of the window
DARKEST = 0.22  # smallest amplitude of an object
RPIE_EPOCHS = 25


@dataclass(frozen=True)
class Case:
    """A kind of scan, and the settings of rPIE that are best for it.

    Attributes:
        photons: Photons per exposure.
        every: 3 uses every third row and column of the scan.
        rpie_steps: Step sizes at the start and at the end.
        rpie_regularisation: Share of the brightest illumination in the preconditioner.
    """

    photons: float
    every: int
    rpie_steps: tuple[float, float]
    rpie_regularisation: float


CASES = {
    "1e4": Case(1e4, 1, (0.25, 0.05), 0.5),
    "1e4, every third row and column": Case(1e4, 3, (0.25, 0.05), 0.2),
    "1e9": Case(1e9, 1, (0.9, 0.7), 0.05),
}


@dataclass(frozen=True)
class Row:
    """Quality and time of one method on one object.

    Attributes:
        amplitude: SSIM of the amplitude.
        phase: SSIM of the phase.
        frc50: Resolution, as a fraction of Nyquist.
        cpu_s: CPU seconds for the whole scan.
    """

    amplitude: float
    phase: float
    frc50: float
    cpu_s: float


def simulated(
    *, seed: int, photons: float, n_side: int, step_px: float = STEP_PX, beam: float = BEAM
) -> Simulation:
    """A scan of an object of high contrast with a beam half as wide as the window.

    On such scans the annealed rPIE reaches, at 1e4 photons, an amplitude SSIM of 0.89 from 1024
    positions and 0.69 from every third row and column.
    """
    probe = annular_probe(PATTERN_SIZE, beam=beam)
    rng = np.random.default_rng(seed)
    positions = raster_positions(n_side, step_px, rng) + PATTERN_SIZE / 2 + MARGIN_PX
    size = math.ceil(positions.max() + PATTERN_SIZE / 2) + MARGIN_PX
    specimen = random_object(size, rng, darkest=DARKEST)
    return measure(specimen, scaled_to(probe, photons), positions, seed=seed, rng=rng)


def scan_of(seed: int, photons: float, every: int = 1) -> Simulation:
    """A scan of 1024 positions, or of every third of its rows and columns."""
    made = simulated(seed=seed, photons=photons, n_side=N_SIDE)
    if every == 1:
        return made
    kept = np.arange(N_SIDE * N_SIDE).reshape(N_SIDE, N_SIDE)[::every, ::every].ravel()
    return replace(made, scan=made.scan.subset(kept))


def trained(scans: list[Scan], folder: Path, **options: Any) -> tuple[Generator, float]:
    """A network trained on scans with the defaults, and the CPU seconds that it took."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"scan_{number}.npz" for number in range(len(scans))]
    for path, scan in zip(paths, scans, strict=True):
        write_scan(path, scan)
    common: dict[str, Any] = {"quiet": True, "overwrite": True, "accelerator": "cpu"}
    started = time.process_time()
    run = train(
        TrainingConfig(train_data_file=paths, output_dir=folder / "run", **(common | options))
    )
    return load_generator(find_checkpoint(run.path))[0], time.process_time() - started


def network_alone(
    generator: Generator, scan: Scan, held_out: NDArray | None = None
) -> Reconstruction:
    """The reconstruction by the network alone."""
    sizes = tile_sizes(generator, scan, None)
    return reconstruct_scan(generator, scan, sizes=sizes, batch_size=1, held_out=held_out)


def network_refined(
    generator: Generator, scan: Scan, trained: Sequence[Conditions] = ()
) -> Reconstruction:
    """The reconstruction by `inference --refine auto`.

    Args:
        generator: Trained network.
        scan: Scan to reconstruct.
        trained: Conditions of the training scans; by default those of the scan.
    """
    nowhere = Path()
    config = InferenceConfig(
        model_path=nowhere, test_data=nowhere, output_dir=nowhere, refine="auto", quiet=True
    )
    conditions = trained or [conditions_of(scan)]
    return reconstruct_and_refine(generator, scan, config, trained=conditions)[0]


def empty_refined(scan: Scan, blank: Reconstruction) -> Reconstruction:
    """The same refinement from an empty object."""
    held_out = draw_held_out(len(scan), HELD_OUT_FRACTION, 0).numpy()
    options = RefineOptions()
    return refine_reconstruction(
        scan, blank, options, held_out=held_out, network_object=None, show=False
    )[0]


def annealed_rpie(scan: Scan, blank: Reconstruction, case: Case) -> Reconstruction:
    """The object by the regularised ptychographical iterative engine (rPIE) [1]_.

    One pattern at a time, with steps that fall from epoch to epoch.

    References:
        .. [1] A. Maiden, D. Johnson and P. Li, "Further improvements to the ptychographical
           iterative engine", Optica 4, 736 (2017), doi:10.1364/OPTICA.4.000736.
    """
    image = blank.object.copy()
    height, width = scan.pattern_shape
    whole, fraction = split_corners(torch.from_numpy(scan.corners_px() - blank.origin_yx))
    probes = shift_probe(torch.from_numpy(scan.need_probe()[:1]), fraction.float()).numpy()[:, 0]
    modulus = np.fft.ifftshift(np.sqrt(scan.counts[:].astype(np.float32)), axes=(-2, -1))
    rng = np.random.default_rng(0)
    for step in np.linspace(*case.rpie_steps, RPIE_EPOCHS):
        for n in rng.permutation(len(scan)):
            y, x = whole[n].tolist()
            window, probe = image[y : y + height, x : x + width], probes[n]
            wave = np.fft.fft2(window * probe, norm="ortho")
            change = np.fft.ifft2(
                wave * (modulus[n] / np.maximum(np.abs(wave), 1e-6) - 1), norm="ortho"
            )
            power = np.abs(probe) ** 2
            weight = (1 - case.rpie_regularisation) * power + case.rpie_regularisation * power.max()
            window += (step * probe.conj() * change / weight).astype(np.complex64)
    return replace(blank, object=image)


def methods(
    generator: Generator, made: Simulation, case: Case
) -> dict[str, Callable[[], Reconstruction]]:
    """The methods to reconstruct one scan."""
    scan, first = made.scan, network_alone(generator, made.scan)
    blank = replace(first, object=np.ones_like(first.object))
    return {
        "network": lambda: network_alone(generator, scan),
        "network, refined": lambda: network_refined(generator, scan),
        "empty, refined": lambda: empty_refined(scan, blank),
        "annealed rPIE": lambda: annealed_rpie(scan, blank, case),
    }


def timed(make: Callable[[], Reconstruction], made: Simulation) -> tuple[Row, Reconstruction]:
    """Quality and time of one method, and its reconstruction."""
    started = time.process_time()
    result = make()
    seconds = time.process_time() - started
    return Row(*agreement_with_truth(result, made), seconds), result


def draw(path: Path, made: Simulation, results: dict[str, Reconstruction]) -> None:
    """Draw the truth and the reconstruction of each method, amplitude above phase."""
    pairs = {
        method: overlay(replace(result, positions_px=made.scan.positions_px), made.truth)
        for method, result in results.items()
    }
    truth = next(iter(pairs.values())).reference
    low, high = np.percentile(np.abs(truth), [0.5, 99.5])
    turn = np.exp(-1j * np.angle(truth.mean()))
    span = phase_range(np.angle(truth * turn))
    figure = Figure(figsize=(3 * (1 + len(pairs)), 6), layout="compressed")
    axes = figure.subplots(2, 1 + len(pairs))
    images = [("truth", truth), *((method, pair.image) for method, pair in pairs.items())]
    for column, (name, image) in enumerate(images):
        amplitude = axes[0, column].imshow(np.abs(image), cmap="viridis", vmin=low, vmax=high)
        angle = span.on_branch(np.angle(image * turn))
        phase = axes[1, column].imshow(
            angle, cmap=phase_colours(span), vmin=span.low, vmax=span.high
        )
        axes[0, column].set_title(name)
    for row, drawn, label in ((0, amplitude, "amplitude"), (1, phase, "phase [rad]")):
        figure.colorbar(drawn, ax=axes[row], label=label)
        for one in axes[row]:
            one.set_axis_off()
    save_figure(path, figure)


def agreement_with_truth(result: Reconstruction, made: Simulation) -> tuple[float, float, float]:
    """Amplitude SSIM, phase SSIM and FRC50."""
    amplitude, phase, frc, *_ = astuple(
        compare(replace(result, positions_px=made.scan.positions_px), made.truth)
    )
    return amplitude, phase, frc


def table(case: str, training_s: float, rows: list[dict[str, Row]]) -> list[str]:
    """Lines of the table for one case: mean and spread over the objects."""
    lines = []
    for method in rows[0]:
        values = np.array([astuple(row[method]) for row in rows])
        pairs = zip(values.mean(0)[:3], values.std(0)[:3], strict=True)
        cells = " | ".join(f"{mean:.3f} ± {spread:.3f}" for mean, spread in pairs)
        training = f"{training_s:.0f}" if method.startswith("network") else ""
        cpu_s = np.median(values[:, 3])
        lines.append(f"| {case} | {method} | {cells} | {cpu_s:.1f} | {training} |")
    return lines


def main() -> None:
    """Train, reconstruct with each method, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--output_dir",
        type=Path,
        required=True,
        help="folder for scans, runs, pictures and quality.md",
    )
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    arguments = parser.parse_args()
    lines = [
        "| photons | method | amplitude SSIM | phase SSIM | FRC50 | CPU s | training CPU s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in arguments.cases:
        case = CASES[name]
        folder = arguments.output_dir / name.replace(" ", "_").replace(",", "")
        generator, training_s = trained([scan_of(0, case.photons, case.every).scan], folder)
        rows = []
        for seed in UNSEEN:
            made = scan_of(seed, case.photons, case.every)
            results = {
                method: timed(make, made) for method, make in methods(generator, made, case).items()
            }
            rows.append({method: row for method, (row, _) in results.items()})
            images = {method: image for method, (_, image) in results.items()}
            draw(folder / f"object_{seed}.png", made, images)
        lines += table(name, training_s, rows)
        print("\n".join(lines), flush=True)
    write_text(arguments.output_dir / "quality.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

"""Measurements as they are: `python benchmarks/real_life.py --output_dir DIR [--star FILE]`.

Scans are simulated with one fault of a measurement each (wrong positions, a varying flux, a
background, a drifting probe and so on), with all of them, and without any. Each is reconstructed

- *plain*: by `inference --refine auto` with every switch for faults off,
- *auto*: by `inference --refine auto`, which has to find the faults by itself,
- by the LSQ-ML of Pty-Chi [1]_ with its own corrections on, where ptychi is installed; once a row,

and compared with the truth after shift, factor and phase ramp are removed. The network is trained
once, with the defaults, on a scan without faults of another object. Each row has goals, and the
table says which are missed. DIR holds every scan and every result, `real_life.md` with the table,
and pictures of truth, plain and auto for two rows. The results are in `benchmarks/real_life.md`.

References:
    .. [1] M. Odstrcil, A. Menzel and M. Guizar-Sicairos, "Iterative least-squares solver for
       generalized maximum-likelihood ptychography", Opt. Express 26, 3108 (2018),
       doi:10.1364/OE.26.003108.
"""

import argparse
import hashlib
import importlib.util
import json
import math
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lsqml import LSQML_EPOCHS, reconstruct_by_lsqml
from numpy.typing import NDArray
from quality import draw
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree
from tabulate import tabulate

from ptycho_torch.config import TrainingConfig
from ptycho_torch.config.options import ReconstructionOptions
from ptycho_torch.data.measurement_faults import MeasurementFaults, rng_of
from ptycho_torch.data.probe import annular_probe, defocus_curvature, defocused
from ptycho_torch.data.scan import Reconstruction, relative_photons
from ptycho_torch.data.simulation import NO_FAULTS, Simulation, measure, raster_positions
from ptycho_torch.errors import InputError
from ptycho_torch.evaluation.metrics.agreement import compare
from ptycho_torch.evaluation.plots import panels, plot_phase, save_figure
from ptycho_torch.generators.checkpoint import find_checkpoint
from ptycho_torch.io.files import write_json, write_text
from ptycho_torch.io.readers.reconstruction import read_reconstruction
from ptycho_torch.io.run_dir import RunDir
from ptycho_torch.io.writers import write_reconstruction, write_scan
from ptycho_torch.testing.process import CommandResult, cpu_environment, run_command
from ptycho_torch.train import train

SEEDS = (201, 202, 203)  # of the objects that are reconstructed
TRAINING_SEED = 200
PHOTONS = 1e6
N_SIDE, STEP_PX, SIZE = 20, 6.0, 64
MARGIN_PX = 8  # of the object beyond the outermost patches
APERTURE_PX, STOP_PX = 7.0, 2.0  # radii of the annular pupil on the detector, in its pixels
BEAM = 0.7  # diameter of the defocused beam, as a fraction of the window: it fills it
DARKEST, PHASE_RAD = 0.25, 1.5  # range of the object
PROBE_DEFOCUS_ERROR, PROBE_NOISE = 0.27, 0.15  # relative, of the probe in the file, where it errs
LOST, LOST_PX = 137, 5000.0  # index of the pattern whose position is lost, and the error of its x
LIMIT_S = 1800.0
PICTURED = ("positions 2 px", "drift")


@dataclass(frozen=True)
class Goals:
    """Limits for the figures of a row; None where there is none.

    Attributes:
        amplitude: Least SSIM of the amplitude.
        phase: Least SSIM of the phase.
        frc50: Least resolution, as a fraction of Nyquist.
        position_px: Largest rms of the positions after the affine part.
        scale_percent: Largest error of the scale.
        angle_deg: Largest error of the angle.
        flux_percent: Largest rms of the flux.
        background_percent: Largest error of the background's total, relative to it.
        cpu_s: Longest time.
        time_ratio: Longest time relative to plain.
        memory_ratio: Largest memory relative to that of the scan without faults.
        findings: Largest number of things that are reported.
        named: Word that a finding must hold.
    """

    amplitude: float
    phase: float
    frc50: float
    position_px: float | None = None
    scale_percent: float | None = None
    angle_deg: float | None = None
    flux_percent: float | None = None
    background_percent: float | None = None
    cpu_s: float | None = None
    time_ratio: float | None = None
    memory_ratio: float | None = None
    findings: int | None = None
    named: str | None = None


@dataclass(frozen=True)
class Case:
    """A row: what is wrong with the measurement, and how good the image has to be.

    Attributes:
        goals: Of *auto*.
        faults: Of the simulation.
        wrong_probe: Whether the probe of the file is a bad guess.
        lost_position: Whether one position is lost.
        modes: Incoherent modes that Pty-Chi gets; it does not choose their number.
        opr_modes: Components of a changing probe that Pty-Chi gets. Where the probe does not
            change, more than one cost it the phase: SSIM 0.79 of a scan without faults with three.
    """

    goals: Goals
    faults: MeasurementFaults = NO_FAULTS
    wrong_probe: bool = False
    lost_position: bool = False
    modes: int = 1
    opr_modes: int = 1


CLEAN = "clean"
SOUND = Goals(0.99, 0.99, 1.0)
CASES = {
    CLEAN: Case(Goals(0.992, 0.995, 1.0, time_ratio=4 / 3, findings=0)),
    "positions 1 px": Case(
        Goals(0.99, 0.99, 1.0, position_px=0.03, cpu_s=25),
        MeasurementFaults(position_error_px=1.0),
    ),
    "positions 2 px": Case(
        Goals(0.985, 0.985, 1.0, position_px=0.05, cpu_s=25),
        MeasurementFaults(position_error_px=2.0),
    ),
    "scaled 2 %, turned 1°": Case(
        Goals(0.98, 0.98, 1.0, scale_percent=0.1, angle_deg=0.1),
        MeasurementFaults(position_scale=1.02, position_rotation_deg=1.0),
    ),
    "flux 15 %": Case(
        Goals(0.992, 0.985, 1.0, flux_percent=2), MeasurementFaults(flux_spread=0.15)
    ),
    "background 5 %": Case(
        Goals(0.965, 0.985, 0.78, background_percent=10), MeasurementFaults(background=0.05)
    ),
    "drift": Case(Goals(0.975, 0.97, 1.0), MeasurementFaults(probe_drift=0.1), opr_modes=3),
    "source size": Case(SOUND, MeasurementFaults(source_size_px=1.0), modes=3),
    "motion": Case(replace(SOUND, amplitude=0.988), MeasurementFaults(motion_px=4.0), modes=3),
    "all together": Case(
        Goals(0.95, 0.95, 0.80),
        MeasurementFaults(
            position_error_px=1.0, flux_spread=0.15, background=0.05, source_size_px=1.0
        ),
        wrong_probe=True,
        modes=3,
    ),
    "one position lost": Case(
        Goals(0.99, 0.993, 1.0, memory_ratio=1.05, named=str(LOST)), lost_position=True
    ),
}
STAR = "Siemens star"
STAR_R_FREE = 0.0095  # goal
AUTO = ("--refine", "auto")
SWITCHES = [  # what `--refine auto` tries, each of which can be off
    item.name for item in fields(ReconstructionOptions) if item.default == "auto"
]
PLAIN = (*AUTO, *(word for name in SWITCHES for word in (f"--{name}", "off")))
OWN = {"plain": PLAIN, "auto": AUTO}
PTYCHI = "Pty-Chi"
PTYCHI_SHARE = 1 / 3  # goal: the time of *auto* relative to it


@dataclass(frozen=True)
class Figures:
    """How good one reconstruction is; NaN where there is nothing to compare.

    Attributes:
        amplitude: SSIM of the amplitude.
        phase: SSIM of the phase.
        frc50: Resolution, as a fraction of Nyquist.
        position_px: Rms of an axis of the error of the positions after the affine part.
        scale_percent: What is left of the error of the scale.
        angle_deg: What is left of the error of the angle.
        flux_percent: Rms of the error of the photons of the beam in each exposure.
        background_percent: Error of the background's total, relative to the true one.
        cpu_s: CPU seconds, with the start of the program.
        memory_mb: Peak memory.
        findings: What the program says that it found.
        failure: Why there is no image; then the other figures are NaN.
    """

    amplitude: float = math.nan
    phase: float = math.nan
    frc50: float = math.nan
    position_px: float = math.nan
    scale_percent: float = math.nan
    angle_deg: float = math.nan
    flux_percent: float = math.nan
    background_percent: float = math.nan
    cpu_s: float = math.nan
    memory_mb: float = math.nan
    findings: tuple[str, ...] = ()
    failure: str = ""


def beam() -> NDArray[np.complex64]:
    """The probe of all scans, in sqrt(photons), (1, H, W)."""
    probe = annular_probe(
        SIZE, beam=BEAM, aperture=2 * APERTURE_PX / SIZE, central_stop=STOP_PX / APERTURE_PX
    )
    return probe * np.float32(math.sqrt(PHOTONS))


def textured_object(size: int, rng: np.random.Generator) -> NDArray[np.complex64]:
    """An object of cells, lines and fine texture, (size, size), in part of high contrast."""
    common = _layer(size, rng)
    absorbing, refracting = (0.6 * common + 0.8 * _layer(size, rng) for _ in range(2))
    amplitude = DARKEST + (1 - DARKEST) * (0.5 + 0.5 * np.tanh(0.9 * absorbing))
    phase = PHASE_RAD * np.tanh(0.9 * refracting)
    return (amplitude * np.exp(1j * phase)).astype(np.complex64)


def _layer(size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Cells of random level, dark and bright lines between random points, and fine texture."""
    y, x = np.mgrid[:size, :size]
    seeds = rng.uniform(0, size, (max(12, size**2 // 600), 2))
    nearest = cKDTree(seeds).query(np.stack([y, x], axis=-1))[1]
    cells = rng.normal(size=len(seeds))[nearest]
    for _ in range(size // 6):
        start, angle = rng.uniform(0, size, 2), rng.uniform(0, math.pi)
        along = (y - start[0]) * math.sin(angle) + (x - start[1]) * math.cos(angle)
        across = (y - start[0]) * math.cos(angle) - (x - start[1]) * math.sin(angle)
        line = (np.abs(across) < rng.uniform(0.6, 2)) & (np.abs(along) < rng.uniform(8, size / 2))
        cells[line] = rng.choice([-1.8, 1.8])
    texture = gaussian_filter(rng.standard_normal((size, size)), 1.2)
    layer = gaussian_filter(cells, 0.7) + 0.4 * texture / texture.std()
    return (layer - layer.mean()) / layer.std()


def simulated(seed: int, case: Case) -> Simulation:
    """A scan of the object of a seed, with the faults of a case."""
    rng = np.random.default_rng(seed)
    positions = raster_positions(N_SIDE, STEP_PX, rng) + SIZE / 2 + MARGIN_PX
    specimen = textured_object(math.ceil(positions.max() + SIZE / 2) + MARGIN_PX, rng)
    made = measure(specimen, beam(), positions, faults=case.faults, seed=seed, rng=rng)
    scan = made.scan
    if case.wrong_probe:
        scan = replace(scan, probe=wrong_probe(scan.need_probe(), seed))
    if case.lost_position:
        given = scan.positions_px.copy()
        given[LOST, 1] += LOST_PX
        scan = replace(scan, positions_px=given)
    return replace(made, scan=scan)


def wrong_probe(probe: NDArray[np.complex64], seed: int) -> NDArray[np.complex64]:
    """A probe with an error of its defocus, and with noise."""
    rng = rng_of(seed, "probe")
    guess = defocused(probe, PROBE_DEFOCUS_ERROR * defocus_curvature(probe))
    noise = rng.normal(size=(*probe.shape, 2)) @ np.array([1, 1j])
    guess = guess * (1 + PROBE_NOISE * noise / math.sqrt(2))
    return (guess * np.linalg.norm(probe) / np.linalg.norm(guess)).astype(np.complex64)


def trained_network(folder: Path) -> Path:
    """Run folder of the network; it is trained where it is not there yet."""
    run = folder / "network"
    try:
        find_checkpoint(run)
    except InputError:
        scan = folder / "training_scan.npz"
        write_scan(scan, simulated(TRAINING_SEED, CASES[CLEAN]).scan)
        train(TrainingConfig(train_data_file=[scan], output_dir=run, overwrite=True))
    return run


def infer(network: Path, scan: Path, output: Path, flags: Sequence[str]) -> CommandResult:
    """Reconstruct a scan file by the command of the package, measured."""
    words = [sys.executable, "-m", "ptycho_torch.inference", "--accelerator", "cpu", "--overwrite"]
    words += ["--model_path", str(network), "--test_data", str(scan), "--output_dir", str(output)]
    return run_command([*words, *flags], env=cpu_environment(), timeout_s=LIMIT_S, check=False)


def findings_of(run: RunDir) -> tuple[str, ...]:
    """What an inference says that it found about the measurement, lost positions included."""
    said = json.loads(run.metrics.read_text())
    refinement = said.get("refinement") or {}
    lost = [text.rpartition(": ")[2] for text in said["warnings"] if "the position" in text]
    return (*lost, *(item["text"] for item in refinement.get("findings", ())))


def figures_of(result: Reconstruction, made: Simulation) -> Figures:
    """The figures of a reconstruction, but for time, memory and findings."""
    truth = made.truth
    kept = np.isin(truth.scan_index, result.scan_index)
    if np.ptp(made.scan.positions_px, axis=0).max() > LOST_PX / 2:
        kept[LOST] = False
    order = np.searchsorted(result.scan_index, truth.scan_index[kept])
    image = compare(replace(result, positions_px=result.positions_px[order]), truth)
    residual, scale, angle = affine_error(result.positions_px[order], truth.positions_px[kept])
    ratio = relative_photons(result)[order] / relative_photons(truth)[kept]
    background = math.nan
    if truth.background is not None:
        found = 0.0 if result.background is None else float(result.background.sum())
        background = 100 * (found / float(truth.background.sum()) - 1)
    return Figures(
        amplitude=image.amplitude_ssim,
        phase=image.phase_ssim,
        frc50=image.frc50,
        position_px=residual,
        scale_percent=100 * (scale - 1),
        angle_deg=angle,
        flux_percent=100 * float(np.std(ratio / ratio.mean())),
        background_percent=background,
    )


def affine_error(
    found: NDArray[np.float64], true: NDArray[np.float64]
) -> tuple[float, float, float]:
    """Rms of an axis that an affine map of the positions leaves, in px; its scale and its angle.

    The map takes the found positions to the true ones; the scale is the root of its determinant,
    the angle, in degrees, that of its rotation, counterclockwise in a picture.
    """
    around = found - found.mean(axis=0)
    matrix, *_ = np.linalg.lstsq(around, true - true.mean(axis=0), rcond=None)
    left = true - true.mean(axis=0) - around @ matrix
    (yy, xy), (yx, xx) = matrix.T  # rows of the matrix that acts on a column (y, x)
    angle = math.degrees(math.atan2(yx - xy, yy + xx))
    return float(np.sqrt(np.mean(left**2))), math.sqrt(abs(np.linalg.det(matrix))), angle


def own_figures(network: Path, made: Simulation, folder: Path, method: str) -> Figures:
    """The figures of one method of the package; its results stay in the folder."""
    run = RunDir(folder / method)
    done = infer(network, folder / "scan.npz", run.path, OWN[method])
    common: dict[str, Any] = {"cpu_s": done.cpu_s, "memory_mb": done.peak_memory_bytes / 1e6}
    if not done.succeeded:
        return Figures(**common, failure=(done.stderr.strip().splitlines() or [""])[-1])
    figures = figures_of(read_reconstruction(run.reconstruction), made)
    return replace(figures, **common, findings=findings_of(run))


def ptychi_figures(made: Simulation, folder: Path, case: Case) -> Figures:
    """The figures of Pty-Chi; an earlier result for the same scan is taken from the folder."""
    kept, image = folder / "ptychi.json", folder / "ptychi.npz"
    arrays = (made.scan.counts[:], made.scan.positions_px, made.scan.need_probe())
    key = hashlib.sha256(b"".join(np.ascontiguousarray(one).tobytes() for one in arrays))
    earlier = json.loads(kept.read_text()) if kept.is_file() and image.is_file() else {}
    if earlier.get("scan") == key.hexdigest():
        return replace(figures_of(read_reconstruction(image), made), cpu_s=earlier["cpu_s"])
    try:
        result, seconds = reconstruct_by_lsqml(
            made.scan, modes=case.modes, opr_modes=case.opr_modes
        )
    except (IndexError, RuntimeError, ValueError) as error:
        return Figures(failure=f"{PTYCHI}: {error}")
    seconds += run_command(
        [sys.executable, "-c", "import lsqml; lsqml.import_ptychi()"], cwd=Path(__file__).parent
    ).cpu_s
    write_reconstruction(image, result)
    write_json(kept, {"scan": key.hexdigest(), "cpu_s": seconds})
    return replace(figures_of(result, made), cpu_s=seconds)


def missed(goals: Goals, auto: Figures, plain: Figures, clean: Figures | None) -> list[str]:
    """The goals that *auto* misses, one phrase each."""
    if auto.failure:
        return [auto.failure]
    values = {name: abs(value) for name, value in asdict(auto).items() if isinstance(value, float)}
    values |= {"time_ratio": auto.cpu_s / plain.cpu_s, "findings": float(len(auto.findings))}
    if clean is not None:
        values["memory_ratio"] = auto.memory_mb / clean.memory_mb
    phrases = []
    for item in fields(goals):
        goal = getattr(goals, item.name)
        if goal is None or item.name not in values:
            continue
        value, at_least = values[item.name], item.name in ("amplitude", "phase", "frc50")
        if not (value >= goal if at_least else value <= goal):
            sign = "<" if at_least else ">"
            phrases.append(f"{item.name} {value:.4g} {sign} {goal:.4g}")
    if goals.named and not any(goals.named in text for text in auto.findings):
        phrases.append(f"{goals.named} not named")
    return phrases


def behind_ptychi(auto: Figures, ptychi: Figures) -> list[str]:
    """In what *auto* is not better than Pty-Chi, one phrase each."""
    phrases = [
        f"{name} {getattr(auto, name):.3f} < {getattr(ptychi, name):.3f} of {PTYCHI}"
        for name in ("amplitude", "phase", "frc50")
        if getattr(auto, name) < getattr(ptychi, name)
    ]
    if auto.cpu_s > PTYCHI_SHARE * ptychi.cpu_s:
        phrases.append(f"{auto.cpu_s / ptychi.cpu_s:.2f} of the time of {PTYCHI}")
    return phrases


HEADS = {
    "amplitude": ("amplitude SSIM", 3),
    "phase": ("phase SSIM", 3),
    "frc50": ("FRC50", 3),
    "position_px": ("positions [px]", 3),
    "scale_percent": ("scale [%]", 2),
    "angle_deg": ("angle [°]", 3),
    "flux_percent": ("flux [%]", 2),
    "background_percent": ("background [%]", 0),
}


def lines_of(title: str, results: Sequence[dict[str, Figures]]) -> list[list[str]]:
    """Lines of the table for one row: mean and, where it is not 0, spread over the objects."""
    plain_s = statistics.median(one["plain"].cpu_s for one in results)
    lines = []
    for method in dict.fromkeys(name for one in results for name in one):
        done = [one[method] for one in results if method in one]
        cells = [
            _mean_and_spread([getattr(one, name) for one in done], digits)
            for name, (_, digits) in HEADS.items()
        ]
        seconds = statistics.median(one.cpu_s for one in done)
        times = [f"{seconds:.1f}", f"{seconds / plain_s:.2f}"]
        lines.append([title, method, *cells, *times, _memory(done)])
    return lines


def _mean_and_spread(values: Iterable[float], digits: int) -> str:
    """``mean ± standard deviation``, or nothing where there are no values."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return ""
    mean = f"{statistics.mean(known):.{digits}f}"
    return mean if len(known) == 1 else f"{mean} ± {statistics.pstdev(known):.{digits}f}"


def _memory(done: Sequence[Figures]) -> str:
    """Median of the peak memory in GB, where it was measured."""
    known = [one.memory_mb for one in done if not math.isnan(one.memory_mb)]
    return f"{statistics.median(known) / 1e3:.2f}" if known else ""


def run_row(
    title: str, network: Path, folder: Path, seeds: Sequence[int], *, with_ptychi: bool
) -> list[dict[str, Figures]]:
    """The figures of all methods of one row, one dictionary an object."""
    results = []
    for number, seed in enumerate(seeds):
        made = simulated(seed, CASES[title])
        place = folder / title.replace(" ", "_").replace(",", "") / f"object_{seed}"
        place.mkdir(parents=True, exist_ok=True)
        write_scan(place / "scan.npz", made.scan)
        write_reconstruction(place / "truth.npz", made.truth)
        found = {method: own_figures(network, made, place, method) for method in OWN}
        if with_ptychi and number == 0:
            found[PTYCHI] = ptychi_figures(made, place, CASES[title])
        for method, figures in found.items():
            print(f"{title}, object {seed}, {method}: {in_short(figures)}", flush=True)
        write_json(place / "figures.json", {name: known(one) for name, one in found.items()})
        if title in PICTURED and not any(one.failure for one in found.values()):
            images = {
                method: read_reconstruction(RunDir(place / method).reconstruction) for method in OWN
            }
            draw(place / "truth_plain_auto.png", made, images)
        results.append(found)
    return results


def in_short(figures: Figures) -> str:
    """The figures in a few words."""
    if figures.failure:
        return figures.failure
    found = "; ".join(figures.findings) or "nothing"
    return (
        f"SSIM {figures.amplitude:.3f} and {figures.phase:.3f}, FRC50 {figures.frc50:.2f}, "
        f"positions {figures.position_px:.3f} px, {figures.cpu_s:.1f} CPU s; found: {found}"
    )


def known(figures: Figures) -> dict[str, object]:
    """The figures that are not NaN, by their names."""
    return {name: value for name, value in asdict(figures).items() if not _is_nan(value)}


def _is_nan(value: object) -> bool:
    """Whether there was nothing to compare."""
    return isinstance(value, float) and math.isnan(value)


def star_lines(network: Path, scan: Path, folder: Path) -> list[list[str]]:
    """Lines of the table of a measured scan, and a picture of the phase of each method."""
    lines = []
    for method, flags in OWN.items():
        run = RunDir(folder / "star" / method)
        done = infer(network, scan, run.path, flags)
        if not done.succeeded:
            failure = (done.stderr.strip().splitlines() or [""])[-1]
            lines.append([STAR, method, "", "", f"{done.cpu_s:.1f}", failure])
            continue
        metrics = json.loads(run.metrics.read_text())
        r_free, r_factor = metrics["refinement"]["r_free"], metrics["r_factor"]
        said = "; ".join(findings_of(run)) or "nothing"
        lines.append([STAR, method, f"{r_free:.4f}", f"{r_factor:.4f}", f"{done.cpu_s:.1f}", said])
        print(f"{STAR}, {method}: R-free {r_free:.4f}, {done.cpu_s:.1f} CPU s; found: {said}")
        figure, (axes,) = panels()
        plot_phase(axes, read_reconstruction(run.reconstruction), title=f"Phase, {method}")
        save_figure(folder / "star" / f"phase_{method}.png", figure)
    return lines


def report(rows: dict[str, list[dict[str, Figures]]], star: Sequence[Sequence[str]]) -> str:
    """The tables, the goals that are missed, and what was found, as Markdown."""
    heads = ["measurement", "method", *(head for head, _ in HEADS.values())]
    heads += ["CPU s", "relative to plain", "memory [GB]"]
    body = [line for title, results in rows.items() for line in lines_of(title, results)]
    text = [tabulate(body, heads, tablefmt="github", disable_numparse=True)]
    if star:
        heads = ["measurement", "method", "R-free", "R", "CPU s", "found"]
        text.append(tabulate(star, heads, tablefmt="github", disable_numparse=True))
        if not star[-1][2] or float(star[-1][2]) > STAR_R_FREE:
            text.append(f"{STAR}: R-free is above the goal of {STAR_R_FREE}.")
    lines = []
    for title, results in rows.items():
        for number, one in enumerate(results):
            clean = rows[CLEAN][number]["auto"] if CLEAN in rows else None
            short = missed(CASES[title].goals, one["auto"], one["plain"], clean)
            short += behind_ptychi(one["auto"], one[PTYCHI]) if PTYCHI in one else []
            found = "; ".join(one["auto"].findings) or "nothing"
            lines.append([title, str(number + 1), "; ".join(short) or "none", found])
    heads = ["measurement", "object", "missed goals", "found by auto"]
    text.append(tabulate(lines, heads, tablefmt="github", disable_numparse=True))
    return "\n\n".join(text) + "\n"


def main() -> None:
    """Train once, reconstruct every scan with every method, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output_dir", type=Path, required=True, help="folder for scans, results and real_life.md"
    )
    rows = [*CASES, STAR]
    parser.add_argument("--rows", nargs="+", choices=rows, default=rows, help="rows of the table")
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=list(SEEDS), help="of the objects; one for each"
    )
    parser.add_argument("--star", type=Path, help="measured scan of a Siemens star")
    parser.add_argument("--without_ptychi", action="store_true", help="leave Pty-Chi out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with_ptychi = not arguments.without_ptychi
    if with_ptychi and importlib.util.find_spec("ptychi") is None:
        print(f"{PTYCHI} is left out: ptychi is not installed (pip install ptychi)")
        with_ptychi = False
    if with_ptychi:
        print(f"{PTYCHI}: {LSQML_EPOCHS} epochs of LSQ-ML, once a row")
    folder = arguments.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    network = trained_network(folder)
    results: dict[str, list[dict[str, Figures]]] = {}
    star: list[list[str]] = []
    for title in arguments.rows:
        if title != STAR:
            results[title] = run_row(
                title, network, folder, arguments.seeds, with_ptychi=with_ptychi
            )
        elif arguments.star is None or not arguments.star.is_file():
            reason = "give its file with --star" if arguments.star is None else "no such file"
            print(f"{STAR} is left out: {reason}")
        else:
            star = star_lines(network, arguments.star, folder)
    text = report(results, star)
    print(text)
    write_text(folder / "real_life.md", text)


if __name__ == "__main__":
    main()

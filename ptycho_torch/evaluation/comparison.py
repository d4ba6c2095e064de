"""Compare two images of one object: metrics, ring correlation, picture."""

import logging
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from ptycho_torch.config import CompareConfig
from ptycho_torch.data.scan import Reconstruction
from ptycho_torch.errors import InputError
from ptycho_torch.evaluation.metrics.agreement import (
    Agreement,
    AlignedPair,
    image_agreement,
    overlay,
)
from ptycho_torch.evaluation.metrics.frc import Pair, RingCurves, ring_curves
from ptycho_torch.evaluation.plots import (
    CRITERION_LABELS,
    half_period_m,
    save_comparison,
)
from ptycho_torch.evaluation.quantity_text import length_text
from ptycho_torch.io.files import printable, write_json
from ptycho_torch.io.readers.reconstruction import read_reconstruction
from ptycho_torch.io.run_dir import RunDir

logger = logging.getLogger(__name__)

SAME_PLACE_PX = 1.0  # positions of the same exposures, if they were refined, differ by less


@dataclass(frozen=True)
class Comparison:
    """Two images of one object, and how well they agree.

    Attributes:
        result: File of the image.
        reference: File of what it is compared with.
        pair: The images, aligned.
        agreement: In figures.
        curves: By spatial frequency.
        pixel_size_m: Object pixel ``(y, x)``, where known.
    """

    result: Path
    reference: Path
    pair: AlignedPair
    agreement: Agreement
    curves: RingCurves
    pixel_size_m: tuple[float, float] | None


def compare_files(config: CompareConfig) -> tuple[Comparison, RunDir]:
    """Compare the two images that a command line names, and write figures and picture.

    Args:
        config: Files, and the folder of the comparison.

    Returns:
        The comparison, and its folder.

    Raises:
        InputError: If a file or the folder cannot be used, or the two show no common region.
    """
    paths = find_image(config.result), find_image(config.reference)
    run = RunDir(config.output_dir)
    for path in paths:
        if path.parent.resolve() == run.path.resolve():
            raise InputError(
                f"{run.path} holds {path.name}, which is compared; choose another --output_dir"
            )
    comparison = compare_images(*paths, pair=None if config.pair == "auto" else config.pair)
    with run.claim("compare", overwrite=config.overwrite):
        write_json(run.comparison, to_dict(comparison))
        save_comparison(
            run.comparison_picture,
            comparison.pair,
            comparison.curves,
            names=_names(*paths),
            pixel_size_m=comparison.pixel_size_m,
        )
    logger.info("compared: %s, %s", run.comparison, run.comparison_picture)
    return comparison, run


def find_image(path: Path) -> Path:
    """The file that a path means: itself, or the reconstruction or the truth of a run folder.

    Raises:
        InputError: If there is none.
    """
    if path.is_file():
        return path
    if not path.exists():
        raise InputError(f"{path}: no such file or run folder")
    run = RunDir(path)
    for image in (run.reconstruction, run.truth):
        if image.is_file():
            return image
    raise InputError(
        f"{path}: holds no image; expected {run.reconstruction.name} of inference or "
        f"{run.truth.name} of a simulation"
    )


def is_truth(path: Path) -> bool:
    """Whether a file is the known object of a simulation, by its name."""
    return path.name == RunDir(path.parent).truth.name


def compare_images(result: Path, reference: Path, *, pair: Pair | None) -> Comparison:
    """Compare two files.

    Args:
        result: File of the image.
        reference: File of what it is compared with.
        pair: What they are to each other; by default a truth if one of them is, else two full sets
            of data.
    """
    image, known = read_reconstruction(result), read_reconstruction(reference)
    with_truth = is_truth(result) or is_truth(reference)
    pair = pair or ("truth" if with_truth else "full")
    if not is_truth(reference):
        known = _without_global_phase(known)
    if pair == "full" and not with_truth and _same_exposures(image, known):
        logger.warning(
            "both images are of the same exposures, whose noise correlates too: they agree further "
            "than they resolve"
        )
    try:
        overlaid = overlay(image, known)
    except InputError as error:
        raise InputError(f"{result} and {reference}: {error}") from error
    curves = ring_curves(overlaid.image, overlaid.reference, pair=pair)
    return Comparison(
        result,
        reference,
        overlaid,
        image_agreement(overlaid),
        curves,
        image.pixel_size_m or known.pixel_size_m,
    )


def _without_global_phase(item: Reconstruction) -> Reconstruction:
    """The object with its arbitrary global phase set so that its mean is real."""
    turn = np.exp(-1j * np.angle(np.sum(item.object * item.coverage)))
    return replace(item, object=(item.object * turn).astype(np.complex64))


def _same_exposures(a: Reconstruction, b: Reconstruction) -> bool:
    """Whether two results were made from the same patterns, by indices and positions."""
    _, of_a, of_b = np.intersect1d(a.scan_index, b.scan_index, return_indices=True)
    apart = np.abs(a.positions_px[of_a] - b.positions_px[of_b])
    return len(of_a) > 0 and bool(np.median(apart) < SAME_PLACE_PX)


def _names(*paths: Path) -> tuple[str, str]:
    """Names of the two images in a picture: the truth, or the folder of a result."""
    first, second = (
        "truth" if is_truth(path) else printable(path.resolve().parent.name) for path in paths
    )
    return (
        (first, second)
        if first != second
        else (f"{first}/{paths[0].name}", f"{second}/{paths[1].name}")
    )


def to_dict(comparison: Comparison) -> dict[str, Any]:
    """The comparison as `comparison.json` states it."""
    pair = comparison.pair
    figures = asdict(comparison.agreement)
    return {
        "result": str(comparison.result),
        "reference": str(comparison.reference),
        "agreement": {
            name: value if math.isfinite(value) else None for name, value in figures.items()
        },
        "region": {"origin_yx": pair.origin_yx.tolist(), "shape": list(pair.image.shape)},
        "pixel_size_m": comparison.pixel_size_m,
        "alignment": {
            "shift_px": pair.alignment.shift_px.tolist(),
            "ramp_rad_per_px": pair.alignment.ramp_rad.tolist(),
            "factor": [pair.alignment.factor.real, pair.alignment.factor.imag],
        },
        "frc": comparison.curves.to_dict(),
    }


def table(comparison: Comparison) -> Table:
    """The comparison as a table for a terminal."""
    agreement, pair = comparison.agreement, comparison.pair
    title = f"{comparison.result}\nagainst {comparison.reference}"
    shown = Table(title=escape(printable(title)), title_justify="left")
    shown.add_column("figure")
    shown.add_column("value", justify="right")
    shown.add_column("unit, range")
    shown.add_row(
        "amplitude SSIM", f"{agreement.amplitude_ssim:.4f}", "data range 1; 1 is the same"
    )
    shown.add_row("phase SSIM", f"{agreement.phase_ssim:.4f}", "data range 1 rad; 1 is the same")
    shown.add_row("amplitude PSNR", f"{agreement.amplitude_psnr_db:.2f}", "dB, data range 1")
    shown.add_row("phase PSNR", f"{agreement.phase_psnr_db:.2f}", "dB, data range 1 rad")
    shown.add_row(
        "complex correlation", f"{agreement.correlation:.4f}", "mean removed; 1 is the same"
    )
    shown.add_section()
    crossings = {"FRC at 0.5": agreement.frc50}
    crossings |= {
        f"FRC, {CRITERION_LABELS[name]}": value
        for name, value in comparison.curves.resolutions().items()
    }
    for name, value in crossings.items():
        shown.add_row(name, f"{value:.3f}", _length(value, comparison.pixel_size_m))
    shown.add_section()
    rows, columns = pair.image.shape
    y, x = pair.alignment.shift_px
    ramp_y, ramp_x = pair.alignment.ramp_rad
    shown.add_row(
        "region",
        f"{rows} x {columns}",
        f"pixels from y {pair.origin_yx[0]:.0f}, x {pair.origin_yx[1]:.0f}",
    )
    shown.add_row("shift taken out", f"{y:+z.3f}, {x:+z.3f}", "pixels in y, x")
    shown.add_row("phase ramp taken out", f"{ramp_y:+.5f}, {ramp_x:+.5f}", "rad per pixel in y, x")
    return shown


def _length(frequency: float, pixel_size_m: tuple[float, float] | None) -> str:
    """Unit of a spatial frequency, and the half period that it resolves."""
    if pixel_size_m is None:
        return f"Nyquist; half period {1 / frequency:.2f} px"
    return f"Nyquist; half period {length_text(half_period_m(frequency, pixel_size_m))}"

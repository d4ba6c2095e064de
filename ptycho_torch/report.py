"""A run folder as one HTML page that needs no network. Shows what the run wrote, and computes nothing."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ptycho_torch.config import ReportConfig
from ptycho_torch.errors import InputError
from ptycho_torch.plots import plot_probe, show_image
from ptycho_torch.readers.reconstruction import read_reconstruction
from ptycho_torch.run_dir import RunDir, write_text
from ptycho_torch.scan import Reconstruction
from ptycho_torch.testing.archive import MANIFEST
from ptycho_torch.testing.page import Command, Facts, Gallery, Note, Page, Picture, Section, Table, render_html
from ptycho_torch.testing.views import build_views


def report(config: ReportConfig) -> Path:
    """The page of a run folder, or of an archive of tests, made again.

    Raises:
        InputError: If the folder is neither.
    """
    folder = config.folder
    if (folder / MANIFEST).is_file():
        try:
            build_views(folder)
        except ValueError as error:
            raise InputError(str(error)) from error
        return folder / "index.html"
    run = RunDir(folder)
    if not run.metrics.is_file() or not run.reconstruction.is_file():
        raise InputError(f"{folder}: holds neither a reconstruction nor an archive of tests")
    write_report(run)
    return run.report


def write_report(run: RunDir) -> None:
    """Write `report.html` of a reconstruction."""
    write_text(run.report, render_html(describe(run)))


def describe(run: RunDir) -> Page:
    """The page of a reconstruction."""
    said = json.loads(run.metrics.read_text(encoding="utf-8"))
    options = yaml.safe_load(run.config.read_text(encoding="utf-8"))
    result = read_reconstruction(run.reconstruction)
    drawn = [
        Picture(_draw(lambda axes: _plot_coverage(axes, result)), alt="Coverage: light on the object over the scan"),
        Picture(_draw(lambda axes: plot_probe(axes, result.probe)), alt="First mode of the probe"),
    ]
    rows = [
        (name.replace("_", " "), str(value) if isinstance(value, bool) else value)
        for name, value in said.items()
        if isinstance(value, int | float | str)
    ]
    sections = [
        Section("Object", [Gallery([_kept(run.amplitude, "Amplitude of the object"), _kept(run.phase, "Phase of the object")])]),
        Section("Light", [Gallery(drawn)]),
        Section("Figures", [Table("Figures of the reconstruction", ("Figure", "Value"), rows)]),
        Section("What was decided about the input", [Note(text) for text in said["decisions"]] or [Note("nothing")]),
        *_pictures(run, options),
        Section("To repeat it", [Command(repeat(options))]),
    ]
    lead = [Facts([("Scan", str(options["test_data"])), ("Model", str(options["model_path"])), *said["versions"].items()])]
    return Page("Reconstruction", sections, lead=lead)


def repeat(options: dict[str, Any]) -> list[str]:
    """The command of a run, from its configuration."""
    words = [Path(sys.executable).name, "-m", "ptycho_torch.inference"]
    for name, value in options.items():
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no_{name}")
        elif value != []:
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return words


def _pictures(run: RunDir, options: dict[str, Any]) -> list[Section]:
    """Residuals, and the history of the training, where they are."""
    history = RunDir(Path(options["model_path"])).history
    found = (("Residuals", run.residuals, "Misfit over the scan"), ("Training", history, "Losses over the epochs"))
    return [Section(title, [Gallery([_kept(path, alt)])]) for title, path, alt in found if path.is_file()]


def _kept(path: Path, alt: str) -> Picture:
    """A picture that the run wrote."""
    return Picture(path.read_bytes(), alt=alt)


def _draw(plot: Callable[[Axes], Axes]) -> bytes:
    """A picture as PNG."""
    figure = Figure(figsize=(6, 5), layout="constrained")
    plot(figure.add_subplot())
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    return content.getvalue()


def _plot_coverage(axes: Axes, result: Reconstruction) -> Axes:
    """Coverage over the coordinates of the scan."""
    height, width = result.coverage.shape
    top, left = result.origin_yx
    extent = (left, left + width, top + height, top)
    axes.set(xlabel="x [object pixels]", ylabel="y [object pixels]")
    return show_image(axes, result.coverage, title="Coverage", unit="fraction of the largest", extent=extent)

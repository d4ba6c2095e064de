"""Write the page of a reconstruction from the files of its run; it computes nothing."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from ptycho_torch.config.yaml_file import read_yaml
from ptycho_torch.data.scan import Reconstruction
from ptycho_torch.errors import InputError
from ptycho_torch.evaluation.plots import (
    draw_scale_bar,
    panels,
    plot_probe,
    plot_refinement,
    show_image,
)
from ptycho_torch.html.page import (
    Block,
    Command,
    Facts,
    Gallery,
    Note,
    Page,
    Picture,
    Section,
    Table,
    render_html,
)
from ptycho_torch.io.files import write_text
from ptycho_torch.io.readers.reconstruction import read_reconstruction
from ptycho_torch.io.run_dir import RunDir

LABELS = {
    "r_factor": "R-factor",
    "r_factor_empty": "R-factor of an empty object",
    "r_factor_noise": "R-factor of counting noise alone, about",
    "chi2_per_dof": "χ² per degree of freedom",
    "duration_s": "duration / s",
    "patterns_per_s": "patterns per second",
    "r_work_start": "R-work at the start",
    "r_free_start": "R-free at the start",
    "r_free": "R-free",
    "gain_of_one_more_mode": "fall of R-free by one more mode of the probe",
}


def rebuild_report(run: RunDir) -> Path:
    """Make the page of a reconstruction again, and return its path.

    Raises:
        InputError: If the folder holds no reconstruction, or is damaged.
    """
    if not run.metrics.is_file() or not run.reconstruction.is_file():
        raise InputError(f"{run.path}: holds neither a reconstruction nor an archive of tests")
    try:
        page = render_html(describe(run))
    except (ValueError, LookupError, TypeError, OSError) as error:
        problem = str(error).splitlines()[0]
        raise InputError(
            f"{run.path}: {run.metrics.name} or {run.config.name} is not as inference wrote it: "
            f"{problem}"
        ) from error
    write_text(run.report, page)
    return run.report


def write_report(run: RunDir) -> None:
    """Write `report.html` of a reconstruction."""
    write_text(run.report, render_html(describe(run)))


def describe(run: RunDir) -> Page:
    """The page of a reconstruction."""
    said = json.loads(run.metrics.read_text(encoding="utf-8"))
    options = read_yaml(run.config)
    result = read_reconstruction(run.reconstruction)
    residuals = (
        f"R-factor and chi squared of each pattern over the scan; R-factor {said['r_factor']:.3g} "
        "in all"
    )
    light = [
        Picture(
            _draw(lambda axes: _plot_coverage(axes, result)),
            alt="Coverage: light on the object over the scan",
        ),
        Picture(
            _draw(lambda axes: plot_probe(axes, result.probe, result.pixel_size_m)),
            alt="Intensity of the probe, all modes together",
        ),
    ]
    sections = [
        Section(
            "Object",
            [
                Gallery(
                    [
                        _kept(run.amplitude, "Amplitude of the object"),
                        _kept(run.phase, "Phase of the object"),
                    ]
                )
            ],
        ),
        Section("Residuals", [Gallery([_kept(run.residuals, residuals)])]),
        Section("Light", [Gallery(light)]),
        Section("Figures", [_figures("Figures of the reconstruction", said)]),
        *([_refinement(said["refinement"])] if "refinement" in said else []),
        Section("Training", [_training(Path(options["model_path"]))]),
        Section(
            "What was decided about the input",
            [Note(text) for text in said["decisions"]] or [Note("nothing")],
        ),
        Section("To repeat it", [Command(repeat(options))]),
    ]
    found = [finding["text"] for finding in said.get("refinement", {}).get("findings", [])]
    if found:
        sections.insert(1, Section("What the refinement found", [Note(text) for text in found]))
    if said.get("warnings"):
        sections.insert(0, Section("Warnings", [Note(text) for text in said["warnings"]]))
    versions = Section("Versions", [Facts(list(said["versions"].items()))])
    named = [
        ("Scan", str(options["test_data"])),
        ("Model", str(options["model_path"])),
        ("Trained", _steps(said["trained"])),
    ]
    verdict = said.get("verdict", {"level": "", "reasons": []})  # older runs have none
    why = "; ".join(verdict["reasons"])
    lead: list[Block] = [Note(f"{why[:1].upper()}{why[1:]}.")] if why else []
    lead.append(Facts(named))
    return Page("Reconstruction", [*sections, versions], lead=lead, verdict=verdict["level"])


def repeat(options: dict[str, Any]) -> list[str]:
    """The command of a run, from its configuration."""
    words = [Path(sys.executable).name, "-m", "ptycho_torch.inference"]
    for name, value in options.items():
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no_{name}")
        elif value != []:
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return words


def _figures(caption: str, said: dict[str, Any]) -> Table:
    """What was said in single words and numbers."""
    rows = [
        (LABELS.get(name, name.replace("_", " ")), str(value) if isinstance(value, bool) else value)
        for name, value in said.items()
        if isinstance(value, int | float | str)
    ]
    return Table(caption, ("Figure", "Value"), rows)


def _refinement(said: dict[str, Any]) -> Section:
    """The course of a refinement."""
    epochs = said["epochs"] if "epochs" in said else said["passes"]  # the older name
    work, free = (
        [said[f"{name}_start"], *(entry[name] for entry in epochs)] for name in ("r_work", "r_free")
    )
    kept = [False, *(entry["kept"] for entry in epochs)]
    drawn = _draw(lambda axes: plot_refinement(axes, work, free, kept))
    alt = (
        f"R-work and R-free over {len(epochs)} epochs; R-free from {free[0]:.3g} to "
        f"{said['r_free']:.3g}"
    )
    return Section(
        "Refinement",
        [Gallery([Picture(drawn, alt=alt)]), _figures("Figures of the refinement", said)],
    )


def _steps(trained: dict[str, Any]) -> str:
    """How far the weights were trained."""
    steps = trained["steps"]
    return (
        "for an unknown time"
        if steps is None
        else f"{steps} steps"
        if steps
        else "not yet: epoch 0 was not finished"
    )


def _training(model: Path) -> Block:
    """The history of the training that made a model, where that lies as its run left it."""
    folder = (
        model.parent.parent if model.is_file() else model
    )  # a checkpoint lies in a folder of the run's
    history = RunDir(folder).history
    if not history.is_file():
        return Note(f"The losses are not shown: there is no {history.name} in {folder} any more.")
    return Gallery([_kept(history, "Losses of the training over its epochs")])


def _kept(path: Path, alt: str) -> Picture:
    """A picture that the run wrote."""
    return Picture(path.read_bytes(), alt=alt)


def _draw(plot: Callable[[Axes], Axes]) -> bytes:
    """A picture as PNG."""
    figure, (axes,) = panels()
    plot(axes)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    return content.getvalue()


def _plot_coverage(axes: Axes, result: Reconstruction) -> Axes:
    """Coverage over the coordinates of the scan."""
    height, width = result.coverage.shape
    top, left = result.origin_yx
    extent = (left, left + width, top + height, top)
    axes.set(xlabel="x [object pixels]", ylabel="y [object pixels]")
    unit = "fraction of the largest"
    show_image(axes, result.coverage, title="Coverage", unit=unit, extent=extent)
    return draw_scale_bar(axes, result.pixel_size_m)

"""Write the page of a reconstruction from the files of its run; it computes nothing.

It answers from top to bottom: can I trust it, and why; what was found about the measurement; what
does it look like; where does it fit, and how well; how was it made, and how to make it again.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, NamedTuple

from ptycho_torch.config import InferenceConfig
from ptycho_torch.config.yaml_file import read_yaml
from ptycho_torch.data.scan import Instrument, Reconstruction
from ptycho_torch.errors import InputError
from ptycho_torch.evaluation.pattern_fit import PatternFit, read_fit
from ptycho_torch.evaluation.plots import half_period_m
from ptycho_torch.evaluation.quantity_text import length_text
from ptycho_torch.evaluation.report_pictures import (
    coverage_picture,
    kept,
    moves_picture,
    pattern_pictures,
    probe_pictures,
    refinement_picture,
    residual_pictures,
    rings_picture,
)
from ptycho_torch.html.page import (
    Block,
    Command,
    Facts,
    Gallery,
    Note,
    Page,
    Section,
    Table,
    render_html,
)
from ptycho_torch.io.files import write_text
from ptycho_torch.io.readers.reconstruction import read_reconstruction
from ptycho_torch.io.run_dir import RunDir


class Figure(NamedTuple):
    """How a figure of `metrics.json` is shown: name, unit, and what it tells."""

    name: str
    unit: str
    meaning: str


FIGURES = {
    "r_factor": Figure("R-factor", "1", "misfit of all patterns; 0 is a perfect fit"),
    "r_factor_noise": Figure("R of counting noise", "1", "what a perfect image leaves, about"),
    "r_factor_empty": Figure("R of an empty object", "1", "what an image without content leaves"),
    "chi2_per_dof": Figure(
        "χ² per degree of freedom",
        "1",
        "1 where the image explains the counts, above where it does not",
    ),
    "r_free": Figure("R-free", "1", "misfit of held-out patterns; well above R, noise was fitted"),
    "r_work_start": Figure("R-work at the start", "1", "before the refinement, used patterns"),
    "r_free_start": Figure("R-free at the start", "1", "before the refinement, held-out patterns"),
    "probe_modes": Figure("probe modes", "", "more than one for a partly coherent beam"),
    "gain_of_one_more_mode": Figure(
        "gain of one more mode", "1", "relative fall of R-free; small: the modes are enough"
    ),
    "outcome": Figure(
        "image of the refinement", "", "refined, of the network, or the mean of both"
    ),
    "patterns": Figure("patterns", "", "that the image was made from"),
    "propagator": Figure("propagation", "", "from the sample to the detector"),
    "photons_per_pattern": Figure("photons per pattern", "photons", "of the probe in an exposure"),
    "variation": Figure("variation", "1", "of the object, relative to its mean; 0 is flat"),
    "duration_s": Figure("time of the image", "s", "network and refinement, without the rest"),
    "patterns_per_s": Figure("speed", "patterns / s", "of network and refinement"),
    "device": Figure("device", "", "where the image was computed"),
}
NOT_SHOWN = {"started", "total_s", "checkpoint", "checkpoint_sha256", "cuda_initialized"}
# Options that would replace what the first run wrote, and do not change the image.
NOT_REPEATED = {"overwrite", "movie"}
CRITERIA = {"half_bit": "1/2 bit", "one_bit": "1 bit", "one_seventh": "1/7"}
SHOWN_DIGITS = 12  # of a SHA-256, as many as tell the files of a laboratory apart
# What a refinement may find out, and the options that ask for it.
POSITION_FINDINGS = {"positions", "affine"}
MEASUREMENT_OPTIONS = ("refine_probe", "refine_positions", "refine_flux", "refine_background")
PROBE_FINDINGS = {"probe", "modes", "probe_change"}


def rebuild_report(run: RunDir) -> Path:
    """Make the page of a reconstruction again, and return its path.

    Raises:
        InputError: If the folder holds no reconstruction, or is damaged.
    """
    if not run.metrics.is_file() or not run.reconstruction.is_file():
        raise InputError(f"{run.path}: holds neither a reconstruction nor an archive of tests")
    try:
        page = render_html(describe(run))
    except (TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{run.path}: {run.metrics.name} or {run.config.name} is not as inference wrote it: "
            "an entry is of another type"
        ) from error
    except (ValueError, LookupError, OSError) as error:
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


class Run(NamedTuple):
    """The content of the folder of an inference.

    Attributes:
        folder: Its files.
        said: `metrics.json`.
        options: `config.yaml`.
        result: `reconstruction.npz`.
        fit: `residuals.npz`; None in the folder of an older version.
    """

    folder: RunDir
    said: Mapping[str, Any]
    options: Mapping[str, Any]
    result: Reconstruction
    fit: PatternFit | None


def describe(folder: RunDir) -> Page:
    """The page of a reconstruction."""
    result = read_reconstruction(folder.reconstruction)
    has_fit = folder.pattern_fit.is_file()
    run = Run(
        folder,
        said=json.loads(folder.metrics.read_text(encoding="utf-8")),
        options=read_yaml(folder.config),
        result=result,
        fit=read_fit(folder.pattern_fit, patterns=len(result.scan_index)) if has_fit else None,
    )
    amplitude = kept(folder.amplitude, "Amplitude of the object")
    phase = kept(folder.phase, "Phase of the object")
    versions = Facts(list(run.said["versions"].items()))
    sections = [
        *_warnings(run),
        Section("Object", [Gallery([amplitude, phase])]),
        *_patterns(run),
        _resolution(run),
        _probe(run),
        _positions(run),
        *_refinement(run),
        _training(run),
        Section("Figures", [_figures(run)]),
        Section("How the file was read", _notes(run.said["decisions"])),
        _again(run),
        Section("Versions", [versions]),
    ]
    verdict = run.said.get("verdict", {"level": "", "reasons": []})  # older runs have none
    why = "; ".join(verdict["reasons"])
    return Page(
        "Reconstruction",
        sections,
        lead=[_facts(run)],
        verdict=verdict["level"],
        reason=_sentence(why) if why else "",
    )


def _facts(run: Run) -> Facts:
    """What was reconstructed, with which weights, when, and how finely."""
    said = run.said
    weights = str(said.get("checkpoint", run.options["model_path"]))
    digest = (
        f", SHA-256 {said['checkpoint_sha256'][:SHOWN_DIGITS]}…" if "checkpoint" in said else ""
    )
    pixel = run.result.pixel_size_m
    return Facts(
        [
            ("Scan", f"{run.options['test_data']}, {said['patterns']} patterns"),
            ("Network", f"{weights}, trained {_steps(said['trained'])}{digest}"),
            ("Resolution", _resolved(run)),
            ("Fit", _fit(said)),
            ("Found about the measurement", "; ".join(_findings(run)) or _nothing_found(run)),
            ("Warnings", _counted(said.get("warnings"))),
            ("Radiation", _radiation(run.result.instrument)),
            ("Object pixel", length_text(max(pixel)) if pixel else "not known"),
            ("Started", said.get("started", "not known").replace("T", " ")),
            ("Took", f"{said.get('total_s', said['duration_s']):.3g} s on {said['device']}"),
        ]
    )


def _radiation(known: Instrument) -> str:
    """Photons or electrons, with their energy and wavelength if these are known."""
    if known.energy_ev is None or known.wavelength_m is None:
        return f"{known.radiation}, energy not known"
    wavelength = length_text(known.wavelength_m)
    return f"{known.radiation} of {known.energy_ev:.6g} eV, wavelength {wavelength}"


def _fit(said: Mapping[str, Any]) -> str:
    """How well the image explains the patterns, beside the limits of a good and of a bad one."""
    parts = [
        f"R {said['r_factor']:.3g}; counting noise alone has {said['r_factor_noise']:.3g}, an "
        f"empty object {said['r_factor_empty']:.3g}"
    ]
    if said.get("chi2_per_dof") is not None:
        parts.append(f"χ² {said['chi2_per_dof']:.3g} per degree of freedom")
    if "refinement" in said:
        parts.append(f"R-free of held-out patterns {said['refinement']['r_free']:.3g}")
    return "; ".join(parts)


def _counted(warnings: Sequence[str] | None) -> str:
    """How many warnings there are."""
    if warnings is None:
        return "not kept by the version that made this"
    if not warnings:
        return "none, neither of the run nor of the examination of the scan"
    return f"{len(warnings)}, below"


def _resolved(run: Run) -> str:
    """The resolution in words."""
    halves = run.said.get("frc_halves")
    if halves is None:
        return "not measured; infer --metrics measures it"
    frequency = halves["resolution_of_nyquist"]["half_bit"]
    pixel = run.result.pixel_size_m
    length = f"{length_text(half_period_m(frequency, pixel))} half period, " if pixel else ""
    limit = " (the limit of the pixels)" if frequency == 1 else ""
    return f"{length}{100 * frequency:.0f} % of Nyquist{limit}, by two halves of the data"


def _findings(run: Run, names: set[str] | None = None) -> list[str]:
    """What the refinement found about the measurement, one sentence each."""
    found = run.said.get("refinement", {}).get("findings", [])
    return [finding["text"] for finding in found if names is None or finding["name"] in names]


def _nothing_found(run: Run) -> str:
    """What it means that the refinement found nothing."""
    if not any(_is_refined(run, option) for option in MEASUREMENT_OPTIONS):
        return "not tested; infer --refine auto tests it"
    return "nothing to correct"


def _is_refined(run: Run, option: str) -> bool:
    """Whether a part of the measurement was tested against the patterns."""
    asked = run.options.get(option, "off")
    return asked == "on" or (asked == "auto" and run.options.get("refine") == "auto")


def _warnings(run: Run) -> list[Section]:
    """The warnings of the run, if there were any."""
    warnings = run.said.get("warnings")
    return [Section("Warnings", _notes(warnings))] if warnings else []


def _notes(sentences: list[str]) -> list[Block]:
    """Sentences as paragraphs."""
    return [Note(text) for text in sentences] or [Note("nothing")]


def _patterns(run: Run) -> list[Section]:
    """Patterns beside their expectation, and the residuals over the scan."""
    if run.fit is None:
        residuals = kept(run.folder.residuals, "Residuals of each pattern over the scan")
        return [Section("Residuals", [Gallery([residuals])])]
    explained = Note(
        "Best, median and worst by χ². The expected pattern is that of the reconstruction; both "
        "have the same logarithmic colours. Grey pixels are bad ones. The bar is a length in the "
        "near field, and else a spatial frequency, one over a period."
    )
    patterns = Gallery(pattern_pictures(run.fit, run.result))
    residuals_over_scan = Gallery(residual_pictures(run.fit, run.result))
    return [
        Section("Measured and expected patterns", [explained, patterns]),
        Section("Residuals", [Note(_where_it_fails(run.said)), residuals_over_scan]),
    ]


def _where_it_fails(said: Mapping[str, Any]) -> str:
    """How to read the maps of the residuals."""
    return (
        f"R-factor {said['r_factor']:.3g} in all. A single bright square is a bad exposure or "
        "position, a bright rim a lack of overlap, a gradient a drift."
    )


def _resolution(run: Run) -> Section:
    """The ring correlation of two halves of the data."""
    halves = run.said.get("frc_halves")
    if halves is None:
        return Section("Resolution", [Note(f"The resolution was {_resolved(run)}.")])
    rows = []
    for name, label in CRITERIA.items():
        frequency = halves["resolution_of_nyquist"][name]
        pixel = run.result.pixel_size_m
        length = length_text(half_period_m(frequency, pixel)) if pixel else "not known"
        rows.append((label, frequency, length))
    table = Table(
        "Where two halves of the data stop to agree",
        ("Threshold", "Of Nyquist", "Half period"),
        rows,
    )
    return Section("Resolution", [Gallery([rings_picture(halves, run.result)]), table])


def _probe(run: Run) -> Section:
    """The modes of the probe, and the light on the object."""
    told = _findings(run, PROBE_FINDINGS)
    if not told and _is_refined(run, "refine_probe"):
        told = ["the probe was tested against the patterns, and nothing was wrong with it"]
    elif not told:
        told = ["the probe is that of the file; --refine auto --refine_probe auto tests it"]
    pictures = [*probe_pictures(run.result), coverage_picture(run.result)]
    return Section("Probe", [*map(Note, map(_sentence, told)), Gallery(pictures)])


def _positions(run: Run) -> Section:
    """The corrections of the positions."""
    told = _findings(run, POSITION_FINDINGS)
    moved = run.fit is not None and bool((run.fit.given_px != run.result.positions_px).any())
    if not told and moved:
        told = ["the positions are those that the training found for this scan"]
    elif not told and _is_refined(run, "refine_positions"):
        told = ["the positions of the file were tested against the patterns, and are right"]
    elif not told:
        told = ["the positions are those of the file; --refine auto tests them"]
    notes: list[Block] = [Note(_sentence(text)) for text in told]
    if moved and run.fit is not None:
        notes.append(Gallery([moves_picture(run.fit, run.result)]))
    return Section("Positions", notes)


def _sentence(text: str) -> str:
    """A finding as a sentence of its own."""
    return f"{text[:1].upper()}{text[1:]}."


def _refinement(run: Run) -> list[Section]:
    """The course of the refinement."""
    said = run.said.get("refinement")
    if said is None:
        return []
    epochs = said["epochs"] if "epochs" in said else said["passes"]  # the older name
    work, free = (
        [said[f"{name}_start"], *(entry[name] for entry in epochs)] for name in ("r_work", "r_free")
    )
    kept_epochs = [False, *(entry["kept"] for entry in epochs)]
    return [Section("Refinement", [Gallery([refinement_picture(work, free, kept_epochs)])])]


def _figures(run: Run) -> Table:
    """What was said in single words and numbers."""
    said = {**run.said, **run.said.get("refinement", {})}
    known = {name: said[name] for name in FIGURES if said.get(name) is not None}
    others = {
        name: value
        for name, value in said.items()
        if isinstance(value, int | float | str) and name not in {*FIGURES, *NOT_SHOWN}
    }
    rows = []
    for name, value in (known | others).items():
        figure = FIGURES.get(name, Figure(name.replace("_", " "), "", ""))
        shown = str(value) if isinstance(value, bool) else value
        unit = f" [{figure.unit}]" if figure.unit else ""
        rows.append((figure.name + unit, shown, figure.meaning))
    return Table("Figures of the reconstruction", ("Figure", "Value", "Meaning"), rows)


def _again(run: Run) -> Section:
    """The command that makes the reconstruction once more."""
    note = Note(
        "The options that differ from the defaults. The result goes to another folder; on a CPU it "
        "has the same bits."
    )
    return Section("To repeat it", [Command(repeat(run.options)), note])


def repeat(options: Mapping[str, Any]) -> list[str]:
    """The command that makes a reconstruction once more, into another folder."""
    defaults = {
        field.name: field.default
        for field in fields(InferenceConfig)
        if field.default is not MISSING
    }
    words = [Path(sys.executable).name, "-m", "ptycho_torch.inference"]
    for name, value in options.items():
        listed = tuple(value) if isinstance(value, list) else value
        if name in defaults and (listed == defaults[name] or name in NOT_REPEATED):
            continue
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no_{name}")
        elif name == "output_dir":
            words += [f"--{name}", f"{value}-again"]
        else:
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return words


def _steps(trained: Mapping[str, Any]) -> str:
    """How far the weights were trained."""
    steps = trained["steps"]
    return (
        "for an unknown time"
        if steps is None
        else f"{steps} steps"
        if steps
        else "not at all: epoch 0 was not finished"
    )


def _training(run: Run) -> Section:
    """The history of the training that made a model, where that lies as its run left it."""
    model = Path(run.options["model_path"])
    folder = (
        model.parent.parent if model.is_file() else model
    )  # a checkpoint lies in a folder of the run's
    history = RunDir(folder).history
    if not history.is_file():
        text = f"The losses are not shown: there is no {history.name} in {folder} any more."
        return Section("Training", [Note(text)])
    return Section("Training", [Gallery([kept(history, "Losses of the training over its epochs")])])

"""A picture of an examination: patterns, positions, probe, histogram and findings."""

import textwrap
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ptycho_torch.data.probe import beam_diameter, ring_centroid
from ptycho_torch.data.scan import Scan
from ptycho_torch.doctor.findings import ERROR, WARNING, Finding, Sample
from ptycho_torch.doctor.pattern_checks import smooth
from ptycho_torch.evaluation.plots import plot_order, plot_pattern, plot_probe, save_figure
from ptycho_torch.io.files import printable

COLOURS = {ERROR: "tab:red", WARNING: "darkorange"}
LETTERS = 150  # in a line of the findings, which is as wide as the picture
LETTER_PT, LINE_IN = 10, 0.22  # size of a letter, and height of its line
CIRCLES = 2000  # positions up to which beams are drawn; more of them hide each other


def save_examination(path: Path, scan: Scan, sample: Sample, findings: list[Finding]) -> None:
    """Write the picture of an examination."""
    save_figure(path, draw_examination(scan, sample, findings))


def draw_examination(scan: Scan, sample: Sample, findings: list[Finding]) -> Figure:
    """Patterns, positions, probe and light of a scan, and below them all findings."""
    lines = finding_lines(findings)
    text_in = LINE_IN * (len(lines) + 2)
    figure = Figure(figsize=(15, 11 + text_in), layout="constrained")
    axes = figure.subplot_mosaic(
        [
            ["mean", "positions", "probe"],
            ["histogram", "light", "light"],
            ["darkest", "median", "brightest"],
            ["findings", "findings", "findings"],
        ],
        height_ratios=[11 / 3, 11 / 3, 11 / 3, text_in],
    )
    plot_mean(axes["mean"], scan, sample)
    plot_positions(axes["positions"], scan, sample)
    if scan.probe is not None:
        plot_probe(axes["probe"], scan.probe, scan.pixel_size_m)
    else:
        axes["probe"].text(0.5, 0.5, "no probe", ha="center")
        axes["probe"].set_axis_off()
    plot_histogram(axes["histogram"], scan, sample)
    plot_light(axes["light"], scan, sample)
    write_findings(axes["findings"], lines)
    order = np.argsort(sample.patterns.sum(axis=(1, 2)))
    for name, number in (("darkest", 0), ("median", len(order) // 2), ("brightest", -1)):
        shown = order[number]
        plot_pattern(
            axes[name],
            sample.patterns[shown],
            scan,
            title=f"Pattern {sample.indices[shown]}, the {name} of those seen",
        )
    figure.suptitle(printable(scan.source), fontsize=10, parse_math=False)
    return figure


def plot_mean(axes: Axes, scan: Scan, sample: Sample) -> Axes:
    """The mean pattern, bad pixels blank, with the middle of the window and the found centre."""
    mean = np.where(scan.mask, np.maximum(sample.mean, 0.5 / len(sample.patterns)), np.nan)
    plot_pattern(axes, mean, scan, title="Mean pattern")
    y, x = ring_centroid(smooth(sample.mean, scan.mask))
    axes.plot(
        mean.shape[1] // 2, mean.shape[0] // 2, "+", color="white", markersize=14, label="middle"
    )
    axes.plot(x, y, "x", color="cyan", markersize=10, label="found centre")
    axes.legend(loc="upper right", fontsize=8)
    return axes


def plot_positions(axes: Axes, scan: Scan, sample: Sample) -> Axes:
    """The scan positions in their order, each with its beam."""
    plot_order(axes, scan.positions_px, scan.pixel_size_m)
    if scan.probe is not None and len(scan) <= CIRCLES:
        angle = np.linspace(0, 2 * np.pi, 40)
        radius = beam_diameter(scan.probe) / 2
        for middle_y, middle_x in scan.positions_px[:: max(1, len(scan) // 60)]:
            axes.plot(
                middle_x + radius * np.cos(angle),
                middle_y + radius * np.sin(angle),
                color="tab:red",
                linewidth=0.3,
            )
        axes.set_title("Positions in their order, some beams")
    return axes


def plot_histogram(axes: Axes, scan: Scan, sample: Sample) -> Axes:
    """How often each count occurs on good pixels."""
    values = sample.patterns[:, scan.mask]
    top = max(float(values.max()), 1.0)
    bins = np.unique(np.concatenate([[0, 1], np.geomspace(1, top + 1, 60).round()]))
    axes.stairs(np.histogram(values, bins)[0], bins, fill=True)
    axes.set_xscale("symlog", linthresh=1)
    axes.set_yscale("log")
    axes.set_title("Histogram")
    axes.set_xlabel("photons in a pixel")
    axes.set_ylabel("pixels")
    return axes


def plot_light(axes: Axes, scan: Scan, sample: Sample) -> Axes:
    """Photons of every pattern in their order."""
    axes.plot(sample.totals, ".", markersize=3)
    axes.set_ylim(bottom=0)
    axes.set_title("Light")
    axes.set_xlabel("pattern")
    axes.set_ylabel("photons")
    return axes


def finding_lines(findings: list[Finding]) -> list[tuple[str, str]]:
    """The findings as lines of text with their colours."""
    lines = []
    for finding in findings:
        text = f"{finding.verdict.upper()}  {finding.check}: {finding.text}"
        colour = COLOURS.get(finding.verdict, "black")
        wrapped = textwrap.wrap(text, width=LETTERS, subsequent_indent="      ")
        lines += [(line, colour) for line in wrapped]
    return lines


def write_findings(axes: Axes, lines: list[tuple[str, str]]) -> Axes:
    """Lines of text with their colours, from top to bottom."""
    axes.set_axis_off()
    axes.set_title("Findings", loc="left")
    for row, (line, colour) in enumerate(lines):
        written = axes.text(0, 1 - row / len(lines), printable(line), parse_math=False)
        written.set(fontsize=LETTER_PT, va="top", color=colour)
    return axes

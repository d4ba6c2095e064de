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

CIRCLES = 2000  # positions up to which beams are drawn; more of them hide each other


def save_examination(path: Path, scan: Scan, sample: Sample, findings: list[Finding]) -> None:
    """Write the picture of an examination."""
    figure = Figure(figsize=(15, 11), layout="constrained")
    axes = figure.subplots(3, 3)
    plot_mean(axes[0, 0], scan, sample)
    plot_positions(axes[0, 1], scan, sample)
    if scan.probe is not None:
        plot_probe(axes[0, 2], scan.probe, scan.pixel_size_m)
    else:
        axes[0, 2].text(0.5, 0.5, "no probe", ha="center")
        axes[0, 2].set_axis_off()
    plot_histogram(axes[1, 0], scan, sample)
    plot_light(axes[1, 1], scan, sample)
    write_findings(axes[1, 2], findings)
    order = np.argsort(sample.patterns.sum(axis=(1, 2)))
    for place, name, number in zip(
        axes[2], ("darkest", "median", "brightest"), (0, len(order) // 2, -1), strict=True
    ):
        shown = order[number]
        plot_pattern(
            place,
            sample.patterns[shown],
            title=f"Pattern {sample.indices[shown]}, the {name} of those seen",
        )
    figure.suptitle(scan.source, fontsize=10)
    save_figure(path, figure)


def plot_mean(axes: Axes, scan: Scan, sample: Sample) -> Axes:
    """The mean pattern, bad pixels blank, with the middle of the window and the found centre."""
    mean = np.where(scan.mask, np.maximum(sample.mean, 0.5 / len(sample.patterns)), np.nan)
    plot_pattern(axes, mean, title="Mean pattern")
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


def write_findings(axes: Axes, findings: list[Finding]) -> Axes:
    """The findings as text."""
    colours = {ERROR: "tab:red", WARNING: "tab:orange"}
    axes.set_axis_off()
    axes.set_title("Findings")
    for row, finding in enumerate(findings):
        text = f"{finding.verdict.upper()}  {finding.check}: {finding.text}"
        lines = "\n   ".join(textwrap.wrap(text, width=80))
        written = axes.text(
            0,
            0.97 - row / 10,
            lines,
            fontsize=7,
            va="top",
            color=colours.get(finding.verdict, "black"),
        )
        written.set_in_layout(False)
    return axes

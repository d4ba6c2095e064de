"""Pictures. Functions draw data on axes and return them; `save_*` lay out and write a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ptycho_torch.run_dir import atomic_write
from ptycho_torch.scan import Reconstruction, Scan

SEEN = 0.01  # of the largest coverage; darker pixels are left blank
DPI = 150
PATTERN_FLOOR = 0.5  # photons; a logarithmic picture shows one photon and blanks none


def save_figure(path: Path, figure: Figure) -> None:
    """Write a figure as PNG, whole or not at all."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=DPI, format="png")


Extent = tuple[float, float, float, float]  # left, right, bottom, top


def show_image(axes: Axes, image: NDArray, *, title: str, unit: str, extent: Extent | None, **style: object) -> Axes:
    """An image with its title and a colour bar with its unit.

    Args:
        axes: Where to draw.
        image: Real, (Y, X); NaN is left blank.
        title: Above the image.
        unit: Beside the colour bar.
        extent: Left, right, bottom, top of the pixels' outer edges.
        **style: For `matplotlib.axes.Axes.imshow`.
    """
    drawn = axes.imshow(image, extent=extent, interpolation="nearest", **style)  # type: ignore[arg-type]
    axes.set_title(title)
    figure = axes.get_figure()
    if figure is not None:
        figure.colorbar(drawn, ax=axes, label=unit, shrink=0.85)
    return axes


def crop_to_seen(result: Reconstruction) -> tuple[NDArray[np.complex64], NDArray[np.bool_], Extent]:
    """The part of the object that the probe illuminated, what of it was seen, and its extent."""
    seen = result.coverage > SEEN * result.coverage.max()
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    image = result.object[window]
    top, left = result.origin_yx + np.array([rows[0], columns[0]]) - 0.5
    return image, seen[window], (left, left + image.shape[1], top + image.shape[0], top)


def plot_amplitude(axes: Axes, result: Reconstruction, *, title: str = "Amplitude") -> Axes:
    """Amplitude of the object, over the coordinates of the scan."""
    image, seen, extent = crop_to_seen(result)
    low, high = np.percentile(np.abs(image[seen]), [0.5, 99.5])
    amplitude = np.where(seen, np.abs(image), np.nan)
    show_image(axes, amplitude, title=title, unit="amplitude", extent=extent, cmap="viridis", vmin=low, vmax=high)
    return _label_pixels(axes)


def plot_phase(axes: Axes, result: Reconstruction, *, title: str = "Phase") -> Axes:
    """Phase of the object relative to its mean, over the coordinates of the scan; the colours are cyclic."""
    image, seen, extent = crop_to_seen(result)
    phase = np.where(seen, np.angle(image * np.exp(-1j * np.angle(image[seen].mean()))), np.nan)
    reach = min(np.pi, 1.1 * float(np.percentile(np.abs(phase[seen]), 99.5)))
    show_image(axes, phase, title=title, unit="phase [rad]", extent=extent, cmap="twilight_shifted", vmin=-reach, vmax=reach)
    return _label_pixels(axes)


def _label_pixels(axes: Axes) -> Axes:
    """Axis labels of an image in object pixels."""
    axes.set_xlabel("x [object pixels]")
    axes.set_ylabel("y [object pixels]")
    return axes


def plot_probe(axes: Axes, probe: NDArray[np.complex64], *, title: str = "Probe") -> Axes:
    """Intensity of the illumination, all modes together."""
    intensity = np.sum(np.abs(probe) ** 2, axis=0)
    show_image(axes, intensity, title=title, unit="photons / pixel", extent=None, cmap="magma")
    return _label_pixels(axes)


def plot_pattern(axes: Axes, counts: NDArray, *, title: str = "Pattern") -> Axes:
    """A diffraction pattern on a logarithmic scale."""
    show_image(axes, np.maximum(counts, PATTERN_FLOOR), title=title, unit="photons", extent=None, cmap="magma", norm="log")
    axes.set_xlabel("x [detector pixels]")
    axes.set_ylabel("y [detector pixels]")
    return axes


def plot_history(axes: Axes, rows: Sequence[Mapping[str, float]]) -> Axes:
    """Losses over the epochs."""
    for name, label in (("train_loss", "training"), ("val_loss", "validation")):
        points = [(row["epoch"], row[name]) for row in rows if name in row]
        if points:
            axes.plot(*zip(*points, strict=True), marker=".", label=label)
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss [per detector pixel]")
    axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend()
    return axes


def save_history(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Picture of the losses over the epochs."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    plot_history(figure.add_subplot(), rows)
    save_figure(path, figure)


def save_amplitude(path: Path, result: Reconstruction) -> None:
    """Picture of the amplitude."""
    figure = Figure(figsize=(6, 5), layout="constrained")
    plot_amplitude(figure.add_subplot(), result)
    save_figure(path, figure)


def save_phase(path: Path, result: Reconstruction) -> None:
    """Picture of the phase."""
    figure = Figure(figsize=(6, 5), layout="constrained")
    plot_phase(figure.add_subplot(), result)
    save_figure(path, figure)


def save_simulation(path: Path, scan: Scan, truth: Reconstruction) -> None:
    """Picture of a simulated object, its probe, and one of the patterns."""
    figure = Figure(figsize=(11, 9), layout="constrained")
    axes = figure.subplots(2, 2)
    plot_amplitude(axes[0, 0], truth)
    plot_phase(axes[0, 1], truth)
    plot_probe(axes[1, 0], truth.probe)
    plot_pattern(axes[1, 1], scan.counts[len(scan) // 2])
    save_figure(path, figure)


def save_comparison(path: Path, truth: Reconstruction, result: Reconstruction) -> None:
    """Picture of a known object and its reconstruction, side by side."""
    figure = Figure(figsize=(11, 9), layout="constrained")
    axes = figure.subplots(2, 2)
    for row, (name, shown) in zip(axes, (("known object", truth), ("reconstruction", result)), strict=True):
        plot_amplitude(row[0], shown, title=f"Amplitude: {name}")
        plot_phase(row[1], shown, title=f"Phase: {name}")
    save_figure(path, figure)

"""Pictures. Functions draw data on axes and return them; `save_*` lay out and write a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar
from numpy.typing import NDArray

from ptycho_torch.data.scan import Reconstruction, Scan
from ptycho_torch.evaluation.metrics.agreement import AlignedPair
from ptycho_torch.evaluation.metrics.frc import RingCurves
from ptycho_torch.evaluation.metrics.residuals import Residuals
from ptycho_torch.io.files import atomic_write

SEEN = 0.01  # of the largest coverage; darker pixels are left blank
DPI = 150
CRITERION_LABELS = {"one_bit": "1 bit", "half_bit": "1/2 bit", "one_seventh": "1/7 criterion"}
MARKERS_PT = 230.0  # width of all markers of a row together, about that of the axes
PANEL_IN = (6.0, 5.0)  # width and height
PATTERN_FLOOR = 0.5  # photons; a logarithmic picture shows one photon and blanks none


def save_figure(path: Path, figure: Figure) -> None:
    """Write a figure as PNG, whole or not at all."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=DPI, format="png")


def panels(count: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of axes one above the other, for a phone, with room for labels and a colour bar.

    The room is fixed: to measure what each needs takes longer than all the drawing.
    """
    width, height = PANEL_IN
    figure = Figure(figsize=(width, height * count))
    room = {
        "left": 0.14,
        "right": 0.88,
        "bottom": 0.11 / count,
        "top": 1 - 0.07 / count,
        "hspace": 0.22,
    }
    return figure, list(figure.subplots(count, squeeze=False, gridspec_kw=room)[:, 0])


Extent = tuple[float, float, float, float]  # left, right, bottom, top


def show_image(
    axes: Axes, image: NDArray, *, title: str, unit: str, extent: Extent | None, **style: object
) -> Axes:
    """An image with its title and a colour bar with its unit.

    Args:
        axes: Where to draw.
        image: Real, (Y, X); NaN is left blank.
        title: Above the image.
        unit: Beside the colour bar.
        extent: Left, right, bottom, top of the pixels' outer edges.
        **style: For `matplotlib.axes.Axes.imshow`.
    """
    style = {"extent": extent, "interpolation": "nearest"} | style
    drawn = axes.imshow(image, **style)  # type: ignore[arg-type]
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
    show_image(
        axes,
        amplitude,
        title=title,
        unit="amplitude",
        extent=extent,
        cmap="viridis",
        vmin=low,
        vmax=high,
    )
    return _draw_scale(_label_pixels(axes), result)


def plot_phase(axes: Axes, result: Reconstruction, *, title: str = "Phase") -> Axes:
    """Phase of the object relative to its mean, in cyclic colours, over the scan coordinates."""
    image, seen, extent = crop_to_seen(result)
    phase = np.where(seen, np.angle(image * np.exp(-1j * np.angle(image[seen].mean()))), np.nan)
    reach = min(np.pi, 1.1 * float(np.percentile(np.abs(phase[seen]), 99.5)))
    show_image(
        axes,
        phase,
        title=title,
        unit="phase [rad]",
        extent=extent,
        cmap="twilight_shifted",
        vmin=-reach,
        vmax=reach,
    )
    return _draw_scale(_label_pixels(axes), result)


def _draw_scale(axes: Axes, result: Reconstruction) -> Axes:
    """Draw a scale bar, at most a quarter of the picture, where the pixel size is known."""
    if result.pixel_size_m is None:
        return axes
    left, right = axes.get_xlim()
    pixel_m = result.pixel_size_m[1]
    longest_m = 0.25 * (right - left) * pixel_m
    decade_m = 10.0 ** np.floor(np.log10(longest_m))
    length_m = max(step * decade_m for step in (1, 2, 5) if step * decade_m <= longest_m)
    label = f"{1e6 * length_m:g} µm" if length_m >= 1e-6 else f"{1e9 * length_m:g} nm"
    axes.add_artist(
        AnchoredSizeBar(axes.transData, length_m / pixel_m, label, "lower right", pad=0.3, sep=3)
    )
    return axes


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
    show_image(
        axes,
        np.maximum(counts, PATTERN_FLOOR),
        title=title,
        unit="photons",
        extent=None,
        cmap="magma",
        norm="log",
    )
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


def plot_refinement(
    axes: Axes, r_work: Sequence[float], r_free: Sequence[float], kept: Sequence[bool]
) -> Axes:
    """R-factors over the passes of a refinement, from its start on, and which passes were kept."""
    axes.plot(r_work, color="tab:blue", label="R-work, patterns that it used")
    axes.plot(r_free, color="tab:orange", label="R-free, patterns kept out")
    chosen = [number for number, good in enumerate(kept) if good]
    axes.plot(
        chosen,
        [r_free[number] for number in chosen],
        "o",
        color="tab:orange",
        label="pass that was kept",
    )
    axes.set_xlabel("pass")
    axes.set_ylabel("R-factor")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    return axes


def save_history(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Picture of the losses over the epochs."""
    figure, (axes,) = panels()
    plot_history(axes, rows)
    save_figure(path, figure)


def save_amplitude(path: Path, result: Reconstruction) -> None:
    """Picture of the amplitude."""
    figure, (axes,) = panels()
    plot_amplitude(axes, result)
    save_figure(path, figure)


def save_phase(path: Path, result: Reconstruction) -> None:
    """Picture of the phase."""
    figure, (axes,) = panels()
    plot_phase(axes, result)
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


def plot_rings(axes: Axes, curves: RingCurves, *, title: str = "Fourier ring correlation") -> Axes:
    """Ring correlation over spatial frequency, with its threshold curves."""
    axes.plot(curves.frequency, curves.correlation, color="black", label="correlation")
    for (name, threshold), style in zip(curves.thresholds.items(), ("--", "-.", ":"), strict=True):
        crossing = curves.resolutions()[name]
        found = f"crossed at {crossing:.2f}" if crossing < 1 else "not crossed"
        axes.plot(curves.frequency, threshold, style, label=f"{CRITERION_LABELS[name]}: {found}")
    axes.set_title(title)
    axes.set_xlabel("spatial frequency [Nyquist]")
    axes.set_ylabel("correlation")
    axes.set_xlim(0, 1)
    axes.set_ylim(min(-0.1, 1.1 * float(curves.correlation.min())), 1.05)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return axes


def save_comparison(
    path: Path, pair: AlignedPair, curves: RingCurves, *, names: tuple[str, str]
) -> None:
    """Picture of two aligned images, their difference, and their ring correlation.

    Args:
        path: Of the picture.
        pair: The images.
        curves: Their ring correlation.
        names: What the image and its reference are called.
    """
    figure = Figure(figsize=(18, 7.5), layout="constrained")
    axes = figure.subplot_mosaic(
        [
            ["image a", "reference a", "difference a", "frc"],
            ["image p", "reference p", "difference p", "frc"],
        ],
        width_ratios=[1, 1, 1, 1.4],
    )
    top, left = pair.origin_yx - 0.5
    rows, columns = pair.image.shape
    extent = (left, left + columns, top + rows, top)
    quantities = (
        ("a", "Amplitude", "amplitude", (np.abs(pair.image), np.abs(pair.reference)), "viridis"),
        ("p", "Phase", "phase [rad]", pair.phases(), "twilight_shifted"),
    )
    for key, quantity, unit, images, colours in quantities:
        low, high = _range(images[1], cyclic=key == "p")
        for place, name, image in zip(("image", "reference"), names, images, strict=True):
            shown = axes[f"{place} {key}"]
            show_image(
                shown,
                image,
                title=f"{quantity}: {name}",
                unit=unit,
                extent=extent,
                cmap=colours,
                vmin=low,
                vmax=high,
            )
        difference = images[0] - images[1]
        reach = float(np.percentile(np.abs(difference), 99.5)) or np.finfo(np.float64).tiny
        shown = axes[f"difference {key}"]
        show_image(
            shown,
            difference,
            title=f"{quantity}: difference",
            unit=unit,
            extent=extent,
            cmap="RdBu_r",
            vmin=-reach,
            vmax=reach,
        )
        for place in ("image", "reference", "difference"):
            _label_pixels(axes[f"{place} {key}"])
    plot_rings(axes["frc"], curves)
    save_figure(path, figure)


def _range(image: NDArray[np.float64], *, cyclic: bool) -> tuple[float, float]:
    """Limits of the colours of an image; those of a phase are symmetric, and at most pi."""
    if cyclic:
        reach = min(np.pi, 1.1 * float(np.percentile(np.abs(image), 99.5)))
        return -reach, reach
    low, high = np.percentile(image, [0.5, 99.5])
    return float(low), float(high)


def plot_over_scan(
    axes: Axes,
    positions_px: NDArray[np.float64],
    values: NDArray[np.float64],
    *,
    title: str,
    unit: str,
) -> Axes:
    """A value of each scan point at its place, (N,); NaN is left blank."""
    width_px = float(np.ptp(positions_px, axis=0).max())
    side = np.clip(MARKERS_PT / np.sqrt(len(values)), 1, 40)
    drawn = axes.scatter(
        positions_px[:, 1],
        positions_px[:, 0],
        c=values,
        s=side**2,
        marker="s",
        linewidths=0,
        cmap="viridis",
    )
    margin = 0.05 * width_px + 1
    axes.set_xlim(positions_px[:, 1].min() - margin, positions_px[:, 1].max() + margin)
    axes.set_ylim(positions_px[:, 0].max() + margin, positions_px[:, 0].min() - margin)
    axes.set_aspect("equal")
    axes.set_title(title)
    figure = axes.get_figure()
    if figure is not None:
        figure.colorbar(drawn, ax=axes, label=unit, shrink=0.85)
    return _label_pixels(axes)


def save_residuals(
    path: Path, positions_px: NDArray[np.float64], residuals: Residuals, halves: RingCurves | None
) -> None:
    """Write the picture of the residuals over the scan, and of the ring correlation of halves."""
    figure, axes = panels(3 if halves else 2)
    chi2_per_dof = np.where(
        residuals.dof > 0, residuals.chi2 / np.maximum(residuals.dof, 1), np.nan
    )
    plot_over_scan(
        axes[0], positions_px, residuals.r_factor, title="R-factor of each pattern", unit="R"
    )
    title = f"$\\chi^2$ of each pattern, {residuals.chi2_per_dof:.3g} in all"
    plot_over_scan(axes[1], positions_px, chi2_per_dof, title=title, unit="per degree of freedom")
    if halves:
        plot_rings(axes[2], halves, title="Correlation of two random halves of the scan")
    save_figure(path, figure)

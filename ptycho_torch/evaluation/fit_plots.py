"""Pictures of a fit: residuals over the scan, patterns beside their expectation, probe, positions.

Functions draw data on axes and return them; `save_*` lay out and write a file.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ptycho_torch.evaluation.displayed_phase import phase_range
from ptycho_torch.evaluation.metrics.frc import RingCurves
from ptycho_torch.evaluation.metrics.residuals import Residuals
from ptycho_torch.evaluation.plots import (
    PATTERN_FLOOR,
    draw_detector_bar,
    draw_scale_bar,
    label_pixels,
    phase_colours,
    plot_rings,
    round_down,
    save_figure,
    show_image,
)

MARKERS_PT = 230.0  # width of all markers of a row together, about that of the axes
MARKED = ("best", "median", "worst")  # the patterns that `PatternFit` keeps, in its order
CHI2_UNIT = r"$\chi^2$ per degree of freedom [1]"
BLANK = "0.75"  # grey of bad pixels, which neither a dark nor a bright pixel has
FAINT = 0.05  # of the largest amplitude of a probe; below, its phase is noise
ARROWS = 900  # of moved positions; more of them hide each other
# Length of the long arrows, in distances of neighbouring positions: few of them cross.
ARROW_LENGTH = 1.2
PairSize = tuple[float, float] | None


def plot_over_scan(
    axes: Axes,
    positions_px: NDArray[np.float64],
    values: NDArray[np.float64],
    *,
    title: str,
    unit: str,
    pixel_size_m: PairSize,
) -> Axes:
    """A value of each scan point at its place, (N,); NaN is left blank."""
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
    _frame(axes, positions_px)
    axes.set_title(title)
    figure = axes.get_figure()
    if figure is not None:
        figure.colorbar(drawn, ax=axes, label=unit, shrink=0.85)
    return draw_scale_bar(label_pixels(axes), pixel_size_m)


def mark_patterns(axes: Axes, positions_px: NDArray[np.float64]) -> Axes:
    """Circles around the best, the median and the worst pattern, with their names, (3, 2)."""
    bottom, top = axes.get_ylim()
    for (y, x), name in zip(positions_px, MARKED, strict=True):
        side = 1 if y > (bottom + top) / 2 else -1  # towards the middle of the picture
        axes.plot(x, y, "o", markersize=13, fillstyle="none", color="tab:red", markeredgewidth=1.5)
        axes.annotate(
            name,
            (x, y),
            (0, 9 * side),
            textcoords="offset points",
            ha="center",
            va="bottom" if side > 0 else "top",
            color="black",
            fontsize="small",
            bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1},
        )
    return axes


def save_residuals(
    path: Path,
    positions_px: NDArray[np.float64],
    residuals: Residuals,
    halves: RingCurves | None,
    pixel_size_m: PairSize,
) -> None:
    """Write the picture of the residuals over the scan, and of the ring correlation of halves."""
    count = 3 if halves else 2
    figure = Figure(figsize=(6 * count, 5))
    room = {"left": 0.4 / count, "right": 1 - 0.25 / count, "wspace": 0.3, "bottom": 0.13}
    axes = figure.subplots(1, count, gridspec_kw=room)
    total = residuals.chi2_per_dof
    in_all = "too few photons" if np.isnan(total) else f"{total:.3g} in all"
    for place, values, title, unit in (
        (axes[0], residuals.r_factor, "R-factor of each pattern", "R-factor [1]"),
        (axes[1], residuals.pattern_chi2, f"$\\chi^2$ of each pattern: {in_all}", CHI2_UNIT),
    ):
        plot_over_scan(
            place, positions_px, values, title=title, unit=unit, pixel_size_m=pixel_size_m
        )
    if halves:
        plot_rings(axes[2], halves, pixel_size_m, title="Two random halves of the scan")
    save_figure(path, figure)


def plot_pair(
    axes: Sequence[Axes],
    measured: NDArray[np.float32],
    expected: NDArray[np.float32],
    pixel_size_m: PairSize,
    *,
    near_field: bool,
) -> Sequence[Axes]:
    """A measured pattern and the expected one, (H, W), on a logarithmic scale of the same range.

    Args:
        axes: Two of them.
        measured: Photons; NaN is left grey.
        expected: Photons by the reconstruction.
        pixel_size_m: Object pixel ``(y, x)``, for the scale bar.
        near_field: Whether the detector shows the near field.
    """
    colours = colormaps["magma"].with_extremes(bad=BLANK)
    largest = max(float(np.nanmax(measured)), float(expected.max()), 2 * PATTERN_FLOOR)
    norm = LogNorm(PATTERN_FLOOR, largest)
    for place, pattern, title in zip(
        axes, (measured, expected), ("measured", "expected"), strict=True
    ):
        shown = np.where(np.isnan(pattern), np.nan, np.maximum(pattern, PATTERN_FLOOR))
        drawn = place.imshow(shown, cmap=colours, norm=norm, interpolation="nearest")
        place.set_title(title)
        place.set_axis_off()
        draw_detector_bar(place, pixel_size_m, width=shown.shape[1], near_field=near_field)
    figure = axes[0].get_figure()
    if figure is not None:
        unit = "photons / pixel"
        figure.colorbar(drawn, ax=list(axes), label=unit, shrink=0.85, location="bottom", pad=0.05)
    return axes


def plot_mode(
    axes: Sequence[Axes], mode: NDArray[np.complex64], pixel_size_m: PairSize
) -> Sequence[Axes]:
    """Amplitude and phase of a mode of the probe, (H, W); the phase is blank where it is dark."""
    amplitude = np.abs(mode)
    bright = amplitude > FAINT * amplitude.max()
    turned = mode * np.exp(-1j * np.angle(mode[bright].sum())) if bright.any() else mode
    span = phase_range(np.angle(turned[bright]) if bright.any() else np.zeros(1))
    phase = np.where(bright, span.on_branch(np.angle(turned).astype(np.float64)), np.nan)
    show_image(
        axes[0], amplitude, title="amplitude", unit="amplitude [√photons]",
        extent=None, bar_at="bottom", cmap="viridis",
    )  # fmt: skip
    show_image(
        axes[1], phase, title="phase", unit="phase [rad]", extent=None, bar_at="bottom",
        cmap=phase_colours(span), vmin=span.low, vmax=span.high,
    )  # fmt: skip
    for place in axes:
        place.set_xticks([])
        place.set_yticks([])
        draw_scale_bar(place, pixel_size_m)
    return axes


def plot_moves(
    axes: Axes,
    given_px: NDArray[np.float64],
    used_px: NDArray[np.float64],
    pixel_size_m: PairSize,
) -> Axes:
    """Corrections of the positions as arrows from the position in the file, (N, 2) each.

    A common shift of all positions, which only moves the image, is left out.
    """
    moves = used_px - given_px
    moves = moves - moves.mean(axis=0)
    lengths = np.hypot(*moves.T)
    extent = np.ptp(given_px, axis=0) + 1
    spacing = np.sqrt(extent.prod() / min(len(moves), ARROWS))
    times = round_down(ARROW_LENGTH * spacing / max(np.percentile(lengths, 95), 1e-9))
    shown = np.linspace(0, len(moves) - 1, min(len(moves), ARROWS)).astype(int)
    (y, x), (dy, dx) = given_px[shown].T, moves[shown].T
    axes.plot(x, y, ".", markersize=3, color="0.6")
    arrows = axes.quiver(
        x, y, dx, dy, color="tab:blue", angles="xy", scale_units="xy", scale=1 / times, width=0.005,
        headwidth=3.5,
    )  # fmt: skip
    _frame(axes, given_px)
    rms = float(np.sqrt(np.mean(moves**2)))
    axes.set_title(f"Corrections of the positions, {rms:.2g} px rms")
    key_px = round_down(ARROW_LENGTH * spacing / times)
    axes.quiverkey(arrows, 1.07, 0.5, key_px, f"{key_px:g} px", labelpos="S", coordinates="axes")
    return draw_scale_bar(label_pixels(axes), pixel_size_m)


def plot_refinement(
    axes: Axes, r_work: Sequence[float], r_free: Sequence[float], kept: Sequence[bool]
) -> Axes:
    """R-factors over the epochs of a refinement, from its start on, and which of them were kept."""
    axes.plot(r_work, color="tab:blue", label="R-work, patterns that it used")
    axes.plot(r_free, color="tab:orange", label="R-free, held-out patterns")
    chosen = [number for number, good in enumerate(kept) if good]
    axes.plot(
        chosen,
        [r_free[number] for number in chosen],
        "o",
        color="tab:orange",
        label="epoch that was kept",
    )
    axes.set_xlabel("epoch of the refinement")
    axes.set_ylabel("R-factor [1]")
    axes.ticklabel_format(axis="y", scilimits=(-2, 3))  # 0.00135 at every tick leaves no room
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    return axes


def _frame(axes: Axes, positions_px: NDArray[np.float64]) -> None:
    """Limits that hold all positions, y downwards."""
    margin = 0.05 * float(np.ptp(positions_px, axis=0).max()) + 1
    (top, left), (bottom, right) = positions_px.min(axis=0), positions_px.max(axis=0)
    axes.set_xlim(left - margin, right + margin)
    axes.set_ylim(bottom + margin, top - margin)
    axes.set_aspect("equal")
    axes.xaxis.set_major_locator(MaxNLocator(5))

"""The pictures of the page of a reconstruction, as PNG with words for who cannot see them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ptycho_torch.data.scan import Reconstruction
from ptycho_torch.evaluation.fit_plots import (
    CHI2_UNIT,
    MARKED,
    mark_patterns,
    plot_mode,
    plot_moves,
    plot_over_scan,
    plot_pair,
    plot_refinement,
)
from ptycho_torch.evaluation.metrics.frc import curves_from_dict
from ptycho_torch.evaluation.pattern_fit import PatternFit
from ptycho_torch.evaluation.plots import (
    draw_scale_bar,
    encode_png,
    label_pixels,
    panels,
    plot_rings,
    show_image,
)
from ptycho_torch.html.page import Picture

DPI = 120  # of the pictures of the page; 720 pixels for a panel
PAIR_IN = (4.4, 3.2)  # width and height of two panels side by side, with bars of colour below
MODES = 4  # of the probe that are drawn; the others are weak


def kept(path: Path, alt: str) -> Picture:
    """A picture that a run wrote."""
    return Picture(path.read_bytes(), alt=alt)


def pattern_pictures(fit: PatternFit, result: Reconstruction) -> list[Picture]:
    """The best, the median and the worst explained pattern, measured and expected."""
    pictures = []
    for name, n, measured, expected in zip(
        MARKED, fit.chosen, fit.measured, fit.expected, strict=True
    ):
        y, x = result.positions_px[n]
        caption = (
            f"The {name} one: pattern {fit.scan_index[n]} at y {y:.1f}, x {x:.1f}; "
            f"{np.nansum(measured):.3g} photons, R {fit.r_factor[n]:.3g}, "
            f"χ² {fit.chi2_per_dof[n]:.3g}"
        )
        plot = partial(
            plot_pair,
            measured=measured,
            expected=expected,
            pixel_size_m=result.pixel_size_m,
            near_field=not result.is_far_field,
        )
        drawn = _pair(plot)
        alt = f"The {name} explained pattern, measured and expected, on a logarithmic scale"
        pictures.append(Picture(drawn, alt=alt, caption=caption))
    return pictures


def residual_pictures(fit: PatternFit, result: Reconstruction) -> list[Picture]:
    """R-factor and chi^2 of each pattern over the scan; the three patterns are marked."""
    pictures = []
    for values, name, title, unit in (
        (fit.r_factor, "R-factor", "R-factor of each pattern", "R-factor [1]"),
        (fit.chi2_per_dof, "Chi squared", r"$\chi^2$ of each pattern", CHI2_UNIT),
    ):

        def plot(axes: Axes, values: Any = values, title: str = title, unit: str = unit) -> Axes:
            plot_over_scan(
                axes,
                result.positions_px,
                values,
                title=title,
                unit=unit,
                pixel_size_m=result.pixel_size_m,
            )
            return mark_patterns(axes, result.positions_px[fit.chosen])

        known = values[np.isfinite(values)]
        range_text = f", from {known.min():.3g} to {known.max():.3g}" if len(known) else ""
        alt = f"{name} of each pattern over the scan{range_text}"
        pictures.append(Picture(_single(plot), alt=alt))
    return pictures


def probe_pictures(result: Reconstruction) -> list[Picture]:
    """Amplitude and phase of each mode, and the light on the object."""
    power = np.sum(np.abs(result.probe.astype(np.complex128)) ** 2, axis=(1, 2))
    pictures = []
    for n, mode in enumerate(result.probe[:MODES]):
        drawn = _pair(partial(plot_mode, mode=mode, pixel_size_m=result.pixel_size_m))
        caption = f"Mode {n + 1} of {len(power)}: {100 * power[n] / power.sum():.3g} % of the light"
        alt = f"Amplitude and phase of mode {n + 1} of the probe"
        pictures.append(Picture(drawn, alt=alt, caption=caption))
    return pictures


def coverage_picture(result: Reconstruction) -> Picture:
    """Light on the object."""
    drawn = _single(lambda axes: _plot_coverage(axes, result))
    return Picture(drawn, alt="Coverage: light on the object over the scan")


def moves_picture(fit: PatternFit, result: Reconstruction) -> Picture:
    """Corrections of the positions."""
    drawn = _single(
        lambda axes: plot_moves(axes, fit.given_px, result.positions_px, result.pixel_size_m)
    )
    return Picture(drawn, alt="Corrections of the positions as arrows over the scan")


def rings_picture(halves: Mapping[str, Any], result: Reconstruction) -> Picture:
    """Ring correlation of two halves of the data."""
    curves = curves_from_dict(halves)
    title = "Two random halves of the scan"
    drawn = _single(lambda axes: plot_rings(axes, curves, result.pixel_size_m, title=title))
    crossing = curves.resolutions()["half_bit"]
    alt = (
        "Ring correlation of two halves of the data over spatial frequency, which meets the "
        f"1/2 bit threshold at {100 * crossing:.0f} % of Nyquist"
    )
    return Picture(drawn, alt=alt)


def refinement_picture(
    work: Sequence[float], free: Sequence[float], kept_epochs: Sequence[bool]
) -> Picture:
    """R-factors over the epochs of the refinement, from its start on."""
    drawn = _single(lambda axes: plot_refinement(axes, work, free, kept_epochs))
    fall = f"R-free from {free[0]:.3g} to {free[-1]:.3g}"
    alt = f"R-work and R-free over {len(free) - 1} epochs; {fall}"
    return Picture(drawn, alt=alt)


def _single(plot: Callable[[Axes], Axes]) -> bytes:
    """One panel as PNG."""
    figure, (axes,) = panels()
    plot(axes)
    return encode_png(figure, dpi=DPI)


def _pair(plot: Callable[[Sequence[Axes]], Sequence[Axes]]) -> bytes:
    """Two panels side by side as PNG."""
    figure, axes = pair_panels()
    plot(axes)
    return encode_png(figure, dpi=DPI)


def pair_panels() -> tuple[Figure, list[Axes]]:
    """A figure of two axes side by side, with room for titles, and for colour bars below."""
    figure = Figure(figsize=PAIR_IN)
    room = {"left": 0.03, "right": 0.97, "bottom": 0.17, "top": 0.91, "wspace": 0.06}
    return figure, list(figure.subplots(1, 2, gridspec_kw=room))


def _plot_coverage(axes: Axes, result: Reconstruction) -> Axes:
    """Coverage over the coordinates of the scan."""
    height, width = result.coverage.shape
    top, left = result.origin_yx
    extent = (left, left + width, top + height, top)
    unit = "fraction of the largest"
    show_image(axes, result.coverage, title="Coverage", unit=unit, extent=extent)
    return draw_scale_bar(label_pixels(axes), result.pixel_size_m)

"""Pictures. Functions draw data on axes and return them; `save_*` lay out and write a file."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar
from numpy.typing import NDArray

from ptycho_torch.data.scan import Reconstruction, Scan
from ptycho_torch.evaluation.displayed_phase import PhaseRange, phase_range, without_ramp
from ptycho_torch.evaluation.metrics.agreement import AlignedPair
from ptycho_torch.evaluation.metrics.frc import RingCurves
from ptycho_torch.evaluation.quantity_text import frequency_text, length_text
from ptycho_torch.io.files import atomic_write

SEEN = 0.01  # of the largest coverage; darker pixels are left blank
LIT = 0.25  # of the median coverage; darker pixels are noisy, and do not decide about the colours
DPI = 150
CRITERION_LABELS = {"one_bit": "1 bit", "half_bit": "1/2 bit", "one_seventh": "1/7 criterion"}
TICKS = 5  # intervals of the x axis; large coordinates of more ticks would overlap
PANEL_IN = (6.0, 5.0)  # width and height
PATTERN_FLOOR = 0.5  # photons; a logarithmic picture shows one photon and blanks none


def encode_png(figure: Figure, *, dpi: int) -> bytes:
    """A figure as PNG."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi)
    return content.getvalue()


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
        "bottom": 0.14 / count,
        "top": 1 - 0.07 / count,
        "hspace": 0.22,
    }
    return figure, list(figure.subplots(count, squeeze=False, gridspec_kw=room)[:, 0])


Extent = tuple[float, float, float, float]  # left, right, bottom, top


def show_image(
    axes: Axes,
    image: NDArray,
    *,
    title: str,
    unit: str,
    extent: Extent | None,
    bar_at: str = "right",
    **style: object,
) -> Axes:
    """An image with its title and a colour bar with its unit.

    Args:
        axes: Where to draw.
        image: Real, (Y, X); NaN is left blank.
        title: Above the image.
        unit: Beside the colour bar.
        extent: Left, right, bottom, top of the pixels' outer edges.
        bar_at: Side of the colour bar: "right" or "bottom".
        **style: For `matplotlib.axes.Axes.imshow`.
    """
    style = {"extent": extent, "interpolation": "nearest"} | style
    drawn = axes.imshow(image, **style)  # type: ignore[arg-type]
    axes.set_title(title, parse_math=False)  # it may hold the name of a file
    axes.xaxis.set_major_locator(MaxNLocator(TICKS))
    figure = axes.get_figure()
    if figure is not None:
        figure.colorbar(drawn, ax=axes, label=unit, shrink=0.85, location=bar_at, pad=0.05)
    return axes


class SeenPart(NamedTuple):
    """The part of an object that the probe illuminated.

    Attributes:
        image: The object, (Y, X).
        seen: Pixels that are drawn; the others are left blank, (Y, X).
        lit: Pixels with enough light to choose the colours by, (Y, X).
        extent: Of the picture, in the frame of the scan's positions.
    """

    image: NDArray[np.complex64]
    seen: NDArray[np.bool_]
    lit: NDArray[np.bool_]
    extent: Extent


def crop_to_seen(result: Reconstruction) -> SeenPart:
    """The part of the object that the probe illuminated."""
    seen = result.coverage > SEEN * result.coverage.max()
    lit = result.coverage > LIT * np.median(result.coverage[seen])
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    image = result.object[window]
    top, left = result.origin_yx + np.array([rows[0], columns[0]]) - 0.5
    extent = (left, left + image.shape[1], top + image.shape[0], top)
    return SeenPart(image, seen[window], lit[window], extent)


def plot_amplitude(axes: Axes, result: Reconstruction, *, title: str = "Amplitude") -> Axes:
    """Amplitude of the object, over the coordinates of the scan."""
    image, seen, lit, extent = crop_to_seen(result)
    low, high = np.percentile(np.abs(image[lit]), [0.5, 99.5])
    amplitude = np.where(seen, np.abs(image), np.nan)
    show_image(
        axes,
        amplitude,
        title=title,
        unit="amplitude [1]",
        extent=extent,
        cmap="viridis",
        vmin=low,
        vmax=high,
    )
    return draw_scale_bar(label_pixels(axes), result.pixel_size_m)


def plot_phase(axes: Axes, result: Reconstruction, *, title: str = "Phase") -> Axes:
    """Phase of the object over the coordinates of the scan, without its mean and its ramp.

    The colours are cyclic where the phase wraps, and sequential where it does not.
    """
    image, seen, lit, extent = crop_to_seen(result)
    flat, ramp = without_ramp(image, lit)
    span = phase_range(np.angle(flat[lit]))
    phase = np.where(seen, span.on_branch(np.angle(flat)), np.nan)
    show_image(
        axes,
        phase,
        title=title,
        unit="phase [rad]",
        extent=extent,
        cmap=phase_colours(span),
        vmin=span.low,
        vmax=span.high,
    )
    label_pixels(axes)
    y, x = np.round(ramp, 2) + 0.0  # no negative zero
    removed = f"{x:+.2f} rad (x), {y:+.2f} rad (y)".replace("-", "\N{MINUS SIGN}")
    axes.set_xlabel(f"x [object pixels]\nremoved ramp: {removed}")
    return draw_scale_bar(axes, result.pixel_size_m)


def phase_colours(span: PhaseRange) -> str:
    """The colour map of a phase."""
    return "twilight_shifted" if span.wraps else "magma"


def draw_scale_bar(axes: Axes, pixel_size_m: tuple[float, float] | None) -> Axes:
    """Draw a scale bar, at most a quarter of the picture, where the pixel size is known."""
    if pixel_size_m is None:
        return axes
    return _draw_bar(axes, pixel_size_m[1], length_text)


def draw_detector_bar(
    axes: Axes, pixel_size_m: tuple[float, float] | None, *, width: int, near_field: bool
) -> Axes:
    """Draw a scale bar in a pattern, where the object pixel is known.

    In the far field it is a spatial frequency, the reciprocal of a period: a detector pixel is
    ``1 / (W pixel_size_m)``. In the near field a detector pixel is an object pixel, and the bar is
    a length.

    Args:
        axes: Where a pattern is drawn, in detector pixels.
        pixel_size_m: Object pixel ``(y, x)``, in metres.
        width: Detector pixels W in x.
        near_field: Whether the detector shows the near field.
    """
    if pixel_size_m is None or near_field:
        return draw_scale_bar(axes, pixel_size_m)
    return _draw_bar(axes, 1 / (width * pixel_size_m[1]), frequency_text)


def _draw_bar(axes: Axes, pixel: float, text: Callable[[float], str]) -> Axes:
    """A bar of a round length, at most a quarter of the picture, in the unit of a pixel's width."""
    left, right = axes.get_xlim()
    length = round_down(0.25 * (right - left) * pixel)
    bar = AnchoredSizeBar(
        axes.transData, length / pixel, text(length), "lower right", pad=0.3, sep=3
    )
    bar.patch.set(alpha=0.8, linewidth=0)
    axes.add_artist(bar)
    return axes


def round_down(value: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above a positive value."""
    decade = 10.0 ** np.floor(np.log10(value))
    return float(max(step * decade for step in (1, 2, 5) if step * decade <= value * (1 + 1e-9)))


def label_pixels(axes: Axes) -> Axes:
    """Axis labels of an image in object pixels."""
    axes.set_xlabel("x [object pixels]")
    axes.set_ylabel("y [object pixels]")
    return axes


def plot_probe(
    axes: Axes,
    probe: NDArray[np.complex64],
    pixel_size_m: tuple[float, float] | None,
    *,
    title: str = "Probe",
) -> Axes:
    """Intensity of the illumination, all modes together, (M, H, W)."""
    intensity = np.sum(np.abs(probe) ** 2, axis=0)
    show_image(axes, intensity, title=title, unit="photons / pixel", extent=None, cmap="magma")
    return draw_scale_bar(label_pixels(axes), pixel_size_m)


def plot_pattern(axes: Axes, counts: NDArray, scan: Scan, *, title: str = "Pattern") -> Axes:
    """A diffraction pattern of a scan, (H, W), on a logarithmic scale."""
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
    near_field = scan.fresnel_number is not None
    return draw_detector_bar(axes, scan.pixel_size_m, width=counts.shape[1], near_field=near_field)


def plot_order(
    axes: Axes, positions_px: NDArray[np.float64], pixel_size_m: tuple[float, float] | None
) -> Axes:
    """The scan positions and the way between them, (N, 2)."""
    y, x = positions_px.T
    axes.plot(x, y, color="0.7", linewidth=0.5)
    drawn = axes.scatter(x, y, s=6, c=np.arange(len(x)), cmap="viridis")
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.set_title("Positions in their order")
    figure = axes.get_figure()
    if figure is not None:
        figure.colorbar(drawn, ax=axes, label="number of the pattern", shrink=0.85)
    return draw_scale_bar(label_pixels(axes), pixel_size_m)


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
    plot_probe(axes[1, 0], truth.probe, truth.pixel_size_m)
    plot_pattern(axes[1, 1], scan.counts[len(scan) // 2], scan)
    save_figure(path, figure)


def plot_rings(
    axes: Axes,
    curves: RingCurves,
    pixel_size_m: tuple[float, float] | None,
    *,
    title: str = "Fourier ring correlation",
) -> Axes:
    """Ring correlation over spatial frequency, and where it meets the threshold curves."""
    axes.plot(curves.frequency, curves.correlation, color="black", label="correlation")
    for (name, threshold), style in zip(curves.thresholds.items(), ("--", "-.", ":"), strict=True):
        crossing = curves.resolutions()[name]
        found = f"crossed at {crossing:.2f}" if crossing < 1 else "not crossed"
        if pixel_size_m is not None:
            found += f", {length_text(half_period_m(crossing, pixel_size_m))}"
        label = f"{CRITERION_LABELS[name]}: {found}"
        (line,) = axes.plot(curves.frequency, threshold, style, label=label)
        axes.axvline(crossing, color=line.get_color(), linestyle=style, linewidth=0.8)
    axes.set_title(title)
    axes.set_xlabel("spatial frequency [Nyquist]")
    axes.set_ylabel("correlation [1]")
    axes.set_xlim(0, 1)
    axes.set_ylim(min(-0.1, 1.1 * float(curves.correlation.min())), 1.05)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return axes


def half_period_m(frequency: float, pixel_size_m: tuple[float, float]) -> float:
    """Half a period of a spatial frequency, which is a fraction of Nyquist, in metres.

    Of a pixel that is not square the longer side counts.
    """
    return max(pixel_size_m) / frequency


def save_comparison(
    path: Path,
    pair: AlignedPair,
    curves: RingCurves,
    *,
    names: tuple[str, str],
    pixel_size_m: tuple[float, float] | None,
) -> None:
    """Picture of two aligned images, their difference, and their ring correlation.

    Args:
        path: Of the picture.
        pair: The images.
        curves: Their ring correlation.
        names: What the image and its reference are called.
        pixel_size_m: Object pixel ``(y, x)``, where known.
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
    above, below = (
        [axes[f"{place} {key}"] for place in ("image", "reference", "difference")] for key in "ap"
    )
    image, reference = np.abs(pair.image), np.abs(pair.reference)
    low, high = np.percentile(reference, [0.5, 99.5])
    colours: dict[str, Any] = {"cmap": "viridis", "vmin": low, "vmax": high}
    shown = (image, reference, image - reference)
    _plot_pair(above, shown, names, ("Amplitude", "amplitude [1]"), colours, extent)
    image, reference = pair.phases()
    span = phase_range(reference)
    colours = {"cmap": phase_colours(span), "vmin": span.low, "vmax": span.high}
    shown = (span.on_branch(image), span.on_branch(reference), image - reference)
    _plot_pair(below, shown, names, ("Phase", "phase [rad]"), colours, extent)
    for one in above + below:
        draw_scale_bar(label_pixels(one), pixel_size_m)
    plot_rings(axes["frc"], curves, pixel_size_m)
    save_figure(path, figure)


def _plot_pair(
    axes: Sequence[Axes],
    images: Sequence[NDArray[np.float64]],
    names: tuple[str, str],
    quantity: tuple[str, str],
    colours: Mapping[str, Any],
    extent: Extent,
) -> None:
    """An image and its reference in the same colours, and their difference."""
    *pair, difference = images
    name, unit = quantity
    for shown, image, which in zip(axes[:2], pair, names, strict=True):
        show_image(shown, image, title=f"{name}: {which}", unit=unit, extent=extent, **colours)
    reach = float(np.percentile(np.abs(difference), 99.5)) or np.finfo(np.float64).tiny
    style: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -reach, "vmax": reach}
    title = f"{name}: difference"
    show_image(axes[2], difference, title=title, unit=unit, extent=extent, **style)

"""How a scan and a reconstruction show themselves in a notebook: a picture and the facts."""

import base64
import html
import io

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ptycho_torch.data.scan import Instrument, Reconstruction, Scan
from ptycho_torch.evaluation.plots import (
    plot_amplitude,
    plot_order,
    plot_pattern,
    plot_phase,
    plot_probe,
)
from ptycho_torch.evaluation.quantity_text import length_text

SHOWN_DPI = 60  # of the picture in a notebook, which is kept in its file
PANEL_IN = (4.6, 4.0)  # width and height of each of the pictures side by side
SAMPLED = 32  # patterns that the mean pattern of a large scan is made of
Facts = list[tuple[str, str]]


class ShownFigure(Figure):
    """A figure that a notebook shows also where pyplot was never imported."""

    def _repr_png_(self) -> bytes:
        """The figure as PNG, for a notebook."""
        return as_png(self)


def as_png(figure: Figure) -> bytes:
    """A figure as a small PNG."""
    content = io.BytesIO()
    figure.savefig(content, dpi=SHOWN_DPI, format="png")
    return content.getvalue()


def figure_of_scan(scan: Scan) -> Figure:
    """The mean pattern, the positions in their order, and the probe where it is known."""
    count = 2 if scan.probe is None else 3
    figure = ShownFigure(figsize=(PANEL_IN[0] * count, PANEL_IN[1]), layout="constrained")
    axes = figure.subplots(1, count)
    sampled = np.unique(np.linspace(0, len(scan) - 1, SAMPLED).astype(int))
    mean = np.asarray(scan.counts[sampled], dtype=np.float64).mean(axis=0)
    of = "" if len(sampled) == len(scan) else f" of {len(sampled)}"
    plot_pattern(axes[0], np.where(scan.mask, mean, np.nan), scan, title=f"Mean pattern{of}")
    plot_order(axes[1], scan.positions_px, scan.pixel_size_m)
    if scan.probe is not None:
        plot_probe(axes[2], scan.probe, scan.pixel_size_m)
    return figure


def figure_of_reconstruction(result: Reconstruction) -> Figure:
    """Amplitude and phase of the object, and the probe."""
    figure = ShownFigure(figsize=(PANEL_IN[0] * 3, PANEL_IN[1]), layout="constrained")
    axes = figure.subplots(1, 3)
    plot_amplitude(axes[0], result)
    plot_phase(axes[1], result)
    plot_probe(axes[2], result.probe, result.pixel_size_m)
    return figure


def html_of_scan(scan: Scan) -> str:
    """A scan as HTML without links: picture, facts, and what was concluded about its file."""
    facts = facts_of_scan(scan) + [("concluded", decision) for decision in scan.decisions]
    return page_of(f"Scan: {scan.source}", figure_of_scan(scan), facts)


def html_of_reconstruction(result: Reconstruction) -> str:
    """A reconstruction as HTML without links: picture and facts."""
    facts = facts_of_reconstruction(result)
    return page_of("Reconstruction", figure_of_reconstruction(result), facts)


def facts_of_scan(scan: Scan) -> Facts:
    """Names and values, for people."""
    rows, columns = scan.pattern_shape
    good = 100 * float(scan.mask.mean())
    facts = [("patterns", f"{len(scan)} of {rows} x {columns} detector pixels")]
    if good < 100:
        facts.append(("good detector pixels", f"{good:.3g} %"))
    if scan.probe is None:
        facts.append(("probe", "not known"))
    else:
        facts += [("photons per pattern", f"{scan.photons:.3g}"), modes_of(scan.probe)]
    facts += extent_of(np.ptp(scan.positions_px, axis=0), scan.pixel_size_m)
    near = scan.fresnel_number is not None
    facts.append(("propagation", "near field" if near else "far field"))
    return facts + facts_of_instrument(scan.instrument)


def facts_of_reconstruction(result: Reconstruction) -> Facts:
    """Names and values, for people."""
    rows, columns = result.object.shape
    facts = [("object", f"{rows} x {columns} pixels")]
    facts += extent_of(np.ptp(result.positions_px, axis=0), result.pixel_size_m)
    facts += [("patterns", f"{len(result.positions_px)}"), modes_of(result.probe)]
    if result.flux is not None:
        facts.append(("flux of the shots", f"varies by {100 * float(result.flux.std()):.2g} %"))
    if result.background is not None:
        facts.append(("background", f"{float(result.background.sum()):.3g} photons per pattern"))
    if result.probe_components is not None:
        facts.append(("probe changes", f"{len(result.probe_components)} components"))
    return facts + facts_of_instrument(result.instrument)


def modes_of(probe: NDArray[np.complex64]) -> tuple[str, str]:
    """The number of modes of a probe."""
    return "probe", f"{len(probe)} mode{'s' if len(probe) > 1 else ''}"


def extent_of(extent_px: NDArray[np.float64], pixel_size_m: tuple[float, float] | None) -> Facts:
    """How far the positions reach, y first, and the size of a pixel."""
    y, x = extent_px
    scanned = f"{y:.4g} x {x:.4g} object pixels"
    if pixel_size_m is None:
        return [("scanned", scanned), ("object pixel", "not known")]
    (y_m, x_m), (height_m, width_m) = extent_px * pixel_size_m, pixel_size_m
    size = length_text(height_m)
    if length_text(width_m) != size:
        size += f" x {length_text(width_m)}"
    return [
        ("scanned", f"{length_text(y_m)} x {length_text(x_m)} ({scanned})"),
        ("object pixel", size),
    ]


def facts_of_instrument(instrument: Instrument) -> Facts:
    """What is known of the experiment."""
    facts = []
    if instrument.energy_ev is not None:
        facts.append(("energy", f"{instrument.energy_ev:.6g} eV, {instrument.radiation}"))
    if instrument.distance_m is not None:
        facts.append(("distance to the detector", f"{instrument.distance_m:.4g} m"))
    return facts


def page_of(title: str, figure: Figure, facts: Facts) -> str:
    """A heading, a picture inside the page, and a table."""
    picture = base64.b64encode(as_png(figure)).decode()
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
        for name, value in facts
    )
    return (
        f"<div><p><b>{html.escape(title)}</b></p>"
        f"<img alt='{html.escape(title, quote=True)}' style='max-width:100%;height:auto' "
        f"src='data:image/png;base64,{picture}'><table>{rows}</table></div>"
    )

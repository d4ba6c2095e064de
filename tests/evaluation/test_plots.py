"""Pictures: no text is cut off, colours are those of the lit area, and scale bars are right."""

import re
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from matplotlib.figure import Figure
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

from ptycho_torch.data.scan import Reconstruction
from ptycho_torch.evaluation.fit_plots import plot_over_scan
from ptycho_torch.evaluation.plots import (
    draw_detector_bar,
    draw_scale_bar,
    panels,
    plot_amplitude,
    plot_pattern,
    plot_phase,
    plot_probe,
)
from ptycho_torch.evaluation.quantity_text import length_text

SHAPES, SCALES = ((40, 400), (400, 40), (200, 200)), (1e-4, 1.0, 1e4)


@pytest.mark.parametrize(("shape", "scale"), list(product(SHAPES, SCALES)))
@pytest.mark.parametrize("plot", [plot_amplitude, plot_phase])
def test_no_label_is_cut_off(plot, shape, scale):
    """Long and high pictures, far from the origin, whose values have few or many digits."""
    figure, (axes,) = panels()
    plot(axes, noisy(shape, scale))
    left, bottom, right, top = figure.get_tightbbox().extents
    width, height = figure.get_size_inches()
    assert (left >= 0, bottom >= 0, right <= width, top <= height) == (True,) * 4


def noisy(shape, scale=1.0):
    """A reconstruction of noise, far from the origin."""
    noise = 0.02 * np.random.default_rng(0).standard_normal((2, *shape))
    return Reconstruction(
        object=(scale * (1 + noise[0] + 1j * noise[1])).astype(np.complex64),
        coverage=np.ones(shape, dtype=np.float32),
        origin_yx=np.array([123456.0, 123456.0]),
        probe=np.ones((1, 8, 8), dtype=np.complex64),
        positions_px=np.zeros((1, 2)),
        scan_index=np.arange(1),
        pixel_size_m=(1e-8, 1e-8),
    )


def test_colours_are_those_of_the_lit_area():
    """The rim of an object is seen, and noisy: it must not take the contrast from the rest."""
    result = noisy((100, 100))
    result.coverage[:20] = 0.02
    result.object[:20] *= np.exp(3j * np.random.default_rng(1).random((20, 100))) * 50
    for plot, largest in ((plot_amplitude, 1.2), (plot_phase, 0.2)):
        axes = Figure().subplots()
        plot(axes, result)
        low, high = axes.images[0].get_clim()
        assert high <= largest
        assert high - low < 0.3


@pytest.mark.parametrize("pixel_m", [3e-11, 7e-9, 32e-9, 4.9e-6])
def test_the_scale_bar_is_as_long_as_it_says(pixel_m):
    axes = Figure().subplots()
    axes.imshow(np.zeros((50, 130)))
    draw_scale_bar(axes, (2 * pixel_m, pixel_m))
    (bar,) = [artist for artist in axes.artists if isinstance(artist, AnchoredSizeBar)]
    number, unit = re.fullmatch(r"([0-9.]+) (nm|µm)", bar.txt_label.get_text()).groups()
    length_m = float(number) * {"nm": 1e-9, "µm": 1e-6}[unit]
    (line,) = bar.size_bar.get_children()
    assert line.get_width() * pixel_m == pytest.approx(length_m)
    assert 0.1 <= line.get_width() / 130 <= 0.25


def test_every_picture_of_the_sample_plane_has_a_scale_bar_where_the_pixel_is_known():
    result = noisy((60, 60))
    pixel, positions = result.pixel_size_m, np.random.default_rng(0).random((9, 2)) * 60
    drawings = [
        lambda axes: plot_amplitude(axes, result),
        lambda axes: plot_phase(axes, result),
        lambda axes: plot_probe(axes, result.probe, pixel),
        lambda axes: plot_over_scan(
            axes, positions, np.arange(9.0), title="", unit="", pixel_size_m=pixel
        ),
    ]
    for draw in drawings:
        axes = draw(Figure().subplots())
        assert sum(isinstance(artist, AnchoredSizeBar) for artist in axes.artists) == 1
    axes = plot_probe(Figure().subplots(), result.probe, None)
    assert not axes.artists


@pytest.mark.parametrize("pixel_m", [5e-12, 3e-9, 32e-9])
def test_the_bar_of_a_far_field_pattern_is_the_frequency_it_says(pixel_m):
    """A grating of a whole number of periods has its peak as far from the middle as it says."""
    width, periods = 64, 8
    patch = np.exp(2j * np.pi * periods * np.arange(width) / width)[None].repeat(4, axis=0)
    pattern = np.abs(np.fft.fftshift(np.fft.fft2(patch))) ** 2
    peak_px = int(pattern.sum(axis=0).argmax()) - width // 2
    axes = Figure().subplots()
    axes.imshow(np.zeros((16, width)))
    draw_detector_bar(axes, (2 * pixel_m, pixel_m), width=width, near_field=False)
    (bar,) = [artist for artist in axes.artists if isinstance(artist, AnchoredSizeBar)]
    number, unit = re.fullmatch(r"([0-9.]+) (nm|µm)⁻¹", bar.txt_label.get_text()).groups()
    frequency = float(number) / {"nm": 1e-9, "µm": 1e-6}[unit]
    (line,) = bar.size_bar.get_children()
    period_m = width * pixel_m / periods
    assert frequency / line.get_width() * peak_px == pytest.approx(1 / period_m)
    assert 0.1 <= line.get_width() / width <= 0.25


def test_every_pattern_has_a_bar_in_its_unit_where_the_pixel_is_known(simulation):
    far = simulation.scan
    near = replace(far, fresnel_number=(0.05, 0.05))
    for scan, unit in ((far, "µm⁻¹"), (near, "nm"), (replace(far, pixel_size_m=None), None)):
        axes = plot_pattern(Figure().subplots(), scan.counts[0], scan)
        labels = [bar.txt_label.get_text().split()[1] for bar in axes.artists]
        assert labels == ([unit] if unit else [])


def test_lengths_are_in_the_unit_that_is_read_best():
    assert [length_text(m) for m in (1.9687e-12, 5e-10, 2.346e-8, 1e-6, 1.2345e-5)] == [
        "1.97 pm",
        "0.5 nm",
        "23.5 nm",
        "1 µm",
        "12.3 µm",
    ]

"""The fit of the patterns: which are shown, and pictures that show what the numbers say."""

from dataclasses import replace
from functools import partial
from itertools import combinations

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver

from ptycho_torch.evaluation.fit_plots import (
    mark_patterns,
    plot_mode,
    plot_moves,
    plot_over_scan,
    plot_pair,
    plot_refinement,
)
from ptycho_torch.evaluation.metrics.residuals import pattern_residuals
from ptycho_torch.evaluation.pattern_fit import fit_of_patterns, read_fit, write_fit
from ptycho_torch.evaluation.plots import panels
from ptycho_torch.evaluation.report_pictures import pair_panels


@pytest.fixture
def spoiled(simulation):
    """A scan with a bad pixel, and with one pattern that is not of its place."""
    counts = simulation.scan.counts[:].copy()
    counts[17] = counts[17].T[::-1]
    mask = simulation.scan.mask.copy()
    mask[3, 5] = False
    return replace(simulation.scan, counts=counts, mask=mask)


@pytest.fixture
def fit(simulation, spoiled):
    residuals = pattern_residuals(simulation.truth, spoiled)
    return fit_of_patterns(simulation.truth, spoiled, residuals, spoiled.positions_px + 1.0)


def test_the_wrong_pattern_is_the_worst_and_the_others_are_in_order(fit):
    best, median, worst = fit.chi2_per_dof[fit.chosen]
    assert fit.chosen[2] == 17
    assert best == fit.chi2_per_dof.min()
    assert worst == fit.chi2_per_dof.max()
    assert np.sum(fit.chi2_per_dof < median) == len(fit.chi2_per_dof) // 2


def test_patterns_lie_beside_their_own_expectation(fit, simulation, spoiled):
    """The expectation by another way: whole-pixel patches of the true object would do, so the
    counts of the other patterns must fit theirs within counting noise, and the wrong one must not.
    """
    assert np.isnan(fit.measured[:, 3, 5]).all()
    good = spoiled.mask
    for n, measured in zip(fit.chosen, fit.measured, strict=True):
        assert np.array_equal(measured[good], spoiled.counts[n][good])
    noise = (fit.measured - fit.expected)[:, good] / np.sqrt(np.maximum(fit.expected[:, good], 1))
    assert np.mean(noise[:2] ** 2) < 1.5
    assert np.mean(noise[2] ** 2) > 5


def test_without_enough_photons_the_r_factor_orders(simulation, spoiled):
    residuals = pattern_residuals(simulation.truth, spoiled)
    dark = replace(residuals, dof=np.zeros_like(residuals.dof))
    fit = fit_of_patterns(simulation.truth, spoiled, dark, spoiled.positions_px)
    assert fit.r_factor[fit.chosen[0]] == fit.r_factor.min()
    assert fit.r_factor[fit.chosen[2]] == fit.r_factor.max()
    assert np.isnan(fit.chi2_per_dof).all()


def test_the_file_holds_all_of_it(fit, tmp_path):
    path = tmp_path / "residuals.npz"
    write_fit(path, fit)
    back = read_fit(path, patterns=len(fit.scan_index))
    for name, value in vars(fit).items():
        assert np.array_equal(getattr(back, name), value, equal_nan=value.dtype.kind == "f"), name


def test_both_patterns_have_the_same_logarithmic_colours():
    measured = np.array([[0, 10], [np.nan, 3]], dtype=np.float32)
    expected = np.array([[0.01, 2000], [5, 3]], dtype=np.float32)
    axes = plot_pair(list(Figure().subplots(1, 2)), measured, expected, None, near_field=False)
    left, right = (one.images[0] for one in axes)
    assert left.norm is right.norm
    assert (left.norm.vmin, left.norm.vmax) == (0.5, 2000)
    drawn = left.to_rgba(left.get_array())
    assert np.ptp(drawn[1, 0, :3]) == 0, "a bad pixel is grey"
    assert np.ptp(drawn[0, 1, :3]) > 0


def test_no_word_of_a_pair_of_panels_is_cut_off_or_hides_another():
    """Long numbers in the colour bars, and a scale bar with a long name."""
    many = np.full((16, 16), 3e7, dtype=np.float32)
    plot = partial(plot_pair, measured=many, expected=many, pixel_size_m=(2e-5, 2e-5))
    mode = np.full((16, 16), 12345.0 + 2000j, dtype=np.complex64) * np.linspace(1, 1.01, 16)
    for draw in (
        partial(plot, near_field=False),
        partial(plot, near_field=True),
        partial(plot_mode, mode=mode.astype(np.complex64), pixel_size_m=(2e-5, 2e-5)),
    ):
        figure, axes = pair_panels()
        draw(axes)
        figure.canvas.draw()
        left, bottom, right, top = figure.get_tightbbox().extents
        width, height = figure.get_size_inches()
        assert (left >= 0, bottom >= 0, right <= width, top <= height) == (True,) * 4
        boxes = [place.get_tightbbox() for place in figure.axes]
        for one, other in combinations(boxes, 2):
            assert not one.padded(-1).overlaps(other.padded(-1))


def test_arrows_point_from_the_file_to_the_found_position():
    """A common shift is left out, y points downwards, and the key says how long a pixel is."""
    given = np.stack(np.meshgrid(np.arange(10.0), np.arange(10.0), indexing="ij"), -1).reshape(
        -1, 2
    )
    given *= 6
    moves = 0.02 * np.random.default_rng(0).standard_normal(given.shape)
    axes = plot_moves(Figure().subplots(), given, given + moves + [3.0, -2.0], None)
    (arrows,) = [one for one in axes.collections if isinstance(one, Quiver)]
    centred = moves - moves.mean(axis=0)
    assert np.stack([arrows.V, arrows.U], axis=1) == pytest.approx(centred)
    assert (arrows.angles, arrows.scale_units) == ("xy", "xy")
    longest = np.hypot(*centred.T).max() / arrows.scale
    assert 1.0 < longest < 12, "visible, and hardly longer than the way to the neighbour"
    bottom, top = axes.get_ylim()
    assert bottom > top
    assert f"{np.sqrt(np.mean(centred**2)):.2g} px rms" in axes.get_title()


def test_the_three_patterns_are_marked_where_they_are():
    axes = mark_patterns(Figure().subplots(), np.array([[1.0, 2], [3, 4], [5, 6]]))
    assert [tuple(line.get_xydata()[0]) for line in axes.lines] == [(2, 1), (4, 3), (6, 5)]
    assert [text.get_text() for text in axes.texts] == ["best", "median", "worst"]


def test_marks_and_long_numbers_are_not_cut_off():
    """The names of patterns in the corners, and an R-factor of five digits."""
    corners = np.array([[0.0, 0], [0, 90], [90, 0], [90, 90]])
    figure, (axes,) = panels()
    style = {"title": "R", "unit": "R", "pixel_size_m": None}
    plot_over_scan(axes, corners, np.arange(4.0), **style)
    mark_patterns(axes, corners[[0, 1, 2]])
    figure.canvas.draw()
    frame = axes.get_window_extent()
    for text in axes.texts:
        extent = text.get_window_extent()
        assert frame.y0 <= extent.y0
        assert extent.y1 <= frame.y1
    figure, (axes,) = panels()
    plot_refinement(axes, [0.00135, 0.00161], [0.001402, 0.00162], [False, True])
    assert figure.get_tightbbox().x0 >= 0


def test_the_phase_of_a_mode_is_blank_where_there_is_no_light():
    mode = np.zeros((8, 8), dtype=np.complex64)
    mode[2:6, 2:6] = 2.0 * np.exp(0.3j)
    _, phase = plot_mode(list(Figure().subplots(1, 2)), mode, None)
    shown = phase.images[0].get_array()
    assert np.ma.count_masked(np.ma.masked_invalid(shown)) == 48
    assert np.nanmax(np.abs(shown)) < 1e-6, "its mean phase is arbitrary"

"""Patterns, probes and neighbourhoods that are flat or dark, where a correlation is 0 / 0."""

from dataclasses import replace

import numpy as np
import pytest

from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.doctor.examination import examine
from ptycho_torch.doctor.findings import INFO, WARNING, take_sample
from ptycho_torch.doctor.near_field import FOREIGN, misfit_of_probe
from ptycho_torch.doctor.orientation import residual
from ptycho_torch.doctor.position_checks import correlation

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def scan():
    return simulate_scan(photons=20.0, n_side=6, pattern_size=32, step_px=3.0, seed=1).scan


def verdicts(scan):
    return {one.check: one for one in examine(scan, take_sample(scan, all_totals=True))}


@pytest.mark.parametrize("level", [0.0, 1.0, 2.0**64 - 1, 1e-30])
def test_a_flat_picture_correlates_with_nothing(level):
    picture = np.random.default_rng(0).random(99)
    flat = np.full(99, level) * (1 + 1e-8 * picture)  # rounding of float32
    assert correlation(flat, picture) == correlation(picture, flat) == 0
    assert correlation(picture, 3 * picture + 1) == pytest.approx(1)
    assert correlation(picture, -picture) == pytest.approx(-1)
    assert correlation(picture[:1], picture[:1]) == 0


@pytest.mark.parametrize("level", [1.0, 3.0, 1e20])
def test_flat_patterns_are_not_those_of_the_probe(level, scan):
    found = verdicts(replace(scan, counts=np.full(scan.counts.shape, level)))["probe"]
    assert found.verdict == WARNING
    assert found.evidence["correlation"] == 0


def test_a_middle_without_light_has_no_orientation():
    big = simulate_scan(photons=20.0, n_side=8, pattern_size=32, step_px=3.0, seed=1).scan
    middle = np.linalg.norm(big.positions_px - big.positions_px.mean(axis=0), axis=1).argsort()
    counts = np.asarray(big.counts).copy()
    counts[middle[:40]] = 0
    found = verdicts(replace(big, counts=counts))
    assert found["orientation"].verdict == INFO
    assert "no light" in found["orientation"].text
    assert "timing" not in found


def test_nothing_explains_patterns_without_light(scan):
    dark = replace(scan, counts=np.zeros(scan.counts.shape))
    assert misfit_of_probe(dark) == 1 > FOREIGN
    amplitude = np.zeros((2, 8, 8))
    mask, probe = np.ones((8, 8), dtype=bool), np.ones((1, 8, 8), dtype=np.complex64)
    assert residual(amplitude, mask, np.array([[0.0, 0], [1, 1]]), probe, 2) == 1


def test_a_perfect_fit_leaves_a_residual_that_others_are_compared_with():
    """A pattern of one pixel: an object fits it exactly, and 0 has no relative excess."""
    mask, probe = np.ones((1, 1), dtype=bool), np.ones((1, 1, 1), dtype=np.complex64)
    assert 0 < residual(np.ones((1, 1, 1)), mask, np.zeros((1, 2)), probe, 2) < 1e-9

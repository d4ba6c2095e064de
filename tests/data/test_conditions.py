"""Dose, overlap, probe and sampling of a scan, by hand."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from ptycho_torch.data.augmentation import min_input_fraction
from ptycho_torch.data.conditions import (
    Conditions,
    conditions_of,
    median_step_px,
    training_conditions,
)
from ptycho_torch.data.simulation import simulate_scan

KNOWN = Conditions(
    photons=5e5, step_px=3.0, beam_px=8.0, aperture=0.4, probe_modes=2, pattern_rows=32,
    pattern_columns=64,
)  # fmt: skip


def test_the_step_is_the_median_distance_of_nearest_neighbours():
    assert median_step_px(np.array([[0.0, 0], [3, 4]])) == 5
    assert median_step_px(np.array([[0.0, 0], [0, 1], [0, 3], [0, 7]])) == 1.5  # of 1, 1, 2, 4
    assert median_step_px(np.array([[2.0, 2], [2, 2]])) == 0
    assert median_step_px(np.array([[0.0, 0], [0, 0], [0, 0], [0, 6]])) == 6


def test_the_conditions_of_a_scan_are_those_of_its_beam():
    """A Gaussian beam: 90 % of its photons lie in a circle of known diameter, and so does its
    spectrum.
    """
    made = simulate_scan(photons=1e4, n_side=4, step_px=3.0, pattern_size=32, seed=0).scan
    y, x = np.indices((32, 32)) - 16
    sigma = 3.0  # px, of the amplitude
    beam = np.exp(-(y**2 + x**2) / (2 * sigma**2))
    probe = np.stack([beam, 0.1 * beam * x]).astype(np.complex64)
    found = conditions_of(replace(made, probe=probe * np.float32(1e2 / np.linalg.norm(probe))))
    assert found.photons == pytest.approx(1e4, rel=1e-3)
    assert (found.probe_modes, found.pattern_rows, found.pattern_columns) == (2, 32, 32)
    assert found.step_px == median_step_px(made.positions_px)
    assert conditions_of(replace(made, probe=probe[:1])).beam_px == pytest.approx(
        2 * sigma * np.log(10) ** 0.5,
        abs=1.5,  # a whole number of pixels, in both directions
    )
    narrow = np.exp(-(y**2 + x**2) / (2 * (sigma / 2) ** 2)).astype(np.complex64)[None]
    wide = conditions_of(replace(made, probe=narrow)).aperture
    assert wide == pytest.approx(
        2 * conditions_of(replace(made, probe=probe[:1])).aperture, rel=0.1
    )


def test_the_lowest_dose_is_that_of_the_smallest_part_of_the_photons():
    darkest = KNOWN.at_lowest_dose()
    fraction = min_input_fraction(5e5 / (32 * 64))
    assert 0 < fraction < 1
    assert darkest == replace(KNOWN, photons=5e5 * fraction)


def test_what_a_checkpoint_keeps_is_read_back_with_its_types():
    entry = {name: str(value) for name, value in asdict(KNOWN).items()}
    assert training_conditions({"conditions": [entry, asdict(KNOWN)]}) == [KNOWN, KNOWN]
    with pytest.raises(LookupError):
        training_conditions({"conditions": [{"photons": 1.0}]})

"""Wavelengths of photons and electrons."""

import math

import numpy as np
import pytest

from ptycho_torch.data.scan import Instrument
from ptycho_torch.data.wavelength import RADIATIONS, energy_of, wavelength_of


@pytest.mark.parametrize(
    ("energy_ev", "wavelength_pm"),
    # de Graef, "Introduction to Conventional Transmission Electron Microscopy", table 2.2
    [(80e3, 4.1757), (100e3, 3.7014), (200e3, 2.5079), (300e3, 1.9687)],
)
def test_the_wavelength_of_electrons_is_relativistic(energy_ev, wavelength_pm):
    assert wavelength_of(energy_ev, "electrons") == pytest.approx(1e-12 * wavelength_pm, abs=5e-17)


def test_slow_electrons_have_the_wavelength_of_de_broglie():
    h, mass, charge = 6.62607015e-34, 9.1093837015e-31, 1.602176634e-19
    expected = h / math.sqrt(2 * mass * charge * 10.0)
    # the relativistic correction at 10 eV is 5e-6
    assert wavelength_of(10.0, "electrons") == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("radiation", RADIATIONS)
def test_energy_and_wavelength_are_inverse(radiation):
    for energy in np.geomspace(1, 1e7, 30):
        back = energy_of(wavelength_of(energy, radiation), radiation)
        assert back == pytest.approx(energy, rel=1e-13)  # float64, a few operations


def test_the_object_pixel_is_that_of_the_radiation():
    known = Instrument(300e3, 0.1, (150e-6, 150e-6), "electrons")
    assert known.object_pixel_m((64, 128)) == pytest.approx(
        (1.9687e-12 * 0.1 / (64 * 150e-6), 1.9687e-12 * 0.1 / (128 * 150e-6)), rel=1e-4
    )


def test_without_a_word_photons_are_meant():
    assert energy_of(1e-10) == energy_of(1e-10, "photons")
    assert wavelength_of(1e4) == wavelength_of(1e4, "photons")

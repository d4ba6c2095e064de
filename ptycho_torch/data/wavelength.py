"""Wavelength and energy of the radiation of an experiment: photons or electrons.

A photon of energy E has the wavelength ``h c / E``. An electron that was accelerated by a voltage U
has that of its relativistic momentum,

    lambda = h / sqrt(2 m e U (1 + e U / (2 m c^2))) = h c / sqrt(E (E + 2 m c^2)),    E = e U

which at 80 to 300 keV is 3.7 to 2.1 times shorter than that of a photon of the same energy.

References:
    L. Reimer, H. Kohl, "Transmission Electron Microscopy", 5th ed., section 2.2 (2008). Constants:
    CODATA 2018.
"""

import math
from typing import Literal, get_args

Radiation = Literal["photons", "electrons"]
RADIATIONS: tuple[Radiation, ...] = get_args(Radiation)

# eV m; Planck's constant times the speed of light, both exact in the SI, with all digits: Ptychodus
# warns of "the wrong scale" where two pixel sizes differ by more than 1e-9.
PHOTON_ENERGY_WAVELENGTH = 1.2398419843320026e-6
ELECTRON_REST_ENERGY_EV = 510998.95  # m c^2


def wavelength_of(energy_ev: float, radiation: Radiation = "photons") -> float:
    """The wavelength in metres of a photon, or of an electron with that kinetic energy."""
    if radiation == "photons":
        return PHOTON_ENERGY_WAVELENGTH / energy_ev
    momentum_ev = math.sqrt(energy_ev) * math.sqrt(energy_ev + 2 * ELECTRON_REST_ENERGY_EV)
    return PHOTON_ENERGY_WAVELENGTH / momentum_ev


def energy_of(wavelength_m: float, radiation: Radiation = "photons") -> float:
    """The energy in eV of a photon, or the kinetic energy of an electron; see `wavelength_of`."""
    momentum_ev = PHOTON_ENERGY_WAVELENGTH / wavelength_m
    if radiation == "photons":
        return momentum_ev
    total_ev = math.hypot(momentum_ev, ELECTRON_REST_ENERGY_EV)
    return momentum_ev * (momentum_ev / (total_ev + ELECTRON_REST_ENERGY_EV))

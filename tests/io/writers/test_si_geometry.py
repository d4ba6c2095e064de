"""What a format in metres needs is named before anything is computed."""

from dataclasses import replace

import numpy as np
import pytest

from ptycho_torch.data.scan import Instrument
from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.errors import InputError
from ptycho_torch.io.writers.si_geometry import check_known, in_metres

KNOWN = {"energy_ev": 8000.0, "distance_m": 2.0, "detector_pixel_m": (75e-6, 50e-6)}
WAVELENGTH_M = 1.549802e-10  # hc / 8 keV, CODATA


def scan(pixel_size_m=(3e-8, 2e-8), **known):
    made = simulate_scan(photons=1e4, n_side=3, step_px=3.0, pattern_size=32, seed=0).scan
    return replace(made, pixel_size_m=pixel_size_m, instrument=Instrument(**known))


@pytest.mark.parametrize("missing", KNOWN)
def test_what_is_missing_is_named_by_its_flag_alone(missing):
    known = {name: value for name, value in KNOWN.items() if name != missing}
    with pytest.raises(InputError, match=rf"--format cxi .*; give --{missing}$"):
        in_metres(scan(**known), "cxi")


def test_all_that_is_missing_is_named_at_once():
    with pytest.raises(InputError, match=r"give --energy_ev, --distance_m, --detector_pixel_m$"):
        in_metres(scan(), "ptyd")


def test_the_pixel_of_the_scan_goes_before_that_of_the_experiment():
    """Without it, wavelength times distance over the size of the detector."""
    given = scan(**KNOWN)
    found = in_metres(given, "cxi")
    assert found.pixel_m == (3e-8, 2e-8)
    assert found.positions_m == pytest.approx(given.positions_px * [3e-8, 2e-8])
    expected = [WAVELENGTH_M * 2.0 / (32 * size) for size in (75e-6, 50e-6)]
    computed = in_metres(scan(pixel_size_m=None, **KNOWN), "cxi")
    assert computed.pixel_m == pytest.approx(expected, rel=1e-6)
    assert computed.positions_m == pytest.approx(given.positions_px * np.array(expected), rel=1e-6)


def test_only_formats_in_metres_need_it():
    check_known(scan(), ["npz"])
    check_known(scan(**KNOWN), ["npz", "cxi", "ptychodus", "ptyd"])
    for name in ("cxi", "ptychodus", "ptyd"):
        with pytest.raises(InputError, match=f"--format {name}"):
            check_known(scan(), ["npz", name])

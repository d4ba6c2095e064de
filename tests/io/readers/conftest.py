"""One simulated scan as a beamline knows it."""

from types import SimpleNamespace

import numpy as np
import pytest

ENERGY_EV, DISTANCE_M, DETECTOR_PIXEL_M = 8000.0, 1.2, 75e-6
WAVELENGTH_M = 1.2398419843320026e-6 / ENERGY_EV


@pytest.fixture(scope="session")
def measured(simulation):
    """The simulated scan in metres, as a beamline knows it; the probe and the pattern have no
    symmetry.
    """
    scan = simulation.scan
    n, height, width = scan.counts.shape
    pixel_m = WAVELENGTH_M * DISTANCE_M / (width * DETECTOR_PIXEL_M)
    return SimpleNamespace(
        scan=scan,
        truth=simulation.truth,
        counts=scan.counts.astype(np.int32),
        positions_m=(scan.positions_px - scan.positions_px.mean(axis=0)) * pixel_m,
        pixel_m=pixel_m,
        probe=scan.probe,
        shape=(height, width),
        n=n,
        energy_ev=ENERGY_EV,
        wavelength_m=WAVELENGTH_M,
        distance_m=DISTANCE_M,
        detector_pixel_m=DETECTOR_PIXEL_M,
    )


@pytest.fixture
def probe_file(tmp_path, measured):
    path = tmp_path / "probe.npy"
    np.save(path, measured.probe)
    return path

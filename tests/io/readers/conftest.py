"""One simulated scan as a beamline knows it."""

import numpy as np
import pytest
from beamline_files import as_measured


@pytest.fixture(scope="session")
def measured(simulation):
    """The simulated scan in metres, as a beamline knows it."""
    return as_measured(simulation)


@pytest.fixture
def probe_file(tmp_path, measured):
    path = tmp_path / "probe.npy"
    np.save(path, measured.probe)
    return path

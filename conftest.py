"""Fixtures of all tests: a simulated scan, a training on it, and a measured scan if present."""

import os
from pathlib import Path

import pytest

# The entry point has the same name, so that an installed package loads the plugin once.
pytest_plugins = ["ptycho_torch.testing.plugin"]

# Two compute threads on a busy machine are slower than one; children inherit this.
os.environ.setdefault("OMP_NUM_THREADS", "1")

MEASURED_SCAN = Path(__file__).parent.parent / "shared" / "data" / "siemens_star.npz"


@pytest.fixture(scope="session")
def measured_scan_file() -> Path:
    """The measured scan, which is not part of the project; `PTYCHO_TORCH_SCAN` is its path."""
    path = Path(os.environ.get("PTYCHO_TORCH_SCAN", MEASURED_SCAN))
    if not path.is_file():
        pytest.skip(f"the measured scan is not at {path}; set PTYCHO_TORCH_SCAN to its path")
    return path


@pytest.fixture(scope="session")
def simulation():
    """64 patterns of 32x32 at 1e6 photons, and their truth."""
    from ptycho_torch.data.simulation import simulate_scan

    return simulate_scan(photons=1e6, n_side=8, step_px=3.0, pattern_size=32, seed=1)


@pytest.fixture(scope="session")
def scan_file(tmp_path_factory, simulation) -> Path:
    """The simulated scan as an NPZ file in the layout that Ptychodus exports."""
    from ptycho_torch.io.writers import write_scan

    path = tmp_path_factory.mktemp("scan") / "scan.npz"
    write_scan(path, simulation.scan)
    return path


@pytest.fixture(scope="session")
def trained(scan_file, tmp_path_factory):
    """The folder of a short training on the simulated scan; many tests look at it, none changes
    it.
    """
    from ptycho_torch.config import TrainingConfig
    from ptycho_torch.train import train

    return train(
        TrainingConfig(
            train_data_file=[scan_file],
            output_dir=tmp_path_factory.mktemp("trained") / "run",
            max_epochs=2,
            gridsize=4,
            accelerator="cpu",
            quiet=True,
        )
    )

"""The scale of a stored probe is arbitrary, also where its square is no float64."""

from dataclasses import replace

import h5py
import numpy as np
import pytest

from ptycho_torch.data.measurement_faults import MeasurementFaults
from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.errors import InputError
from ptycho_torch.io.readers import read_scan
from ptycho_torch.io.writers import write_scan

# 1e-310 has 14 bits less than other float64, still more than complex64 has
FACTORS = [1e-310, 1e-300, 1e-30, 1e30, 1e300]


@pytest.fixture(scope="module")
def made():
    faults = MeasurementFaults(probe_drift=0.2)
    return simulate_scan(photons=1e5, n_side=5, step_px=3.0, pattern_size=16, faults=faults)


@pytest.mark.parametrize("factor", FACTORS)
def test_a_probe_of_any_scale_is_the_same_probe(factor, made, tmp_path):
    write_scan(tmp_path / "scan.npz", made.scan)
    arrays = dict(np.load(tmp_path / "scan.npz"))
    arrays["probeGuess"] = arrays["probeGuess"].astype(np.complex128) * factor
    np.savez(tmp_path / "scaled.npz", **arrays)
    expected, found = (read_scan(tmp_path / name).probe for name in ("scan.npz", "scaled.npz"))
    assert np.allclose(found, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())  # float32


@pytest.mark.filterwarnings("error")
def test_a_probe_of_the_smallest_number_is_refused_without_a_warning(made, tmp_path):
    write_scan(tmp_path / "scan.npz", made.scan)
    arrays = dict(np.load(tmp_path / "scan.npz"))
    arrays["probeGuess"] = np.full(arrays["probeGuess"].shape, 5e-324 + 0j)
    np.savez(tmp_path / "scaled.npz", **arrays)
    with pytest.raises(InputError, match=r"scaled.npz: probeGuess is 4.94e-324 at most"):
        read_scan(tmp_path / "scaled.npz")


@pytest.mark.parametrize("factor", FACTORS)
def test_so_is_one_that_changes_over_the_scan(factor, made, tmp_path):
    changing = replace(
        made.scan,
        probe_components=made.truth.probe_components,
        probe_weights=made.truth.probe_weights,
    )
    for name in ("plain", "scaled"):
        write_scan(tmp_path / name, changing, format_name="ptychodus")
    with h5py.File(tmp_path / "scaled" / "product.h5", "r+") as file:
        probe, attributes = file["probe"][...].astype(np.complex128), dict(file["probe"].attrs)
        del file["probe"]
        file["probe"] = probe * factor
        file["probe"].attrs.update(attributes)
    plain, scaled = (read_scan(tmp_path / name) for name in ("plain", "scaled"))
    assert plain.probe_components is not None
    for name in ("probe", "probe_components"):
        expected, found = getattr(plain, name), getattr(scaled, name)
        assert np.allclose(found, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())

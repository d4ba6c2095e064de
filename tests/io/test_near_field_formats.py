"""Near-field scans and their images keep their Fresnel number in every format."""

from dataclasses import replace

import h5py
import numpy as np
import pytest

from ptycho_torch.config import ReadingOptions
from ptycho_torch.config.registry import SCAN_WRITERS
from ptycho_torch.data.scan import Instrument
from ptycho_torch.data.simulation import setup_of, simulate_scan
from ptycho_torch.data.wavelength import wavelength_of
from ptycho_torch.errors import InputError
from ptycho_torch.io.readers import read_scan
from ptycho_torch.io.readers.reconstruction import read_reconstruction
from ptycho_torch.io.run_dir import RunDir
from ptycho_torch.io.writers import write_formats, write_reconstruction, write_scan

PIXEL_M, DISTANCE_M, ENERGY_EV = (50e-9, 60e-9), 5e-4, 8e3
NUMBER = tuple(pixel**2 / (wavelength_of(ENERGY_EV) * DISTANCE_M) for pixel in PIXEL_M)


def made(magnification):
    """A beam that diverges; its dark border looks like a far field."""
    simulated = simulate_scan(
        photons=1e5,
        n_side=4,
        step_px=2.0,
        pattern_size=32,
        setup=setup_of("photons", NUMBER[0]),
    )
    detector = (PIXEL_M[0] * magnification, PIXEL_M[1] * magnification)
    counts = simulated.scan.counts[:].copy()
    counts[:, :6], counts[:, -6:], counts[:, :, :6], counts[:, :, -6:] = 0, 0, 0, 0
    known = {
        "instrument": Instrument(ENERGY_EV, DISTANCE_M, detector),
        "pixel_size_m": PIXEL_M,
    }
    scan = replace(simulated.scan, counts=counts, fresnel_number=NUMBER, **known)
    return scan, replace(simulated.truth, **known)


@pytest.mark.parametrize("magnification", [1, 20])
@pytest.mark.parametrize("format_name", SCAN_WRITERS)
def test_every_format_keeps_the_fresnel_number(format_name, magnification, tmp_path):
    scan, _ = made(magnification)
    write_scan(tmp_path / "scan", scan, format_name=format_name)
    np.save(tmp_path / "probe.npy", scan.probe)
    back = read_scan(tmp_path / "scan", options=ReadingOptions(probe=tmp_path / "probe.npy"))
    assert back.fresnel_number == pytest.approx(NUMBER, rel=1e-9)
    assert back.pixel_size_m == pytest.approx(PIXEL_M, rel=1e-9)
    assert back.positions_px == pytest.approx(scan.positions_px, rel=1e-6)


def test_an_image_says_that_its_patterns_were_near_field_ones(tmp_path):
    _, truth = made(20)
    assert not truth.is_far_field
    run = RunDir(tmp_path)
    write_reconstruction(run.reconstruction, truth)
    assert not read_reconstruction(run.reconstruction).is_far_field
    write_formats(run, truth, ["cxi", "ptychodus"])
    with h5py.File(run.product) as file:
        assert not file.attrs["far_field"]
    with h5py.File(run.cxi) as file:
        assert not file["entry_1"].attrs["far_field"]


def test_a_far_field_scan_is_not_marked(tmp_path):
    scan, truth = made(1)
    write_scan(tmp_path / "scan.cxi", replace(scan, fresnel_number=None), format_name="cxi")
    with h5py.File(tmp_path / "scan.cxi") as file:
        assert "far_field" not in file["entry_1"].attrs
    write_reconstruction(tmp_path / "far.npz", replace(truth, is_far_field=True))
    assert "far_field" not in np.load(tmp_path / "far.npz").files


@pytest.mark.parametrize("pixel", [None, (1e-9, 0.0), (1e-9,), "wide", (np.inf, 1e-9)])
def test_a_mark_without_a_pixel_is_refused(pixel, tmp_path):
    scan, _ = made(1)
    path = tmp_path / "scan.cxi"
    write_scan(path, scan, format_name="cxi")
    with h5py.File(path, "r+") as file:
        del file["entry_1"].attrs["object_pixel_m"]
        if pixel is not None:
            file["entry_1"].attrs["object_pixel_m"] = pixel
    with pytest.raises(InputError, match="object_pixel_m of /entry_1"):
        read_scan(path)

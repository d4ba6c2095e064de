"""Electrons: their wavelength in every reader, and files that keep them."""

from dataclasses import replace

import h5py
import numpy as np
import pytest

from ptycho_torch.config import ReadingOptions
from ptycho_torch.config.registry import SCAN_WRITERS
from ptycho_torch.data.scan import Instrument
from ptycho_torch.data.simulation import ELECTRONS, setup_of, simulate_scan
from ptycho_torch.data.wavelength import wavelength_of
from ptycho_torch.doctor.findings import OK, WARNING, take_sample
from ptycho_torch.doctor.position_checks import check_experiment
from ptycho_torch.errors import InputError
from ptycho_torch.io.readers import read_scan
from ptycho_torch.io.readers.reconstruction import read_reconstruction
from ptycho_torch.io.writers import write_reconstruction, write_scan

SIZE = 16
PIXEL_M = 1.96874890e-12 * 0.1 / (SIZE * 150e-6)  # of 300 keV, 0.1 m and 150 um


@pytest.fixture(scope="module")
def made():
    return simulate_scan(
        photons=1e5,
        n_side=4,
        step_px=2.0,
        pattern_size=SIZE,
        setup=setup_of("electrons", None),
    )


def reading(tmp_path, scan, **options):
    probe = tmp_path / "probe.npy"
    np.save(probe, scan.probe)
    return ReadingOptions(probe=probe, **options)


@pytest.mark.parametrize("format_name", SCAN_WRITERS)
def test_every_format_keeps_electrons(format_name, tmp_path, made):
    path = tmp_path / "scan"
    write_scan(path, made.scan, format_name=format_name)
    back = read_scan(path, options=reading(tmp_path, made.scan))
    assert back.instrument.radiation == "electrons"
    assert back.instrument.energy_ev == pytest.approx(300e3, rel=1e-9)
    assert back.pixel_size_m == pytest.approx((PIXEL_M, PIXEL_M), rel=1e-8)
    assert back.positions_px == pytest.approx(made.scan.positions_px, rel=1e-6)


@pytest.mark.parametrize("format_name", ["ptychodus", "ptyd"])
def test_programs_that_know_photons_alone_compute_the_right_wavelength(format_name, tmp_path, made):
    path = tmp_path / "scan"
    write_scan(path, made.scan, format_name=format_name)
    with h5py.File(path / "product.h5" if format_name == "ptychodus" else path) as file:
        energy_ev = (
            file.attrs["photon_energy_eV"]
            if format_name == "ptychodus"
            else 1e3 * file["meta/energy"][()]
        )
    assert wavelength_of(energy_ev) == pytest.approx(wavelength_of(300e3, "electrons"), rel=1e-12)


def test_a_reconstruction_keeps_electrons(tmp_path, made):
    write_reconstruction(tmp_path / "reconstruction.npz", made.truth)
    assert read_reconstruction(tmp_path / "reconstruction.npz").instrument == ELECTRONS


@pytest.mark.parametrize("format_name", SCAN_WRITERS)
def test_the_flag_corrects_a_file_of_photons(format_name, tmp_path, made):
    """A file without a word about electrons, as other programs write it."""
    path = tmp_path / "scan"
    known = replace(made.scan.instrument, radiation="photons")
    photons = replace(made.scan, instrument=known, pixel_size_m=known.object_pixel_m((SIZE, SIZE)))
    write_scan(path, photons, format_name=format_name)
    stated = {"pixel_size_m": PIXEL_M} if format_name in ("npz", "ptychodus") else {}
    back = read_scan(path, options=reading(tmp_path, photons, radiation="electrons", **stated))
    assert back.instrument.radiation == "electrons"
    if format_name == "cxi":  # its wavelength is that of photons, and comes first
        assert back.instrument.wavelength_m == pytest.approx(wavelength_of(300e3), rel=1e-9)
    else:
        assert back.pixel_size_m == pytest.approx((PIXEL_M, PIXEL_M), rel=1e-8)


@pytest.mark.parametrize("said", ["in the map", "by the flag"])
@pytest.mark.parametrize("key", ["energy_kev: 300", "wavelength_m: 1.9687489e-12"])
def test_a_mapped_file_of_electrons(said, key, tmp_path, made):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = made.scan.counts
        file["xy"] = made.scan.positions_px * PIXEL_M
    lines = ["patterns: data", "positions_m: xy", key, "distance_m: 0.1", "detector_pixel_um: 150"]
    if said == "in the map":
        lines.append("radiation: electrons")
    (tmp_path / "map.yaml").write_text("\n".join(lines))
    options = ReadingOptions(
        map=tmp_path / "map.yaml", radiation="electrons" if said == "by the flag" else "auto"
    )
    scan = read_scan(tmp_path / "scan.h5", options=options)
    assert scan.instrument.energy_ev == pytest.approx(300e3, rel=1e-6)
    assert scan.pixel_size_m == pytest.approx((PIXEL_M, PIXEL_M), rel=1e-6)
    assert scan.positions_px == pytest.approx(made.scan.positions_px, rel=1e-6)


def test_another_word_is_refused(tmp_path, made):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = made.scan.counts
    (tmp_path / "map.yaml").write_text("patterns: data\nradiation: neutrons\n")
    with pytest.raises(InputError, match="radiation is neutrons; expected photons or electrons"):
        read_scan(tmp_path / "scan.h5", options=ReadingOptions(map=tmp_path / "map.yaml"))
    write_scan(tmp_path / "scan.npz", made.scan)
    arrays = dict(np.load(tmp_path / "scan.npz"))
    np.savez(tmp_path / "odd.npz", **arrays | {"radiation": np.asarray("muons")})
    with pytest.raises(InputError, match="radiation is muons; expected photons or electrons"):
        read_scan(tmp_path / "odd.npz")


@pytest.mark.parametrize(
    ("known", "stated_m", "doubted"),
    [
        (Instrument(300e3, 0.1, (150e-6, 150e-6)), None, True),
        (Instrument(80e3, 0.5, (55e-6, 55e-6)), None, True),
        (Instrument(30e3, 0.1, (150e-6, 150e-6)), None, False),
        (Instrument(30e3, 0.01, (150e-6, 150e-6)), None, True),
        (Instrument(300e3, 0.1, (150e-6, 150e-6)), PIXEL_M, True),
        (Instrument(300e3, 0.1, (150e-6, 150e-6), "electrons"), None, False),
        (Instrument(8e3, 1.0, (75e-6, 75e-6)), None, False),
        (Instrument(33e3, 2.0, (55e-6, 55e-6)), None, False),
    ],
)
def test_an_energy_and_geometry_of_electrons_is_doubted(known, stated_m, doubted, made):
    pixel = known.object_pixel_m((SIZE, SIZE)) if stated_m is None else (stated_m, stated_m)
    scan = replace(made.scan, instrument=known, pixel_size_m=pixel)
    found = check_experiment(scan, take_sample(scan, all_totals=False))
    if doubted:
        assert (found.verdict, found.flag) == (WARNING, "--radiation electrons")
    else:
        assert found.verdict == OK

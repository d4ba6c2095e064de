"""Near-field patterns that are read as far-field ones are noticed, and no far-field scan is."""

from dataclasses import replace

import numpy as np
import pytest

from ptycho_torch.config import ReadingOptions
from ptycho_torch.data.probe import annular_probe, diffuse_probe
from ptycho_torch.data.simulation import FAR_FIELD, setup_of, simulate_scan
from ptycho_torch.doctor.examination import examine
from ptycho_torch.doctor.findings import INFO, OK, WARNING, take_sample
from ptycho_torch.doctor.near_field import check_near_field
from ptycho_torch.io.readers import read_scan
from ptycho_torch.io.writers import write_scan


def made(fresnel_number=None, *, probe=None, photons=1e6, step_px=4.0, size=64, seed=0):
    setup = FAR_FIELD if fresnel_number is None else setup_of("photons", fresnel_number)
    return simulate_scan(
        photons=photons,
        n_side=8,
        step_px=step_px,
        pattern_size=size,
        seed=seed,
        probe=probe,
        setup=setup,
    ).scan


def verdict_as_far_field(scan):
    scan = replace(scan, fresnel_number=None)
    return check_near_field(scan, take_sample(scan, all_totals=False))


@pytest.mark.parametrize("has_probe", [True, False])
@pytest.mark.parametrize(
    ("fresnel_number", "photons", "step_px", "size"),
    [(0.05, 1e6, 5.0, 64), (0.02, 1e4, 5.0, 64), (0.3, 1e6, 1.5, 64), (1.0, 1e5, 8.0, 96)],
)
def test_a_near_field_scan_read_as_far_field_is_doubted(
    has_probe, fresnel_number, photons, step_px, size
):
    scan = made(fresnel_number, photons=photons, step_px=step_px, size=size)
    found = verdict_as_far_field(scan if has_probe else replace(scan, probe=None))
    assert (found.verdict, found.flag) == (WARNING, "--propagator near_field")
    assert "moves with the positions" in found.text


def test_orientation_and_unit_of_the_positions_do_not_matter():
    scan = made(0.05, step_px=5.0)
    turned = replace(scan, positions_px=scan.positions_px[:, ::-1] * [-3.7, 0.4])
    assert verdict_as_far_field(turned).verdict == WARNING


@pytest.mark.parametrize("photons", [1e6, 1e4, 300])
@pytest.mark.parametrize(
    "probe",
    [
        None,
        annular_probe(64, aperture=0.9),
        annular_probe(64, aperture=1.4, central_stop=0.2),
        annular_probe(64, aperture=1.4, central_stop=0.01, beam=0.8),
        diffuse_probe(64, seed=1),
    ],
    ids=["pupil", "wide pupil", "filled", "filled, out of focus", "diffuse"],
)
def test_far_field_scans_are_not(probe, photons):
    found = verdict_as_far_field(made(probe=probe, photons=photons))
    assert (found.verdict, found.flag) == (OK, "")


def test_a_speckled_far_field_that_fills_the_detector_is_not_even_without_a_probe():
    rng = np.random.default_rng(0)
    y = np.arange(64) - 32
    envelope = np.exp(-(y[:, None] ** 2 + y**2) / (2 * 8.0**2))
    noise = rng.standard_normal((64, 64)) + 1j * rng.standard_normal((64, 64))
    scan = made(probe=(envelope * noise)[None].astype(np.complex64))
    found = verdict_as_far_field(replace(scan, probe=None))
    assert found.verdict == OK
    assert found.evidence["border_light"] > 0.5


@pytest.mark.parametrize("format_name", ["npz", "ptyd"])
def test_a_near_field_scan_comes_back_from_its_file(format_name, tmp_path):
    scan = made(0.05)
    path = tmp_path / "scan"
    write_scan(path, scan, format_name=format_name)
    back = read_scan(path)
    assert back.fresnel_number == pytest.approx(scan.fresnel_number)
    assert back.positions_px == pytest.approx(scan.positions_px)
    if format_name == "ptyd":  # which has no place for the probe
        back = replace(back, probe=scan.probe)
    findings = examine(back, take_sample(back, all_totals=True))
    assert {finding.verdict for finding in findings} == {OK, INFO}
    said = "near field of photons: Fresnel number 0.05"
    assert any(one.text.startswith(said) for one in findings)
    as_far = read_scan(path, options=ReadingOptions(propagator="far_field"))
    assert as_far.fresnel_number is None

"""Simulated measurements go wrong as far as was asked, and the truth holds what was done."""

from dataclasses import replace

import numpy as np
import pytest

from ptycho_torch.data.measurement_faults import MeasurementFaults, in_words, rotation
from ptycho_torch.data.probe import annular_probe, defocus_curvature, defocused
from ptycho_torch.data.simulation import expected_counts, simulate_scan
from ptycho_torch.errors import InputError

N_SIDE = 12
COUNT = N_SIDE**2
EVERYTHING = MeasurementFaults(
    position_error_px=1.0,
    position_scale=1.02,
    position_rotation_deg=1.0,
    flux_spread=0.15,
    background=0.05,
    source_size_px=0.7,
    motion_px=2.0,
    probe_drift=0.1,
)


def simulated(**faults):
    return simulate_scan(
        photons=1e6,
        n_side=N_SIDE,
        step_px=3.0,
        pattern_size=32,
        seed=2,
        faults=MeasurementFaults(**faults),
    )


@pytest.fixture(scope="module")
def clean():
    return simulated()


@pytest.fixture(scope="module")
def faulty():
    return simulated(**vars(EVERYTHING))


def model(truth):
    """Expected photons by all that the truth holds."""
    intensity, _ = expected_counts(
        truth.object,
        truth.probe,
        truth.positions_px,
        flux=truth.flux,
        probe_components=truth.probe_components,
        probe_weights=truth.probe_weights,
    )
    return intensity if truth.background is None else intensity + truth.background


def chi2_per_dof(truth, scan):
    expected = model(truth).astype(np.float64)
    bright = expected > 20  # photons; where the counts are close to normally distributed
    return np.mean((scan.counts[:][bright] - expected[bright]) ** 2 / expected[bright])


def test_the_truth_with_all_faults_explains_the_counts(faulty):
    """Pearson's statistic has a relative standard deviation of sqrt(2 / n), n about 30,000."""
    assert chi2_per_dof(faulty.truth, faulty.scan) == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize("left_out", ["flux", "background", "probe_weights"])
def test_without_one_of_the_faults_the_counts_are_not_explained(faulty, left_out):
    less = replace(faulty.truth, **{left_out: None})
    assert chi2_per_dof(less, faulty.scan) > 1.3


def test_with_the_positions_or_the_probe_of_the_file_the_counts_are_not_explained(faulty):
    truth, scan = faulty.truth, faulty.scan
    inside = np.clip(scan.positions_px, 16, min(truth.object.shape) - 17)
    assert chi2_per_dof(replace(truth, positions_px=inside), scan) > 2
    one_mode = replace(truth, probe=scan.probe, probe_components=None, probe_weights=None)
    assert chi2_per_dof(one_mode, scan) > 2


def test_wrong_positions_change_the_file_and_nothing_else(clean):
    made = simulated(position_error_px=0.7, position_scale=0.97, position_rotation_deg=-2)
    assert np.array_equal(made.scan.counts[:], clean.scan.counts[:])
    assert np.array_equal(made.truth.positions_px, clean.scan.positions_px)
    assert not np.allclose(made.scan.positions_px, clean.scan.positions_px)


def test_the_error_of_positions_has_the_size_asked(clean):
    """The standard deviation of an rms over n normal numbers is 1 / sqrt(2 n) of it: 6 %."""
    error = simulated(position_error_px=0.7).scan.positions_px - clean.truth.positions_px
    assert np.sqrt(np.mean(error**2, axis=0)) == pytest.approx([0.7, 0.7], rel=0.2)
    assert np.abs(error.mean(axis=0)).max() < 4 * 0.7 / np.sqrt(COUNT)


def test_the_true_scan_is_larger_and_turned_against_the_one_in_the_file(clean):
    made = simulated(position_scale=1.02, position_rotation_deg=1.0)
    true, given = (
        positions - positions.mean(axis=0)
        for positions in (made.truth.positions_px, made.scan.positions_px)
    )
    # by complex numbers: x - i y is the plane of a picture with y upwards
    factor = np.mean((true[:, 1] - 1j * true[:, 0]) / (given[:, 1] - 1j * given[:, 0]))
    assert abs(factor) == pytest.approx(1.02, rel=1e-9)
    assert np.degrees(np.angle(factor)) == pytest.approx(1.0, rel=1e-9)


def test_a_quarter_turn_goes_counterclockwise_in_a_picture():
    right, up = np.array([0, 1]), np.array([-1, 0])  # (y, x), y downwards
    assert rotation(90) @ right == pytest.approx(up)


def test_the_flux_has_mean_one_and_the_spread_asked(clean):
    made = simulated(flux_spread=0.15)
    assert made.truth.flux.mean() == pytest.approx(1, rel=1e-12)
    assert made.truth.flux.std() == pytest.approx(0.15, rel=0.25)  # 4 times 1 / sqrt(2 n)
    totals = made.scan.counts[:].sum(axis=(1, 2)) / clean.scan.counts[:].sum(axis=(1, 2))
    assert totals == pytest.approx(made.truth.flux, abs=0.01)  # 10 times the counting noise of 1e6


def test_a_flux_of_any_spread_is_positive():
    assert simulated(flux_spread=1.0).truth.flux.min() > 0


def test_the_background_has_its_share_of_the_light_and_three_fifths_of_it_in_a_halo(clean):
    made = simulated(background=0.05)
    background = made.truth.background
    assert background.sum() / made.scan.counts[:].sum(axis=(1, 2)).mean() == pytest.approx(
        0.05, rel=1e-3
    )
    flat = background.min() * background.size  # the halo is dark in the corners
    assert flat / background.sum() == pytest.approx(0.4, rel=0.02)
    assert np.unravel_index(background.argmax(), background.shape) == (16, 16)
    more = made.scan.counts[:].mean(axis=0) - clean.scan.counts[:].mean(axis=0)
    noise = np.sqrt(2 * made.scan.counts[:].mean(axis=0) / COUNT)
    assert np.abs((more - background) / noise).max() < 6  # of 1024 pixels


def test_the_source_has_the_size_asked():
    """The incoherent sum of copies has the second moment of one, plus that of the displacements."""
    one, spread = simulated().truth.probe, simulated(source_size_px=0.7).truth.probe

    def variance(probe):
        power = np.sum(np.abs(probe) ** 2, axis=0).astype(np.float64)
        y = np.arange(32) - 16
        return np.array([(power.sum(axis) * y**2).sum() for axis in (1, 0)]) / power.sum()

    assert np.sum(np.abs(spread) ** 2) == pytest.approx(np.sum(np.abs(one) ** 2), rel=1e-5)
    # the beam reaches the border of the window, where what is displaced enters at the other side
    assert variance(spread) - variance(one) == pytest.approx(0.7**2, rel=0.1)


def test_a_moving_sample_is_the_mean_of_exposures_at_displaced_positions(clean):
    """The window cuts off what a displaced probe has beyond it, 1 % of the light."""
    made, truth = simulated(motion_px=4.0), clean.truth
    inner = np.flatnonzero((truth.positions_px[:, 1] > 20) & (truth.positions_px[:, 1] < 40))
    shifts = [np.array([0, shift]) for shift in (-2, -1, 0, 1, 2)]
    exposures = [
        expected_counts(truth.object, truth.probe, truth.positions_px[inner] + shift)[0]
        for shift in shifts
    ]
    expected = np.mean(exposures, axis=0)
    blurred = model(made.truth)[inner]
    assert np.abs(blurred - expected).sum() / expected.sum() < 0.02
    assert np.abs(exposures[2] - expected).sum() / expected.sum() > 0.05  # a sample at rest


def test_the_defocus_drifts_by_what_was_asked():
    made = simulated(probe_drift=0.2)
    truth = made.truth
    probes = truth.probe + np.tensordot(truth.probe_weights, truth.probe_components, axes=1)
    curvature = np.array([defocus_curvature(probe) for probe in probes])
    middle = defocus_curvature(made.scan.probe)
    assert curvature / middle == pytest.approx(1 + 0.2 * np.linspace(-1, 1, COUNT), abs=2e-3)
    last = defocused(made.scan.probe, 0.2 * middle)
    # `LOST_POWER` in the mean; more at the ends of the scan
    assert np.linalg.norm(probes[-1] - last) < 2e-3 * np.linalg.norm(last)
    assert len(truth.probe_components) < 8


def test_a_drifting_probe_wanders_around_a_circle(clean):
    way = simulated(probe_drift=0.1).truth.positions_px - clean.truth.positions_px
    assert np.hypot(*way.T) == pytest.approx(0.9)
    assert way[0] == pytest.approx(way[-1])
    assert np.ptp(way, axis=0) == pytest.approx([1.8, 1.8], rel=1e-3)
    assert np.array_equal(simulated(probe_drift=0.1).scan.positions_px, clean.scan.positions_px)


def test_a_probe_that_wanders_far_stays_on_the_object():
    made = simulated(probe_drift=0.8)
    corners = made.truth.positions_px - 16
    assert corners.min() >= 0
    assert (corners + 32 <= np.array(made.truth.object.shape)).all()


def test_a_fault_changes_nothing_in_the_others(faulty):
    assert np.array_equal(simulated(flux_spread=0.15).truth.flux, faulty.truth.flux)
    assert np.array_equal(simulated().truth.object, faulty.truth.object)
    again = simulated(**vars(EVERYTHING))
    assert np.array_equal(again.scan.counts[:], faulty.scan.counts[:])
    assert np.array_equal(again.scan.positions_px, faulty.scan.positions_px)


def test_the_curvature_of_a_zone_plates_beam_is_that_of_its_diameter():
    """The pupil's rim, 0.2 cycles a pixel, is moved to the beam's rim, a fifth of 64 pixels."""
    probe = annular_probe(64, beam=0.4)
    assert defocus_curvature(probe) == pytest.approx(64, rel=1e-3)
    assert defocus_curvature(defocused(probe, -24.0)) == pytest.approx(40, rel=1e-3)
    aside = np.roll(probe, (5, -3), axis=(1, 2))
    assert defocus_curvature(aside) == pytest.approx(64, rel=1e-3)
    both = np.concatenate([probe, 0.5 * probe])
    assert defocus_curvature(both) == pytest.approx(64, rel=1e-3)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"background": 1.0}, "background is 1.0"),
        ({"flux_spread": -0.1}, "flux_spread is -0.1"),
        ({"position_scale": 0.0}, "position_scale is 0"),
        ({"motion_px": float("nan")}, "motion_px is nan"),
    ],
)
def test_a_fault_out_of_range_is_refused(fault, words):
    with pytest.raises(InputError, match=words):
        MeasurementFaults(**fault)


def test_a_probe_displaced_out_of_its_window_is_refused():
    with pytest.raises(InputError, match="displace the probe by 10 px"):
        simulated(motion_px=20.0)


def test_each_fault_has_its_phrase():
    assert in_words(MeasurementFaults()) == []
    assert in_words(replace(EVERYTHING, position_rotation_deg=-2.0)) == [
        "positions off by 1 px rms on each axis",
        "the true scan 1.02 times as large as the one in the file",
        "the true scan turned by -2 degrees against it",
        "photons of a shot that vary by 15 %",
        "5 % of the light from the background",
        "a source of 0.7 px rms",
        "a sample that moves by 2 px in x during a shot",
        "a defocus that drifts by +-10 %",
    ]

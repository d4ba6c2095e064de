"""What is said about a measurement, and what the scan holds that comes back."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ptycho_torch.data.scan import relative_photons
from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.refinement import RefineOptions, measurement, probe_retrieval
from ptycho_torch.refinement.held_out_halves import FITTING_STEPS, HeldOutHalves
from ptycho_torch.refinement.measurement import (
    FINAL_EPOCHS,
    MIN_PATTERNS,
    OPEN_PHASE_STEPS,
    _finish,
    _on_canvas,
    refine_measurement,
)
from ptycho_torch.refinement.measurement_findings import (
    SAID_AFFINE_PX,
    SAID_POSITIONS_PX,
    SAID_PROBE,
    Finding,
    describe,
)
from ptycho_torch.refinement.measurement_refiner import (
    LAST_STEP,
    MeasurementOptions,
    MeasurementRefiner,
)
from ptycho_torch.refinement.positions import misfit_of_each
from ptycho_torch.refinement.prepared_patterns import (
    WAVE_BUDGET,
    expected_counts,
    prepare,
    shift_basis,
)
from ptycho_torch.refinement.probe_retrieval import (
    CURVATURES,
    WIDEST_BEAM,
    curvatures,
    empty_object,
    final_r_free,
    mean_pattern,
)
from ptycho_torch.refinement.step import State


@pytest.fixture(scope="module")
def made():
    return simulate_scan(photons=1e6, n_side=6, step_px=3.0, pattern_size=16, seed=4)


def only(given, **found):
    (finding,) = describe(given, replace(given, **found))
    return finding


def test_nothing_is_said_of_a_scan_that_is_as_given(made):
    assert describe(made.scan, made.scan) == ()


def test_background_and_flux_are_said_with_their_size(made):
    share = made.scan.pattern_totals().mean() * 0.05 / 256
    background = np.full((16, 16), share, dtype=np.float32)
    found = only(made.scan, background=background)
    assert found == Finding(
        "background", "5 % of the light is background", pytest.approx(5, rel=1e-5), "%"
    )
    flux = 1 + 0.1 * (-1.0) ** np.arange(36)
    found = only(made.scan, flux=flux)
    text = "the flux varies by 10 % from shot to shot"
    assert found == Finding("flux", text, pytest.approx(10, rel=1e-5), "%")
    # what was known before is no finding
    known = replace(made.scan, flux=flux, background=background)
    assert describe(known, replace(known, flux=flux**2, background=2 * background)) == ()


def test_a_small_flux_beside_a_changing_probe_is_not_said(made):
    weights = np.linspace(-1, 1, 36, dtype=np.float32)[:, None]
    changing = {"probe_components": 0.2j * made.scan.probe[None], "probe_weights": weights}
    for spread, said in ((0.0, False), (0.2, True)):
        flux = 1 + spread * (-1.0) ** np.arange(36)
        scan = replace(made.scan, flux=flux, **changing)
        flux = flux / relative_photons(replace(scan, flux=None))  # the photons are those of flux
        scan = replace(scan, flux=flux, probe=made.scan.probe.copy())
        names = [one.name for one in describe(made.scan, scan)]
        assert names == ["flux", "probe_change"] if said else ["probe_change"]
    change = describe(made.scan, scan)[-1]
    value = 100 * 0.2 * float(np.sqrt(np.mean(weights**2)))
    assert change.value == pytest.approx(value, rel=1e-4)
    assert change.unit == "%"
    assert change.text == f"the probe changes over the scan by {value:.2g} % of its amplitude"


def test_a_probe_is_compared_by_its_shape_and_its_modes_are_counted(made):
    probe = made.scan.probe
    other = np.roll(probe, 8, axis=-1)
    other = other - probe * np.vdot(probe, other) / np.vdot(probe, probe)
    other = other * np.linalg.norm(probe) / np.linalg.norm(other)

    def mixed(share):
        return (2j * (math.sqrt(1 - share**2) * probe + share * other)).astype(np.complex64)

    found = only(made.scan, probe=mixed(0.3))
    text = "the probe of the file was off by 30 % of its amplitude"
    assert found == Finding("probe", text, pytest.approx(30, rel=1e-3), "%")
    assert describe(made.scan, replace(made.scan, probe=mixed(0.9 * SAID_PROBE / 100))) == ()
    found = only(made.scan, probe=np.concatenate([probe, other]).astype(np.complex64))
    assert found == Finding("modes", "the beam is partly coherent: 2 modes", 2.0, "modes")


def moved(scan, matrix=((0, 0), (0, 0)), noise_px=0.0):
    away = scan.positions_px - scan.positions_px.mean(0)
    noise = np.random.default_rng(0).standard_normal(away.shape)
    design = np.column_stack([away, np.ones(len(away))])
    noise -= design @ np.linalg.lstsq(design, noise, rcond=None)[0]  # no affine part by chance
    noise *= noise_px / np.sqrt(np.mean(noise**2)) if noise_px else 0
    return scan.positions_px + away @ np.transpose(matrix) + noise


@pytest.mark.parametrize(
    ("matrix", "text", "value"),
    [
        ([[0.03, 0], [0, 0.03]], "the scan is 3.00 % larger than the file says", 3),
        ([[-0.03, 0], [0, -0.03]], "the scan is 3.00 % smaller than the file says", -3),
        ([[0, 0.03], [-0.03, 0]], "the scan is turned by -1.72°", 0),
        ([[0.03, 0], [0, -0.03]], "the scan is sheared by 3.00 %", 0),
        ([[0, 0.03], [0.03, 0]], "the scan is sheared by 3.00 %", 0),
        (
            [[0.03, -0.03], [0.03, 0.03]],
            "the scan is 3.00 % larger than the file says and turned by 1.72°", 3,
        ),
        (
            [[0.07, -0.03], [0.03, -0.01]],
            "the scan is 3.00 % larger than the file says, turned by 1.72° and sheared by 4.00 %",
            3,
        ),
    ],
)  # fmt: skip
def test_the_parts_of_an_affine_map_are_said(made, matrix, text, value):
    found = only(made.scan, positions_px=moved(made.scan, matrix))
    assert found == Finding("affine", text, pytest.approx(value, abs=1e-6), "%")


def test_errors_of_the_positions_are_said_apart_from_their_map(made):
    found = only(made.scan, positions_px=moved(made.scan, noise_px=0.3))
    assert found == Finding(
        "positions", "positions were off by 0.3 px rms", pytest.approx(0.3), "px"
    )
    both = ((0.2, 0), (0, 0.2)), 0.3
    names = [one.name for one in describe(made.scan, replace(
        made.scan, positions_px=moved(made.scan, *both)
    ))]  # fmt: skip
    assert names == ["affine", "positions"]
    # a map that errors of this size have by chance is not said
    by_chance = ((0.005, 0), (0, 0.005)), 0.3
    found = only(made.scan, positions_px=moved(made.scan, *by_chance))
    assert found.name == "positions"
    # nor is a small error beside a map; alone, it is all that there is to say
    beside = ((0.1, 0), (0, 0.1)), 0.9 * SAID_POSITIONS_PX
    assert only(made.scan, positions_px=moved(made.scan, *beside)).name == "affine"
    found = only(made.scan, positions_px=moved(made.scan, noise_px=0.01))
    assert found.name == "positions"
    away = np.linalg.norm(made.scan.positions_px - made.scan.positions_px.mean(0), axis=1).max()
    turned = 0.8 * SAID_AFFINE_PX / away * np.array([[0, -1], [1, 0]])  # beside a scale
    text = only(made.scan, positions_px=moved(made.scan, 0.03 * np.eye(2) + turned)).text
    assert text == "the scan is 3.00 % larger than the file says"
    for factor, name in ((0.9, "positions"), (1.1, "affine")):
        scale = factor * SAID_AFFINE_PX / away * np.eye(2)
        assert only(made.scan, positions_px=moved(made.scan, scale)).name == name


@pytest.fixture
def refiner(made):
    return MeasurementRefiner(made.scan, MeasurementOptions())


def test_an_image_lies_at_its_place_on_the_canvas_of_the_refiner(made, refiner):
    canvas = _on_canvas(made.truth, refiner)
    top, left = np.rint(made.truth.origin_yx - refiner.origin.numpy()).astype(int)
    rows, columns = made.truth.object.shape
    assert np.array_equal(canvas[top : top + rows, left : left + columns], made.truth.object)
    assert canvas.shape == refiner.shape
    rest = torch.ones(refiner.shape, dtype=torch.bool)
    rest[top : top + rows, left : left + columns] = False
    assert (canvas[rest] == 1).all()


@pytest.mark.parametrize("components", [0, 1])
def test_a_scan_comes_back_with_what_was_refined_and_nothing_else(
    made, refiner, components, monkeypatch
):
    ran, phases = [], []
    monkeypatch.setattr(
        refiner, "run", lambda joint, steps: ran.append((list(steps), len(refiner.work)))
    )
    monkeypatch.setattr(measurement, "remove_open_phase", lambda *_: phases.append(1))
    for refined in ({"positions"}, {"flux"}, {"background"}, {"probe"}):
        joint = refiner.start(_on_canvas(made.truth, refiner), refined)
        if components:
            joint = refiner.with_components(joint, 1)
            joint.state.components += 0.1j * joint.state.probe
        if "flux" in refined:
            joint.patterns.flux.mul_(torch.linspace(1, 3, 36))
        if "background" in refined:
            joint.patterns.background[0, 0] = 5.0
        joint.state.probe = 2 * joint.state.probe
        joint.state.components = 2 * joint.state.components
        obj = joint.state.obj.clone()
        result = _finish(refiner, joint)
        found = result.scan
        if "positions" in refined:
            assert np.allclose(found.positions_px, made.scan.positions_px)
        else:
            assert found.positions_px is made.scan.positions_px
        if "flux" in refined:
            assert np.allclose(found.flux, np.linspace(0.5, 1.5, 36))
            assert found.flux.dtype == np.float64
        else:
            assert found.flux is None
        if "background" in refined:
            assert found.background[8, 8] == 5.0  # where the detector has zero frequency
        else:
            assert found.background is None
        assert (found.probe is not made.scan.probe) == ("probe" in refined)
        assert np.allclose(found.probe, made.scan.probe, rtol=1e-4)  # the photons as given
        if components:
            assert np.allclose(found.probe_components, 0.1j * made.scan.probe[None], rtol=1e-3)
            assert found.probe_weights.shape == (36, 1)
        else:
            assert (found.probe_components, found.probe_weights) == (None, None)
        assert np.allclose(result.object, 2 * obj, rtol=1e-4)  # it takes the scale
        assert np.array_equal(result.origin_yx, refiner.origin)
        assert result.findings == describe(made.scan, found)
    assert ran == [([LAST_STEP] * FINAL_EPOCHS, 36)] * 4
    assert len(phases) == (4 * OPEN_PHASE_STEPS if components else 0)


def test_a_scan_is_looked_at_where_there_is_something_to_do_and_enough_of_it(made, monkeypatch):
    class LookedAtError(Exception):
        pass

    def look(*_):
        raise LookedAtError

    monkeypatch.setattr(measurement, "MeasurementRefiner", look)
    nothing = MeasurementOptions(
        positions="off", flux="off", background="off", probe="off", probe_components=0
    )
    few, enough = (made.scan.subset(np.arange(n)) for n in (MIN_PATTERNS - 1, MIN_PATTERNS))
    assert refine_measurement(few, MeasurementOptions()).scan is few
    assert refine_measurement(enough, nothing).scan is enough
    for something in ({"probe_components": 1}, {"positions": "auto"}, {"probe": "on"}):
        with pytest.raises(LookedAtError):
            refine_measurement(enough, replace(nothing, **something))


# Held-out halves.


def state_of(made):
    return State(torch.from_numpy(made.truth.object), torch.from_numpy(made.scan.probe))


@pytest.fixture
def known(made):
    """Patterns with everything that belongs to one, and bad pixels."""
    mask = np.random.default_rng(0).random((16, 16)) > 0.1
    scan = replace(
        made.scan, mask=mask, flux=np.linspace(0.9, 1.1, 36),
        background=np.full((16, 16), 0.3, dtype=np.float32),
    )  # fmt: skip
    return prepare(scan, torch.from_numpy(made.truth.origin_yx), made.truth.object.shape)


HELD_OUT = torch.tensor([2, 17, 30])


def test_two_halves_are_all_photons_and_depend_on_pattern_and_seed_alone(known):
    halves = HeldOutHalves(known, HELD_OUT, 5)
    first, second = (
        known.noise.counts(half.read(torch.arange(3))) for half in (halves.fitted, halves.scored)
    )
    whole = known.counts(HELD_OUT)
    torch.testing.assert_close(first + second, whole)
    assert float(first.sum() / whole.sum()) == pytest.approx(0.5, abs=0.01)
    assert (halves.photons - second.sum((1, 2))).abs().max() < 1e-3 * halves.photons.min()
    alone = HeldOutHalves(known, HELD_OUT[1:2], 5)
    again = known.noise.counts(alone.fitted.read(torch.arange(1)))
    torch.testing.assert_close(again[0], first[1])
    other = HeldOutHalves(known, HELD_OUT, 6)
    assert not torch.equal(known.noise.counts(other.fitted.read(torch.arange(3))), first)


def test_a_score_is_the_misfit_of_the_second_half_by_its_photons(made, known):
    """Half the flux and half the background explain half of the photons."""
    halves, state = HeldOutHalves(known, HELD_OUT, 5), state_of(made)
    basis = shift_basis(known, state.probe, state.components)
    expected = expected_counts(known, state.obj, basis, HELD_OUT) / 2
    second = known.noise.counts(halves.scored.read(torch.arange(3)))
    misfit = (expected.sqrt() - second.sqrt()).square() * known.mask
    scores = halves.scores(known, state, ())
    torch.testing.assert_close(scores, misfit.sum((1, 2)) / second.sum((1, 2)), rtol=1e-3, atol=0)
    noise = halves.noise(known, state)
    good = int(known.mask.sum())
    # a quarter a pixel, and up to a third more where counts are small
    assert noise.tolist() == pytest.approx((0.25 * good / halves.photons).tolist(), rel=0.4)
    assert torch.equal(noise, halves.noise(known, state))


def test_what_belongs_to_a_pattern_alone_is_fitted_to_its_first_half_and_given_to_it(made, known):
    halves, state = HeldOutHalves(known, HELD_OUT, 5), state_of(made)
    scale = torch.ones(36)
    scale[HELD_OUT] = torch.tensor([0.8, 1.0, 1.25])
    right = replace(known, flux=torch.ones(36))
    wrong = replace(right, flux=scale.clone())
    without, fitted = (halves.scores(wrong, state, refined) for refined in ((), ("flux",)))
    best = halves.scores(right, state, ())
    assert (without[[0, 2]] > 5 * best[[0, 2]]).all()
    assert (fitted < 1.2 * best).all()
    assert torch.equal(wrong.flux, scale)  # a score changes nothing
    halves.place(wrong, state, ("flux",))
    assert wrong.flux[HELD_OUT].tolist() == pytest.approx([1.0] * 3, abs=0.02)
    others = torch.ones(36, dtype=torch.bool)
    others[HELD_OUT] = False
    assert torch.equal(wrong.flux[others], torch.ones(33))
    assert FITTING_STEPS > 4  # STEP leaves 0.3 of an error each time


@pytest.mark.parametrize("at_once", [2, 64])
def test_the_misfit_of_each_pattern_is_that_of_good_pixels_by_its_photons(
    made, known, at_once, monkeypatch
):
    monkeypatch.setitem(WAVE_BUDGET, "cpu", at_once * 16 * 16)
    state, index = state_of(made), torch.tensor([1, 5, 8])
    basis = shift_basis(known, state.probe, state.components)
    intensity = expected_counts(known, state.obj, basis, index)
    misfit = (intensity.sqrt() - known.amplitudes(index)).square() * known.mask
    expected = misfit.sum((1, 2)) / known.counts(index).sum((1, 2))
    found = misfit_of_each(known, state.obj, basis, index)
    torch.testing.assert_close(found, expected)


# A probe from the patterns.


def test_the_mean_pattern_has_the_photons_of_all_patterns_on_good_pixels(made, monkeypatch):
    monkeypatch.setattr(probe_retrieval, "AVERAGED_PATTERNS", 8)
    mask = np.ones((16, 16), dtype=bool)
    mask[8, 8] = False
    scan = replace(made.scan, mask=mask)
    chosen = np.array([0, 5, 10, 15, 20, 25, 30, 35])
    mean = np.asarray(scan.counts[chosen], dtype=np.float64).mean(0) * mask
    expected = mean * scan.pattern_totals().mean() / mean.sum()
    assert np.allclose(mean_pattern(scan), expected)
    monkeypatch.setattr(probe_retrieval, "AVERAGED_PATTERNS", 1000)
    every = np.asarray(scan.counts[:], dtype=np.float64).mean(0) * mask
    assert np.allclose(mean_pattern(scan), every)


def test_curvatures_lie_evenly_on_both_sides_and_fill_the_window(made):
    tried = np.array(list(curvatures(made.scan.probe[0])))
    assert len(tried) == CURVATURES
    assert np.allclose(tried, -tried[::-1])
    assert np.allclose(np.diff(tried), tried[1] - tried[0])
    rim = tried[-1] * probe_retrieval.aperture_radius(made.scan.probe[0])
    assert rim == pytest.approx(WIDEST_BEAM / 2 * 16, rel=1e-6)  # half the widest beam


def test_an_empty_object_is_the_canvas_of_its_scan(made):
    scan = replace(made.scan, pixel_size_m=(1e-8, 2e-8), scan_index=np.arange(36) + 3)
    empty = empty_object(scan)
    origin, shape = scan.canvas()
    for array in (empty.object, empty.coverage):
        assert np.array_equal(array, np.ones(shape))
    assert (empty.object.dtype, empty.coverage.dtype) == (np.complex64, np.float32)
    assert np.array_equal(empty.origin_yx, origin)
    for name in ("probe", "positions_px", "scan_index", "pixel_size_m", "instrument"):
        assert getattr(empty, name) is getattr(scan, name)
    assert empty.is_far_field
    assert not empty_object(replace(scan, fresnel_number=(0.1, 0.1))).is_far_field


def test_a_trial_that_diverges_is_worse_than_any(made):
    options = RefineOptions(epochs=1, update_probe=True)
    assert final_r_free(made.scan, made.scan.probe * np.float32(1e30), options) == math.inf
    assert final_r_free(made.scan, made.scan.probe, options) < 1

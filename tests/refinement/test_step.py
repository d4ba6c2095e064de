"""Laws of one step and of its state: momentum, and what is left open between object and probe."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.evaluation.metrics.residuals import r_factor
from ptycho_torch.physics.probe_shift import photons_per_exposure
from ptycho_torch.refinement import RefineOptions, refine, step
from ptycho_torch.refinement.loop import TUNING, RefinementEpoch, RefinementLoop
from ptycho_torch.refinement.prepared_patterns import predict, prepare, shift_basis


@pytest.fixture(scope="module")
def made():
    """64 patterns at 1e6 photons."""
    return simulate_scan(photons=1e6, n_side=8, step_px=3.0, pattern_size=16, seed=4)


@pytest.fixture(scope="module")
def patterns(made):
    return prepare(made.scan, torch.from_numpy(made.truth.origin_yx), made.truth.object.shape)


def started(made, components=0):
    """A state away from the truth."""
    rng = torch.Generator().manual_seed(0)
    probe = torch.from_numpy(made.scan.probe)
    noise = torch.randn(components, *probe.shape, dtype=probe.dtype, generator=rng)
    return step.State(
        torch.ones(made.truth.object.shape, dtype=probe.dtype), probe.clone(), 0.1 * noise
    )


def stepped(patterns, state, *, update_probe=True):
    """Two steps, on different patterns."""
    settings = step.StepSettings(batches=4.0, step=0.5, prior=0.0, update_probe=update_probe)
    for first in (0, 2):
        index = torch.arange(first, 64, 4)
        light = step.illumination_of(patterns, state, index)
        step.step_on_batch(patterns, state, index, light, settings)
    return state


def same_bits(one, other):
    return all(
        torch.equal(getattr(one, name), getattr(other, name))
        for name in ("obj", "probe", "components", "obj_velocity", "probe_velocity")
    )


def test_a_step_has_momentum(made, patterns):
    """Which the next tests say is dropped: a state that moved on differs from one that starts."""
    moving = stepped(patterns, started(made))
    resting = moving.copy()
    assert not same_bits(stepped(patterns, moving), stepped(patterns, resting))


def test_a_restored_state_goes_on_as_one_that_never_moved(made, patterns):
    best = stepped(patterns, started(made))
    best = best.copy()
    expected = stepped(patterns, best.copy())
    astray = stepped(patterns, started(made))
    astray.restore(best)
    assert same_bits(stepped(patterns, astray), expected)


def test_a_restored_state_leaves_the_best_one_as_it_is(made, patterns):
    best = started(made)
    kept = best.copy()
    state = stepped(patterns, started(made))
    state.restore(best)
    stepped(patterns, state)
    assert same_bits(best, kept)


def test_an_epoch_that_does_harm_is_undone_with_its_momentum(made, patterns, monkeypatch):
    """The held-out score rises by more than the limit after the second epoch: the third begins
    from the first one's state, at rest.
    """
    scores = iter([1.0, 1.0, 1.0 + 2 * TUNING.max_rise, 0.5])
    entered = []

    def epoch(self, state, size):
        entered.append(state.copy())
        entered[-1].obj_velocity = state.obj_velocity.clone()
        entered[-1].probe_velocity = state.probe_velocity.clone()
        stepped(self.patterns, state)

    monkeypatch.setattr(RefinementLoop, "_epoch", epoch)
    monkeypatch.setattr(
        RefinementLoop, "_measure", lambda *_: RefinementEpoch(0.5, 0.1, 0.1, next(scores))
    )
    options = RefineOptions(epochs="auto", max_epochs=3, update_probe=True)
    loop = RefinementLoop(patterns, torch.arange(60), torch.arange(60, 64), options, None)
    loop.run(started(made))
    _, second, third = entered
    assert torch.equal(third.obj, second.obj)  # the state after the first epoch
    assert torch.equal(third.probe, second.probe)
    assert second.obj_velocity.abs().max() > 0
    assert third.obj_velocity.abs().max() == 0
    assert third.probe_velocity.abs().max() == 0
    assert [entry.kept for entry in loop.history] == [False, True, False, True]


@pytest.mark.parametrize("components", [0, 2])
def test_a_scale_goes_from_the_probe_into_the_object(made, patterns, components):
    """No exit wave changes, and the probe has the photons of the given one."""
    state = started(made, components)
    given = 3 * state.probe
    obj, probe, parts = state.obj.clone(), state.probe.clone(), state.components.clone()
    step.keep_photons(state, given)
    assert photons_per_exposure(state.probe) == pytest.approx(
        float(photons_per_exposure(given)), rel=1e-5
    )
    corner = np.s_[:16, :16]
    assert torch.allclose(state.probe * state.obj[corner], probe * obj[corner], rtol=1e-5)
    assert torch.allclose(state.components * state.obj[corner], parts * obj[corner], rtol=1e-5)


def test_the_answer_of_a_refinement_explains_the_patterns_as_its_last_epoch_did(made):
    """The probe keeps the photons of the given one, and what it had gained is in the object."""
    dim = replace(made.scan, probe=(0.5 * made.scan.probe).astype(np.complex64))
    start = replace(made.truth, object=np.ones_like(made.truth.object))
    result = refine(dim, start, RefineOptions(epochs=4, update_probe=True))
    assert np.sum(np.abs(result.reconstruction.probe) ** 2) == pytest.approx(dim.photons, rel=1e-4)
    found = r_factor(result.reconstruction, dim)
    assert found < result.history[-1].r_work  # two more epochs use the held-out patterns, too


def test_a_probe_that_is_not_updated_stays(made, patterns):
    state = stepped(patterns, started(made), update_probe=False)
    fresh = started(made)
    assert torch.equal(state.probe, fresh.probe)
    assert not torch.equal(state.obj, fresh.obj)


@pytest.mark.parametrize("components", [0, 1])
def test_steps_lower_the_misfit(made, patterns, components):
    state = started(made, components)
    if components:
        weights = torch.linspace(-1, 1, 64)[:, None]
        patterns = replace(patterns, probe_weights=weights)

    def misfit(state):
        basis = shift_basis(patterns, state.probe, state.components)
        return predict(patterns, state.obj, basis, torch.arange(64)).r

    before = misfit(state)
    assert misfit(stepped(patterns, state)) < 0.5 * before

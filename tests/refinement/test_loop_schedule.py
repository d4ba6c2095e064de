"""How long a refinement runs, with which steps, and what it answers with."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.physics.gaussian_blur import gaussian_blur
from ptycho_torch.physics.low_frequency import squared_widths
from ptycho_torch.refinement import RefineOptions, draw_held_out, joint_refinement
from ptycho_torch.refinement.joint_refinement import (
    ENOUGH_GAIN,
    GAIN_EPOCHS,
    PARTLY_COHERENT_MODES,
    RefinementResult,
    mode_gain,
    modes_needed,
    refine,
    refine_reconstruction,
)
from ptycho_torch.refinement.loop import (
    SETTLING_STEPS,
    TUNING,
    EpochSettings,
    RefinementEpoch,
    RefinementLoop,
    falling_steps,
    min_gain,
    run_epoch,
)
from ptycho_torch.refinement.prepared_patterns import predict, prepare, shift_basis
from ptycho_torch.refinement.step import State, working_set


@pytest.fixture(scope="module", params=[1e2, 1e6], ids=["sparse counts", "many counts"])
def made(request):
    return simulate_scan(photons=request.param, n_side=6, step_px=3.0, pattern_size=16, seed=4)


@pytest.fixture(scope="module")
def patterns(made):
    return prepare(made.scan, torch.from_numpy(made.truth.origin_yx), made.truth.object.shape)


def truth(made):
    return State(torch.from_numpy(made.truth.object), torch.from_numpy(made.scan.probe))


def loop_of(patterns, progress=None, held_out=(3, 11, 20, 33), **options):
    held_out = torch.tensor(held_out)
    everything = torch.arange(len(patterns))
    work = everything[~torch.isin(everything, held_out)]
    return RefinementLoop(patterns, work, held_out, RefineOptions(**options), progress)


def test_steps_fall_evenly_from_the_first_to_the_last():
    assert falling_steps(0) == []
    assert falling_steps(1) == [TUNING.first_step]
    for epochs in (2, 3, 9):
        steps = np.array(falling_steps(epochs))
        assert steps[[0, -1]] == pytest.approx([TUNING.first_step, SETTLING_STEPS[-1]])
        assert np.diff(steps) == pytest.approx((steps[-1] - steps[0]) / (epochs - 1))
    assert SETTLING_STEPS[-1] == pytest.approx(
        TUNING.first_step * TUNING.step_fall**TUNING.step_falls
    )


def test_a_gain_is_enough_by_its_share_or_near_zero_by_itself():
    assert min_gain(10.0) == 10 * TUNING.min_gain
    assert min_gain(0.0) == TUNING.min_gain_absolute


def test_held_out_patterns_are_a_share_within_limits_and_depend_on_the_seed():
    for n, fraction, count in (
        (2, 0.04, 1), (7, 0.04, 3), (50, 0.04, 4), (1000, 0.04, 40), (1000, 0.0, 4),
        (10**6, 0.04, TUNING.max_held_out), (9, 0.5, 4),
    ):  # fmt: skip
        drawn = draw_held_out(n, fraction, 0)
        assert len(drawn) == count
        assert (drawn.diff() > 0).all()
        assert drawn.min() >= 0
        assert drawn.max() < n
    assert torch.equal(draw_held_out(1000, 0.04, 1), draw_held_out(1000, 0.04, 1))
    assert not torch.equal(draw_held_out(1000, 0.04, 1), draw_held_out(1000, 0.04, 2))


@pytest.mark.parametrize("fraction", [-0.1, 0.0, 0.51])
def test_a_share_to_hold_out_must_leave_half_and_hold_something(fraction):
    RefineOptions(held_out_fraction=0.5)
    RefineOptions(held_out_fraction=1e-6)
    with pytest.raises(ValueError, match="held_out_fraction"):
        RefineOptions(held_out_fraction=fraction)


def scripted(loop, monkeypatch, scores):
    """Epochs that set the object to their number, with scores from a list; returns the steps."""
    steps, scores = [], iter(scores)

    def epoch(state, step):
        steps.append(step)
        state.obj = torch.full_like(state.obj, len(steps))

    def measure(state, step):
        score = next(scores)
        return RefinementEpoch(step, 0.5, score, score)

    monkeypatch.setattr(loop, "_epoch", epoch)
    monkeypatch.setattr(loop, "_measure", measure)
    return steps


def auto(patterns, made, monkeypatch, scores, **options):
    loop = loop_of(patterns, epochs="auto", **options)
    steps = scripted(loop, monkeypatch, [1.0, *scores])
    state = truth(made)
    loop.run(state)
    return loop, steps, int(state.obj.real[0, 0])


def test_the_step_falls_after_two_epochs_that_gain_too_little(patterns, made, monkeypatch):
    # the third and fourth gain less than a thousandth; so does no pair after that
    scores = [0.9, 0.8, 0.7998, 0.7996, 0.7, 0.6998, 0.6]
    loop, steps, _ = auto(patterns, made, monkeypatch, scores, max_epochs=7)
    first, lower = TUNING.first_step, TUNING.first_step * TUNING.step_fall
    assert steps == pytest.approx([first] * 4 + [lower] * 3)
    assert [entry.step for entry in loop.history[1:]] == steps
    assert [entry.kept for entry in loop.history] == [False] + [True] * 7
    assert len(loop.history) == 8


def test_the_loop_ends_after_its_falls_with_the_best_state(patterns, made, monkeypatch):
    scores = [0.9, 0.8] + [0.81] * 40  # within 2 % of the best: goes on, and is not taken
    _, steps, best = auto(patterns, made, monkeypatch, scores)
    assert len(steps) == 2 + TUNING.patience * (TUNING.step_falls + 1)
    assert steps[-1] == pytest.approx(TUNING.first_step * TUNING.step_fall**TUNING.step_falls)
    assert best == 2


def test_where_no_noise_is_left_the_first_fall_ends_the_loop(patterns, made, monkeypatch):
    small = 0.9 * TUNING.converged
    _, steps, _ = auto(patterns, made, monkeypatch, [small] * 40)
    assert len(steps) == 1 + TUNING.patience


def test_epochs_are_reported_from_the_start_with_the_object(patterns, made, monkeypatch):
    told = []
    loop = loop_of(patterns, lambda *about: told.append(about), epochs=3)
    steps = scripted(loop, monkeypatch, [1.0, 0.9, 0.8, 0.7])
    loop.run(truth(made))
    assert steps == pytest.approx(falling_steps(3))
    assert [number for number, _, _ in told] == [0, 1, 2, 3]
    assert [entry for _, entry, _ in told] == loop.history
    assert not loop.history[0].kept
    assert loop.history[0].step == 0
    assert [int(obj.real[0, 0]) for _, _, obj in told[1:]] == [1, 2, 3]


def test_an_entry_holds_the_predictions_of_both_kinds_of_patterns(patterns, made):
    loop, state = loop_of(patterns), truth(made)
    entry = loop._measure(state, 0.25)
    basis = shift_basis(patterns, state.probe, state.components)
    free = predict(patterns, state.obj, basis, torch.tensor([3, 11, 20, 33]))
    assert (entry.step, entry.r_free) == (0.25, pytest.approx(free.r))
    assert entry.free_score == pytest.approx(free.deviance if patterns.poisson else free.r)
    assert entry.r_work == pytest.approx(predict(patterns, state.obj, basis, loop.own_sample).r)
    assert len(loop.own_sample) == 4
    assert not set(loop.own_sample.tolist()) & {3, 11, 20, 33}
    assert loop.dispersion == max(1.0, free.dispersion)
    loop._measure(State(9 * state.obj, state.probe), 0.25)
    assert loop.dispersion == TUNING.max_dispersion


def test_the_score_of_several_patterns_is_that_of_each(patterns, made):
    loop, state = loop_of(patterns), truth(made)
    basis = shift_basis(patterns, state.probe, state.components)
    each = [predict(patterns, state.obj, basis, torch.tensor([n])) for n in (3, 11, 20, 33)]
    expected = [one.deviance if patterns.poisson else one.r for one in each]
    # the round-off of single precision: of several patterns, torch adds in another order
    assert loop._scores(state.obj, state).tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        # refined, network, mean
        (([2.0, 2.1, 1.9], [2.2, 2.3, 2.1], [1.8, 1.9, 1.7]), "mean"),
        (([1.0, 1.1, 0.9], [2.2, 2.3, 2.1], [1.05, 1.15, 0.95]), "refined"),
        (([2.2, 2.3, 2.1], [1.0, 1.1, 0.9], [1.05, 1.15, 0.95]), "network"),
        # worse, but by less than two standard errors
        (([1.0, 1.1, 0.9], [2.2, 2.3, 2.1], [1.1, 1.15, 0.9]), "mean"),
        # worse by more than a tenth, by one pattern, which is less than two standard errors
        (([1.0, 1.0, 1.0], [2.2, 2.3, 2.1], [1.0, 1.0, 1.4]), "refined"),
        (([1.0], [2.0], [0.9]), "mean"),
        (([1.0], [2.0], [1.01]), "refined"),
    ],
)
def test_the_answer_is_the_mean_unless_it_is_predicted_worse(
    patterns, made, monkeypatch, scores, chosen
):
    loop, refined = loop_of(patterns), truth(made)
    network = State(2 * refined.obj, refined.probe)
    mean = torch.full_like(refined.obj, 7)
    monkeypatch.setattr(loop, "mean_with", lambda *_: mean)
    by_object = {1: scores[0], 2: scores[1], 7: scores[2]}

    def score(tried, state):
        assert state is (network if tried is network.obj else refined)
        which = next(
            n for n, obj in ((1, refined.obj), (2, network.obj), (7, mean)) if tried is obj
        )
        return torch.tensor(by_object[which], dtype=torch.float64)

    monkeypatch.setattr(loop, "_scores", score)
    outcome, r_free = loop.choose(refined, network)
    assert outcome == chosen
    obj = {"refined": refined.obj, "network": network.obj, "mean": mean}[chosen]
    basis = shift_basis(patterns, refined.probe, refined.components)
    expected = predict(patterns, obj, basis, loop.own_held_out).r
    assert r_free == pytest.approx(expected)


def test_the_mean_takes_slow_phases_and_scale_of_the_refined_object(patterns, made):
    """The other object times the local, light-weighted mean of the ratio of both."""
    loop, state = loop_of(patterns), truth(made)
    waves = torch.exp(1j * torch.arange(state.shape[0])[:, None] / 9)
    other = State(1.3 * state.obj * waves, state.probe)
    light = torch.zeros(state.shape)
    power = state.probe.abs().square().sum(0)
    for top, left in patterns.corners[loop.work.own].tolist():
        light[top : top + 16, left : left + 16] += power
    widths = [float(one) ** 0.5 for one in squared_widths(state.probe)]
    common, bright = (
        gaussian_blur(light * one, widths, border="zero")
        for one in (other.obj.conj() * state.obj, other.obj.abs().square())
    )
    lit = light > 0
    expected = torch.where(lit, (state.obj + common / bright * other.obj) / 2, state.obj)
    torch.testing.assert_close(loop.mean_with(state, other)[lit], expected[lit])
    assert torch.equal(loop.mean_with(state, other)[~lit], state.obj[~lit])


def test_at_the_end_all_patterns_are_used_with_small_steps(patterns, monkeypatch, made):
    loop = loop_of(patterns)
    seen = []
    monkeypatch.setattr(loop, "_epoch", lambda _, step: seen.append((step, len(loop.work))))
    loop.refit_with_held_out(truth(made))
    assert seen == [(step, len(patterns)) for step in SETTLING_STEPS]


@pytest.mark.parametrize("share", [0.0, 1e9])
def test_an_epoch_limits_the_prior_by_the_light_and_weighs_its_batches(
    patterns, made, monkeypatch, share
):
    seen = []

    def step(patterns, state, own, light, settings, observers):
        seen.append((len(own), settings, float(light.typical)))

    monkeypatch.setattr("ptycho_torch.refinement.loop.step_on_batch", step)
    work = working_set(patterns, torch.arange(len(patterns)))
    settings = EpochSettings(step=0.3, smoothness=share, dispersion=2.0, update_probe=True)
    rng = torch.Generator().manual_seed(0)
    run_epoch(patterns, truth(made), work, settings, rng=rng)
    assert sum(size for size, _, _ in seen) == len(patterns)
    for size, one, typical in seen:
        assert one.batches == len(patterns) / size
        assert (one.step, one.update_probe) == (0.3, True)
        limit = TUNING.max_prior_share * typical
        assert one.prior == pytest.approx(2 * min(share, limit), rel=1e-5)


def test_modes_stay_orthogonal_with_their_components_and_momentum(patterns, made, monkeypatch):
    """After an epoch they are mixed by one unitary matrix, so that no intensity changes."""
    monkeypatch.setattr("ptycho_torch.refinement.loop.step_on_batch", lambda *_: None)
    rng = torch.Generator().manual_seed(0)

    def noise(*shape):
        return torch.randn(*shape, 16, 16, dtype=torch.complex64, generator=rng)

    obj = truth(made).obj
    for update_probe in (True, False):
        state = State(obj, noise(2), noise(3, 2))
        state.probe_velocity = noise(4, 2)
        before = torch.cat([state.probe[None], state.components, state.probe_velocity])
        work = working_set(patterns, torch.arange(len(patterns)))
        settings = EpochSettings(step=0.3, smoothness=0.0, update_probe=update_probe)
        run_epoch(patterns, state, work, settings, rng=rng)
        after = torch.cat([state.probe[None], state.components, state.probe_velocity])
        overlap = torch.vdot(state.probe[0].flatten(), state.probe[1].flatten()).abs()
        assert bool(overlap < 1e-2) is update_probe
        assert torch.equal(before, after) is not update_probe
        # one unitary mixture for all: the products of any two, summed over modes, stay
        products = [torch.einsum("amyx,bmyx->abyx", one.conj(), one) for one in (before, after)]
        torch.testing.assert_close(*products, rtol=1e-3, atol=1e-3)


def entry(r_free, score=None, kept=True):
    return RefinementEpoch(0.5, 0.3, r_free, r_free if score is None else score, kept)


def test_r_free_of_a_refinement_is_that_of_the_state_that_was_kept(made, monkeypatch):
    history = [entry(0.9, kept=False), entry(0.5), entry(0.2), entry(0.1, kept=False), entry(0.3)]
    monkeypatch.setattr(RefinementLoop, "run", lambda loop, _: loop.history.extend(history))
    result = refine(made.scan, made.truth, RefineOptions())
    assert result.r_free == 0.2
    assert result.outcome == "refined"
    assert result.history == tuple(history)


def test_more_modes_are_taken_where_they_predict_clearly_better(made, monkeypatch, caplog):
    asked = []

    def refined(scan, start, options, *, comm):
        asked.append(options)
        r_free = {1: 0.4, 2: 0.3}[options.probe_modes]
        return RefinementResult(start, np.arange(4), (entry(0.9), entry(r_free)), "refined", 0.0)

    monkeypatch.setattr(joint_refinement, "refine", refined)
    given = RefineOptions(seed=3, epochs=5)
    assert mode_gain(made.scan, made.truth, given) == pytest.approx(0.25)
    expected = RefineOptions(epochs=GAIN_EPOCHS, update_probe=True, seed=3)
    assert asked == [replace(expected, probe_modes=1), replace(expected, probe_modes=2)]
    assert modes_needed(0.99 * ENOUGH_GAIN, 2) == 2
    with caplog.at_level(logging.INFO):
        assert modes_needed(ENOUGH_GAIN, 1) == PARTLY_COHERENT_MODES
    assert "1 modes are too few" in caplog.text
    assert "lowers R-free by 5 %" in caplog.text
    assert modes_needed(0.5, 3) == 4


def test_a_right_image_gains_nothing_by_more_modes(made, monkeypatch):
    def refined(scan, start, options, *, comm):
        assert options.probe_modes == 1
        r_free = 0.99 * TUNING.converged
        return RefinementResult(start, np.arange(4), (entry(r_free),), "refined", 0.0)

    monkeypatch.setattr(joint_refinement, "refine", refined)
    assert mode_gain(made.scan, made.truth, RefineOptions()) == 0


def test_a_report_of_a_refinement_holds_what_it_reached(made, caplog, capsys):
    told = []
    with caplog.at_level(logging.INFO):
        result, history = refine_reconstruction(
            made.scan, made.truth, RefineOptions(epochs=2, update_probe=True, probe_modes=2),
            held_out=np.array([2, 30]), network_object=None, show=False,
            on_epoch=lambda *about: told.append(about),
        )  # fmt: skip
    assert [number for number, _, _ in told] == [0, 1, 2]
    assert capsys.readouterr().out == ""  # no progress bar
    first, *epochs = (one for _, one, _ in told)
    assert history == {
        "outcome": "refined",
        "r_work_start": first.r_work,
        "r_free_start": first.r_free,
        "r_free": min(epochs, key=lambda one: one.free_score).r_free,
        "held_out_scan_index": made.scan.scan_index[[2, 30]].tolist(),
        "probe_modes": 2,
        "gain_of_one_more_mode": None,
        "epochs": [vars(one) for one in epochs],
    }
    assert result.probe.shape == (2, 16, 16)
    sentence = f"refined in 2 epochs: R-free {first.r_free:.4g} -> {history['r_free']:.4g}"
    assert f"{sentence} on 2 held-out patterns, probe modes 2" in caplog.text


def test_an_answer_carries_what_the_scan_knows(made):
    n = len(made.scan)
    scan = replace(
        made.scan,
        flux=np.linspace(0.9, 1.1, n),
        background=np.full((16, 16), 0.01, dtype=np.float32),
        probe_components=0.01 * made.scan.probe[None],
        probe_weights=np.linspace(-1, 1, n, dtype=np.float32)[:, None],
        scan_index=np.arange(n) + 5,
    )
    options = RefineOptions(epochs=1, update_probe=True, probe_modes=2)
    found = refine(scan, made.truth, options).reconstruction
    for name in ("positions_px", "scan_index", "flux", "background", "probe_weights"):
        assert getattr(found, name) is getattr(scan, name)
    assert found.probe_components.shape == (1, 2, 16, 16)
    plain = refine(made.scan, made.truth, RefineOptions(epochs=1)).reconstruction
    assert plain.probe_components is None
    photons = [float(np.sum(np.abs(one) ** 2)) for one in (found.probe, scan.probe)]
    assert photons[0] == pytest.approx(photons[1], rel=1e-4)

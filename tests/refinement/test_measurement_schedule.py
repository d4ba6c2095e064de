"""When each parameter of a measurement moves, what a copy holds, and which parameters stay."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.physics.probe_modes import add_modes
from ptycho_torch.refinement import measurement_refiner, measurement_trials
from ptycho_torch.refinement.held_out_halves import Gain, gain
from ptycho_torch.refinement.measurement_refiner import (
    BACKGROUND_ANEW_AT,
    EPOCHS,
    FIRST_STEP,
    LAST_STEP,
    MARGIN_PX,
    MEASUREMENT_FROM,
    MODES,
    PROBE_FROM,
    SEARCH_AT,
    SMOOTHNESS,
    WRONG_PX,
    MeasurementOptions,
    MeasurementRefiner,
    falling,
)
from ptycho_torch.refinement.measurement_trials import (
    EXTENDED_EPOCHS,
    EXTENDED_STEP,
    EXTENDED_TRIAL_EPOCHS,
    MODEL_BACKGROUND,
    MODEL_FLUX,
    MODEL_PROBE,
    MODEL_PX,
    TEST_EPOCHS,
    TEST_STEP,
    TRIAL_EPOCHS,
    extended,
    is_as_given,
    needed,
    trial_gain,
)
from ptycho_torch.refinement.positions import move
from ptycho_torch.refinement.probe_change import weights_of_time

ALL = {"positions", "flux", "background", "probe"}


@pytest.fixture(scope="module")
def made():
    return simulate_scan(photons=1e6, n_side=6, step_px=3.0, pattern_size=16, seed=4)


@pytest.fixture
def refiner(made):
    return MeasurementRefiner(made.scan, MeasurementOptions())


def empty(refiner):
    return torch.ones(refiner.shape, dtype=torch.complex64)


class Watched:
    """Stands for an observer, and notes what is called."""

    def __init__(self, name, seen):
        self.name, self.seen = name, seen

    def finish_epoch(self, *_):
        self.seen.append(self.name)

    def start_anew(self):
        self.seen.append("background anew")


@pytest.fixture
def epochs(monkeypatch):
    """For each epoch: the settings, the observers, and what happened after it."""
    seen = []

    def run_epoch(patterns, state, work, settings, *, rng, observers):
        seen.append((settings, [one.name for one in observers], []))

    def note(name):
        return lambda *_: seen[-1][2].append(name)

    class After:
        append = staticmethod(lambda name: seen[-1][2].append(name))

    monkeypatch.setattr(measurement_refiner, "run_epoch", run_epoch)
    for kind, name in (("Position", "positions"), ("Flux", "flux"), ("Background", "background")):
        monkeypatch.setattr(
            measurement_refiner, f"{kind}Observer", lambda *_, name=name: Watched(name, After)
        )
    for name in ("search_lost", "remove_open_slope", "remove_described_elsewhere"):
        monkeypatch.setattr(measurement_refiner, name, note(name))
    return seen


@pytest.mark.parametrize("wrong", [True, False], ids=["wrong positions", "right positions"])
def test_from_an_empty_object_the_probe_and_the_measurement_wait(refiner, epochs, wrong):
    joint = refiner.start(empty(refiner), ALL)
    if wrong:
        centres = joint.patterns.centres + 1.01 * WRONG_PX
        move(joint.patterns, joint.patterns.everything, centres, refiner.shape)
    counted = []
    refiner.progress = lambda: counted.append(len(epochs))
    refiner.run(joint, falling(FIRST_STEP, EPOCHS), from_empty=True)
    assert counted == list(range(1, EPOCHS + 1))
    for epoch, (settings, observers, after) in enumerate(epochs):
        assert settings.step == pytest.approx(
            FIRST_STEP + (LAST_STEP - FIRST_STEP) * epoch / (EPOCHS - 1)
        )
        assert settings.smoothness == SMOOTHNESS
        assert settings.update_probe == (epoch >= PROBE_FROM)
        ready = epoch >= MEASUREMENT_FROM
        assert observers == (["positions", "flux", "background"] if ready else [])
        expected = ["remove_open_slope", "flux", "background"] if ready else []
        expected += ["background anew"] if wrong and epoch == BACKGROUND_ANEW_AT else []
        expected += ["positions"] if ready else []
        expected += ["search_lost"] if epoch in SEARCH_AT else []
        assert after == expected


@pytest.mark.parametrize("name", [*sorted(ALL), None])
def test_from_an_image_what_is_refined_moves_at_once_and_nothing_else_does(refiner, epochs, name):
    joint = refiner.start(empty(refiner), {name} if name else set())
    joint = refiner.with_components(joint, 1)
    refiner.run(joint, [0.1] * 40)
    assert len(epochs) == 40
    own = [name] if name in ALL - {"probe"} else []
    for settings, observers, after in epochs:
        assert settings.update_probe == (name == "probe")
        assert observers == own
        assert after == [*own, "remove_described_elsewhere"]


def test_an_epoch_that_ends_in_nothing_is_the_last(refiner, epochs):
    joint = refiner.start(empty(refiner), set())
    joint.state.obj[3, 3] = torch.nan
    refiner.run(joint, [0.1] * 5)
    assert len(epochs) == 1
    assert (refiner.scores(joint) == measurement_refiner.DIVERGED).all()


def test_a_start_has_what_is_refined_and_nothing_else(made, refiner):
    patterns = refiner.start(empty(refiner), {"flux", "background"}).patterns
    assert torch.equal(patterns.flux, torch.ones(len(made.scan)))
    assert torch.equal(patterns.background, torch.zeros(16, 16))
    joint = refiner.start(empty(refiner), set())
    assert (joint.patterns.flux, joint.patterns.background) == (None, None)
    assert torch.equal(joint.state.obj, empty(refiner))
    origin, (rows, columns) = made.scan.canvas()
    assert refiner.shape == (rows + 2 * MARGIN_PX, columns + 2 * MARGIN_PX)
    assert np.array_equal(refiner.origin.numpy(), origin - MARGIN_PX)
    held_out, work = set(refiner.held_out.tolist()), set(refiner.work.tolist())
    assert held_out.isdisjoint(work)
    assert held_out | work == set(range(len(made.scan)))


def test_a_start_takes_what_the_scan_knows(made):
    flux = np.linspace(0.5, 1.5, len(made.scan))
    background = np.full((16, 16), 0.25, dtype=np.float32)
    scan = replace(made.scan, flux=flux, background=background)
    refiner = MeasurementRefiner(scan, MeasurementOptions(probe_modes=2))
    joint = refiner.start(empty(refiner), {"flux", "background"})
    assert np.allclose(joint.patterns.flux, flux)
    assert np.allclose(joint.patterns.background, 0.25)
    assert torch.equal(joint.state.probe, add_modes(torch.from_numpy(scan.probe), 2))
    light = 0.25 * 256 / scan.pattern_totals().mean()
    assert refiner.background_share(joint) == pytest.approx(light, rel=1e-5)
    assert refiner.background_share(refiner.without(joint, {"background"})) > 0  # as it was given


def everything_of(joint):
    names = ("corners", "fractions", "node_weights", "flux", "background")
    return [getattr(joint.patterns, name) for name in names] + [
        joint.state.obj, joint.state.probe, joint.state.components
    ]  # fmt: skip


def test_a_copy_shares_nothing_that_changes(refiner):
    joint = refiner.with_components(refiner.start(empty(refiner), ALL), 2)
    before = [one.clone() for one in everything_of(joint)]
    other = joint.copy()
    other.refined.clear()
    for one in everything_of(other):
        one.add_(1)
    assert joint.refined == ALL
    assert all(map(torch.equal, everything_of(joint), before))


@pytest.mark.parametrize("name", sorted(ALL))
def test_without_a_parameter_it_is_as_given_and_the_others_stay(made, refiner, name):
    joint = refiner.start(empty(refiner), ALL)
    move(joint.patterns, joint.patterns.everything, refiner.given + 0.25, refiner.shape)
    joint.patterns.flux.mul_(torch.linspace(0.9, 1.1, len(made.scan)))
    joint.patterns.background.fill_(0.5)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 16, 16, dtype=torch.complex64, generator=generator)
    joint.state.probe = joint.state.probe + 0.1 * joint.state.probe.abs() * noise
    other = refiner.without(joint, {name})
    assert other.refined == ALL - {name}
    as_given = {
        "positions": torch.allclose(other.patterns.centres, refiner.given),
        "flux": other.patterns.flux is None,
        "background": other.patterns.background is None,
        "probe": torch.equal(other.state.probe, torch.from_numpy(made.scan.probe)),
    }
    assert {one for one, given in as_given.items() if given} == {name}
    # nor is the given joint changed
    assert torch.allclose(joint.patterns.centres, refiner.given + 0.25)
    assert float(joint.patterns.background.mean()) == 0.5


def test_more_modes_and_components_are_added_to_what_is_there(made, refiner):
    joint = refiner.start(empty(refiner), ALL)
    changing = refiner.with_components(joint, 2)
    assert torch.equal(changing.state.components, torch.zeros(2, 1, 16, 16).cfloat())
    assert torch.equal(changing.patterns.probe_weights, weights_of_time(len(made.scan), 2))
    assert torch.equal(changing.state.probe, joint.state.probe)
    changing.state.components += 1
    more = refiner.with_modes(changing)
    assert torch.equal(more.state.probe, add_modes(joint.state.probe, MODES))
    assert torch.equal(more.state.components[:, :1], changing.state.components)
    assert more.state.components.shape == (2, MODES, 16, 16)
    assert not more.state.components[:, 1:].any()


def test_components_that_are_asked_for_are_there_from_the_start(made, epochs):
    for count in (0, 2):
        options = MeasurementOptions(probe_components=count, background="off")
        refiner = MeasurementRefiner(made.scan, options)
        joint = refiner.refine_all()
        assert len(joint.state.components) == count
        assert joint.refined == ALL - {"background"}
    assert len(epochs) == 2 * EPOCHS


def test_weights_of_a_changing_probe_are_polynomials_of_time():
    """Of degree 1, 2, 3, with the value 1 at the end: x, (3 x^2 - 1) / 2, (5 x^3 - 3 x) / 2."""
    x = torch.linspace(-1, 1, 7).double()
    expected = torch.stack([x, (3 * x**2 - 1) / 2, (5 * x**3 - 3 * x) / 2], dim=1)
    assert torch.allclose(weights_of_time(7, 3), expected.float(), atol=1e-6)


# What is needed, with a refiner whose scores are numbers.


class Scripted:
    """A refiner whose models are names, of which each has a score.

    Attributes:
        scores_of: By the parameters that a model has, sorted and joined; with an exclamation mark
            after epochs of its own.
    """

    def __init__(self, scores_of, *, asked_for=(), moved=True):
        self.scores_of, self.ran = scores_of, []
        self.options = SimpleNamespace(asked_for=lambda: set(asked_for), wanted=lambda: set(ALL))
        self.prepared = SimpleNamespace(centres=torch.zeros(4, 2).double())
        self.moved = moved

    def model(self, names, ran=""):
        centres = torch.eye(4).double()[:, :2] * (1.0 if self.moved else 0.0)
        return SimpleNamespace(
            refined=set(names),
            ran=ran,
            patterns=SimpleNamespace(centres=centres),
            state=SimpleNamespace(components=[]),
        )

    def start(self, obj, refined):
        return self.model(refined)

    def without(self, joint, names):
        return self.model(joint.refined - names, joint.ran)

    def run(self, joint, steps, **_):
        joint.ran = "!"
        self.ran.append((self.name(joint), list(steps)))

    def name(self, joint):
        return "+".join(sorted(joint.refined)) + joint.ran

    def scores(self, joint):
        mean = self.scores_of.get(self.name(joint), self.scores_of.get("else", 1.0))
        return mean * torch.linspace(0.999, 1.001, 20)


def kept(scores_of, names=("flux", "probe"), **about):
    refiner = Scripted(scores_of, **about)
    joint = needed(refiner, refiner.model(names))
    assert joint.ran  # the answer has adapted
    assert all(steps == [TEST_STEP] * TEST_EPOCHS for _, steps in refiner.ran)
    return joint.refined


def test_a_parameter_stays_whose_absence_makes_the_held_out_patterns_worse_for_good():
    # at once and after epochs without it; at once alone; not at all
    assert kept({"probe": 1.5, "probe!": 1.3, "flux": 1.5, "flux!": 1.001, "else": 1.0}) == {"flux"}
    assert kept({"else": 1.0}) == set()
    assert kept({"probe": 1.5, "probe!": 1.3, "flux": 1.2, "flux!": 1.2}) == {"flux", "probe"}
    # what can be left out as it is, is not needed, whatever happens after some epochs
    assert kept({"probe": 1.0, "probe!": 1.5, "flux": 1.5, "flux!": 1.5}) == {"probe"}


def test_of_two_that_describe_the_same_the_one_that_is_missed_more_stays():
    worse = {"!": 2.0}  # without both
    assert kept({**worse, "probe": 1.003, "flux": 1.001}) == {"flux"}
    assert kept({**worse, "probe": 1.001, "flux": 1.003}) == {"probe"}


def test_what_is_asked_for_stays_and_positions_that_hardly_moved_go():
    assert kept({}, asked_for=["flux"]) == {"flux"}
    both = ("flux", "positions")
    missed = {"flux": 1.5, "flux!": 1.5}
    assert kept(missed, both) == {"positions"}
    assert kept(missed, both, moved=False) == set()
    assert kept(missed, both, moved=False, asked_for=["positions"]) == {"positions"}


def test_a_trial_compares_equal_numbers_of_epochs_unless_the_gain_is_clear(monkeypatch):
    monkeypatch.setattr(measurement_trials, "is_as_given", lambda _refiner, _given, _found: False)
    everything = "+".join(sorted(ALL)) + "!"
    epochs = [TEST_STEP] * TRIAL_EPOCHS
    for score, plain, ran, significant in (
        (0.5, 1.0, [(everything, epochs)], True),  # clear
        (0.9, 1.0, [(everything, epochs), ("!", epochs)], True),
        (0.9, 0.9, [(everything, epochs), ("!", epochs)], False),  # epochs did it
        (1.0, 1.0, [(everything, epochs)], False),
    ):
        refiner = Scripted({everything: score, "": 1.0, "!": plain})
        assert trial_gain(refiner, None).is_significant == significant
        assert refiner.ran == ran


def test_a_small_gain_is_none_where_everything_is_as_given(monkeypatch):
    """A clear gain is one all the same."""
    monkeypatch.setattr(measurement_trials, "is_as_given", lambda _refiner, _given, _found: True)
    everything = "+".join(sorted(ALL)) + "!"
    for score, significant in ((0.9, False), (0.5, True)):
        refiner = Scripted({everything: score, "": 1.0, "!": 1.0})
        assert trial_gain(refiner, None).is_significant == significant
        assert refiner.ran == [(everything, [TEST_STEP] * TRIAL_EPOCHS)]


def changed(refiner, name, times):
    """All parameters, of which one differs from the file by so many times what a model errs."""
    joint = refiner.start(empty(refiner), ALL)
    patterns, sign = joint.patterns, torch.ones(len(joint.patterns))
    sign[::2] = -1
    if name == "positions":
        moves = times * MODEL_PX * torch.stack([sign, -sign], dim=1)
        move(patterns, patterns.everything, patterns.centres + moves + 0.1, refiner.shape)
    elif name == "flux":
        patterns.flux.mul_(3 * (1 + times * MODEL_FLUX * sign))
    elif name == "background":
        light = float(refiner.scan.pattern_totals().mean())
        patterns.background.add_(times * MODEL_BACKGROUND * light / patterns.background.numel())
    else:
        probe = joint.state.probe
        other = torch.roll(probe, 8, dims=-1)  # the window's dark side, nearly
        other -= probe * torch.vdot(probe.flatten(), other.flatten()) / probe.norm() ** 2
        probe.add_(times * MODEL_PROBE * probe.norm() / other.norm() * other).mul_(1.1j)
    return joint


@pytest.mark.parametrize("name", sorted(ALL))
def test_what_a_model_errs_by_is_as_given_and_more_is_not(refiner, name):
    """A shift of all positions, a factor of all fluxes and of the probe are no difference."""
    given = refiner.start(empty(refiner), set())
    assert is_as_given(refiner, given, changed(refiner, name, 0.9))
    assert not is_as_given(refiner, given, changed(refiner, name, 1.1))


class Growing:
    """A refiner whose models are counts of modes and components; each has a score, a noise of 1 and
    a share of background.
    """

    def __init__(self, scores_of, share=0.0, share_with_more=None, probe_modes=None):
        self.scores_of, self.share, self.ran, self.placed = scores_of, share, [], 0
        self.share_with_more = share if share_with_more is None else share_with_more
        self.options = SimpleNamespace(probe_modes=probe_modes, probe_components="auto")
        self.halves = SimpleNamespace(noise=lambda *_: torch.ones(20), place=self.place)

    def place(self, *_):
        self.placed += 1

    def model(self, modes=1, components=0, refined=("probe",)):
        return SimpleNamespace(
            refined=set(refined),
            patterns=SimpleNamespace(background=torch.ones(3)),
            state=SimpleNamespace(probe=[0] * modes, components=[0] * components),
        )

    def with_modes(self, joint):
        return self.model(MODES, len(joint.state.components))

    def with_components(self, joint, count):
        return self.model(len(joint.state.probe), count)

    def run(self, joint, steps):
        self.ran.append((self.size(joint), list(steps)))

    def size(self, joint):
        return len(joint.state.probe), len(joint.state.components)

    def scores(self, joint):
        return self.scores_of[self.size(joint)] * torch.linspace(0.999, 1.001, 20)

    def background_share(self, joint):
        return self.share if self.size(joint) == (1, 0) else self.share_with_more


TRIAL = falling(EXTENDED_STEP, EXTENDED_TRIAL_EPOCHS)
FURTHER = falling(EXTENDED_STEP, EXTENDED_EPOCHS)


def test_no_more_of_the_probe_is_tried_where_the_patterns_are_explained():
    refiner = Growing({(1, 0): 1.0})
    assert refiner.size(extended(refiner, refiner.model())) == (1, 0)
    unexplained = Growing({(1, 0): 2.0})
    assert unexplained.size(extended(unexplained, unexplained.model(refined=["flux"]))) == (1, 0)
    assert refiner.ran == unexplained.ran == []


def test_the_better_of_modes_and_components_is_taken_and_the_other_one_tried_on_top():
    scores = {(1, 0): 3.0, (MODES, 0): 1.5, (1, 2): 2.0, (MODES, 2): 1.49}
    refiner = Growing(scores)
    assert refiner.size(extended(refiner, refiner.model())) == (MODES, 0)
    assert refiner.ran == [
        ((1, 2), TRIAL), ((MODES, 0), TRIAL), ((MODES, 0), FURTHER), ((MODES, 2), TRIAL)
    ]  # fmt: skip
    assert refiner.placed == 1
    refiner = Growing({**scores, (1, 2): 1.4, (MODES, 2): 1.2})
    assert refiner.size(extended(refiner, refiner.model())) == (MODES, 2)
    assert refiner.placed == 2


def test_modes_that_explain_the_patterns_are_not_refined_further_and_components_are():
    scores = {(1, 0): 3.0, (MODES, 0): 1.0, (1, 2): 2.0}
    refiner = Growing(scores)
    assert refiner.size(extended(refiner, refiner.model())) == (MODES, 0)
    assert FURTHER not in [steps for _, steps in refiner.ran]
    refiner = Growing({**scores, (MODES, 0): 2.0, (1, 2): 1.0})
    assert refiner.size(extended(refiner, refiner.model())) == (1, 2)
    assert refiner.ran[-1] == ((1, 2), FURTHER)


def test_a_number_of_modes_that_is_asked_for_is_not_extended():
    refiner = Growing({(1, 0): 3.0, (1, 2): 3.0}, probe_modes=1)
    assert refiner.size(extended(refiner, refiner.model())) == (1, 0)
    assert refiner.ran == [((1, 2), TRIAL)]


@pytest.mark.parametrize(
    ("score", "share", "left", "modes"),
    [
        (1.0, 0.02, 0.0, MODES),  # as good, without the background
        (1.0, 0.02, 0.015, 1),  # the background is still there
        (1.04, 0.02, 0.0, 1),  # worse
        (0.97, 0.02, 0.02, 1),  # better by less than is enough
        (1.0, 0.004, 0.0, 1),  # no background that modes could explain
    ],
)
def test_modes_may_take_the_place_of_a_background(score, share, left, modes):
    refiner = Growing({(1, 0): 1.0, (MODES, 0): score}, share, left)
    assert refiner.size(extended(refiner, refiner.model())) == (modes, 0)


def test_the_background_starts_from_nothing_beside_more_modes():
    refiner = Growing({})
    model = refiner.model(MODES)
    refiner.with_modes = lambda _: model
    measurement_trials._with_more(refiner, refiner.model(), "modes")
    assert not model.patterns.background.any()
    refiner.with_components = lambda *_: refiner.model()
    other = measurement_trials._with_more(refiner, refiner.model(), "components")
    assert other.patterns.background.all()


def test_a_gain_is_the_mean_fall_of_the_logarithms_with_its_standard_error():
    before, falls = torch.tensor([1.0, 2.0, 4.0]), np.array([0.1, 0.2, 0.6])
    found = gain(before, before / torch.from_numpy(falls).exp())
    assert found.fall == pytest.approx(0.3)
    assert found.error == pytest.approx(np.std(falls, ddof=1) / np.sqrt(3))
    assert found.relative == pytest.approx(1 - np.exp(-0.3))
    assert gain(before[:1], before[:1] / 2).error == float("inf")
    for one, significant in (
        (Gain(0.3, 0.16), False), (Gain(0.3, 0.14), True), (Gain(0.004, 0.0), False),
        (Gain(0.006, 0.0), True), (Gain(-0.3, 0.01), False),
    ):  # fmt: skip
        assert one.is_significant == significant

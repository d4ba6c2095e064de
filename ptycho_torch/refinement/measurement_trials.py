"""What a measurement needs: each parameter has to show that held-out patterns need it.

`trial_gain` asks whether there is anything to find; `extended` tries more modes of the probe and
components of its change; `needed` takes out, one by one, what does not help.
"""

import logging

import torch
from torch import Tensor

from ptycho_torch.refinement.held_out_halves import Gain, gain
from ptycho_torch.refinement.measurement_refiner import (
    MODES,
    PARAMETERS,
    Joint,
    MeasurementRefiner,
    falling,
)

logger = logging.getLogger(__name__)

TRIAL_EPOCHS = 8  # of all parameters together, from the image that is there
TEST_EPOCHS = 4  # with and without a parameter
TEST_STEP = 0.15
CLEAR_GAIN = 0.2  # relative fall of the score that a few epochs more of the same do not bring
EXTENDED_STEP = 0.4  # the first one with more modes or components
EXTENDED_TRIAL_EPOCHS = 10
EXTENDED_EPOCHS = 16  # with those that won the trial
ENOUGH_GAIN = 0.05  # relative fall of the score by more modes or components
SUSPICIOUS_BACKGROUND = 0.005  # share of the light; more may be a partly coherent beam
COMPONENTS = 2  # of a probe that changes, where "auto" tries them
# What an ideal measurement of many photons leaves to find, rms: it makes up for the model's
# interpolated shifts, for light beyond the window, and for an image that still converges.
MODEL_PX = 0.01  # of the moves of the positions
MODEL_FLUX = 0.002  # of the relative flux
MODEL_BACKGROUND = 5e-4  # share of the light
MODEL_PROBE = 0.002  # of the change of the probe, relative to it
EXPLAINED = 1.05  # misfit in units of noise, below which no modes and components are tried,
MOST = 0.75  # where this share of the held-out patterns has less


def trial_gain(refiner: MeasurementRefiner, obj: Tensor) -> Gain:
    """The gain by all parameters together in a few epochs from an image.

    The image without them runs as many epochs, if that is needed for a verdict. A small gain by
    parameters that hardly differ from those of the file is none.
    """
    plain = refiner.start(obj, set())
    before = refiner.scores(plain)
    with_all = refiner.start(obj, refiner.options.wanted())
    refiner.run(with_all, [TEST_STEP] * TRIAL_EPOCHS)
    after = refiner.scores(with_all)
    found = gain(before, after)
    if found.is_significant and found.relative < CLEAR_GAIN:
        if is_as_given(refiner, plain, with_all):
            return Gain(0.0, found.error)
        refiner.run(plain, [TEST_STEP] * TRIAL_EPOCHS)
        before = refiner.scores(plain)
    return gain(before, after)


def is_as_given(refiner: MeasurementRefiner, given: Joint, found: Joint) -> bool:
    """Whether all that was found is, but for errors of the model, what the file says.

    Args:
        refiner: Of both.
        given: With the parameters of the file.
        found: With refined ones.
    """
    fluxes = [
        one.patterns.like.new_ones(()) if one.patterns.flux is None else one.patterns.flux
        for one in (found, given)
    ]
    ratio = fluxes[0] / fluxes[1]
    background = refiner.background_share(found) - refiner.background_share(given)
    before, after = given.state.probe, found.state.probe
    scale = torch.vdot(before.flatten(), after.flatten()) / before.abs().square().sum()
    change = (after / scale - before).norm() / before.norm()
    return (
        _hardly_moved(refiner, found)
        and float((ratio / ratio.mean() - 1).square().mean().sqrt()) < MODEL_FLUX
        and abs(background) < MODEL_BACKGROUND
        and float(change) < MODEL_PROBE
    )


def extended(refiner: MeasurementRefiner, joint: Joint) -> Joint:
    """With more modes, and with components, where they predict clearly better.

    Both are tried for a few epochs. The better one is refined further: components, which share the
    motion of the probe with the positions, in any case, and modes unless the patterns are explained
    already. Then the other one may be tried on top of it.
    """
    untried = {"modes", "components"} if "probe" in joint.refined else set()
    while applicable := untried & _applicable(refiner, joint):
        before = refiner.scores(joint)
        trials = {name: _with_more(refiner, joint, name) for name in sorted(applicable)}
        gains = {name: gain(before, refiner.scores(one)) for name, one in trials.items()}
        logger.debug("trials of the probe: %s", gains)
        best = max(gains, key=lambda name: gains[name].fall)
        if not _is_better(refiner, joint, trials[best], gains[best]):
            return joint
        joint = trials[best]
        untried -= {best}
        if best == "components" or not is_explained(refiner, joint):
            refiner.run(joint, falling(EXTENDED_STEP, EXTENDED_EPOCHS))
            refiner.halves.place(joint.patterns, joint.state, joint.refined)
    return joint


def _applicable(refiner: MeasurementRefiner, joint: Joint) -> set[str]:
    """What may be tried of "modes" and "components".

    A partly coherent beam looks like a background, so that modes are tried in its place, too.
    """
    explained = is_explained(refiner, joint)
    suspicious = refiner.background_share(joint) > SUSPICIOUS_BACKGROUND
    may_have_more = refiner.options.probe_modes is None and len(joint.state.probe) < MODES
    names = set()
    if may_have_more and (suspicious or not explained):
        names.add("modes")
    if refiner.options.probe_components == "auto" and not explained:
        names.add("components")
    return names


def _with_more(refiner: MeasurementRefiner, joint: Joint, name: str) -> Joint:
    """With more "modes", or with "components", after a few epochs."""
    if name == "components":
        other = refiner.with_components(joint, COMPONENTS)
    else:
        other = refiner.with_modes(joint)
        if other.patterns.background is not None:
            other.patterns.background.zero_()
    refiner.run(other, falling(EXTENDED_STEP, EXTENDED_TRIAL_EPOCHS))
    return other


def _is_better(refiner: MeasurementRefiner, joint: Joint, other: Joint, found: Gain) -> bool:
    """Whether a trial predicts clearly better, or as well without most of the background."""
    if found.is_significant and found.relative > ENOUGH_GAIN:
        return True
    share = refiner.background_share(joint)
    gone = share > SUSPICIOUS_BACKGROUND and refiner.background_share(other) < share / 2
    return gone and not Gain(-found.fall, found.error).is_significant


def is_explained(refiner: MeasurementRefiner, joint: Joint) -> bool:
    """Whether most held-out patterns differ from the model by little more than noise.

    A few may lie at a wrong place, and say nothing about the probe.
    """
    noise = refiner.halves.noise(joint.patterns, joint.state)
    ratios = (refiner.scores(joint) / noise).double()
    return bool(ratios.quantile(MOST) < EXPLAINED)


def needed(refiner: MeasurementRefiner, joint: Joint) -> Joint:
    """Without the parameters that the held-out patterns do not need.

    What can be left out at once, with the rest as it is, is not needed. Where that makes the score
    worse, the rest may adapt for a few epochs before the verdict.
    """
    if "positions" not in refiner.options.asked_for() and _hardly_moved(refiner, joint):
        joint = refiner.without(joint, {"positions"})
    tested = [name for name in PARAMETERS if name in joint.refined - refiner.options.asked_for()]
    if len(joint.state.components):
        tested = [name for name in tested if name != "probe"]

    def adapted_without(names: set[str]) -> tuple[Joint, Tensor]:
        other = refiner.without(joint, names)
        refiner.run(other, [TEST_STEP] * TEST_EPOCHS)
        return other, refiner.scores(other)

    now = refiner.scores(joint)
    complete, scores = adapted_without(set())
    losses = {}
    for name in tested:
        losses[name] = gain(refiner.scores(refiner.without(joint, {name})), now)
        if losses[name].is_significant:
            losses[name] = gain(adapted_without({name})[1], scores)
    logger.debug("loss without each parameter: %s", losses)
    needless = [name for name in tested if not losses[name].is_significant]
    while needless:  # each alone may be needless because another one describes the same
        simple, simple_scores = adapted_without(set(needless))
        if len(needless) == 1 or not gain(simple_scores, scores).is_significant:
            return simple
        needless.remove(max(needless, key=lambda name: losses[name].fall))
    return complete


def _hardly_moved(refiner: MeasurementRefiner, joint: Joint) -> bool:
    """Whether all positions are, but for a shift of all, where the file has them."""
    moves = joint.patterns.centres - refiner.prepared.centres
    return float((moves - moves.mean(0)).square().mean().sqrt()) < MODEL_PX

"""What a measurement did wrong: found from the patterns themselves, and taken into account.

Object, probe and the parameters of the measurement are refined together from an empty object:
positions with an affine map of all of them, the flux of each pattern, a background, a probe that
changes over the scan. Then each parameter that is not asked for by name has to show that the
held-out patterns need it: it is taken out, both models run a few epochs more, and it stays only if
the score of `held_out_halves` is worse without it, by more than its uncertainty.

A clean scan shall pay little for this. So a short trial with all parameters goes first, from the
image that is there already; where it does not predict the held-out patterns better, nothing
further is done.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from rich.progress import Progress as ProgressBar
from torch import Tensor

from ptycho_torch.data.scan import Reconstruction, Scan
from ptycho_torch.physics.probe_modes import add_modes
from ptycho_torch.refinement.background import BackgroundObserver
from ptycho_torch.refinement.flux import FluxObserver
from ptycho_torch.refinement.held_out_halves import Gain, HeldOutHalves, gain
from ptycho_torch.refinement.joint_refinement import first_state
from ptycho_torch.refinement.loop import EpochSettings, draw_held_out, run_epoch
from ptycho_torch.refinement.measurement_findings import Finding, describe
from ptycho_torch.refinement.positions import PositionObserver, search_lost
from ptycho_torch.refinement.prepared_patterns import PreparedPatterns, placed_at, prepare
from ptycho_torch.refinement.probe_change import (
    remove_described_elsewhere,
    remove_open_phase,
    weights_of_time,
)
from ptycho_torch.refinement.step import Observer, State, keep_photons

logger = logging.getLogger(__name__)

Switch = Literal["auto", "on", "off"]
PARAMETERS = ("positions", "flux", "background", "probe")  # in the order in which they are tested

MIN_PATTERNS = 24  # fewer of them cannot spare any to be held out
TRIAL_EPOCHS = 8  # of all parameters together, from the image that is there
EPOCHS = 50  # from an empty object
TEST_EPOCHS = 4  # with and without a parameter
CLEAR_GAIN = 0.2  # relative fall of the score that a few epochs more of the same do not bring
EXTENSION_EPOCHS = 10  # of more modes, or of components, before the verdict
EXTENDED_EPOCHS, EXTENDED_STEP = 20, 0.4  # after it
OPEN_PHASE_STEPS = 3  # each leaves an eighth
FIRST_STEP, LAST_STEP, TEST_STEP = 0.6, 0.05, 0.15
PROBE_FROM, MEASUREMENT_FROM = 2, 3  # epochs of the object alone, from an empty one
SEARCH_AT = (20, 30)  # epochs after which lost positions are searched for
SMOOTHNESS = 120.0  # see `RefineOptions.smoothness`
MARGIN_PX = 12  # of the canvas around the patches, into which positions may move
ENOUGH_GAIN = 0.05  # relative fall of the score by more modes or components
SUSPICIOUS_BACKGROUND = 0.005  # share of the light; more may be a partly coherent beam
COMPONENTS = 2  # of a probe that changes, where "auto" tries them
EXPLAINED = 1.05  # misfit of held-out patterns, in units of noise, below which no modes are tried
MODES = 3  # of a probe that needs more than it has


@dataclass(frozen=True, kw_only=True)
class MeasurementOptions:
    """What may be refined; "auto" keeps what the held-out patterns need.

    Attributes:
        positions: Positions, and their affine map.
        flux: Photons of each pattern.
        background: Photons of each pixel that come past the sample.
        probe: The probe.
        probe_components: Components of a probe that changes over the scan: their number, 0 for
            none, or "auto".
        probe_modes: Incoherent modes; None tries more where the probe is refined.
        seed: Of the held-out patterns and the order of the others.
    """

    positions: Switch = "auto"
    flux: Switch = "auto"
    background: Switch = "auto"
    probe: Switch = "auto"
    probe_components: int | Literal["auto"] = "auto"
    probe_modes: int | None = None
    seed: int = 0

    def wanted(self) -> set[str]:
        """The parameters that may be refined."""
        return {name for name in PARAMETERS if getattr(self, name) != "off"}

    def asked_for(self) -> set[str]:
        """The parameters that are refined whether they are needed or not."""
        return {name for name in PARAMETERS if getattr(self, name) == "on"}

    @property
    def does_nothing(self) -> bool:
        """Whether nothing may be refined."""
        return not self.wanted() and self.probe_components == 0


@dataclass(frozen=True)
class RefinedMeasurement:
    """A scan with what was found about its measurement.

    Attributes:
        scan: With refined positions, probe, flux, background.
        findings: What was found and taken into account; empty if nothing was.
        object: On a canvas of its own, complex64, (Y, X).
        origin_yx: Of that canvas in the frame of the positions, (2,).
    """

    scan: Scan
    findings: tuple[Finding, ...] = ()
    object: np.ndarray | None = None
    origin_yx: np.ndarray | None = None


@dataclass
class Joint:
    """Patterns, object and probe while they are refined together.

    Attributes:
        patterns: All patterns, whose parameters change in place.
        state: Object and probe.
        refined: The parameters that are refined.
    """

    patterns: PreparedPatterns
    state: State
    refined: set[str] = field(default_factory=set)

    def copy(self) -> "Joint":
        """An independent copy, without momentum."""
        patterns = self.patterns
        own = replace(
            patterns,
            corners=patterns.corners.clone(),
            fractions=patterns.fractions.clone(),
            node_weights=patterns.node_weights.clone(),
            flux=None if patterns.flux is None else patterns.flux.clone(),
            background=None if patterns.background is None else patterns.background.clone(),
        )
        return Joint(own, self.state.copy(), set(self.refined))


class MeasurementRefiner:
    """The epochs of object and measurement together.

    Args:
        scan: As given.
        options: What may be refined.
        progress: Called after each epoch.
    """

    def __init__(
        self,
        scan: Scan,
        options: MeasurementOptions,
        progress: Callable[[], None] | None = None,
    ) -> None:
        self.scan, self.options, self.progress = scan, options, progress
        origin, (rows, columns) = scan.canvas()
        self.origin = torch.from_numpy(origin) - MARGIN_PX
        self.shape = (rows + 2 * MARGIN_PX, columns + 2 * MARGIN_PX)
        self.prepared = prepare(scan, self.origin, self.shape)
        self.given = self.prepared.centres
        self.held_out = draw_held_out(len(scan), 0.04, options.seed)
        everything = torch.arange(len(scan))
        self.work = everything[~torch.isin(everything, self.held_out)]
        self.halves = HeldOutHalves(self.prepared, self.held_out, options.seed)

    def start(self, obj: Tensor, refined: set[str]) -> Joint:
        """All patterns with an object, and with the parameters that are to be refined."""
        patterns = self.prepared
        flux, background = patterns.flux, patterns.background
        if "flux" in refined and flux is None:
            flux = torch.ones(len(patterns))
        if "background" in refined and background is None:
            background = torch.zeros(patterns.shape)
        state = first_state(self.scan, obj, self.options.probe_modes or len(self.scan.need_probe()))
        joint = Joint(replace(patterns, flux=flux, background=background), state, set(refined))
        return joint.copy()

    def run(self, joint: Joint, steps: Iterable[float], *, from_empty: bool = False) -> None:
        """Run epochs in place.

        Args:
            joint: What is refined.
            steps: Step size of each epoch.
            from_empty: Whether the object is empty at first, so that the other parameters wait.
        """
        patterns, state, refined = joint.patterns, joint.state, joint.refined
        rng = torch.Generator().manual_seed(self.options.seed)
        positions = PositionObserver(patterns, self.shape)
        flux = FluxObserver(patterns) if "flux" in refined else None
        background = BackgroundObserver(patterns) if "background" in refined else None
        for epoch, step in enumerate(steps):
            ready = not from_empty or epoch >= MEASUREMENT_FROM
            observers: list[Observer] = []
            if ready and "positions" in refined:
                observers.append(positions)
            observers += [one for one in (flux, background) if ready and one is not None]
            settings = EpochSettings(
                step=step,
                smoothness=SMOOTHNESS,
                update_probe="probe" in refined and (not from_empty or epoch >= PROBE_FROM),
            )
            run_epoch(patterns, state, self.work, settings, rng=rng, observers=observers)
            if ready and flux is not None:
                flux.finish_epoch(self.work)
            if ready and background is not None:
                background.finish_epoch()
            if ready and "positions" in refined:
                positions.finish_epoch(state, self.given)
                if from_empty and epoch in SEARCH_AT:
                    search_lost(patterns, state, self.work)
            if len(state.components):
                remove_described_elsewhere(state)
            if self.progress is not None:
                self.progress()

    def scores(self, joint: Joint) -> Tensor:
        """The scores of the held-out patterns, (B,)."""
        return self.halves.scores(joint.patterns, joint.state, joint.refined)

    def trial_gain(self, obj: Tensor) -> Gain:
        """The gain by all parameters together in a few epochs from an image.

        The image without them runs as many epochs, if that is needed for a verdict.
        """
        plain = self.start(obj, set())
        before = self.scores(plain)
        with_all = self.start(obj, self.options.wanted())
        self.run(with_all, [TEST_STEP] * TRIAL_EPOCHS)
        after = self.scores(with_all)
        found = gain(before, after)
        if found.is_significant and found.relative < CLEAR_GAIN:
            self.run(plain, [TEST_STEP] * TRIAL_EPOCHS)
            before = self.scores(plain)
        return gain(before, after)

    def refine_all(self) -> Joint:
        """All parameters that may be refined, together, from an empty object."""
        joint = self.start(torch.ones(self.shape, dtype=torch.complex64), self.options.wanted())
        if isinstance(self.options.probe_components, int) and self.options.probe_components:
            joint = self._with_components(joint, self.options.probe_components)
        self.run(joint, falling(FIRST_STEP, EPOCHS), from_empty=True)
        self.halves.place(joint.patterns, joint.state, joint.refined)
        return joint

    def extend(self, joint: Joint) -> Joint:
        """With more modes, and with components, where they predict clearly better."""
        if "probe" not in joint.refined:
            return joint
        few = self.options.probe_modes is None and len(joint.state.probe) < MODES
        if few and self.background_share(joint) > SUSPICIOUS_BACKGROUND:
            joint = self._modes_for_background(joint)
        if self.is_explained(joint):
            return joint
        if few and len(joint.state.probe) < MODES:
            joint = self._better(joint, self._with_modes(joint), "modes")
        if self.options.probe_components == "auto":
            joint = self._better(joint, self._with_components(joint, COMPONENTS), "components")
        return joint

    def background_share(self, joint: Joint) -> float:
        """Share of the light that is background."""
        background = joint.patterns.background
        light = float(self.scan.pattern_totals().mean())
        return 0.0 if background is None else float(background.sum()) / light

    def _modes_for_background(self, joint: Joint) -> Joint:
        """With more modes, if the background then goes: a partly coherent beam looks like one."""
        other = self._with_modes(joint)
        if other.patterns.background is not None:
            other.patterns.background.zero_()
        self.run(other, [EXTENDED_STEP / 2] * EXTENSION_EPOCHS)
        gone = self.background_share(other) < self.background_share(joint) / 2
        before, after = self.scores(joint), self.scores(other)
        worse, better = gain(after, before).is_significant, gain(before, after)
        clearly = better.is_significant and better.relative > ENOUGH_GAIN
        return other if clearly or (gone and not worse) else joint

    def _better(self, joint: Joint, other: Joint, name: str) -> Joint:
        """The other one if it predicts clearly better, refined further; else the first."""
        plain = joint.copy()
        for one in (plain, other):
            self.run(one, [TEST_STEP] * EXTENSION_EPOCHS)
        found = gain(self.scores(plain), self.scores(other))
        logger.debug("%s: %s", name, found)
        if not (found.is_significant and found.relative > ENOUGH_GAIN):
            return plain
        self.run(other, falling(EXTENDED_STEP, EXTENDED_EPOCHS))
        self.halves.place(other.patterns, other.state, other.refined)
        return other

    def is_explained(self, joint: Joint) -> bool:
        """Whether the held-out patterns differ from the model by little more than noise."""
        noise = self.halves.noise(joint.patterns, joint.state)
        return bool(self.scores(joint).mean() < EXPLAINED * noise)

    def _with_modes(self, joint: Joint) -> Joint:
        """A copy with more incoherent modes."""
        other = joint.copy()
        more = MODES - len(other.state.probe)
        components = torch.nn.functional.pad(other.state.components, (0, 0, 0, 0, 0, more))
        probe = add_modes(other.state.probe, MODES)
        other.state = State(other.state.obj, probe, components)
        return other

    def _with_components(self, joint: Joint, count: int) -> Joint:
        """A copy with components of a probe that changes, zero at first."""
        other = joint.copy()
        probe = other.state.probe
        zeros = probe.new_zeros(count, *probe.shape)
        other.state = State(other.state.obj, probe, zeros)
        weights = weights_of_time(len(self.scan), count)
        other.patterns = replace(other.patterns, probe_weights=weights)
        return other

    def keep_needed(self, joint: Joint) -> Joint:
        """Without the parameters that the held-out patterns do not need."""
        tested = [name for name in PARAMETERS if name in joint.refined - self.options.asked_for()]
        if len(joint.state.components):
            tested = [name for name in tested if name != "probe"]
        complete = joint.copy()
        self.run(complete, [TEST_STEP] * TEST_EPOCHS)
        scores = self.scores(complete)
        gains = {}
        for name in tested:
            other = self._without(joint, {name})
            self.run(other, [TEST_STEP] * TEST_EPOCHS)
            gains[name] = gain(self.scores(other), scores)
            logger.debug("%s: %s", name, gains[name])
        needless = [name for name in tested if not gains[name].is_significant]
        while needless:  # each alone may be needless because another one describes the same
            simple = self._without(joint, set(needless))
            self.run(simple, [TEST_STEP] * TEST_EPOCHS)
            if len(needless) == 1 or not gain(self.scores(simple), scores).is_significant:
                return simple
            needless.remove(max(needless, key=lambda name: gains[name].fall))
        return complete

    def _without(self, joint: Joint, names: set[str]) -> Joint:
        """A copy with some parameters as they were given."""
        other = joint.copy()
        other.refined -= names
        as_given = self.prepared
        if "positions" in names:
            other.patterns = placed_at(other.patterns, as_given.centres)
        if "flux" in names:
            other.patterns = replace(other.patterns, flux=as_given.flux)
        if "background" in names:
            other.patterns = replace(other.patterns, background=as_given.background)
        if "probe" in names:
            other.state = first_state(self.scan, other.state.obj, len(self.scan.need_probe()))
        return other

    def finish(self, joint: Joint) -> RefinedMeasurement:
        """The scan with what was found, after a few epochs on all patterns."""
        self.work = torch.arange(len(self.scan))
        for _ in range(OPEN_PHASE_STEPS if len(joint.state.components) else 0):
            remove_open_phase(joint.patterns, joint.state)
        self.run(joint, [LAST_STEP] * TEST_EPOCHS)
        patterns, state, refined = joint.patterns, joint.state, joint.refined
        keep_photons(state, torch.from_numpy(self.scan.need_probe()))
        background = patterns.background
        changed: dict[str, np.ndarray] = {}
        if "positions" in refined:
            changed["positions_px"] = (patterns.centres + self.origin).numpy()
        if "flux" in refined and patterns.flux is not None:
            changed["flux"] = (patterns.flux / patterns.flux.mean()).double().numpy()
        if "background" in refined and background is not None:
            changed["background"] = patterns.propagator.to_detector(background).numpy()
        if "probe" in refined:
            changed["probe"] = state.probe.numpy()
        if len(state.components) and patterns.probe_weights is not None:
            changed["probe_components"] = state.components.numpy()
            changed["probe_weights"] = patterns.probe_weights.numpy()
        scan = replace(self.scan, **changed)  # type: ignore[arg-type]
        return RefinedMeasurement(
            scan, describe(self.scan, scan), state.obj.numpy(), self.origin.numpy()
        )


@torch.no_grad()
def refine_measurement(
    scan: Scan,
    options: MeasurementOptions,
    *,
    start: Reconstruction | None = None,
    show: bool = False,
) -> RefinedMeasurement:
    """The scan with what the patterns say about how they were measured; logs what was found.

    Args:
        scan: As given.
        options: What may be refined.
        start: An image of the scan. Where nothing is asked for by name, a short trial from it
            decides whether there is anything to find.
        show: Whether to draw a progress bar.

    Returns:
        The scan itself, without findings, where nothing is to be found or the scan is too small.
    """
    if options.does_nothing or len(scan) < MIN_PATTERNS:
        return RefinedMeasurement(scan)
    with ProgressBar(disable=not show) as bar:
        task = bar.add_task("refining the measurement", total=None)
        refiner = MeasurementRefiner(scan, options, progress=lambda: bar.advance(task))
        if start is not None and not options.asked_for():
            found = refiner.trial_gain(_on_canvas(start, refiner))
            logger.debug("trial of all parameters of the measurement: %s", found)
            if not found.is_significant:
                return RefinedMeasurement(scan)
        joint = refiner.keep_needed(refiner.extend(refiner.refine_all()))
        result = refiner.finish(joint) if joint.refined else RefinedMeasurement(scan)
    for finding in result.findings:
        logger.info("found, and taken into account: %s", finding.text)
    return result


def falling(first: float, epochs: int) -> list[float]:
    """Steps that fall linearly to the last one."""
    return [first + (LAST_STEP - first) * k / (epochs - 1) for k in range(epochs)]


def _on_canvas(start: Reconstruction, refiner: MeasurementRefiner) -> Tensor:
    """The object of an image on the canvas of the refiner, empty space around it."""
    obj = torch.ones(refiner.shape, dtype=torch.complex64)
    top, left = (
        round(float(a - b)) for a, b in zip(start.origin_yx, refiner.origin.tolist(), strict=True)
    )
    rows, columns = start.object.shape
    obj[top : top + rows, left : left + columns] = torch.from_numpy(start.object)
    return obj

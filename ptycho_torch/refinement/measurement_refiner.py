"""The epochs of object, probe and the parameters of the measurement together."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from ptycho_torch.data.scan import Scan
from ptycho_torch.distributed.communicator import SingleProcess
from ptycho_torch.physics.probe_modes import add_modes
from ptycho_torch.refinement.background import BackgroundObserver
from ptycho_torch.refinement.flux import FluxObserver, remove_open_slope
from ptycho_torch.refinement.held_out_halves import HeldOutHalves
from ptycho_torch.refinement.joint_refinement import first_state
from ptycho_torch.refinement.loop import EpochSettings, draw_held_out, run_epoch
from ptycho_torch.refinement.positions import PositionObserver, search_lost
from ptycho_torch.refinement.prepared_patterns import PreparedPatterns, placed_at, prepare
from ptycho_torch.refinement.probe_alignment import align_to_probe
from ptycho_torch.refinement.probe_change import remove_described_elsewhere, weights_of_time
from ptycho_torch.refinement.step import Observer, State, working_set

Switch = Literal["auto", "on", "off"]
PARAMETERS = ("positions", "flux", "background", "probe")  # in the order in which they are tested

EPOCHS = 40  # from an empty object
DIVERGED = 1e6  # score, a misfit relative to the photons, of a state that is not finite
SEARCH_AT = (16, 26, 36)  # epochs after which lost positions are searched for
# After this epoch the background starts anew where positions were wrong: what they left over went
# into it, and would leave the bright pixels slowly.
BACKGROUND_ANEW_AT = 8
WRONG_PX = 0.25  # typical move along an axis from which positions count as wrong
FIRST_STEP, LAST_STEP = 0.6, 0.05
PROBE_FROM, MEASUREMENT_FROM = 2, 3  # epochs of the object alone, from an empty one
SMOOTHNESS = 120.0  # see `RefineOptions.smoothness`
MARGIN_PX = 12  # of the canvas around the patches, into which positions may move
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
        device: Where the refinement computes.
    """

    positions: Switch = "auto"
    flux: Switch = "auto"
    background: Switch = "auto"
    probe: Switch = "auto"
    probe_components: int | Literal["auto"] = "auto"
    probe_modes: int | None = None
    seed: int = 0
    device: torch.device = torch.device("cpu")

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
        comm: Processes that share the patterns; by default this one alone.
    """

    def __init__(
        self,
        scan: Scan,
        options: MeasurementOptions,
        progress: Callable[[], None] | None = None,
        comm: SingleProcess | None = None,
    ) -> None:
        self.scan, self.options, self.progress = scan, options, progress
        origin, (rows, columns) = scan.canvas()
        self.origin = torch.from_numpy(origin) - MARGIN_PX
        self.shape = (rows + 2 * MARGIN_PX, columns + 2 * MARGIN_PX)
        self.prepared = prepare(scan, self.origin, self.shape, options.device, comm)
        self.given = self.prepared.centres
        self.held_out = draw_held_out(len(scan), 0.04, options.seed).to(options.device)
        everything = self.prepared.everything
        self.work = everything[~torch.isin(everything, self.held_out)]
        self.halves = HeldOutHalves(self.prepared, self.held_out, options.seed)

    def start(self, obj: Tensor, refined: set[str]) -> Joint:
        """All patterns with an object, and with the parameters that are to be refined."""
        patterns = self.prepared
        flux, background = patterns.flux, patterns.background
        if "flux" in refined and flux is None:
            flux = patterns.like.new_ones(len(patterns))
        if "background" in refined and background is None:
            background = patterns.like.new_zeros(patterns.shape)
        modes = self.options.probe_modes or len(self.scan.need_probe())
        state = first_state(self.scan, obj, modes, self.options.device)
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
            work = working_set(patterns, self.work)  # the positions may have moved
            run_epoch(patterns, state, work, settings, rng=rng, observers=observers)
            if not state.is_finite:
                break
            if ready and flux is not None:
                if "probe" in refined:
                    remove_open_slope(patterns, state)
                flux.finish_epoch(self.work)
            if ready and background is not None:
                background.finish_epoch()
                if from_empty and epoch == BACKGROUND_ANEW_AT and self._has_moved(patterns):
                    background.start_anew()
            if ready and "positions" in refined:
                positions.finish_epoch(state, self.given)
                if from_empty and epoch in SEARCH_AT:
                    search_lost(patterns, state, self.work)
            if len(state.components):
                remove_described_elsewhere(state)
            if self.progress is not None:
                self.progress()

    def _has_moved(self, patterns: PreparedPatterns) -> bool:
        """Whether the positions of most patterns were wrong."""
        moves = (patterns.centres - self.given).square().sum(1)
        return float(moves.median()) > 2 * WRONG_PX**2

    def scores(self, joint: Joint) -> Tensor:
        """The scores of the held-out patterns, (B,)."""
        if not joint.state.is_finite:
            return self.prepared.like.new_full((len(self.held_out),), DIVERGED)
        return self.halves.scores(joint.patterns, joint.state, joint.refined)

    def refine_all(self) -> Joint:
        """All parameters that may be refined, together, from an empty object."""
        joint = self.start(torch.ones(self.shape, dtype=torch.complex64), self.options.wanted())
        if isinstance(self.options.probe_components, int) and self.options.probe_components:
            joint = self.with_components(joint, self.options.probe_components)
        self.run(joint, falling(FIRST_STEP, EPOCHS), from_empty=True)
        self.halves.place(joint.patterns, joint.state, joint.refined)
        return joint

    def background_share(self, joint: Joint) -> float:
        """Share of the light that is background."""
        background = joint.patterns.background
        light = float(self.scan.pattern_totals().mean())
        return 0.0 if background is None else float(background.sum()) / light

    def with_modes(self, joint: Joint) -> Joint:
        """A copy with more incoherent modes."""
        other = joint.copy()
        more = MODES - len(other.state.probe)
        components = torch.nn.functional.pad(other.state.components, (0, 0, 0, 0, 0, more))
        probe = add_modes(other.state.probe, MODES)
        other.state = State(other.state.obj, probe, components)
        return other

    def with_components(self, joint: Joint, count: int) -> Joint:
        """A copy with components of a probe that changes, zero at first."""
        other = joint.copy()
        probe = other.state.probe
        zeros = probe.new_zeros(count, *probe.shape)
        other.state = State(other.state.obj, probe, zeros)
        weights = weights_of_time(len(self.scan), count).to(probe.real)
        other.patterns = replace(other.patterns, probe_weights=weights)
        return other

    def without(self, joint: Joint, names: set[str]) -> Joint:
        """A copy with some parameters as they were given."""
        other = joint.copy()
        other.refined -= names
        as_given = self.prepared
        if "probe" in names:
            given = first_state(
                self.scan, other.state.obj, len(self.scan.need_probe()), self.options.device
            )
            align_to_probe(other.patterns, other.state, given.probe)
            other.state = State(other.state.obj, given.probe, given.components)
        if "positions" in names:
            other.patterns = placed_at(other.patterns, as_given.centres)
        if "flux" in names:
            other.patterns = replace(other.patterns, flux=as_given.flux)
        if "background" in names:
            other.patterns = replace(other.patterns, background=as_given.background)
        return other


def falling(first: float, epochs: int) -> list[float]:
    """Steps that fall linearly to the last one."""
    return [first + (LAST_STEP - first) * k / (epochs - 1) for k in range(epochs)]

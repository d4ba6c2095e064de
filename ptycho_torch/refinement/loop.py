"""The loop of a refinement: epochs, step sizes, and when it stops.

How held-out patterns stop it. Every epoch lowers the misfit of the patterns that it uses, also when
it only fits their noise. So 4 % of the patterns are held out, as in the R-free of crystallography,
and predicted after each epoch. With ``epochs="auto"`` the step is constant as long as the held-out
score falls by at least 0.1 % an epoch. After two epochs in a row that do not, the step is
multiplied by 0.63; after seven such falls the loop ends with the state of the best score. A state
whose score is 2 % above the best is replaced by the best one, and its momentum set to zero: a step
was too long. Where R-free is below 1e-4 there is no noise to fit, and the first fall ends the loop.
At the very end the held-out patterns are used too, in two epochs with small steps: they have
chosen, and may now be fitted.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ptycho_torch.physics.gaussian_blur import gaussian_blur
from ptycho_torch.physics.incoherent import squared_modulus
from ptycho_torch.physics.low_frequency import squared_widths
from ptycho_torch.physics.probe_modes import orthogonal_mixing
from ptycho_torch.refinement.prepared_patterns import (
    Prediction,
    PreparedPatterns,
    misfit_sums,
    predict,
    prediction_of,
    shift_basis,
)
from ptycho_torch.refinement.recorded_steps import can_be_recorded, replay_steps
from ptycho_torch.refinement.refine_options import RefineOptions
from ptycho_torch.refinement.step import (
    Batch,
    Observer,
    State,
    StepSettings,
    WorkingSet,
    illumination_of,
    sparse_batches,
    step_on_batch,
    working_set,
)


@dataclass(frozen=True)
class LoopTuning:
    """Numbers of the schedule, chosen on simulated scans of 10^4 to 10^9 photons.

    Attributes:
        first_step: Step of the first epoch, relative to the preconditioned gradient.
        step_fall: Factor of the step when the held-out score stops improving.
        step_falls: Number of falls before the loop ends with the next one.
        patience: Epochs in a row without enough gain before the step falls.
        min_gain: Relative gain of the held-out score that is enough for another epoch.
        min_gain_absolute: The same as a difference of scores, for scores near zero.
        max_rise: Relative rise of the score above its best that restores the best state.
        converged: R-free of a right image, where no noise is left that smaller steps fit less.
        max_dispersion: Limit of the misfit in the prior, so that a start far from the data is not
            smoothed away.
        max_prior_share: Limit of the prior as a share of the photons on a pixel; 121 positions at
            10^4 photons need a prior of 30, 1024 need 120.
        standard_errors: By which the mean of two images must be worse to be rejected.
        max_score_ratio: Of the mean to the better image; few held-out patterns do not notice all.
        min_held_out: Smallest number of held-out patterns.
        max_held_out: Largest number; more say nothing new, and take time after each epoch.
    """

    first_step: float = 0.6
    step_fall: float = 0.63
    step_falls: int = 6
    patience: int = 2
    min_gain: float = 1e-3
    min_gain_absolute: float = 2e-5
    max_rise: float = 0.02
    converged: float = 1e-4
    max_dispersion: float = 8.0
    max_prior_share: float = 0.7
    standard_errors: float = 2.0
    max_score_ratio: float = 1.1
    min_held_out: int = 4
    max_held_out: int = 2048

    def step_after(self, falls: int) -> float:
        """The step after some falls."""
        return self.first_step * self.step_fall**falls


TUNING = LoopTuning()
SETTLING_STEPS = tuple(
    TUNING.step_after(falls) for falls in (TUNING.step_falls - 2, TUNING.step_falls)
)

Outcome = Literal["refined", "mean", "network"]


@dataclass(frozen=True)
class RefinementEpoch:
    """One epoch: its step, and how well the model predicts afterwards.

    Attributes:
        step: Step size.
        r_work: R-factor of a sample of the patterns that were used.
        r_free: R-factor of the held-out patterns.
        free_score: What "auto" minimises: Poisson deviance per pixel of the held-out patterns below
            `POISSON_BELOW_COUNTS`, else ``r_free``.
        kept: False if the epoch was undone.
    """

    step: float
    r_work: float
    r_free: float
    free_score: float
    kept: bool = True


Progress = Callable[[int, RefinementEpoch, Tensor], None]


class RefinementLoop:
    """The epochs of one refinement, and their history.

    Args:
        patterns: All patterns, at their positions.
        work: Indices of the patterns to use.
        held_out: Indices of the others.
        options: What is refined.
        progress: Called with the number of the epoch, from 0 for the start, its entry, and the
            object, complex, (Y, X), which the next epoch changes in place.
    """

    def __init__(
        self,
        patterns: PreparedPatterns,
        work: Tensor,
        held_out: Tensor,
        options: RefineOptions,
        progress: Progress | None,
    ) -> None:
        self.patterns, self.held_out = patterns, held_out.to(patterns.like.device)
        self.own_held_out = patterns.own(held_out)
        self.work = working_set(patterns, work)
        self.options, self.progress = options, progress
        self.rng = torch.Generator().manual_seed(options.seed)
        drawn = torch.randperm(len(work), generator=self.rng)[: len(held_out)]
        self.own_sample = patterns.own(work[drawn])
        self.history: list[RefinementEpoch] = []
        self.dispersion = 1.0

    @torch.no_grad()
    def run(self, state: State) -> None:
        """Run the epochs that were asked for, or as many as the held-out patterns reward."""
        self._append(replace(self._measure(state, 0.0), kept=False), state)
        if self.options.epochs == "auto":
            self._run_while_rewarded(state)
            return
        for step in falling_steps(self.options.epochs):
            self._epoch(state, step)
            self._append(self._measure(state, step), state)

    def _run_while_rewarded(self, state: State) -> None:
        """Lower the step when epochs gain little; restore the best state when one is harmful."""
        best, best_score = state.copy(), math.inf
        step, falls, idle = TUNING.first_step, 0, 0
        for _ in range(self.options.max_epochs):
            self._epoch(state, step)
            entry = self._measure(state, step)
            better = entry.free_score < best_score
            self._append(replace(entry, kept=better), state)
            if better:
                best = state.copy()
            idle = 0 if best_score - entry.free_score >= min_gain(entry.free_score) else idle + 1
            best_score = min(best_score, entry.free_score)
            if not entry.free_score < best_score * (1 + TUNING.max_rise):
                state.restore(best)
            if idle == TUNING.patience:
                step, falls, idle = step * TUNING.step_fall, falls + 1, 0
                if falls > TUNING.step_falls or entry.r_free < TUNING.converged:
                    break
        state.restore(best)

    @torch.no_grad()
    def choose(self, state: State, network: State) -> tuple[Outcome, float]:
        """The answer by the held-out patterns, and its R-free.

        It is the mean of the refined and the network's object, which is less noisy, unless the mean
        is predicted worse than the better of the two, by two standard errors or by a tenth.
        """
        candidates: dict[Outcome, tuple[Tensor, State]] = {  # object, and whose probe it has
            "refined": (state.obj, state),
            "network": (network.obj, network),
            "mean": (self.mean_with(state, network), state),
        }
        scores = {name: self._scores(*one) for name, one in candidates.items()}
        best: Outcome = (
            "refined" if scores["refined"].mean() < scores["network"].mean() else "network"
        )
        excess = scores["mean"] - scores[best]
        close = bool(scores["mean"].mean() <= TUNING.max_score_ratio * scores[best].mean())
        spread = excess.std() if len(excess) > 1 else 0.0
        tolerance = TUNING.standard_errors * spread / math.sqrt(len(excess))
        chosen: Outcome = "mean" if close and excess.mean() <= tolerance else best
        return chosen, self._predict(*candidates[chosen], self.own_held_out).r

    def mean_with(self, state: State, network: State) -> Tensor:
        """Mean of two objects, the second with slow phases and scale of the first, (Y, X)."""
        light = illumination_of(self.patterns, state, self.work.own).photons
        widths = [float(variance.sqrt()) for variance in squared_widths(state.probe)]
        common = gaussian_blur(light * network.obj.conj() * state.obj, widths, border="zero")
        power = gaussian_blur(light * squared_modulus(network.obj), widths, border="zero")
        factor = common / power.clamp_min(torch.finfo(light.dtype).tiny)
        return torch.where(light > 0, (state.obj + factor * network.obj) / 2, state.obj)

    @torch.no_grad()
    def refit_with_held_out(self, state: State) -> None:
        """Run two epochs with small steps on all patterns, the held-out ones too."""
        self.work = working_set(self.patterns, self.patterns.everything)
        for step in SETTLING_STEPS:
            self._epoch(state, step)

    def _epoch(self, state: State, step: float) -> None:
        """One epoch over the working patterns."""
        settings = EpochSettings(
            step=step,
            smoothness=self.options.smoothness,
            dispersion=self.dispersion,
            update_probe=self.options.update_probe,
        )
        run_epoch(self.patterns, state, self.work, settings, rng=self.rng)

    def _measure(self, state: State, step: float) -> RefinementEpoch:
        """The entry of an epoch; the dispersion of the held-out patterns goes to the prior."""
        free = self._predict(state.obj, state, self.own_held_out)
        work = self._predict(state.obj, state, self.own_sample)
        self.dispersion = min(max(free.dispersion, 1.0), TUNING.max_dispersion)
        return RefinementEpoch(step, work.r, free.r, self._score(free))

    def _predict(self, obj: Tensor, state: State, own: Tensor) -> Prediction:
        """How well an object predicts some patterns, of which this process owns the given ones.

        The probe is that of a state.
        """
        basis = shift_basis(self.patterns, state.probe, state.components)
        return predict(self.patterns, obj, basis, own)

    def _scores(self, obj: Tensor, state: State) -> Tensor:
        """The score of each held-out pattern by an object, with the probe of a state, float64."""
        basis = shift_basis(self.patterns, state.probe, state.components)
        sums = self.held_out.new_zeros(len(self.patterns), 6, dtype=torch.float64)
        own = self.own_held_out
        sums[own] = misfit_sums(self.patterns, obj, basis, own)
        self.patterns.share(sums)
        each = [prediction_of(self.patterns, one) for one in sums[self.held_out].tolist()]
        return torch.tensor([self._score(one) for one in each], dtype=torch.float64)

    def _score(self, free: Prediction) -> float:
        """What is minimised on held-out patterns."""
        return free.deviance if self.patterns.poisson else free.r

    def _append(self, entry: RefinementEpoch, state: State) -> None:
        """Record an epoch and report it."""
        self.history.append(entry)
        if self.progress is not None:
            self.progress(len(self.history) - 1, entry, state.obj)


@dataclass(frozen=True, kw_only=True)
class EpochSettings:
    """How an epoch moves object and probe.

    Attributes:
        step: Step size, relative to the preconditioned gradient.
        smoothness: Largest strength of the prior, in photons per object pixel.
        dispersion: Misfit in units of counting noise, by which the prior is multiplied.
        update_probe: Whether the probe moves.
    """

    step: float
    smoothness: float
    dispersion: float = 1.0
    update_probe: bool = False


def run_epoch(
    patterns: PreparedPatterns,
    state: State,
    work: WorkingSet,
    settings: EpochSettings,
    *,
    rng: torch.Generator,
    observers: Sequence[Observer] = (),
) -> None:
    """One epoch of object, and probe, over some patterns, in place.

    Args:
        patterns: All patterns.
        state: Object and probe.
        work: The patterns to use.
        settings: Of the step.
        rng: Random generator of the order of the patterns.
        observers: What else is refined.
    """
    light = illumination_of(patterns, state, work.own)
    # the only numbers that the host needs of the device in an epoch
    typical, beams = torch.stack([light.typical, light.beams]).tolist()
    prior = min(settings.smoothness, TUNING.max_prior_share * typical) * settings.dispersion

    def step(batch: Batch) -> None:
        one = StepSettings(
            batches=len(work) / batch.size,
            step=settings.step,
            prior=prior,
            update_probe=settings.update_probe,
        )
        step_on_batch(patterns, state, batch.own, light, one, observers)

    batches = list(sparse_batches(patterns, work, beams, rng))
    patterns.announce((batch.own for batch in batches), len(state.probe))
    if can_be_recorded(patterns):
        replay_steps(step, batches, patterns.like.device)
    else:
        for batch in batches:
            step(batch)
    if observers:
        patterns.share_parameters()
    if settings.update_probe and len(state.probe) > 1:
        state.probe, mixing = orthogonal_mixing(state.probe)
        state.components = torch.einsum("km,cmhw->ckhw", mixing, state.components)
        state.probe_velocity = torch.einsum("km,cmhw->ckhw", mixing, state.probe_velocity)


def falling_steps(epochs: int) -> list[float]:
    """Steps that fall linearly to the smallest that "auto" uses, one an epoch."""
    fall = SETTLING_STEPS[-1] - TUNING.first_step
    return [TUNING.first_step + fall * k / max(1, epochs - 1) for k in range(epochs)]


def min_gain(score: float) -> float:
    """Gain of the held-out score that is enough for another epoch with the same step."""
    return max(TUNING.min_gain * score, TUNING.min_gain_absolute)


def draw_held_out(n: int, fraction: float, seed: int) -> Tensor:
    """Indices of the scan points to hold out, in scan order."""
    count = min(max(round(fraction * n), TUNING.min_held_out), TUNING.max_held_out, n // 2)
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:count].sort().values

"""The schedule of a refinement: how large the steps are, and when they stop."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from ptycho_torch.physics.incoherent import squared_modulus
from ptycho_torch.physics.slow_phase import squared_widths
from ptycho_torch.refinement.modes import orthogonal_mixing
from ptycho_torch.refinement.patterns import Patterns, Prediction, placed_at, predict
from ptycho_torch.refinement.positions import inside, shifts_towards, without_affine
from ptycho_torch.refinement.steps import State, light_on, sparse_batches, step_on_batch

FIRST_STEP = 0.6
STEP_FALL = 0.63  # factor of the step when the unseen patterns stop improving
STEP_FALLS = 6
SETTLING_STEPS = (FIRST_STEP * STEP_FALL ** (STEP_FALLS - 2), FIRST_STEP * STEP_FALL**STEP_FALLS)  # after something new
PATIENCE = 2  # passes in a row that must not pay before the step falls
CONVERGED = 1e-4  # R-free of a picture that is right; there is no noise that smaller steps would fit less
WORST_DISPERSION = 8.0  # a start far from the data must not smooth the object away
SMOOTHED_LIGHT = 0.7  # upper bound of the prior, in photons on a pixel; 121 positions at 1e4 photons want 30, 1024 want 120
BEARABLE_RISE = 0.02  # of the free score over its best, before the best state is taken up again
WORTH = 1e-3  # relative gain of the free score for which another pass with the same step pays
SURELY = 2.0  # standard errors
WORSE_BY_FAR = 1.1  # times the score of the better one; a few unseen patterns are never sure of it
SMALLEST_FREE_SET = 4

Outcome = Literal["refined", "mean", "other"]


@dataclass(frozen=True)
class RefinementEpoch:
    """One pass over the patterns: the step it used and how well the model predicts afterwards.

    ``r_work`` is over a sample of the patterns it used, ``r_free`` over those it did not;
    ``free_score`` is what `auto` minimises: Poisson deviance per pixel below
    `POISSON_BELOW_COUNTS`, else ``r_free``. ``kept`` is False if the pass was undone.
    """

    step: float
    r_work: float
    r_free: float
    free_score: float
    kept: bool = True


Progress = Callable[[int, RefinementEpoch], None]


class Descent:
    """One refinement: the schedule of epochs and its record."""

    def __init__(
        self,
        patterns: Patterns,
        work: Tensor,
        free: Tensor,
        centres: Tensor,
        update_probe: bool,
        smoothness: float,
        seed: int,
        progress: Progress | None,
    ) -> None:
        self.patterns, self.work, self.free, self.centres = patterns, work, free, centres
        self.update_probe, self.smoothness, self.progress = update_probe, smoothness, progress
        self.generator = torch.Generator().manual_seed(seed)
        self.sample = work[torch.randperm(len(work), generator=self.generator)[: len(free)]]
        self.history: list[RefinementEpoch] = []
        self.dispersion = 1.0

    @torch.no_grad()
    def descend(self, state: State, epochs: int | Literal["auto"], max_epochs: int) -> None:
        """Take the epochs that were asked for, or as many as the unseen patterns reward."""
        self._append(replace(self._measure(state, 0.0), kept=False))
        if epochs == "auto":
            self._descend_while_rewarded(state, max_epochs)
            return
        for step in falling_steps(epochs):
            self._epoch(state, step)
            self._record(state, step)

    def _descend_while_rewarded(self, state: State, max_epochs: int) -> None:
        """Lower the step when passes bring little; go back to the best state when one harms, and at the end."""
        best, best_score = state.copy(), math.inf
        step, falls, idle = FIRST_STEP, 0, 0
        for _ in range(max_epochs):
            self._epoch(state, step)
            entry = self._measure(state, step)
            better = entry.free_score < best_score
            self._append(replace(entry, kept=better))
            if better:
                best = state.copy()
            idle = 0 if best_score - entry.free_score >= worth(entry.free_score) else idle + 1
            best_score = min(best_score, entry.free_score)
            if not entry.free_score < best_score * (1 + BEARABLE_RISE):
                state.obj, state.probe = best.obj.clone(), best.probe.clone()
                state.halt()
            if idle == PATIENCE:
                step, falls, idle = step * STEP_FALL, falls + 1, 0
                if falls > STEP_FALLS or entry.r_free < CONVERGED:
                    break
        state.obj, state.probe = best.obj, best.probe

    @torch.no_grad()
    def refine_positions(self, state: State, canvas_shape: tuple[int, int], rounds: int = 8) -> None:
        """Move the positions and refit, for as long as the unseen patterns are predicted better."""
        best_score = min(entry.free_score for entry in self.history if entry.kept)
        given, trial, idle = self.centres, state.copy(), 0
        best_patterns, best_centres = self.patterns, self.centres
        for _ in range(rounds):
            moved = without_affine(shifts_towards(self.patterns, trial, self.work) + (self.centres - given), given, self.work)
            self._move(inside(given + moved, self.patterns.shape, canvas_shape))
            for step in SETTLING_STEPS:
                self._epoch(trial, step)
            entry = self._measure(trial, SETTLING_STEPS[0])
            better = entry.free_score < best_score
            self._append(replace(entry, kept=better))
            idle = 0 if better else idle + 1  # kept-out positions stay wrong and hide most of the gain
            if better:
                best_score, best_patterns, best_centres = entry.free_score, self.patterns, self.centres
                state.obj, state.probe = trial.obj.clone(), trial.probe.clone()
            if idle == PATIENCE:
                break
        self.patterns, self.centres = best_patterns, best_centres

    @torch.no_grad()
    def choose(self, state: State, rival: State) -> tuple[Outcome, float]:
        """What to answer, by the unseen patterns, and its R-free; the mean, which is less noisy, unless it is surely worse."""
        candidates: dict[Outcome, State] = {
            "refined": state,
            "other": rival,
            "mean": State(self.mean_with(state, rival), state.probe),
        }
        scores = {name: self._scores(one) for name, one in candidates.items()}
        best: Outcome = "refined" if scores["refined"].mean() < scores["other"].mean() else "other"
        excess = scores["mean"] - scores[best]
        close = bool(scores["mean"].mean() <= WORSE_BY_FAR * scores[best].mean())
        chosen: Outcome = "mean" if close and excess.mean() <= SURELY * excess.std() / math.sqrt(len(excess)) else best
        return chosen, predict(self.patterns, candidates[chosen].obj, candidates[chosen].probe, self.free).r

    def mean_with(self, state: State, rival: State) -> Tensor:
        """Mean of two objects, the second with the slow phases and the scale of the first, (Y, X)."""
        light = light_on(self.patterns, state.probe, self.work, state.obj).photons
        widths = [float(variance.sqrt()) for variance in squared_widths(state.probe)]
        common = smoothed(light * rival.obj.conj() * state.obj, widths)
        factor = common / smoothed(light * squared_modulus(rival.obj), widths).clamp_min(torch.finfo(light.dtype).tiny)
        return torch.where(light > 0, (state.obj + factor * rival.obj) / 2, state.obj)

    @torch.no_grad()
    def include_free(self, state: State) -> None:
        """Let the unseen patterns, too, have their say."""
        self.work = torch.arange(len(self.patterns.corners))
        for step in SETTLING_STEPS:
            self._epoch(state, step)

    def _epoch(self, state: State, step: float) -> None:
        """One pass over the working patterns."""
        patterns = self.patterns
        light = light_on(patterns, state.probe, self.work, state.obj)
        typical = ((light.photons * light.lit).sum() / light.lit.sum()).item()
        prior = min(self.smoothness, SMOOTHED_LIGHT * typical) * self.dispersion
        for index in sparse_batches(patterns, self.work, light.beams, self.generator):
            step_on_batch(patterns, state, index, light, len(self.work) / len(index), step, prior, self.update_probe)
        if self.update_probe and len(state.probe) > 1:
            state.probe, mixing = orthogonal_mixing(state.probe)
            state.probe_velocity = torch.einsum("km,mhw->khw", mixing, state.probe_velocity)

    def _move(self, centres: Tensor) -> None:
        self.centres = centres
        self.patterns = placed_at(self.patterns, centres)

    def _measure(self, state: State, step: float) -> RefinementEpoch:
        free = predict(self.patterns, state.obj, state.probe, self.free)
        work = predict(self.patterns, state.obj, state.probe, self.sample)
        self.dispersion = min(max(free.dispersion, 1.0), WORST_DISPERSION)
        return RefinementEpoch(step, work.r, free.r, self._score(free))

    def _scores(self, state: State) -> Tensor:
        """The score of each unseen pattern, float64."""
        each = [predict(self.patterns, state.obj, state.probe, one) for one in self.free.split(1)]
        return torch.tensor([self._score(one) for one in each], dtype=torch.float64)

    def _score(self, free: Prediction) -> float:
        """What is minimised on unseen patterns."""
        return free.deviance if self.patterns.poisson else free.r

    def _record(self, state: State, step: float) -> None:
        self._append(self._measure(state, step))

    def _append(self, entry: RefinementEpoch) -> None:
        self.history.append(entry)
        if self.progress is not None:
            self.progress(len(self.history) - 1, entry)


def smoothed(image: Tensor, widths: Sequence[float]) -> Tensor:
    """An image folded with a Gaussian of these widths, zero outside, (Y, X)."""
    return torch.from_numpy(gaussian_filter(image.numpy(), widths, mode="constant"))


def falling_steps(epochs: int) -> list[float]:
    """Steps that fall linearly to the smallest that `refine` uses, one an epoch."""
    return [FIRST_STEP + (SETTLING_STEPS[-1] - FIRST_STEP) * k / max(1, epochs - 1) for k in range(epochs)]


def worth(score: float) -> float:
    """Gain of the score for which another pass with the same step pays, never under 2e-5."""
    return max(WORTH * score, 2e-5)


def draw_free(n: int, fraction: float, seed: int) -> Tensor:
    """Scan points to judge by, in scan order."""
    kept_out = min(max(round(fraction * n), SMALLEST_FREE_SET), n // 2)
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:kept_out].sort().values

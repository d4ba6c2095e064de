"""A fair score of held-out patterns, which have a position and a flux of their own.

A held-out pattern is predicted by object and probe, which were made without it, and by what belongs
to it alone: its position and its flux. Those must be fitted to the pattern itself, or a pattern
whose position is wrong says nothing about the positions of the others. But what is fitted to a
pattern lowers its misfit whether it is right or not. So its photons are divided at random into two
independent halves (`noise.thin`): position and flux are fitted to the first, and the second is
scored. A parameter that only fits noise makes the score worse.

The random numbers of a pattern depend on the seed and on its index alone, so that they are the same
whichever process draws them.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ptycho_torch.physics.noise import thin
from ptycho_torch.refinement.flux import FluxObserver
from ptycho_torch.refinement.pattern_store import PatternsInMemory
from ptycho_torch.refinement.positions import (
    PositionObserver,
    misfit_of_each,
    move,
    search_lost,
)
from ptycho_torch.refinement.prepared_patterns import (
    PreparedPatterns,
    expected_counts,
    parts_of,
    patterns_at_once,
    shift_basis,
    subset_of,
)
from ptycho_torch.refinement.step import Observer, State, descent_of

FITTING_STEPS = 8  # of position and flux of the held-out patterns, with the object as it is
STANDARD_ERRORS = 2.0  # by which a score must fall to count as better
MIN_GAIN = 0.005  # relative fall of a score that counts; smaller ones are of the convergence


@dataclass(frozen=True)
class Gain:
    """By how much one model predicts held-out patterns better than another.

    Attributes:
        fall: Mean over the patterns of the logarithm of the ratio of their misfits.
        error: Its standard error.
    """

    fall: float
    error: float

    @property
    def relative(self) -> float:
        """Relative fall of the misfit, below 1."""
        return 1 - math.exp(-self.fall)

    @property
    def is_significant(self) -> bool:
        """Whether it is more than its uncertainty, and more than convergence brings."""
        return self.fall > max(STANDARD_ERRORS * self.error, MIN_GAIN)


def gain(before: Tensor, after: Tensor) -> Gain:
    """The gain from scores of the same patterns, (B,) each.

    Logarithms, since a pattern that fits badly would outweigh all others.
    """
    fall = (before.double() / after.double()).log()
    error = float(fall.std()) / math.sqrt(len(fall)) if len(fall) > 1 else math.inf
    return Gain(float(fall.mean()), error)


class HeldOutHalves:
    """The held-out patterns, each divided into two halves of its photons.

    Args:
        patterns: All patterns.
        held_out: Indices of the held-out ones.
        seed: Of the division.
    """

    def __init__(self, patterns: PreparedPatterns, held_out: Tensor, seed: int) -> None:
        self.held_out, self.seed = held_out, seed
        few = subset_of(patterns, held_out)
        self.own = few.own(torch.arange(len(held_out)))
        self.rows = torch.zeros_like(few.rows)
        self.rows[self.own] = torch.arange(len(self.own)).to(self.rows)
        first, second = patterns.like.new_empty(2, len(self.own), *patterns.shape)
        # on the host, whose random numbers are the same for every device
        for row, one in enumerate(self.own):
            counts = few.counts(one[None]).cpu()
            taken = thin(counts, 0.5, self._rng(one))
            first[row], second[row] = taken[0], (counts - taken)[0]
        self.photons = second.sum((1, 2)).clamp_min(1)
        self.fitted, self.scored = (
            PatternsInMemory(half).prepared(patterns.noise.prepare) for half in (first, second)
        )

    def scores(self, patterns: PreparedPatterns, state: State, refined: Collection[str]) -> Tensor:
        """Misfit of the second half of each pattern, relative to its photons, (B,).

        Args:
            patterns: All patterns, with their positions, flux, background.
            state: Object and probe.
            refined: What belongs to a pattern alone and is fitted: "positions", "flux".
        """
        first = self._fit(patterns, state, refined)
        basis = shift_basis(first, state.probe, state.components)
        second = replace(first, measured=self.scored)
        return self._of_all(second, misfit_of_each(second, state.obj, basis, self.own))

    def noise(self, patterns: PreparedPatterns, state: State) -> Tensor:
        """The scores of counts that are drawn from the model itself: noise alone, (B,)."""
        half = self._half(patterns)
        basis = shift_basis(half, state.probe, state.components)
        misfits = torch.zeros_like(self.photons)
        for row, one in enumerate(self.own):
            intensity = expected_counts(half, state.obj, basis, one[None])
            drawn = torch.poisson(intensity.cpu(), self._rng(one)).to(intensity)
            misfit = half.noise.misfit(intensity, half.noise.prepare(drawn))
            misfits[row] = (misfit if half.mask is None else misfit * half.mask).sum()
        return self._of_all(half, misfits / self.photons)

    def place(self, patterns: PreparedPatterns, state: State, refined: Collection[str]) -> None:
        """Give the held-out patterns, in place, the positions and flux of their first halves."""
        first = self._half(patterns)
        shape = state.shape
        if "positions" in refined:
            search_lost(first, state, first.everything)
        move(patterns, self.held_out, first.centres, shape)
        fitted = self._fit(patterns, state, refined)
        move(patterns, self.held_out, fitted.centres, shape)
        if patterns.flux is not None and fitted.flux is not None:
            patterns.flux[self.held_out] = 2 * fitted.flux

    def _half(self, patterns: PreparedPatterns) -> PreparedPatterns:
        """The first halves, with positions and half the flux and background of the patterns."""
        few = subset_of(patterns, self.held_out)
        flux = few.like.new_ones(len(few)) if few.flux is None else few.flux
        background = None if few.background is None else few.background / 2
        halves = replace(few, measured=self.fitted, rows=self.rows)
        return replace(halves, flux=flux / 2, background=background)

    def _fit(
        self, patterns: PreparedPatterns, state: State, refined: Collection[str]
    ) -> PreparedPatterns:
        """The first halves with their own positions and flux."""
        first = self._half(patterns)
        shape = state.shape
        observers: list[Observer] = []
        if "positions" in refined:
            observers.append(PositionObserver(first, shape))
        if "flux" in refined:
            observers.append(FluxObserver(first))
        basis = shift_basis(first, state.probe, state.components)
        at_once = patterns_at_once(first, len(state.probe))
        for _ in range(FITTING_STEPS if observers else 0):
            for some in parts_of(self.own, at_once):
                descent = descent_of(first, state.obj, basis, some)
                for observer in observers:
                    observer.add(descent)
            for observer in observers:
                observer.finish_batch()
        first.share_parameters()
        return first

    def _of_all(self, halves: PreparedPatterns, own: Tensor) -> Tensor:
        """One number of each held-out pattern, (B,), from those of the own ones."""
        every = own.new_zeros(len(self.held_out))
        every[self.own] = own
        halves.share(every)
        return every

    def _rng(self, one: Tensor) -> torch.Generator:
        """The random generator of a held-out pattern, by its place among them."""
        of_pattern = np.random.SeedSequence((self.seed, int(self.held_out[one])))
        return torch.Generator().manual_seed(int(of_pattern.generate_state(1)[0]))

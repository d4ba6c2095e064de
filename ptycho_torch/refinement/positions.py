"""Positions: small Gauss-Newton steps of each, an affine map of all, and a search for lost ones.

Two kinds of error, two kinds of step. Where each position errs for itself, its pattern alone shows
it: the object is made of many patterns, and a wrong one disagrees with its neighbours. So a small
step of the position, in every batch together with object and probe, finds errors of some pixels.

But an object can follow an error that neighbours share, such as a wrong scale of the stage: it is
drawn larger, and then every position fits, nearly. Only inside each patch it is too large. The
direction in which positions and object are scaled together changes a patch about its middle::

    p <- p + A (p - c),  O(x) <- O(x - A (x - c))   =>   d patch(r) = -(A r) . grad(patch)

with r counted from the middle of the patch. That is four numbers for the whole scan, which the
patterns determine well, so one Gauss-Newton step an epoch finds them in a few epochs.
"""

import torch
from torch import Tensor
from torch.nn import functional

from ptycho_torch.physics.forward import position_gradient
from ptycho_torch.physics.least_squares import least_squares
from ptycho_torch.refinement.prepared_patterns import (
    PreparedPatterns,
    expected_counts,
    modes_of,
    pair,
    parts_of,
    patterns_at_once,
    placed_at,
    shift_basis,
    subset_of,
)
from ptycho_torch.refinement.step import Descent, State

MOMENTUM = 0.5  # share of the last step of a position that the next one continues
STEP = 1.6  # of the Gauss-Newton step along each axis, whose curvature is overestimated twice
DAMPING = 0.1  # share of the mean curvature of a batch that is added to each
MAX_STEP_PX = 0.3  # largest step of a position in one batch, before momentum
AFFINE_STEP = 3.0  # of the same Gauss-Newton step, in one epoch
AFFINE_DAMPING = 1e-3  # share of the mean curvature that is added
MIN_AFFINE_PX = 0.01  # displacement at the border below which the object is not warped
WELL_PLACED = 0.25  # share of the patterns that lie near their place, whatever the errors
SEARCH_RATIO = 2.0  # misfit, relative to theirs, above which a pattern is searched for
SEARCH_GAIN = 0.9  # of its misfit, below which a place that was found is taken
SEARCH_STEP_PX = 1.5
SEARCH_REACH_PX = 9.0
LOST_AT_ONCE = 64  # patterns whose places are tried together


class PositionObserver:
    """Moves the positions of each batch, and adds up what the affine map of an epoch needs.

    Args:
        patterns: All patterns; their positions are changed in place.
        canvas_shape: ``(Y, X)``, which the patches do not leave.
    """

    def __init__(self, patterns: PreparedPatterns, canvas_shape: tuple[int, int]) -> None:
        self.patterns, self.canvas_shape = patterns, canvas_shape
        self.velocity = torch.zeros_like(patterns.fractions)
        self.affine = AffineSums(patterns)
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []  # index, slope and curvature

    def add(self, descent: Descent) -> None:
        """Note the slopes of these patterns."""
        slopes, products = position_gradient(descent.exit_waves, descent.probes, descent.patches)
        self.affine.add(slopes, products)
        top = slopes.sum((-2, -1)).T.double()  # (B, 2)
        curvature = products[::2].sum((-2, -1)).T.double()
        self.seen.append((descent.index, top, curvature))

    def finish_batch(self) -> None:
        """Move the positions of the batch."""
        usual = self.velocity.new_zeros(3)  # sums of the curvatures along y and x, and their number
        for _, _, curvature in self.seen:
            usual[:2] += curvature.sum(0)
            usual[2] += len(curvature)
        self.patterns.comm.sum(usual)
        for index, top, curvature in self.seen:
            step = STEP * top / (curvature + DAMPING * usual[:2] / usual[2])
            step = step.nan_to_num(0.0)  # 0/0 where the object is flat; NaN where it diverged
            velocity = MOMENTUM * self.velocity[index] + step.clamp(-MAX_STEP_PX, MAX_STEP_PX)
            self.velocity[index] = velocity
            moved = self.patterns.centres[index] + velocity
            move(self.patterns, index, moved, self.canvas_shape)
        self.seen.clear()

    def finish_epoch(self, state: State, given: Tensor) -> None:
        """Apply the affine map, and keep the mean position, which the object can follow.

        Args:
            state: Object; it is warped with the positions.
            given: Positions before the refinement, (N, 2).
        """
        apply_affine(self.patterns, state, self.affine.solve(), given.mean(0))
        common = (self.patterns.centres - given).mean(0)
        moved = self.patterns.centres - common
        move(self.patterns, self.patterns.everything, moved, self.canvas_shape)


class AffineSums:
    """The normal equations of the affine map of all positions, summed over patterns.

    Args:
        patterns: Whose shape, dtype and device the sums have.
    """

    def __init__(self, patterns: PreparedPatterns) -> None:
        self.comm, like = patterns.comm, patterns.like
        y, x = (
            torch.arange(size, dtype=like.dtype, device=like.device) - size / 2
            for size in patterns.shape
        )
        self.offsets = torch.stack(torch.meshgrid(y, x, indexing="ij"))  # r, (2, H, W)
        self.slopes = like.new_zeros(2, *patterns.shape)
        self.products = like.new_zeros(3, *patterns.shape)

    def add(self, slopes: Tensor, products: Tensor) -> None:
        """Add some patterns; see `position_gradient`."""
        self.slopes += slopes.sum(1)
        self.products += products.sum(1)

    def solve(self) -> Tensor:
        """The map A, float64, (2, 2), and a new start; 0 where the patterns say nothing of it."""
        self.comm.sum(self.slopes, self.products)
        r = self.offsets
        right = -torch.einsum("ihw,jhw->ij", self.slopes, r).double().reshape(4)
        yy, yx, xx = torch.einsum("phw,jhw,lhw->pjl", self.products, r, r).double()
        normal = torch.stack([torch.stack([yy, yx]), torch.stack([yx, xx])])  # (i, k, j, l)
        normal = normal.permute(0, 2, 1, 3).reshape(4, 4)
        damped = normal + AFFINE_DAMPING * normal.diagonal().mean() * torch.eye(4).to(normal)
        self.slopes.zero_()
        self.products.zero_()
        found = torch.linalg.solve_ex(damped, right).result.nan_to_num(0.0, 0.0, 0.0)
        return AFFINE_STEP * found.reshape(2, 2)


def move(
    patterns: PreparedPatterns, index: Tensor, centres: Tensor, canvas_shape: tuple[int, int]
) -> None:
    """Move some patterns, in place, to positions (B, 2), or as near as the canvas allows."""
    placed = placed_at(patterns, within(centres, patterns, canvas_shape))
    patterns.corners[index] = placed.corners
    patterns.fractions[index] = placed.fractions
    patterns.node_weights[index] = placed.node_weights


def within(centres: Tensor, patterns: PreparedPatterns, canvas_shape: tuple[int, int]) -> Tensor:
    """The nearest positions (B, 2) whose patches lie on the canvas ``(Y, X)``."""
    half = patterns.half
    return torch.minimum(centres.maximum(half), pair(canvas_shape, half.device) - half)


def apply_affine(patterns: PreparedPatterns, state: State, affine: Tensor, middle: Tensor) -> bool:
    """Scale, turn and shear positions and object together about a point, in place.

    Args:
        patterns: All patterns.
        state: Object; its momentum is set to zero.
        affine: A, (2, 2).
        middle: c, ``(y, x)`` on the canvas, (2,).

    Returns:
        Whether it was large enough to be applied.
    """
    away = patterns.centres - middle
    if not float((away @ affine.T).abs().max()) > MIN_AFFINE_PX:
        return False
    shape = state.shape
    move(patterns, patterns.everything, patterns.centres + away @ affine.T, shape)
    state.obj = warped(state.obj, affine, middle)
    state.reset_momentum()
    return True


def warped(obj: Tensor, affine: Tensor, middle: Tensor) -> Tensor:
    """The object moved by ``A (x - c)``, by bicubic interpolation, complex, (Y, X)."""
    rows, columns = obj.shape
    y, x = (
        torch.arange(size, dtype=middle.dtype, device=middle.device) for size in (rows, columns)
    )
    places = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1)
    back = torch.linalg.inv(torch.eye(2).to(affine) + affine)
    source = (places - middle) @ back.T + middle
    relative = 2 * source / source.new_tensor([rows - 1, columns - 1]) - 1
    image = functional.grid_sample(
        torch.view_as_real(obj).permute(2, 0, 1)[None],
        relative.flip(-1).to(obj.real.dtype)[None],
        mode="bicubic",
        padding_mode="border",
        align_corners=True,
    )
    return torch.complex(*image[0].contiguous())


def search_lost(patterns: PreparedPatterns, state: State, index: Tensor) -> int:
    """Look around for patterns that fit much worse than the others, and move them, in place.

    A step along the gradient finds a place within a feature of the object; a pattern that lies
    farther away is tried on a grid. The others are the quarter that fits best: where errors are
    large, most patterns have not found their place yet, and their median says nothing.

    Args:
        patterns: All patterns.
        state: Object and probe.
        index: Patterns to look at.

    Returns:
        How many were moved.
    """
    basis = shift_basis(patterns, state.probe, state.components)
    own = patterns.own(index.cpu())
    misfits = patterns.like.new_zeros(len(patterns))
    misfits[own] = misfit_of_each(patterns, state.obj, basis, own)
    patterns.share(misfits)
    lost = own[misfits[own] > SEARCH_RATIO * misfits[index].quantile(WELL_PLACED)]
    shape = state.shape
    here = patterns.half.new_zeros(1, 2)
    along = torch.arange(-SEARCH_REACH_PX, SEARCH_REACH_PX + 1e-9, SEARCH_STEP_PX).to(here)
    offsets = torch.cat([here, torch.cartesian_prod(along, along)])
    found = index.new_zeros(1)
    for some in parts_of(lost, LOST_AT_ONCE):
        each = some.repeat_interleave(len(offsets))
        everywhere = patterns.centres[each] + offsets.repeat(len(some), 1)
        places = within(everywhere, patterns, shape)
        copies = placed_at(subset_of(patterns, each), places)
        tried = misfit_of_each(copies, state.obj, basis, copies.everything)
        tried, places = tried.reshape(len(some), -1), places.reshape(len(some), -1, 2)
        best = tried.argmin(1, keepdim=True)
        better = (tried.gather(1, best) < SEARCH_GAIN * tried[:, :1])[:, 0]
        chosen = places.take_along_dim(best[..., None], dim=1)[:, 0]
        move(patterns, some[better], chosen[better], shape)
        found += better.sum()
    patterns.share_parameters()
    patterns.comm.sum(found)
    return int(found)


def misfit_of_each(patterns: PreparedPatterns, obj: Tensor, basis: Tensor, index: Tensor) -> Tensor:
    """Misfit of some own patterns, relative to the photons of each, (B,)."""
    found = [patterns.like.new_empty(0)]
    for some in parts_of(index, patterns_at_once(patterns, modes_of(patterns, basis))):
        misfit = patterns.noise.misfit(
            expected_counts(patterns, obj, basis, some), patterns.measured_at(some)
        )
        if patterns.mask is not None:
            misfit = misfit * patterns.mask
        photons = patterns.counts(some).sum((1, 2)).clamp_min(1)
        found.append(misfit.sum((1, 2)) / photons)
    return torch.cat(found)


def affine_part(moved: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
    """The affine map that leads from given to moved positions, and what it leaves.

    Args:
        moved: Positions, float64, (N, 2).
        given: The same points before, (N, 2).

    Returns:
        A of ``moved = given + A (given - c) + translation + rest``, (2, 2), and the rest, (N, 2).
    """
    design = torch.cat([given - given.mean(0), given.new_ones(len(given), 1)], dim=1)
    solution = least_squares(design, moved - given)
    return solution[:2].T, moved - given - design @ solution

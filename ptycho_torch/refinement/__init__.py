"""Refinement of object, probe and scan positions from any start, stopped by patterns it has not seen."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ptycho_torch.refinement.descent import CONVERGED, Descent, Outcome, Progress, RefinementEpoch, draw_free
from ptycho_torch.refinement.modes import add_modes
from ptycho_torch.refinement.patterns import prepare
from ptycho_torch.refinement.steps import State, keep_photons

__all__ = ["RefinementEpoch", "RefinementResult", "draw_free", "mode_gain", "refine"]


@dataclass(frozen=True)
class RefinementResult:
    """What a refinement made.

    Attributes:
        obj: Complex, (Y, X).
        probe: Orthogonal modes in falling power, complex, (M, H, W), in sqrt(photons).
        positions_px: Patch centres ``(y, x)`` as used, float64, (N, 2).
        free_index: Scan points that were kept out to judge, int64.
        history: One entry an epoch; the entry before the first epoch describes the start.
        positions_kept: Whether refined positions predicted the unseen patterns better.
        outcome: What ``obj`` is: "refined", the "other" picture, or the "mean" of both.
        r_free: Of that, before the unseen patterns were fitted too.
    """

    obj: Tensor
    probe: Tensor
    positions_px: Tensor
    free_index: Tensor
    history: tuple[RefinementEpoch, ...]
    positions_kept: bool
    outcome: Outcome
    r_free: float


def refine(
    counts: Tensor,
    positions_px: Tensor,
    probe: Tensor,
    obj: Tensor,
    *,
    origin_yx: tuple[float, float],
    mask: Tensor | None = None,
    epochs: int | Literal["auto"] = "auto",
    max_epochs: int = 40,
    probe_modes: int | None = None,
    update_probe: bool = False,
    update_positions: bool = False,
    smoothness: float = 120.0,
    free_fraction: float = 0.04,
    free_index: Tensor | None = None,
    other: Tensor | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> RefinementResult:
    r"""The object, and optionally probe and positions, that explain the counts best.

    Minimises, by accelerated preconditioned gradient steps on batches of patterns that overlap as
    little as the scan allows::

        sum_n D(counts[n], I[n]) + smoothness * chi2 * sum_edges sqrt(1 + |dO|^2 / EDGE^2)
        I[n, q] = sum_m | F(probe[m] * patch[n])[q] |^2

    D is the Poisson deviance for sparse counts and the squared difference of amplitudes
    otherwise. The step is preconditioned by the illumination as in rPIE [1]_, goes farther in slow
    phases (`ptycho_torch.physics.slow_phase_gain`), and has Nesterov's momentum over batches; modes
    add incoherently [3]_. The second term, an edge-preserving prior in units of photons, fades by
    itself where there is light; chi2 is the misfit of the unseen patterns in units of counting noise.

    With ``epochs="auto"`` the state that predicts the unseen patterns best is kept, and whenever
    that stops improving the step falls, unless their R is that of a right picture. With another
    picture of the object, as a network makes one, the answer is the mean of that and what was
    refined, whose noise is in part independent, unless it predicts the unseen patterns surely worse
    than one of the two, by two standard errors of the difference, or by a tenth.
    At the end the unseen patterns are fitted too, in two passes with small steps.

    Args:
        counts: Photons, real, (N, H, W), zero frequency at ``[H // 2, W // 2]``.
        positions_px: Patch centres ``(y, x)`` in object pixels, (N, 2).
        probe: Complex, (M, H, W), in sqrt(photons).
        obj: Where to start, complex, (Y, X); ones if nothing is known.
        origin_yx: Position of the centre of ``obj[0, 0]`` in the frame of ``positions_px``.
        mask: True for good detector pixels, (H, W).
        epochs: Passes over the patterns, or ``"auto"``.
        max_epochs: Upper bound for ``"auto"``.
        probe_modes: Modes to end with, at least those of ``probe``; more need ``update_probe``.
        update_probe: Refine the probe.
        update_positions: Refine positions after everything else; kept only if R-free falls.
        smoothness: Strength of the prior, photons per object pixel; less where a scan of little
            light would be smoothed too much, see `descent.SMOOTHED_LIGHT`. 0 switches it off.
        free_fraction: Share of the patterns to keep out, within (0, 0.5].
        free_index: Scan points to keep out instead, int64.
        other: Another picture, on the canvas of ``obj``, that knows nothing of the patterns of ``free_index``.
            Not one whose errors may be more than noise, since the unseen patterns are few and notice little.
        seed: Chooses the patterns to keep out and the order of the others. Equal seeds give equal bits.
        progress: Called with the epoch's number from 0 and its entry.

    Returns:
        Object on the canvas of ``obj``. With ``update_probe`` the probe keeps its photons, and
        the object takes the scale.

    Raises:
        ValueError: If a shape disagrees, a patch reaches beyond the object, more modes are asked
            for than may be made, or it is not known which patterns the other picture has not seen.

    References:
        .. [1] A. Maiden, D. Johnson and P. Li, "Further improvements to the ptychographical
           iterative engine", Optica 4, 736 (2017), doi:10.1364/OPTICA.4.000736.
        .. [2] M. Odstrcil, A. Menzel and M. Guizar-Sicairos, "Iterative least-squares solver for
           generalized maximum-likelihood ptychography", Opt. Express 26, 3108 (2018),
           doi:10.1364/OE.26.003108. Its sparse batches are what the batches here follow.
        .. [3] P. Thibault and A. Menzel, "Reconstructing state mixtures from diffraction
           measurements", Nature 494, 68 (2013), doi:10.1038/nature11806.
    """
    modes = probe.shape[0] if probe_modes is None else probe_modes
    check(counts, positions_px, probe, obj, mask, modes, update_probe, free_fraction)
    if other is not None and other.shape != obj.shape:
        raise ValueError(f"other is {tuple(other.shape)} but obj is {tuple(obj.shape)}; both must be on one canvas")
    if other is not None and free_index is None:
        raise ValueError("free_index must name the patterns that the other picture has not seen")
    origin = torch.as_tensor(origin_yx, dtype=torch.float64)
    patterns = prepare(counts, positions_px.double() - origin, mask, obj.shape)
    free = draw_free(len(counts), free_fraction, seed) if free_index is None else free_index
    everything = torch.arange(len(counts))
    work = everything[~torch.isin(everything, free)]
    run = Descent(patterns, work, free, positions_px.double() - origin, update_probe, smoothness, seed, progress)
    state = State(obj.to(torch.complex64), add_modes(probe.to(torch.complex64), modes)).copy()
    rival = None if other is None else State(other.to(torch.complex64), state.probe.clone())

    run.descend(state, epochs, max_epochs)
    centres = run.centres
    if update_positions:
        run.refine_positions(state, (int(obj.shape[0]), int(obj.shape[1])))
    best = min((entry for entry in run.history if entry.kept), key=lambda entry: entry.free_score)
    outcome, r_free = run.choose(state, rival) if rival else ("refined", best.r_free)
    if rival and outcome == "other":
        state = rival
    else:
        run.include_free(state)
    if rival and outcome == "mean":
        state.obj = run.mean_with(state, rival)
    if update_probe:
        keep_photons(state, probe)
    return RefinementResult(
        obj=state.obj,
        probe=state.probe,
        positions_px=run.centres + origin,
        free_index=free,
        history=tuple(run.history),
        positions_kept=run.centres is not centres,
        outcome=outcome,
        r_free=r_free,
    )


def mode_gain(
    counts: Tensor,
    positions_px: Tensor,
    probe: Tensor,
    obj: Tensor,
    *,
    origin_yx: tuple[float, float],
    mask: Tensor | None = None,
    epochs: int = 8,
    seed: int = 0,
) -> float:
    """By what part R-free falls when the beam may have one more mode; a coherent beam gives about 0.

    Both cases are refined from the same start for a few epochs with probe update; fewer than 8
    would reward the faster convergence of two modes from a poor start. Where one case is right
    without one more, there is nothing to gain. Arguments as in `refine`.
    """

    def r_free(modes: int) -> float:
        return refine(
            counts, positions_px, probe, obj, origin_yx=origin_yx, mask=mask, epochs=epochs,
            probe_modes=modes, update_probe=True, seed=seed,
        ).history[-1].r_free  # fmt: skip

    now = r_free(len(probe))
    return 0.0 if now < CONVERGED else 1.0 - r_free(len(probe) + 1) / now


def check(
    counts: Tensor,
    positions_px: Tensor,
    probe: Tensor,
    obj: Tensor,
    mask: Tensor | None,
    modes: int,
    update_probe: bool,
    free_fraction: float,
) -> None:
    """Refuse what cannot be refined."""
    if counts.ndim != 3 or positions_px.shape != (len(counts), 2):
        raise ValueError(
            f"counts must be (N, H, W) and positions (N, 2), got {tuple(counts.shape)} and {tuple(positions_px.shape)}"
        )
    if probe.ndim != 3 or probe.shape[-2:] != counts.shape[-2:]:
        raise ValueError(f"probe is {tuple(probe.shape)} but patterns are {tuple(counts.shape[-2:])}; it must be (M, H, W)")
    if mask is not None and mask.shape != counts.shape[-2:]:
        raise ValueError(f"mask is {tuple(mask.shape)} but patterns are {tuple(counts.shape[-2:])}")
    if obj.ndim != 2:
        raise ValueError(f"obj must be (Y, X), got {tuple(obj.shape)}")
    if modes < len(probe) or (modes > len(probe) and not update_probe):
        raise ValueError(f"{modes} modes asked for, probe has {len(probe)}; fewer cannot be made, and more need update_probe")
    if not 0 < free_fraction <= 0.5:
        raise ValueError(f"free_fraction must lie within (0, 0.5], got {free_fraction}")

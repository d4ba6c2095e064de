"""A scan and a first reconstruction in, a better reconstruction out."""

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress as ProgressBar
from rich.progress import TextColumn
from torch import Tensor

from ptycho_torch.data.scan import Reconstruction, Scan
from ptycho_torch.distributed.communicator import SingleProcess
from ptycho_torch.errors import InputError
from ptycho_torch.physics.probe_modes import add_modes
from ptycho_torch.refinement.loop import (
    TUNING,
    Outcome,
    Progress,
    RefinementEpoch,
    RefinementLoop,
    draw_held_out,
)
from ptycho_torch.refinement.prepared_patterns import prepare
from ptycho_torch.refinement.refine_options import RefineOptions
from ptycho_torch.refinement.step import State, keep_photons

logger = logging.getLogger(__name__)

# Fall of R-free by one more mode; coherent simulations gave below 0, a measured beam 0.21.
ENOUGH_GAIN = 0.05
PARTLY_COHERENT_MODES = 3  # modes of a probe that needs more than one
GAIN_EPOCHS = 8  # of a trial with one more mode; fewer reward the faster convergence of two modes
OUTCOMES = {
    "refined": "",
    "mean": "; the mean with the network's object predicts them as well, and is less noisy",
    "network": "; it predicts them no better than the network's object, which stays",
}


@dataclass(frozen=True)
class RefinementResult:
    """A refined reconstruction, and how it was reached.

    Attributes:
        reconstruction: Object on the canvas of the start, probe as orthogonal modes of falling
            power, positions as used.
        held_out: Indices of the scan points that were held out, int64.
        history: One entry an epoch; the entry before the first epoch describes the start.
        outcome: What the object is: "refined", the "network" object, or the "mean" of both.
        r_free: R-factor of the held-out patterns, before they were fitted too.
    """

    reconstruction: Reconstruction
    held_out: NDArray[np.int64]
    history: tuple[RefinementEpoch, ...]
    outcome: Outcome
    r_free: float


def refine(
    scan: Scan,
    start: Reconstruction,
    options: RefineOptions,
    *,
    held_out: NDArray[np.int64] | None = None,
    network_object: NDArray[np.complex64] | None = None,
    progress: Progress | None = None,
    comm: SingleProcess | None = None,
) -> RefinementResult:
    r"""The object, and optionally the probe, that explain the counts best.

    Minimises, by accelerated preconditioned gradient steps on batches of patterns that overlap as
    little as the scan allows::

        sum_n L(counts[n], I[n]) + smoothness * chi2 * sum_edges sqrt(1 + |dO|^2 / edge^2)
        I[n] = flux[n] * sum_m | D(probe[n, m] * patch[n]) |^2 + background

    with what the scan says of flux, background, probe and positions (found, where it is not known,
    by `measurement.refine_measurement`), and the propagator D. L is the Poisson deviance for
    sparse counts and the squared difference of amplitudes otherwise. The step is preconditioned by
    the illumination as in rPIE [1]_, is longer for phases of low spatial frequency
    (`low_frequency.low_frequency_gain`), and has Nesterov's momentum over batches [2]_; modes add
    incoherently [3]_. The second term, an edge-preserving prior in units of photons, loses weight
    where there is light; chi2 is the misfit of the held-out patterns in units of counting noise.

    When it stops is described in `ptycho_torch.refinement.loop`. With a ``network_object`` the
    answer is the mean of that and the refined object, whose noise is in part independent, unless it
    predicts the held-out patterns worse than one of the two.

    Args:
        scan: Patterns, positions, probe, and what else is known.
        start: First object, on a canvas that holds all patches; its probe is not used.
        options: What is refined.
        held_out: Indices of the scan points to hold out, instead of a random choice.
        network_object: Another object, on the canvas of ``start``, that was made without the
            patterns of ``held_out``, complex, (Y, X). Its errors must be noise: the few held-out
            patterns notice little else.
        progress: Called with the epoch's number from 0, its entry, and the object, complex, (Y, X).
        comm: Processes that share the patterns and each get the result; by default this one alone.

    Returns:
        The result. With ``update_probe`` the probe keeps its photons, and the object takes the
        scale.

    Raises:
        InputError: If there is one pattern alone.
        ValueError: If a shape disagrees, a patch reaches beyond the object, more modes are asked
            for than may be made, or ``held_out`` is missing beside ``network_object``.

    References:
        .. [1] A. Maiden, D. Johnson and P. Li, "Further improvements to the ptychographical
           iterative engine", Optica 4, 736 (2017), doi:10.1364/OPTICA.4.000736.
        .. [2] M. Odstrcil, A. Menzel and M. Guizar-Sicairos, "Iterative least-squares solver for
           generalized maximum-likelihood ptychography", Opt. Express 26, 3108 (2018),
           doi:10.1364/OE.26.003108. Source of the sparse batches.
        .. [3] P. Thibault and A. Menzel, "Reconstructing state mixtures from diffraction
           measurements", Nature 494, 68 (2013), doi:10.1038/nature11806.
    """
    if len(scan) < 2:
        raise InputError(f"{scan.source}: one pattern cannot be refined: another must be held out")
    probe = torch.from_numpy(scan.need_probe())
    obj = torch.from_numpy(start.object)
    modes = len(probe) if options.probe_modes is None else options.probe_modes
    _check(probe, obj, modes, options)
    if network_object is not None and network_object.shape != start.object.shape:
        raise ValueError(
            f"network_object is {network_object.shape} but the start is {start.object.shape}; "
            "both must be on one canvas"
        )
    if network_object is not None and held_out is None:
        raise ValueError("held_out must name the patterns that the network object was made without")
    # 1. patterns on the canvas, some of them held out
    origin = torch.as_tensor(start.origin_yx, dtype=torch.float64)
    canvas_shape = (int(obj.shape[0]), int(obj.shape[1]))
    patterns = prepare(scan, origin, canvas_shape, options.device, comm)
    if held_out is None:
        free = draw_held_out(len(scan), options.held_out_fraction, options.seed)
    else:
        free = torch.from_numpy(held_out)
    everything = torch.arange(len(scan))
    work = everything[~torch.isin(everything, free)]
    # 2. epochs
    loop = RefinementLoop(patterns, work, free, options, progress)
    state = first_state(scan, obj, modes, options.device)
    given = state.probe.clone(), state.components.clone()
    loop.run(state)
    network = None
    if network_object is not None:  # made here: its momentum would take memory in the epochs
        network = State(torch.from_numpy(network_object).to(state.obj), *given)
    # 3. the answer
    outcome, r_free = _finish(loop, state, network)
    if options.update_probe:
        keep_photons(state, probe)
    reconstruction = replace(
        start,
        object=state.obj.numpy(force=True),
        probe=state.probe.numpy(force=True),
        positions_px=scan.positions_px,
        scan_index=scan.scan_index,
        flux=scan.flux,
        background=scan.background,
        probe_components=state.components.numpy(force=True) if len(state.components) else None,
        probe_weights=scan.probe_weights,
    )
    return RefinementResult(
        reconstruction=reconstruction,
        held_out=free.numpy(),
        history=tuple(loop.history),
        outcome=outcome,
        r_free=r_free,
    )


def _finish(loop: RefinementLoop, state: State, network: State | None) -> tuple[Outcome, float]:
    """Choose the answer, fit the held-out patterns too, and leave the answer in ``state``."""
    if network is None:
        best = min(
            (entry for entry in loop.history if entry.kept), key=lambda entry: entry.free_score
        )
        loop.refit_with_held_out(state)
        return "refined", best.r_free
    outcome, r_free = loop.choose(state, network)
    if outcome == "network":
        state.restore(network)
        return outcome, r_free
    loop.refit_with_held_out(state)
    if outcome == "mean":
        state.obj = loop.mean_with(state, network)
    return outcome, r_free


def mode_gain(
    scan: Scan,
    start: Reconstruction,
    options: RefineOptions,
    comm: SingleProcess | None = None,
) -> float:
    """Relative fall of R-free when the beam may have one more mode; about 0 for a coherent beam.

    Both cases are refined from the same start for a few epochs with the probe. Where one case is
    right without one more, there is nothing to gain.
    """
    modes = len(scan.need_probe())

    def r_free(probe_modes: int) -> float:
        trial = RefineOptions(
            epochs=GAIN_EPOCHS,
            probe_modes=probe_modes,
            update_probe=True,
            seed=options.seed,
            device=options.device,
        )
        return refine(scan, start, trial, comm=comm).history[-1].r_free

    now = r_free(modes)
    return 0.0 if now < TUNING.converged else 1.0 - r_free(modes + 1) / now


def modes_needed(gain: float, modes: int) -> int:
    """Number of modes that a probe needs; logs it where it is more than before.

    Args:
        gain: From `mode_gain`.
        modes: Modes so far.
    """
    if gain < ENOUGH_GAIN:
        return modes
    more = max(modes + 1, PARTLY_COHERENT_MODES)
    text = "%d modes are too few for the beam: one more lowers R-free by %.0f %%; refining %d"
    logger.info(text, modes, 100 * gain, more)
    return more


def refine_reconstruction(
    scan: Scan,
    start: Reconstruction,
    options: RefineOptions,
    *,
    held_out: NDArray[np.int64],
    network_object: NDArray[np.complex64] | None,
    show: bool,
    comm: SingleProcess | None = None,
    on_epoch: Progress | None = None,
) -> tuple[Reconstruction, dict[str, Any]]:
    """Refine with a progress bar, with as many probe modes as needed, and log the result.

    Args:
        scan: All patterns.
        start: On a canvas that holds all patches.
        options: What is refined; modes that are not stated are chosen by `mode_gain`.
        held_out: Indices of the held-out scan points.
        network_object: See `refine`.
        show: Whether to draw a progress bar.
        comm: As of `refine`.
        on_epoch: As ``progress`` of `refine`.

    Returns:
        The reconstruction, and its history for `metrics.json`.
    """
    gain = None
    if options.update_probe and options.probe_modes is None:
        gain = mode_gain(scan, start, options, comm)
        options = replace(options, probe_modes=modes_needed(gain, len(scan.need_probe())))
    with ProgressBar(
        *ProgressBar.get_default_columns(), TextColumn("{task.fields[state]}"), disable=not show
    ) as bar:
        total = None if options.epochs == "auto" else options.epochs
        task = bar.add_task("refining", total=total, state="")

        def progress(epoch: int, entry: RefinementEpoch, obj: Tensor) -> None:
            bar.update(task, completed=epoch, state=f"R-free {entry.r_free:.4g}")
            logger.debug("epoch %d: %s", epoch, entry)
            if on_epoch is not None:
                on_epoch(epoch, entry, obj)

        result = refine(
            scan,
            start,
            options,
            held_out=held_out,
            network_object=network_object,
            progress=progress,
            comm=comm,
        )
    _log(result)
    return result.reconstruction, _history(result, scan, gain)


def first_state(scan: Scan, obj: Tensor, modes: int, device: torch.device) -> State:
    """A state with an object, and the probe of a scan with as many modes as wanted."""
    probe = torch.from_numpy(scan.need_probe()).to(device)
    components = probe.new_zeros(0, modes, *probe.shape[1:])
    if scan.probe_components is not None:
        components = torch.from_numpy(scan.probe_components).to(probe)
        more = (0, 0, 0, 0, 0, modes - len(probe))
        components = torch.nn.functional.pad(components, more)
    return State(obj.to(probe), add_modes(probe, modes), components).copy()


def _log(result: RefinementResult) -> None:
    """Log what the refinement reached."""
    first, epochs = result.history[0], result.history[1:]
    logger.info(
        "refined in %d epochs: R-free %.4g -> %.4g on %d held-out patterns, probe modes %d%s",
        len(epochs), first.r_free, result.r_free, len(result.held_out),
        len(result.reconstruction.probe), OUTCOMES[result.outcome],
    )  # fmt: skip


def _history(result: RefinementResult, scan: Scan, gain: float | None) -> dict[str, Any]:
    """What `metrics.json` holds about a refinement."""
    first, epochs = result.history[0], result.history[1:]
    return {
        "outcome": result.outcome,
        "r_work_start": first.r_work,
        "r_free_start": first.r_free,
        "r_free": result.r_free,
        "held_out_scan_index": scan.scan_index[result.held_out].tolist(),
        "probe_modes": len(result.reconstruction.probe),
        "gain_of_one_more_mode": gain,
        "epochs": [vars(entry) for entry in epochs],
    }


def _check(probe: Tensor, obj: Tensor, modes: int, options: RefineOptions) -> None:
    """Raise `ValueError` for what cannot be refined."""
    if obj.ndim != 2:
        raise ValueError(f"the object must be (Y, X), got {tuple(obj.shape)}")
    if modes < len(probe) or (modes > len(probe) and not options.update_probe):
        raise ValueError(
            f"{modes} modes asked for, the probe has {len(probe)}; fewer cannot be made, "
            "and more need update_probe"
        )

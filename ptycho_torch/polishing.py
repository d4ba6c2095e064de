"""The refinement of a reconstruction: from a `Reconstruction` and a `Scan` to a better one."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from rich.progress import Progress, TextColumn

from ptycho_torch.illumination import modes_needed
from ptycho_torch.refinement import RefinementEpoch, RefinementResult, mode_gain, refine
from ptycho_torch.scan import Reconstruction, Scan

logger = logging.getLogger(__name__)

OUTCOMES = {
    "refined": "",
    "mean": "; the mean with the network's picture predicts them as well, and is less noisy",
    "other": "; it predicts them no better than the network's picture, which stays",
}


def polish(
    start: Reconstruction,
    scan: Scan,
    *,
    passes: str,
    refine_probe: bool,
    refine_positions: bool,
    probe_modes: int | None,
    free: np.ndarray,
    other: Reconstruction | None,
    seed: int,
    show: bool,
) -> tuple[Reconstruction, dict[str, Any]]:
    """The reconstruction refined, and what is to be said about it.

    Args:
        start: On a canvas that holds all patches.
        scan: All patterns.
        passes: A number, or "auto".
        refine_probe: Refine the probe as well.
        refine_positions: Refine the positions as well.
        probe_modes: Modes of the refined probe; by default those of the scan, or more if needed.
        free: Indices of the scan points that judge.
        other: Made without the patterns of ``free``, on the same canvas; the answer may be this, or the mean with it.
        seed: Of the order of the patterns.
        show: Whether to draw a progress bar.

    Returns:
        The reconstruction, and its history for `metrics.json`, with the ``outcome`` of `refine`.
    """
    counts = torch.from_numpy(np.asarray(scan.counts[:], dtype=np.float32))
    positions, probe = torch.from_numpy(scan.positions_px), torch.from_numpy(scan.probe)
    image, mask = torch.from_numpy(start.object), torch.from_numpy(scan.mask)
    origin = (float(start.origin_yx[0]), float(start.origin_yx[1]))
    gain = None
    if refine_probe and probe_modes is None:
        gain = mode_gain(counts, positions, probe, image, origin_yx=origin, mask=mask, seed=seed)
        probe_modes = modes_needed(gain, len(probe))
    with Progress(*Progress.get_default_columns(), TextColumn("{task.fields[state]}"), disable=not show) as bar:
        task = bar.add_task("refining", total=None if passes == "auto" else int(passes), state="")

        def tell(epoch: int, entry: RefinementEpoch) -> None:
            bar.update(task, completed=epoch, state=f"R-free {entry.r_free:.4g}")
            logger.debug("pass %d: %s", epoch, entry)

        result = refine(
            counts,
            positions,
            probe,
            image,
            origin_yx=origin,
            mask=mask,
            epochs="auto" if passes == "auto" else int(passes),
            probe_modes=probe_modes,
            update_probe=refine_probe,
            update_positions=refine_positions,
            free_index=torch.from_numpy(free),
            other=None if other is None else torch.from_numpy(other.object),
            seed=seed,
            progress=tell,
        )
    refined = replace(
        start,
        object=result.obj.numpy(),
        probe=result.probe.numpy(),
        positions_px=result.positions_px.numpy(),
        scan_index=scan.scan_index,
    )
    return refined, _history(result, scan, gain)


def _history(result: RefinementResult, scan: Scan, gain: float | None) -> dict[str, Any]:
    """What `metrics.json` says about a refinement."""
    first, passes = result.history[0], result.history[1:]
    logger.info(
        "refined in %d passes: R-free %.4g -> %.4g on %d patterns kept out, probe modes %d%s%s",
        len(passes), first.r_free, result.r_free, len(result.free_index), len(result.probe),
        ", positions moved" if result.positions_kept else "",
        OUTCOMES[result.outcome],
    )  # fmt: skip
    return {
        "outcome": result.outcome,
        "r_work_start": first.r_work,
        "r_free_start": first.r_free,
        "r_free": result.r_free,
        "free_scan_index": scan.scan_index[result.free_index.numpy()].tolist(),
        "probe_modes": len(result.probe),
        "gain_of_one_more_mode": gain,
        "positions_moved": result.positions_kept,
        "passes": [vars(entry) for entry in passes],
    }

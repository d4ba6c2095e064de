"""The LSQ-ML of Pty-Chi with its own corrections of a measurement; needs the package ptychi."""

import sys
import time
from dataclasses import replace

import numpy as np
from against_ptychi import empty_object, stand_in_for_torchvision

from ptycho_torch.data.scan import Reconstruction, Scan

LSQML_EPOCHS = 120
BATCH = 40  # patterns; a tenth of a scan of 400
POSITIONS_FROM = 5  # epoch; before that the object is too rough to move positions by
SEED = 0


def import_ptychi() -> None:
    """Import what a reconstruction needs of Pty-Chi; also to see how long that takes."""
    if "torchvision" not in sys.modules:
        stand_in_for_torchvision()
    import ptychi.api.task  # noqa: F401


def reconstruct_by_lsqml(scan: Scan, *, modes: int, opr_modes: int) -> tuple[Reconstruction, float]:
    """The reconstruction with all corrections that LSQ-ML offers, and its CPU seconds.

    It starts from an empty object and from the probe of the scan, and refines object, probe,
    positions, the intensity of each pattern, and a probe that changes over the scan.

    Args:
        scan: Patterns, positions and probe.
        modes: Incoherent modes of the probe.
        opr_modes: Components of a probe that changes over the scan, beside the mean; at least 1,
            since without one the intensity of a pattern has no effect.

    Returns:
        The reconstruction in the frame of the scan, with the flux, and seconds without imports.
    """
    import torch

    import_ptychi()
    from ptychi import api, utils
    from ptychi.api.task import PtychographyTask

    torch.manual_seed(SEED)
    blank = empty_object(scan)
    middle = (np.array(blank.object.shape) - 1) / 2
    offset = 0.5 + blank.origin_yx + middle  # of its positions: middle pixels, from the middle
    options = api.LSQMLOptions()
    options.reconstructor_options.num_epochs = LSQML_EPOCHS
    options.reconstructor_options.batch_size = BATCH
    options.reconstructor_options.default_device = api.Devices.CPU
    options.reconstructor_options.random_seed = SEED
    options.probe_position_options.optimizable = True
    options.probe_position_options.optimization_plan.start = POSITIONS_FROM
    options.opr_mode_weight_options.optimizable = True
    options.opr_mode_weight_options.optimize_intensity_variation = True
    probe = torch.as_tensor(scan.need_probe()[:1]).repeat(modes, 1, 1)[None]
    if modes > 1:
        probe = utils.orthogonalize_initial_probe(probe)
    probe = utils.add_additional_opr_probe_modes_to_probe(probe, opr_modes)
    weights = utils.generate_initial_opr_mode_weights(len(scan), len(probe), probe=probe)
    task = PtychographyTask(
        options,
        diffraction_data=np.asarray(scan.counts[:], dtype=np.float32),
        object_data=blank.object[None],
        probe_data=probe,
        opr_mode_weights_data=weights,
        probe_position_x_px=scan.positions_px[:, 1] - offset[1],
        probe_position_y_px=scan.positions_px[:, 0] - offset[0],
        valid_pixel_mask=scan.mask,
    )
    started = time.process_time()
    task.run()
    seconds = time.process_time() - started
    image, found, positions, weights = (
        task.get_data_to_cpu(name, as_numpy=True)
        for name in ("object", "probe", "probe_positions", "opr_mode_weights")
    )
    beams = np.tensordot(weights, found[:, 0], axes=1)  # first incoherent mode, (N, H, W)
    others = float(np.sum(np.abs(found[0, 1:]) ** 2))
    power = np.sum(np.abs(beams) ** 2, axis=(1, 2)) + others
    result = replace(
        blank,
        object=image[0].astype(np.complex64),
        probe=found[0].astype(np.complex64),
        positions_px=positions.astype(np.float64) + offset,
        flux=power / power.mean(),
    )
    return result, seconds

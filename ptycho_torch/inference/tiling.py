"""Reconstruct a large scan with a network, neighbourhood by neighbourhood, and stitch it."""

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from ptycho_torch.data.grouping import (
    Neighbourhood,
    choose_group_size,
    divide,
    join_groups,
    make_group,
)
from ptycho_torch.data.scan import Group, Reconstruction, Scan
from ptycho_torch.distributed.communicator import SingleProcess
from ptycho_torch.distributed.device import trim_malloc
from ptycho_torch.errors import InputError
from ptycho_torch.generators import Generator
from ptycho_torch.inference.stitching import Mosaic
from ptycho_torch.physics.forward import illumination_nearest_pixel

# Patterns of a neighbourhood per pattern of its region; the others surround it.
TOTAL_PER_CORE = 1.5


def tile_sizes(generator: Generator, scan: Scan, gridsize: int | None) -> tuple[int, int]:
    """Number of patterns in a region, and in the neighbourhood that the network sees with it.

    Raises:
        InputError: If the scan has too few, or the generator was built for another group size.
    """
    if generator.variable_group_size:
        n_core = gridsize**2 if gridsize else generator.inference_group_size
        n_core = min(n_core, len(scan))
        return n_core, min(round(TOTAL_PER_CORE * n_core), len(scan))
    group_size = generator.settings["group_size"]
    if gridsize is not None and gridsize**2 != group_size:
        raise InputError(
            f"--gridsize {gridsize}: the generator was trained on groups of {group_size} patterns; "
            "leave it out"
        )
    choose_group_size([scan], None, round(group_size**0.5), variable_group_size=False)
    return group_size, group_size


def reconstruct_scan(
    generator: Generator,
    scan: Scan,
    *,
    sizes: tuple[int, int],
    batch_size: int,
    held_out: NDArray[np.int64] | None = None,
    comm: SingleProcess | None = None,
    show: bool = False,
) -> Reconstruction:
    """The object of a scan, stitched from the canvases of its neighbourhoods.

    Processes take a batch each in turn, and rank zero adds the canvases in the order of a single
    process: the image has the same bits, whatever the number of processes.

    Args:
        generator: On the device where it is to run.
        scan: Patterns, positions, probe.
        sizes: Patterns in a region and in its neighbourhood, from `tile_sizes`.
        batch_size: Regions at once.
        held_out: Indices of scan points not to use.
        comm: Processes that share the work and each get the result; by default this one alone.
        show: Whether to draw a progress bar.

    Returns:
        The reconstruction, in the frame of the scan's positions, on a canvas that holds all
        patches.
    """
    origin, shape = scan.canvas()
    mosaic = Mosaic(origin, shape)
    if held_out is not None and len(held_out):
        scan = scan.subset(np.setdiff1d(np.arange(len(scan)), held_out))
    regions = divide(scan.positions_px, n_core=sizes[0], n_total=sizes[1])
    batches = [regions[i : i + batch_size] for i in range(0, len(regions), batch_size)]
    comm = comm or SingleProcess(next(generator.parameters()).device)
    turns = range(0, len(batches), comm.world_size)
    for turn in track(turns, description="reconstructing", disable=not show):
        in_turn = batches[turn : turn + comm.world_size]
        own = in_turn[comm.rank : comm.rank + 1]  # may be empty in the last turn
        predicted = [placed for batch in own for placed in predict_canvases(generator, scan, batch)]
        for part in comm.gather(predicted):
            for placed in part:
                mosaic.add(*placed)
        trim_malloc()  # after each batch it takes some hundredths of the time
    image, light = comm.run_on_rank_zero(mosaic.finish)
    return Reconstruction(
        object=image.numpy(),
        coverage=light.div_(light.max()).numpy(),
        origin_yx=origin,
        probe=scan.need_probe(),
        positions_px=scan.positions_px,
        scan_index=scan.scan_index,
        pixel_size_m=scan.pixel_size_m,
        instrument=scan.instrument,
        flux=scan.flux,
        background=scan.background,
        probe_components=scan.probe_components,
        probe_weights=scan.probe_weights,
        is_far_field=scan.is_far_field,
    )


@torch.inference_mode()
def predict_canvases(
    generator: Generator, scan: Scan, regions: list[Neighbourhood]
) -> list[tuple[Tensor, Tensor, NDArray[np.int64]]]:
    """Canvas, light of the region's own patterns on it, and origin, of each region of a batch."""
    device = next(generator.parameters()).device
    batch = join_groups([make_group(scan, region.points) for region in regions])
    group = Group._make(None if part is None else part.to(device) for part in batch)
    shape = group.canvas_shape()
    images = generator(group, shape)
    own = zip(regions, group.corners_px.split(1), group.mean_probe().split(1), strict=True)
    light = [
        illumination_nearest_pixel(corners[:, : region.n_core], probe, shape)[0].cpu()
        for region, corners, probe in own
    ]
    return list(zip(images.cpu(), light, group.origin_px.cpu().numpy(), strict=True))

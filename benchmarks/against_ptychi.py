"""Time of the refinement against Pty-Chi: `python benchmarks/against_ptychi.py --scan FILE`.

Needs the package ptychi. Its LSQ-ML [1]_ runs 20 epochs from an empty object and from the probe of
the file, which it updates. Then the refinement runs as many epochs as it needs to explain the
patterns as well. Both use the same scan, the same number of threads and one probe mode, and run in
turns. The R-factor of each program is computed with its own forward model, since one shifts the
patch by a fraction of a pixel and the other the probe. The results are in
`benchmarks/against_ptychi.md`.

References:
    .. [1] M. Odstrcil, A. Menzel and M. Guizar-Sicairos, "Iterative least-squares solver for
       generalized maximum-likelihood ptychography", Opt. Express 26, 3108 (2018),
       doi:10.1364/OE.26.003108.
"""

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from tabulate import tabulate

from ptycho_torch.data.scan import Reconstruction, Scan
from ptycho_torch.evaluation.metrics.residuals import pattern_residuals
from ptycho_torch.io.readers import read_scan
from ptycho_torch.refinement import RefineOptions, draw_held_out, refine_reconstruction

EPOCHS = 20
BATCH = 46  # patterns; a tenth of the measured scan in the documents
HELD_OUT_FRACTION = 0.04
MAX_EPOCHS = 20  # of the refinement
TURNS = 3


def stand_in_for_torchvision() -> None:
    """Let ptychi be imported where torchvision is not installed.

    It imports one class from it, for movies of multislice objects.
    """
    if importlib.util.find_spec("torchvision") is None:
        whole, transforms = ModuleType("torchvision"), ModuleType("torchvision.transforms")
        vars(transforms)["GaussianBlur"] = type("GaussianBlur", (), {})
        vars(whole)["transforms"] = transforms
        sys.modules |= {"torchvision": whole, "torchvision.transforms": transforms}


def empty_object(scan: Scan) -> Reconstruction:
    """Ones, on a canvas that holds all patches."""
    corners = scan.corners_px()
    origin = np.floor(corners.min(axis=0)) - 1
    shape = np.ceil(corners.max(axis=0) - origin).astype(int) + scan.pattern_shape + 2
    rows, columns = shape.tolist()
    return Reconstruction(
        object=np.ones((rows, columns), dtype=np.complex64),
        coverage=np.ones((rows, columns), dtype=np.float32),
        origin_yx=origin,
        probe=scan.need_probe(),
        positions_px=scan.positions_px,
        scan_index=scan.scan_index,
        pixel_size_m=scan.pixel_size_m,
        instrument=scan.instrument,
    )


def by_ptychi(scan: Scan, blank: Reconstruction) -> tuple[float, float]:
    """Seconds of the epochs of Pty-Chi, and the R-factor of its reconstruction."""
    from ptychi import api
    from ptychi.api.task import PtychographyTask
    from ptychi.image_proc import extract_patches_fourier_shift

    middle = (np.array(blank.object.shape) - 1) / 2
    # Pty-Chi: the middle pixels of the patches, from the middle of the object
    positions = scan.positions_px - 0.5 - blank.origin_yx - middle
    counts = np.asarray(scan.counts[:], dtype=np.float32)
    options = api.LSQMLOptions()
    options.reconstructor_options.num_epochs = EPOCHS
    options.reconstructor_options.batch_size = BATCH
    options.reconstructor_options.default_device = api.Devices.CPU
    options.probe_options.optimizable = True
    task = PtychographyTask(
        options,
        diffraction_data=counts,
        object_data=blank.object[None],
        probe_data=scan.need_probe()[None],
        probe_position_x_px=positions[:, 1],
        probe_position_y_px=positions[:, 0],
        valid_pixel_mask=scan.mask,
    )
    started = time.perf_counter()
    task.run()
    seconds = time.perf_counter() - started
    image, probe = (
        torch.as_tensor(task.get_data_to_cpu(name, as_numpy=True)) for name in ("object", "probe")
    )
    centres = torch.as_tensor(positions + middle).float()
    patches = extract_patches_fourier_shift(image[0], centres, scan.pattern_shape)
    waves = torch.fft.fftshift(torch.fft.fft2(patches[:, None] * probe[0]), dim=(-2, -1))
    modulus = waves.abs().square().sum(dim=1).sqrt().numpy()
    misfit = (modulus - np.sqrt(counts)) ** 2 * scan.mask
    return seconds, float(misfit.sum() / (counts * scan.mask).sum())


def by_refinement(scan: Scan, blank: Reconstruction, epochs: int) -> tuple[float, float]:
    """Seconds of the epochs of the refinement, and the R-factor of its reconstruction."""
    held_out = draw_held_out(len(scan), HELD_OUT_FRACTION, 0).numpy()
    started = time.perf_counter()
    options = RefineOptions(epochs=epochs, update_probe=True, probe_modes=len(scan.need_probe()))
    result, _ = refine_reconstruction(
        scan, blank, options, held_out=held_out, network_object=None, show=False
    )
    seconds = time.perf_counter() - started
    return seconds, pattern_residuals(result, scan).total_r_factor


def medians(pairs: Iterable[tuple[float, float]]) -> list[float]:
    """Median of the seconds, and median of the R-factors."""
    return [statistics.median(values) for values in zip(*pairs, strict=True)]


def main() -> None:
    """Run both in turns and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scan", type=Path, required=True, help="scan with a probe")
    arguments = parser.parse_args()
    stand_in_for_torchvision()
    if importlib.util.find_spec("ptychi") is None:
        parser.error("ptychi is not installed: pip install ptychi")
    scan = read_scan(arguments.scan)
    blank = empty_object(scan)
    _, target_r = by_ptychi(scan, blank)
    enough = (n for n in range(1, MAX_EPOCHS + 1) if by_refinement(scan, blank, n)[1] <= target_r)
    epochs = next(enough, None)
    if epochs is None:
        raise SystemExit(f"{MAX_EPOCHS} epochs do not reach R = {target_r:.4f}")
    turns = [(by_ptychi(scan, blank), by_refinement(scan, blank, epochs)) for _ in range(TURNS)]
    ratio = statistics.median(own[0] / theirs[0] for theirs, own in turns)
    rows = [
        [f"Pty-Chi, LSQ-ML, {EPOCHS} epochs", *medians(theirs for theirs, _ in turns), 1.0],
        [f"refinement, {epochs} epochs", *medians(own for _, own in turns), ratio],
    ]
    heads = ["", "time [s]", "R", "time relative to Pty-Chi"]
    print(tabulate(rows, heads, tablefmt="github", floatfmt=("", ".2f", ".4f", ".3f")))


if __name__ == "__main__":
    main()

"""Time to the residual that Pty-Chi's LSQ-ML reaches: `python benchmarks/against_ptychi.py --scan FILE`.

Needs the package ptychi. Its LSQ-ML [1]_ takes 20 epochs from an empty object, with the probe of the
file and its update; then the refinement takes as many passes as it needs to explain the patterns
as well. Same scan, same number of threads, one probe mode, each in turn. Each program's picture is
judged with its own forward model, since one shifts the patch by a fraction of a pixel and the other the probe.

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
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from tabulate import tabulate

from ptycho_torch.metrics import pattern_residuals
from ptycho_torch.polishing import polish
from ptycho_torch.readers import read_scan
from ptycho_torch.refinement import draw_free
from ptycho_torch.scan import Reconstruction, Scan

EPOCHS = 20
BATCH = 46  # a tenth of the patterns of the scan that the documents show
FREE_SHARE = 0.04
MOST_PASSES = 20
TURNS = 3


def stand_in_for_torchvision() -> None:
    """Let ptychi be imported where torchvision is not installed; it takes one class from it, for movies of multislice objects."""
    if importlib.util.find_spec("torchvision") is None:
        whole, transforms = ModuleType("torchvision"), ModuleType("torchvision.transforms")
        vars(transforms)["GaussianBlur"] = type("GaussianBlur", (), {})
        vars(whole)["transforms"] = transforms
        sys.modules |= {"torchvision": whole, "torchvision.transforms": transforms}


def empty_object(scan: Scan) -> Reconstruction:
    """Ones, on a canvas that holds all patches."""
    corners = scan.corners_px()
    origin = np.floor(corners.min(axis=0)) - 1
    rows, columns = (np.ceil(corners.max(axis=0) - origin).astype(int) + scan.pattern_shape + 2).tolist()
    return Reconstruction(
        object=np.ones((rows, columns), dtype=np.complex64),
        coverage=np.ones((rows, columns), dtype=np.float32),
        origin_yx=origin,
        probe=scan.probe,
        positions_px=scan.positions_px,
        scan_index=scan.scan_index,
        pixel_size_m=scan.pixel_size_m,
        instrument=scan.instrument,
    )


def by_ptychi(scan: Scan, blank: Reconstruction) -> tuple[float, float]:
    """Seconds of the epochs, and the R-factor of their picture."""
    from ptychi import api
    from ptychi.api.task import PtychographyTask
    from ptychi.image_proc import extract_patches_fourier_shift

    middle = (np.array(blank.object.shape) - 1) / 2
    positions = scan.positions_px - 0.5 - blank.origin_yx - middle  # of the patches' middle pixels, from the object's
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
        probe_data=scan.probe[None],
        probe_position_x_px=positions[:, 1],
        probe_position_y_px=positions[:, 0],
        valid_pixel_mask=scan.mask,
    )
    started = time.perf_counter()
    task.run()
    seconds = time.perf_counter() - started
    image, probe = (torch.as_tensor(task.get_data_to_cpu(name, as_numpy=True)) for name in ("object", "probe"))
    centres = torch.as_tensor(positions + middle).float()
    patches = extract_patches_fourier_shift(image[0], centres, scan.pattern_shape)
    waves = torch.fft.fftshift(torch.fft.fft2(patches[:, None] * probe[0]), dim=(-2, -1))
    modulus = waves.abs().square().sum(dim=1).sqrt().numpy()
    misfit = (modulus - np.sqrt(counts)) ** 2 * scan.mask
    return seconds, float(misfit.sum() / (counts * scan.mask).sum())


def by_refinement(scan: Scan, blank: Reconstruction, passes: int) -> tuple[float, float]:
    """Seconds of the passes, and the R-factor of their picture."""
    free = draw_free(len(scan), FREE_SHARE, 0).numpy()
    started = time.perf_counter()
    result, _ = polish(
        blank,
        scan,
        passes=str(passes),
        refine_probe=True,
        refine_positions=False,
        probe_modes=len(scan.probe),
        free=free,
        other=None,
        seed=0,
        show=False,
    )
    seconds = time.perf_counter() - started
    return seconds, pattern_residuals(result, scan).total_r_factor


def main() -> None:
    """Run both in turns and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scan", type=Path, required=True, help="scan with a probe")
    arguments = parser.parse_args()
    stand_in_for_torchvision()
    if importlib.util.find_spec("ptychi") is None:
        parser.error("ptychi is not installed: pip install ptychi")
    scan = read_scan(arguments.scan)
    blank = empty_object(scan)
    _, wanted = by_ptychi(scan, blank)
    passes = next((n for n in range(1, MOST_PASSES + 1) if by_refinement(scan, blank, n)[1] <= wanted), None)
    if passes is None:
        raise SystemExit(f"{MOST_PASSES} passes do not reach R = {wanted:.4f}")
    turns = [(by_ptychi(scan, blank), by_refinement(scan, blank, passes)) for _ in range(TURNS)]
    ratio = statistics.median(one[0] / other[0] for other, one in turns)
    rows = [
        [f"Pty-Chi, LSQ-ML, {EPOCHS} epochs", *map(statistics.median, zip(*(one for one, _ in turns), strict=True)), 1.0],
        [f"refinement, {passes} passes", *map(statistics.median, zip(*(other for _, other in turns), strict=True)), ratio],
    ]
    print(
        tabulate(
            rows, headers=["", "time [s]", "R", "time, in that of Pty-Chi"], tablefmt="github", floatfmt=("", ".2f", ".4f", ".3f")
        )
    )


if __name__ == "__main__":
    main()

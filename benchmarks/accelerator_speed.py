"""The measurements of `benchmarks/accelerator.py`.

What is measured waits for the device before and after. The first turn of everything warms up and
does not count.
"""

import importlib.util
import math
import platform
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from against_ptychi import empty_object, stand_in_for_torchvision
from large_scan import large_scan
from numpy.typing import NDArray
from speed import untrained_module
from tabulate import tabulate
from torch.utils._python_dispatch import TorchDispatchMode

from ptycho_torch.config import InferenceConfig, TrainingConfig
from ptycho_torch.data.augmentation import split_photons
from ptycho_torch.data.grouping import divide, join_groups, make_group
from ptycho_torch.data.lazy_patterns import blocks
from ptycho_torch.data.scan import Group, Scan
from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.distributed.device import (
    choose_device,
    double_precision_device,
    keep_freed_memory,
    require_determinism,
)
from ptycho_torch.errors import InputError
from ptycho_torch.inference import reconstruct
from ptycho_torch.io.run_dir import RunDir
from ptycho_torch.io.writers import write_scan
from ptycho_torch.refinement import RefineOptions, refine
from ptycho_torch.refinement.prepared_patterns import WAVE_BUDGET
from ptycho_torch.train import train
from ptycho_torch.train.module import NOISE_LOSS

Accelerator = Literal["auto", "cpu", "gpu"]

GROUP = 64  # patterns of a training step
PHOTONS = 1e6
LSQML_BATCH = 128  # patterns
AGREED_PATTERNS = 256  # of the refinement that runs on both devices
AGREED_EPOCHS = 4
# Relative rms differences of objects. An epoch of the refinement multiplies the round-off of single
# precision by about ten; the network runs once, in about a hundred operations.
REFINED_LIMIT, NETWORK_LIMIT = 1e-2, 1e-3


@dataclass(frozen=True, kw_only=True)
class Workload:
    """How much is measured.

    Attributes:
        n_sides: Positions along each side of the network's scan, by pattern size.
        steps: Training steps of a turn.
        turns: Of training and inference, whose median counts.
        refined: Patterns of the refinement.
        refined_size: Their pixels along each side.
        modes: Numbers of probe modes.
        epochs: Of the refinement; the first one warms up.
    """

    n_sides: dict[int, int]
    steps: int
    turns: int
    refined: int
    refined_size: int
    modes: tuple[int, ...]
    epochs: int


FULL = Workload(
    n_sides={64: 64, 128: 32, 256: 16},
    steps=10,
    turns=3,
    refined=10_304,
    refined_size=128,
    modes=(1, 3),
    epochs=4,
)
SMALL = replace(FULL, n_sides={64: 16, 128: 8, 256: 4}, steps=1, turns=1, refined=200)


@dataclass(frozen=True)
class Line:
    """A line of the table.

    Attributes:
        what: Was measured.
        seconds: Of a step, an image or an epoch.
        rate: Per second, with its unit.
        floor_s: Seconds of its Fourier transforms alone.
        lsqml_s: Seconds of the same with Pty-Chi; None where it is not measured.
    """

    what: str
    seconds: float
    rate: str
    floor_s: float
    lsqml_s: float | None = None

    def cells(self) -> list[str]:
        """As printed."""
        theirs = "" if self.lsqml_s is None else f"{self.lsqml_s / self.seconds:.1f}"
        floor = f"{self.seconds / self.floor_s:.1f}"
        return [self.what, f"{self.seconds:.4g}", self.rate, floor, theirs]


HEADS = [
    "what",
    "seconds",
    "a second",
    "times its Fourier transforms",
    "LSQ-ML takes times as long",
]


class TransformCounter(TorchDispatchMode):
    """Counts the Fourier transforms that torch computes in a block, by shape, axes and type."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[tuple[torch.Size, tuple[int, ...], torch.dtype]] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Count the call, and do what it does."""
        if func is torch.ops.aten._fft_c2c.default:
            self.calls[args[0].shape, tuple(args[1]), args[0].dtype] += 1
        return func(*args, **(kwargs or {}))

    def seconds(self, device: torch.device, turns: int) -> float:
        """Of the same transforms alone."""
        total = 0.0
        for (shape, axes, dtype), times in self.calls.items():
            waves = torch.randn(shape, dtype=dtype, device=device)
            total += times * median_s(partial(torch.fft.fftn, waves, dim=axes), device, turns)
        return total


def duration_s(work: Callable[[], object], device: torch.device) -> float:
    """Of some work on a device, in seconds."""
    module = torch.get_device_module(device)
    module.synchronize()
    started = time.perf_counter()
    work()
    module.synchronize()
    return time.perf_counter() - started


def median_s(work: Callable[[], object], device: torch.device, turns: int) -> float:
    """Median duration over some turns after one that warms up, in seconds."""
    return statistics.median([duration_s(work, device) for _ in range(1 + turns)][1:])


def counted(work: Callable[[], object]) -> TransformCounter:
    """The Fourier transforms of some work."""
    with TransformCounter() as counter:
        work()
    return counter


def training(scan: Scan, device: torch.device, load: Workload, *, recorded: bool = True) -> Line:
    """Steps forward, back and of the optimiser, with the copy of a group to the device.

    They are those of `train`, which a GPU records, or launched one by one.
    """
    keep_freed_memory()  # as `fit` does
    module = untrained_module().to(device)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    points = min(GROUP, len(scan))
    central = divide(scan.positions_px, n_core=points, n_total=points)[0]
    on_host = join_groups([make_group(scan, central.points)])
    rng = torch.Generator(device).manual_seed(0)

    def step() -> None:
        group = Group._make(None if part is None else part.to(device) for part in on_host)
        loss = module.step_loss if recorded else module.group_loss
        losses = loss(*split_photons(group, 0.5, rng))
        optimizer.zero_grad()
        torch.log(losses + NOISE_LOSS).mean().backward()
        optimizer.step()

    def turn() -> None:
        for _ in range(load.steps):
            step()

    transforms = counted(step)
    turn_s = median_s(turn, device, load.turns)
    seconds = turn_s / load.steps
    what = f"training step, {points} patterns of {scan.pattern_shape[0]}²"
    what += "" if recorded else ", launched one by one"
    return Line(what, seconds, f"{1 / seconds:.3g} steps", transforms.seconds(device, load.turns))


def inference(
    scan: Scan, accelerator: Accelerator, device: torch.device, load: Workload, folder: Path
) -> tuple[Line, float]:
    """From a file to all files of the image, and the difference to the image of the CPU."""
    folder.mkdir()
    file, few = folder / "scan.npz", folder / "few.npz"
    write_scan(file, scan)
    write_scan(few, scan.subset(np.arange(min(GROUP, len(scan)))))
    config = TrainingConfig(
        train_data_file=[few],
        output_dir=folder / "run",
        n_images=64,
        max_epochs=1,
        quiet=True,
        accelerator=accelerator,
    )
    run = train(config)

    images: list[RunDir] = []

    def image(where: Accelerator = accelerator) -> None:
        images.append(
            reconstruct(
                InferenceConfig(
                    model_path=run.path,
                    test_data=file,
                    output_dir=folder / str(len(images)),
                    quiet=True,
                    accelerator=where,
                )
            )
        )

    transforms = counted(image)  # warms up, too
    seconds = statistics.median([duration_s(image, device) for _ in range(load.turns)])
    image("cpu")
    ours, theirs = (np.load(one.reconstruction)["object"] for one in images[-2:])
    what = f"inference, {len(scan)} patterns of {scan.pattern_shape[0]}², file to files"
    rate = f"{len(scan) / seconds:.0f} patterns"
    line = Line(what, seconds, rate, transforms.seconds(device, load.turns))
    return line, relative_rms(ours, theirs)


def options_of(modes: int, epochs: int, device: torch.device) -> RefineOptions:
    """Object and probe, with a number of modes."""
    return RefineOptions(epochs=epochs, update_probe=True, probe_modes=modes, device=device)


def refinement(scan: Scan, modes: int, device: torch.device, load: Workload) -> Line:
    """An epoch of object and probe, with the prediction of the held-out patterns after it."""
    ends: list[float] = []

    def progress(*_: object) -> None:
        torch.get_device_module(device).synchronize()
        ends.append(time.perf_counter())

    refine(scan, empty_object(scan), options_of(modes, load.epochs, device), progress=progress)
    seconds = statistics.median(np.diff(ends)[1:].tolist())
    waves = len(scan) * modes
    budget = WAVE_BUDGET["cpu" if device.type == "cpu" else "other"]
    at_once = min(waves, budget // math.prod(scan.pattern_shape))
    some = torch.randn(at_once, *scan.pattern_shape, dtype=torch.complex64, device=device)
    pair_s = median_s(lambda: torch.fft.ifft2(torch.fft.fft2(some)), device, load.turns)
    what = f"refinement, an epoch of {len(scan)} patterns of {scan.pattern_shape[0]}², {modes} mode"
    return Line(
        what + "s" * (modes > 1),
        seconds,
        f"{len(scan) / seconds:.0f} patterns",
        pair_s * waves / at_once,
        lsqml_s(scan, modes, device, load),
    )


def lsqml_s(scan: Scan, modes: int, device: torch.device, load: Workload) -> float | None:
    """Seconds of an epoch of Pty-Chi's LSQ-ML on the same patterns; None without it.

    The difference of two runs, so that its preparation does not count.
    """
    if importlib.util.find_spec("ptychi") is None or device.type == "mps":
        return None
    if "torchvision" not in sys.modules:
        stand_in_for_torchvision()
    from ptychi import api, utils
    from ptychi.api.task import PtychographyTask

    require_determinism(False)  # it uses operations on a GPU whose sums have no fixed order
    blank = empty_object(scan)
    positions = scan.positions_px - 0.5 - blank.origin_yx - (np.array(blank.object.shape) - 1) / 2
    probe = torch.as_tensor(scan.need_probe()[:1]).repeat(modes, 1, 1)[None]
    if modes > 1:
        probe = utils.orthogonalize_initial_probe(probe)
    seconds = []
    for epochs in (1, load.epochs):
        options = api.LSQMLOptions()
        options.reconstructor_options.num_epochs = epochs
        options.reconstructor_options.batch_size = LSQML_BATCH
        options.reconstructor_options.default_device = (
            api.Devices.CPU if device.type == "cpu" else api.Devices.GPU
        )
        options.probe_options.optimizable = True
        task = PtychographyTask(
            options,
            diffraction_data=np.asarray(scan.counts, dtype=np.float32),
            object_data=blank.object[None],
            probe_data=probe,
            probe_position_x_px=positions[:, 1],
            probe_position_y_px=positions[:, 0],
            valid_pixel_mask=scan.mask,
        )
        seconds.append(duration_s(task.run, device))
    torch.set_default_device("cpu")  # which Pty-Chi changes
    require_determinism(True)
    return (seconds[1] - seconds[0]) / (load.epochs - 1)


def relative_rms(one: NDArray[np.complex64], other: NDArray[np.complex64]) -> float:
    """Root mean square of the difference, relative to the other."""
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def refined_difference(device: torch.device) -> float:
    """Difference of the refined objects of the device and of the CPU."""
    n_side = math.isqrt(AGREED_PATTERNS)
    scan = simulate_scan(photons=PHOTONS, n_side=n_side, pattern_size=64).scan
    ours, theirs = (
        refine(scan, empty_object(scan), options_of(1, AGREED_EPOCHS, where)).reconstruction.object
        for where in (device, torch.device("cpu"))
    )
    return relative_rms(ours, theirs)


def patterns_in_memory(load: Workload) -> Scan:
    """The scan of the refinement."""
    n_side = math.isqrt(load.refined - 1) + 1
    scan = large_scan(n_side, load.refined_size).subset(np.arange(load.refined))
    return replace(scan, counts=np.concatenate([some for _, some in blocks(scan.counts)]))


def print_tables(accelerator: Accelerator, load: Workload) -> int:
    """Measure everything, print both tables, and return the exit status."""
    try:
        device = choose_device(accelerator)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    require_determinism(True)
    refining = double_precision_device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    print(f"{device.type} ({name}), torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    lines: list[Line] = []
    networks = []

    def measured(line: Line) -> None:
        lines.append(line)
        print("measured:", *line.cells()[:2], "s", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        for size, n_side in load.n_sides.items():
            scan = simulate_scan(photons=PHOTONS, n_side=n_side, pattern_size=size).scan
            measured(training(scan, device, load))
            if device.type == "cuda":
                measured(training(scan, device, load, recorded=False))
            line, apart = inference(scan, accelerator, device, load, Path(folder) / str(size))
            measured(line)
            networks.append(apart)
    scan = patterns_in_memory(load)
    for modes in load.modes:
        measured(refinement(scan, modes, refining, load))
    print(tabulate([one.cells() for one in lines], HEADS, "github", disable_numparse=True))
    agreed = [
        ["network", max(networks), NETWORK_LIMIT],
        [f"refined, {AGREED_EPOCHS} epochs", refined_difference(refining), REFINED_LIMIT],
    ]
    print("\n" + tabulate(agreed, ["object", "relative to the CPU's", "at most"], "github"))
    return status(agreed)


def status(agreed: Sequence[Sequence[Any]]) -> int:
    """The exit status for rows of a name, a difference and its limit."""
    return 0 if all(apart <= limit for _, apart, limit in agreed) else 1

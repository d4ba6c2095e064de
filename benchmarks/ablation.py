"""Effect of each part of the default training: `python benchmarks/ablation.py --output_dir DIR`.

One part at a time is left out or replaced. A network is trained without it on a scan of 10^4
photons and reconstructs objects that it was not trained on, alone and with refinement. The results
are in `benchmarks/ablation.md`.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from quality import (
    CASES,
    UNSEEN,
    agreement_with_truth,
    network_alone,
    network_refined,
    scan_of,
    trained,
)
from torch import Tensor

from ptycho_torch.data.scan import Group, Reconstruction, Scan
from ptycho_torch.data.simulation import Simulation
from ptycho_torch.generators import unrolled
from ptycho_torch.io.files import write_text
from ptycho_torch.train import module

TARGET_FRACTION = 0.15  # share of the patterns that only the loss uses


def no_split(group: Group, _fraction: float, _rng: torch.Generator) -> tuple[Group, Group]:
    """Give all photons to the network, and compare with the same photons."""
    return group, group


def split_patterns(group: Group, _fraction: float, rng: torch.Generator) -> tuple[Group, Group]:
    """Give most patterns to the network, and compare with the others, all their photons."""
    group_size = group.counts.shape[1]
    order = torch.randperm(group_size, generator=rng)
    n_target = round(TARGET_FRACTION * group_size)
    shown, target = (
        group._replace(counts=group.counts[:, part], corners_px=group.corners_px[:, part])
        for part in (order[n_target:], order[:n_target])
    )
    return shown, target


def no_correction(self: unrolled.Correction, features: Tensor) -> Tensor:
    """Zero, so that physics steps alone are left; their sizes and momenta are still learned."""
    return 0 * next(self.parameters()).sum() + torch.zeros_like(features[:, :3])


@contextmanager
def shared_weights() -> Iterator[None]:
    """Use one correcting network for all stages."""
    one: list[unrolled.Correction] = []
    kind = unrolled.Correction

    def same(width: int, levels: int) -> unrolled.Correction:
        one.append(kind(width, levels))
        return one[0]

    def begin(self: unrolled.Unrolled, *arguments: int, **named: int) -> None:
        one.clear()
        begin_alone(self, *arguments, **named)

    begin_alone = unrolled.Unrolled.__init__
    with (
        patch.object(unrolled, "Correction", same),
        patch.object(unrolled.Unrolled, "__init__", begin),
    ):
        yield


@contextmanager
def unchanged() -> Iterator[None]:
    """Change nothing."""
    yield


VARIANTS: dict[str, tuple[Callable, dict[str, object]]] = {
    "default": (unchanged, {}),
    "loss on the photons that the network was given": (
        lambda: patch.object(module, "split_photons", no_split),
        {},
    ),
    "loss on 15 % of the patterns, held out": (
        lambda: patch.object(module, "split_photons", split_patterns),
        {},
    ),
    "loss of amplitudes": (unchanged, {"loss": "amplitude"}),
    "no mirror images": (lambda: patch.object(module, "random_symmetry", lambda *_: 0), {}),
    "no correcting networks": (
        lambda: patch.object(unrolled.Correction, "forward", no_correction),
        {},
    ),
    "one set of weights for all stages": (shared_weights, {}),
    "corrections at one resolution instead of three": (
        lambda: patch.object(unrolled.Unrolled.__init__, "__defaults__", (16, 1)),
        {},
    ),
    "no larger steps at low frequencies": (
        lambda: patch.object(unrolled, "precondition_phase", lambda step, *_: step),
        {},
    ),
    "larger steps at low frequencies in every subset": (
        lambda: patch.object(unrolled, "SLOW_PHASE_EVERY", 1),
        {},
    ),
    "no momentum at the start": (lambda: patch.object(unrolled, "FIRST_MOMENTUM", 1e-3), {}),
    "one gradient a stage instead of twelve": (lambda: patch.object(unrolled, "SUBSETS", 1), {}),
}


def mean_agreement(
    reconstruct: Callable[[Scan], Reconstruction], unseen: list[Simulation]
) -> NDArray[np.float64]:
    """Amplitude SSIM, phase SSIM and FRC50, means over objects."""
    return np.mean([agreement_with_truth(reconstruct(one.scan), one) for one in unseen], axis=0)


def row(name: str, case: str, folder: Path) -> str:
    """A line of the table."""
    change, options = VARIANTS[name]
    settings = CASES[case]
    with change():
        train_scan = scan_of(0, settings.photons, settings.every).scan
        generator, cpu_s = trained([train_scan], folder, **options)
        unseen = [scan_of(seed, settings.photons, settings.every) for seed in UNSEEN]
        alone = mean_agreement(lambda scan: network_alone(generator, scan), unseen)
        after = mean_agreement(lambda scan: network_refined(generator, scan), unseen)
    figures = [", ".join(f"{value:.3f}" for value in values) for values in (alone, after)]
    return f"| {name} | {figures[0]} | {figures[1]} | {cpu_s:.0f} |"


def main() -> None:
    """Train every variant and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output_dir", type=Path, required=True, help="folder for scans, runs and ablation.md"
    )
    parser.add_argument("--case", choices=list(CASES), default="1e4")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    arguments = parser.parse_args()
    lines = [
        "| variant | network | network, refined | training CPU s |",
        "| --- | --- | --- | --- |",
    ]
    for number, name in enumerate(arguments.variants):
        lines.append(row(name, arguments.case, arguments.output_dir / f"variant_{number}"))
        print(lines[-1], flush=True)
    write_text(arguments.output_dir / "ablation.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

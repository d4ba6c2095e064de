"""What each part of the default training is worth: `python benchmarks/ablation.py --output_dir DIR`.

One part at a time is left out or replaced; a network is trained without it on a scan of 10^4 photons
and judged on objects that it has not seen, alone and refined.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from quality import CASES, UNSEEN, judge, network_refined, picture, scan_of, trained
from torch import Tensor

from ptycho_torch import module
from ptycho_torch.generators import unrolled
from ptycho_torch.run_dir import write_text
from ptycho_torch.scan import Group

KEPT_BACK = 0.15


def all_seen(group: Group, _share: float, _generator: torch.Generator) -> tuple[Group, Group]:
    """Judged by the photons that the network saw."""
    return group, group


def patterns_kept_back(group: Group, _share: float, generator: torch.Generator) -> tuple[Group, Group]:
    """Judged by patterns that the network did not see, all their photons."""
    members = group.counts.shape[1]
    order = torch.randperm(members, generator=generator)
    back = round(KEPT_BACK * members)
    seen, judged = (
        group._replace(counts=group.counts[:, part], corners_px=group.corners_px[:, part])
        for part in (order[back:], order[:back])
    )
    return seen, judged


def no_correction(self: unrolled.Correction, features: Tensor) -> Tensor:
    """Physics steps alone; their sizes and momenta are still learned."""
    return 0 * next(self.parameters()).sum() + torch.zeros_like(features[:, :3])


@contextmanager
def shared_weights() -> Iterator[None]:
    """One correcting network for all stages."""
    one: list[unrolled.Correction] = []
    kind = unrolled.Correction

    def same(width: int, levels: int) -> unrolled.Correction:
        one.append(kind(width, levels))
        return one[0]

    def begin(self: unrolled.Unrolled, *arguments: int, **named: int) -> None:
        one.clear()
        begin_alone(self, *arguments, **named)

    begin_alone = unrolled.Unrolled.__init__
    with patch.object(unrolled, "Correction", same), patch.object(unrolled.Unrolled, "__init__", begin):
        yield


@contextmanager
def as_it_is() -> Iterator[None]:
    """Nothing changed."""
    yield


VARIANTS: dict[str, tuple[Callable, dict[str, object]]] = {
    "default": (as_it_is, {}),
    "judged by the photons that it saw": (lambda: patch.object(module, "thinned", all_seen), {}),
    "judged by 15 % of the patterns, kept back": (lambda: patch.object(module, "thinned", patterns_kept_back), {}),
    "loss of amplitudes": (as_it_is, {"loss": "amplitude"}),
    "no mirror images": (lambda: patch.object(module, "random_symmetry", lambda *_: 0), {}),
    "no correcting networks": (lambda: patch.object(unrolled.Correction, "forward", no_correction), {}),
    "one set of weights for all stages": (shared_weights, {}),
    "corrections at one resolution instead of three": (
        lambda: patch.object(unrolled.Unrolled.__init__, "__defaults__", (16, 1)),
        {},
    ),
    "slow phases no farther than others": (lambda: patch.object(unrolled, "with_slow_phase", lambda pull, *_: pull), {}),
    "slow phases farther in every step": (lambda: patch.object(unrolled, "SLOW_PHASE_EVERY", 1), {}),
    "no momentum at the start": (lambda: patch.object(unrolled, "FIRST_MOMENTUM", 1e-3), {}),
    "one gradient a stage instead of twelve": (lambda: patch.object(unrolled, "SUBSETS", 1), {}),
}


def row(name: str, case: str, folder: Path) -> str:
    """A line of the table."""
    change, options = VARIANTS[name]
    settings = CASES[case]
    with change():
        learned = scan_of(0, settings.photons, settings.every).scan
        generator, cpu_s = trained([learned], folder, **options)
        unseen = [scan_of(seed, settings.photons, settings.every) for seed in UNSEEN]
        alone = np.mean([judge(picture(generator, made.scan), made) for made in unseen], axis=0)
        after = np.mean([judge(network_refined(generator, made.scan), made) for made in unseen], axis=0)
    figures = [", ".join(f"{value:.3f}" for value in values) for values in (alone, after)]
    return f"| {name} | {figures[0]} | {figures[1]} | {cpu_s:.0f} |"


def main() -> None:
    """Train every variant and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for scans, runs and ablation.md")
    parser.add_argument("--case", choices=list(CASES), default="1e4")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    arguments = parser.parse_args()
    lines = ["| variant | network | network, refined | training CPU s |", "| --- | --- | --- | --- |"]
    for number, name in enumerate(arguments.variants):
        lines.append(row(name, arguments.case, arguments.output_dir / f"variant_{number}"))
        print(lines[-1], flush=True)
    write_text(arguments.output_dir / "ablation.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

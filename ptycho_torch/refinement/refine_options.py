"""The options of a refinement as one object."""

from dataclasses import dataclass
from typing import Literal

import torch


@dataclass(frozen=True, kw_only=True)
class RefineOptions:
    """What is refined, for how long, and how smoothly.

    Attributes:
        epochs: Number of epochs, or "auto" for as many as the held-out patterns reward.
        max_epochs: Largest number of epochs for "auto".
        update_probe: Refine the probe.
        probe_modes: Number of incoherent modes at the end, at least those of the scan's probe; None
            keeps them. More of them need ``update_probe``.
        smoothness: Strength of the prior, in photons per object pixel; it is reduced where a scan
            of few photons would be smoothed too much, see `loop.LoopTuning`. 0 switches it
            off.
        held_out_fraction: Share of the patterns that is held out, within (0, 0.5].
        seed: Chooses the held-out patterns and the order of the others. Equal seeds give equal
            bits on the CPU.
        device: Where the refinement computes.

    Raises:
        ValueError: If the fraction is out of range.
    """

    epochs: int | Literal["auto"] = "auto"
    max_epochs: int = 40
    update_probe: bool = False
    probe_modes: int | None = None
    smoothness: float = 120.0
    held_out_fraction: float = 0.04
    seed: int = 0
    device: torch.device = torch.device("cpu")

    def __post_init__(self) -> None:
        if not 0 < self.held_out_fraction <= 0.5:
            raise ValueError(
                f"held_out_fraction must lie within (0, 0.5], got {self.held_out_fraction}"
            )

"""Networks that make a piece of object from a group of patterns.

A generator is one file and one line here. It is a `torch.nn.Module` with

- ``settings``: the plain numbers and strings that its constructor takes, kept in checkpoints;
- ``gridsize``: the side of the group that it prefers for training;
- ``tile``: how many patterns it prefers to reconstruct at once;
- ``any_size``: whether it takes groups of any size, not only of the size it was built for;
- ``forward(group, canvas_shape) -> canvas``: complex, (B, Y, X), the object under each group.
"""

from typing import Any

from ptycho_torch.generators.base import Generator
from ptycho_torch.generators.unet import UNet
from ptycho_torch.generators.unrolled import Unrolled

GENERATORS: dict[str, type[Generator]] = {"unrolled": Unrolled, "unet": UNet}


def build_generator(name: str, settings: dict[str, Any]) -> Generator:
    """The generator of that name.

    Args:
        name: A key of `GENERATORS`.
        settings: What its constructor takes.

    Raises:
        KeyError: If there is no such generator.
        TypeError: If it does not take these settings.
    """
    return GENERATORS[name](**settings)


__all__ = ["GENERATORS", "Generator", "build_generator"]

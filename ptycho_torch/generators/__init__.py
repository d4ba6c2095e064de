"""Networks that make a piece of object from a group of patterns.

A generator is one file here and one line in `ptycho_torch.config.registry.GENERATORS`; its class
derives from `ptycho_torch.generators.base.Generator`.
"""

from typing import Any

from ptycho_torch.config.registry import GENERATORS, load
from ptycho_torch.generators.base import Generator


def build_generator(name: str, settings: dict[str, Any]) -> Generator:
    """The generator of that name.

    Args:
        name: A key of `GENERATORS`.
        settings: Arguments of its constructor.

    Raises:
        KeyError: If there is no such generator.
        TypeError: If it does not take these settings.
    """
    generator: Generator = load(GENERATORS[name])(**settings)
    return generator


__all__ = ["Generator", "build_generator"]

"""What all generators have in common."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

from ptycho_torch.scan import Group


class Generator(nn.Module, ABC):
    """A group of patterns in, one piece of object out."""

    gridsize: ClassVar[int]
    tile: ClassVar[int]
    any_size: ClassVar[bool]
    settings: dict[str, Any]

    @abstractmethod
    def forward(self, group: Group, canvas_shape: tuple[int, int]) -> Tensor:
        """The object under each group.

        Args:
            group: Patterns with their places and their illumination.
            canvas_shape: ``(Y, X)`` to draw on, at least ``group.canvas_shape()``.

        Returns:
            Canvas, complex, (B, Y, X).
        """

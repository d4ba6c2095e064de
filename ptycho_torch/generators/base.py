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
    def forward(self, group: Group) -> Tensor:
        """The object under each group.

        Args:
            group: Patterns with their places and their illumination.

        Returns:
            Canvas, complex, (B, Y, X), of shape ``group.canvas_shape()``.
        """

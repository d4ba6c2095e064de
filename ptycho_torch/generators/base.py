"""The interface of all generators."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

from ptycho_torch.data.scan import Group


class Generator(nn.Module, ABC):
    """A network: a group of patterns in, one piece of object out.

    Attributes:
        gridsize: Side of the square group that it prefers for training.
        inference_group_size: Number of patterns that it prefers to reconstruct at once.
        variable_group_size: Whether it takes groups of any size, not only of the size it was built
            for.
        recordable: Whether it has `on_whole_canvas`.
        settings: Arguments of its constructor, plain numbers and strings, kept in checkpoints.
    """

    gridsize: ClassVar[int]
    inference_group_size: ClassVar[int]
    variable_group_size: ClassVar[bool]
    recordable: ClassVar[bool] = False
    settings: dict[str, Any]

    @abstractmethod
    def forward(self, group: Group, canvas_shape: tuple[int, int]) -> Tensor:
        """The object under each group.

        Args:
            group: Patterns with their positions and their illumination.
            canvas_shape: ``(Y, X)`` to draw on, at least ``group.canvas_shape()``.

        Returns:
            Canvas, complex, (B, Y, X).
        """

    def on_whole_canvas(self, group: Group, canvas_shape: tuple[int, int]) -> Tensor:
        """As `forward`, with no shape that depends on values, so that a GPU can record it.

        The host waits for no value. What lies outside of the light may differ from `forward`.

        Raises:
            NotImplementedError: If the generator is not recordable.
        """
        raise NotImplementedError(f"{type(self).__name__} is not recordable")

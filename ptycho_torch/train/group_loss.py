"""The loss of groups of patterns: reconstruct from some photons, predict the others, compare."""

from collections.abc import Callable

from torch import Tensor

from ptycho_torch.data.grouping import group_layout
from ptycho_torch.data.scan import Group
from ptycho_torch.physics.forward import predict_counts

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # of expected and measured photons, and a mask
Reconstruct = Callable[[Group, tuple[int, int]], Tensor]  # see `Generator.forward`


def group_loss(
    reconstruct: Reconstruct,
    loss: Loss,
    shown: Group,
    target: Group,
    canvas_shape: tuple[int, int],
) -> Tensor:
    """The loss of each group.

    Args:
        reconstruct: A generator.
        loss: Compares.
        shown: What the generator is given.
        target: The same scan points with other photons, which are to be predicted.
        canvas_shape: ``(Y, X)`` to draw on, at least `common_canvas_shape`.

    Returns:
        Real, (B,).
    """
    canvas = reconstruct(shown, canvas_shape)
    layout = group_layout(target, canvas_shape)
    return loss(predict_counts(canvas, layout), target.counts, target.mask)


def common_canvas_shape(shown: Group, target: Group) -> tuple[int, int]:
    """``(Y, X)`` that holds every patch of both."""
    shapes = shown.canvas_shape(), target.canvas_shape()
    return max(shape[0] for shape in shapes), max(shape[1] for shape in shapes)

"""The loss of a training step and its gradient on an NVIDIA GPU, recorded once: CUDA graphs.

A step of the unrolled generator consists of some nine thousand small operations, forward and back.
To launch them one by one takes ten times as long as to compute them. torch records them for tensors
of one shape, and launches all of them by two calls [1]_. The groups of a training have few numbers
of patterns, but canvases of many shapes: so on a GPU they are laid on a square canvas whose side is
a whole multiple of that of a pattern. It depends on the group alone, and a recorded loss has the
bits of the loss itself, so that it does not matter when it was recorded.

References:
----------
.. [1] "CUDA semantics: CUDA graphs", documentation of PyTorch,
   https://docs.pytorch.org/docs/stable/notes/cuda.html#partial-network-capture
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ptycho_torch.data.scan import Group
from ptycho_torch.generators.base import Generator
from ptycho_torch.train.group_loss import Loss, common_canvas_shape, group_loss

# Losses of one shape before it is recorded, which takes as long as a few of them. With their
# gradients they also prepare the libraries, which they cannot do while a step is recorded.
LAUNCHED = 2
MOST = 8  # shapes that are recorded; what they compute shares memory, what they are given does not

Recorded = Callable[..., Tensor]  # of tensors of the shapes with which it was recorded
Key = tuple[tuple[int, int], tuple[torch.Size, ...]]  # shapes of the canvas, and of the tensors


class RecordedLoss:
    """The loss of groups, recorded for those of a shape that comes again.

    Args:
        generator: A recordable one.
        loss: Compares expected and measured photons.
    """

    def __init__(self, generator: Generator, loss: Loss) -> None:
        self.generator = generator
        self.loss = loss
        self.launched: Counter[Key] = Counter()
        self.recorded: dict[Key, Recorded] = {}
        self.pool: Any = None  # of memory

    def __call__(self, shown: Group, target: Group) -> Tensor:
        """See `group_loss`; the result is valid until the next call."""
        shape = square_canvas_shape(shown, target)
        tensors = tensors_of(shown, target)
        key = shape, tuple(tensor.shape for tensor in tensors)
        if key in self.recorded:
            return self.recorded[key](*tensors, *self.generator.parameters())
        function = LossOfTensors(self.generator, self.loss, (shown, target), shape)
        self.launched[key] += 1
        if self.launched[key] > LAUNCHED and len(self.recorded) < MOST:
            self.recorded[key] = self._record(function, tensors)
            return self(shown, target)
        result: Tensor = function(*tensors)
        return result

    def _record(self, function: nn.Module, tensors: Sequence[Tensor]) -> Recorded:
        """The recorded function of tensors like these, and of the parameters.

        The parameters are leaves of their own in the memory of those of the generator, so that no
        graph of automatic differentiation that is still alive has to do with what is recorded.
        """
        if self.pool is None:
            self.pool = torch.cuda.graph_pool_handle()
        names = [name for name, _ in function.named_parameters()]
        own = [tensor.clone(memory_format=torch.contiguous_format) for tensor in tensors]
        leaves = [leaf.detach().requires_grad_() for leaf in function.parameters()]

        def of_all(*both: Tensor) -> Tensor:
            parameters = dict(zip(names, both[len(own) :], strict=True))
            result: Tensor = functional_call(function, parameters, both[: len(own)])
            return result

        recorded = torch.cuda.make_graphed_callables(
            of_all, (*own, *leaves), num_warmup_iters=0, pool=self.pool
        )
        return cast(Recorded, recorded)


class LossOfTensors(nn.Module):
    """The loss as a function of tensors alone, in the form that torch records.

    Args:
        generator: Reconstructs.
        loss: Compares.
        like: Two groups, whose members that are None will be None again.
        canvas_shape: Of every call.
    """

    def __init__(
        self,
        generator: Generator,
        loss: Loss,
        like: tuple[Group, Group],
        canvas_shape: tuple[int, int],
    ) -> None:
        super().__init__()
        self.generator = generator
        self.loss = loss
        self.present = [[part is not None for part in group] for group in like]
        self.canvas_shape = canvas_shape

    def forward(self, *tensors: Tensor) -> Tensor:
        """The loss of each group, (B,), from `tensors_of` two groups."""
        left = iter(tensors)
        shown, target = (
            Group._make(next(left) if here else None for here in present)
            for present in self.present
        )
        reconstruct = self.generator.on_whole_canvas
        return group_loss(reconstruct, self.loss, shown, target, self.canvas_shape)


def can_be_recorded(generator: Generator, shown: Group) -> bool:
    """Whether the loss of a step waits neither for the host nor for another process."""
    on_gpu = shown.counts.device.type == "cuda" and torch.version.cuda is not None
    alone = not torch.distributed.is_initialized()
    single = not torch.is_autocast_enabled("cuda")
    return generator.recordable and on_gpu and alone and single


def square_canvas_shape(shown: Group, target: Group) -> tuple[int, int]:
    """The smallest square canvas for both whose side is a whole multiple of that of a pattern."""
    step = max(shown.counts.shape[-2:])
    side = -(-max(common_canvas_shape(shown, target)) // step) * step
    return side, side


def tensors_of(*groups: Group) -> list[Tensor]:
    """The members of groups, without those that are None."""
    return [part for group in groups for part in group if part is not None]

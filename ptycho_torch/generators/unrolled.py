"""The unrolled generator: sweeps of gradient steps, each corrected by a small network."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from ptycho_torch.data.grouping import group_layout, group_propagator
from ptycho_torch.data.scan import Group
from ptycho_torch.generators.base import Generator
from ptycho_torch.physics.backprojection import backproject_residual
from ptycho_torch.physics.forward import ScanLayout, illumination
from ptycho_torch.physics.incoherent import incoherent_sum
from ptycho_torch.physics.low_frequency import low_frequency_gain, precondition_phase

SUBSETS = 12  # of a sweep; each spreads over the whole group, so that its patterns hardly overlap
SLOW_PHASE_EVERY = 3  # subsets; preconditioning the phase in every one takes a quarter longer
DARKEST = 0.2  # of the brightest illumination, added to the preconditioner
SOFTENING = 0.1  # of the mean pattern, in the residual
FLOOR = 0.1  # photons, in the residual
LIT = 0.01  # of the brightest illumination; darker pixels are outside of the support
FIRST_STEPS = (1.0, 0.8, 0.5, 0.3, 0.2, 0.1)  # before learning; one for each stage
FIRST_MOMENTUM = 0.8  # before learning
MAX_CORRECTION = 0.5  # of one stage, so that it cannot destroy its input
MAX_LEVELS = 12  # the coarsest pixel is 2048 fine ones; no canvas of a group is larger

Box = tuple[slice, slice]
BoxChoice = Callable[[Tensor], tuple[Box, Tensor]]  # see `box_around`


class Unrolled(Generator):
    """Stages that each sweep over the patterns and correct what the sweep made.

    A sweep goes through subsets of the patterns, one after the other, each a preconditioned
    gradient step with momentum: an rPIE [1]_ of small batches, of which some go farther in slow
    phases. A small convolutional network sees the canvas, the displacement of the sweep, and the
    light, and answers with a gate on the displacement and a correction. Steps, momentum and
    networks are learned through all stages. The idea of unrolling is that of [2]_.

    It is given the probe and the positions, so it carries over to other objects, doses and scans.

    Args:
        width: Channels of the correcting networks.
        levels: Resolutions that they see, each half of the one before.

    References:
        .. [1] A. Maiden, D. Johnson and P. Li, "Further improvements to the ptychographical
           iterative engine", Optica 4, 736 (2017), doi:10.1364/OPTICA.4.000736.
        .. [2] V. Monga, Y. Li and Y. C. Eldar, "Algorithm unrolling", IEEE Signal Process. Mag.
           38, 18 (2021), doi:10.1109/MSP.2020.3016905.
    """

    gridsize = 8
    inference_group_size = 1024
    variable_group_size = True
    recordable = True

    def __init__(self, width: int = 16, levels: int = 3) -> None:
        super().__init__()
        if not 1 <= levels <= MAX_LEVELS:
            raise ValueError(f"levels is {levels}; expected 1 to {MAX_LEVELS}")
        self.settings = {"width": width, "levels": levels}
        stages = len(FIRST_STEPS)
        self.log_step = nn.Parameter(torch.tensor([math.log(step) for step in FIRST_STEPS]))
        self.momentum = nn.Parameter(
            torch.full((stages,), math.log(FIRST_MOMENTUM / (1 - FIRST_MOMENTUM)))
        )
        self.corrections = nn.ModuleList(Correction(width, levels) for _ in range(stages))

    def forward(self, group: Group, canvas_shape: tuple[int, int]) -> Tensor:
        """See `Generator.forward`; corrects the part of the canvas where there is light."""
        return self._reconstruct(group, canvas_shape, box_around)

    def on_whole_canvas(self, group: Group, canvas_shape: tuple[int, int]) -> Tensor:
        """See `Generator.on_whole_canvas`; corrects all of it."""
        return self._reconstruct(group, canvas_shape, whole_box)

    def _reconstruct(
        self, group: Group, canvas_shape: tuple[int, int], choose_box: BoxChoice
    ) -> Tensor:
        """The object under each group, corrected within a box."""
        subsets = spread_subsets(group, canvas_shape)
        light = torch.stack([subset.light for subset in subsets]).sum(dim=0)
        support = (light > LIT * light.amax(dim=(-2, -1), keepdim=True)).to(light.dtype)
        gain = low_frequency_gain(group.mean_probe(), canvas_shape)
        box, inside = choose_box(support)
        saturated = 2 * light / (light + light.amax(dim=(-2, -1), keepdim=True)) - 1
        canvas = torch.ones_like(light, dtype=group.probe.dtype)
        velocity = torch.zeros_like(canvas)
        steps, momenta = self.log_step.exp(), self.momentum.sigmoid()
        for step, momentum, correct in zip(steps, momenta, self.corrections, strict=True):
            before = canvas
            for number, subset in enumerate(subsets):
                direction = subset.gradient_step(canvas)
                if number % SLOW_PHASE_EVERY == 0:
                    direction = precondition_phase(direction, canvas, support, gain)
                velocity = momentum * velocity + step * (1 - momentum) * direction
                canvas = canvas + velocity
            moved = canvas - before
            seen = moved / step.detach()
            features = torch.stack(
                [before.real - 1, before.imag, seen.real, seen.imag, saturated], dim=1
            )
            real, imaginary, gate = correct(features[(..., *box)]).unbind(dim=1)
            correction = inside * within(
                torch.complex(real, imaginary) + gate * moved[(..., *box)], box, canvas
            )
            canvas = before + moved + correction
        return canvas


class Subset:
    """Patterns of one step of a sweep, with the step size at each pixel.

    Args:
        counts: Photons, real, (B, C, H, W), in the order of the propagator.
        softening: See `backproject_residual`.
        mask: Good pixels, bool, (B, 1, H, W), in the order of the propagator.
        layout: Of these patterns.
    """

    def __init__(self, counts: Tensor, softening: Tensor, mask: Tensor, layout: ScanLayout) -> None:
        self.counts = counts
        self.softening = softening
        self.mask = mask
        self.layout = layout
        brightest = incoherent_sum(layout.probe).amax(dim=(1, 2, 3))
        self.light = illumination(layout)
        self.step_size = 1 / (self.light + DARKEST * brightest[:, None, None])

    def gradient_step(self, canvas: Tensor) -> Tensor:
        """The preconditioned gradient step of the patterns, complex, (B, Y, X)."""
        return self.step_size * backproject_residual(
            canvas, self.counts, self.softening, self.mask, self.layout
        )


def spread_subsets(group: Group, canvas_shape: tuple[int, int]) -> list[Subset]:
    """The patterns of a group in up to `SUBSETS` parts, each spread over the whole group.

    Depends on where the patterns lie, not on their order.
    """
    propagator = group_propagator(group)
    softening = propagator.from_detector(SOFTENING * group.counts.mean(dim=1, keepdim=True) + FLOOR)
    mask = propagator.from_detector(group.mask)[:, None]
    order = torch.stack([snake_order(corners) for corners in group.corners_px])  # (B, C)
    each = torch.arange(len(order), device=order.device)[:, None]
    parts = min(SUBSETS, order.shape[1])
    subsets = []
    for part in scattered(parts):
        points = order[:, part::parts]
        counts = propagator.from_detector(group.counts[each, points])
        layout = group_layout(group, canvas_shape, points)
        subsets.append(Subset(counts, softening, mask, layout))
    return subsets


def snake_order(corners_px: Tensor) -> Tensor:
    """Indices of positions, (C, 2), along a path through them, strip by strip, to and fro."""
    by_row = torch.argsort(corners_px[:, 0], stable=True)
    strips = by_row.tensor_split(max(1, round(len(corners_px) ** 0.5)))
    path = [strip[torch.argsort(corners_px[strip, 1], stable=True)] for strip in strips]
    return torch.cat([strip.flip(0) if number % 2 else strip for number, strip in enumerate(path)])


def scattered(count: int) -> list[int]:
    """The numbers below ``count`` in an order by the golden ratio: neighbours are far apart."""
    return sorted(range(count), key=lambda number: (number * (math.sqrt(5) - 1) / 2) % 1)


def box_around(lit: Tensor) -> tuple[Box, Tensor]:
    """The part of the canvases where there is light, and 1 there, 0 elsewhere, real, (Y, X)."""
    any_lit = lit.any(dim=0)
    rows, columns = any_lit.any(dim=1).nonzero(), any_lit.any(dim=0).nonzero()
    box = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    inside = torch.zeros_like(lit[0])
    inside[box] = 1
    return box, inside


def whole_box(lit: Tensor) -> tuple[Box, Tensor]:
    """As `box_around`, of all pixels."""
    height, width = lit.shape[-2:]
    return (slice(0, height), slice(0, width)), torch.ones_like(lit[0])


def within(values: Tensor, box: Box, canvas: Tensor) -> Tensor:
    """Values of a box, on a canvas that is zero elsewhere."""
    rows, columns = box
    height, width = canvas.shape[-2:]
    return functional.pad(
        values, (columns.start, width - columns.stop, rows.start, height - rows.stop)
    )


class Correction(nn.Module):
    """A small convolutional network that sees a few resolutions.

    Args:
        width: Channels at each of them.
        levels: How many.
    """

    def __init__(self, width: int, levels: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(5, width, 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(levels))
        self.up = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(levels))
        self.leave = nn.Conv2d(width, 3, 3, padding=1)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            self.leave.weight.mul_(0.05)  # starts near no correction

    def forward(self, features: Tensor) -> Tensor:
        """Real and imaginary correction within `MAX_CORRECTION`, gate within 1, (B, 3, Y, X)."""
        height, width = features.shape[-2:]
        coarsest = 2 ** (len(self.down) - 1)
        padded = functional.pad(features, (0, -width % coarsest, 0, -height % coarsest))
        image = functional.gelu(self.enter(padded.contiguous(memory_format=torch.channels_last)))
        skips = []
        for level, convolve in enumerate(self.down):
            image = functional.avg_pool2d(image, 2) if level else image
            image = image + functional.gelu(convolve(image))
            skips.append(image)
        for level, convolve in reversed(list(enumerate(self.up))):
            image = functional.gelu(convolve(image)) + skips[level]
            image = doubled(image) if level else image
        answer = self.leave(image)[..., :height, :width].float()
        limited = MAX_CORRECTION * torch.tanh(answer[:, :2] / MAX_CORRECTION)
        return torch.cat([limited, torch.tanh(answer[:, 2:])], dim=1)


def doubled(image: Tensor) -> Tensor:
    """An image with twice as many pixels along both axes, bilinear, (B, C, Y, X).

    On a GPU by a convolution: torch's own takes some hundred launches there, forward and back,
    where operations must be deterministic.
    """
    if image.device.type == "cuda":
        return doubled_by_convolution(image)
    return functional.interpolate(image, scale_factor=2.0, mode="bilinear")


def doubled_by_convolution(image: Tensor) -> Tensor:
    """As `doubled`, on any device."""
    for axis in (-2, -1):
        first, last = image.narrow(axis, 0, 1), image.narrow(axis, -1, 1)
        image = torch.cat([first, image, last], dim=axis)
    along = 1 - (torch.arange(4, dtype=image.dtype, device=image.device) - 1.5).abs() / 2  # a tent
    channels = image.shape[1]
    weight = torch.outer(along, along).expand(channels, 1, 4, 4)
    return functional.conv_transpose2d(image, weight, stride=2, padding=3, groups=channels)

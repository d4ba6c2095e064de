"""The U-Net generator: it turns amplitudes into complex patches and averages them on the canvas."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ptycho_torch.data.grouping import group_layout
from ptycho_torch.data.scan import Group
from ptycho_torch.generators.base import Generator
from ptycho_torch.physics.patches import place_patches
from ptycho_torch.physics.probe_shift import photons_per_exposure

FLOOR = 1e-6  # of the brightest illumination; where it is darker, the canvas is empty space


class UNet(Generator):
    """An encoder with two decoders, one for the amplitude and one for the phase.

    The patterns of a group are the channels, so a network is bound to the size of its groups.
    It does not know the probe, and holds for the one it was trained with. The family is that of
    PtychoNN and PtychoPINN [1]_ [2]_.

    Args:
        group_size: Patterns in a group.
        width: Channels at full resolution; doubled at each of three coarser levels.

    References:
        .. [1] M. J. Cherukara et al., "AI-enabled high-resolution scanning coherent diffraction
           imaging", Appl. Phys. Lett. 117, 044103 (2020), doi:10.1063/5.0013065.
        .. [2] O. Hoidn, A. A. Mishra and A. Mehta, "Physics constrained unsupervised deep
           learning for rapid, high resolution scanning coherent diffraction reconstruction",
           Sci. Rep. 13, 22789 (2023), doi:10.1038/s41598-023-48351-7.
    """

    gridsize = 2
    inference_group_size = 4
    variable_group_size = False
    recordable = True

    def __init__(self, group_size: int, width: int = 24) -> None:
        super().__init__()
        self.settings = {"group_size": group_size, "width": width}
        widths = [width, 2 * width, 4 * width]
        self.encoder = nn.ModuleList(
            _block(i, o) for i, o in zip([group_size, *widths], [*widths, 4 * width], strict=False)
        )
        self.amplitude = Decoder(widths, group_size)
        self.phase = Decoder(widths, group_size)

    def forward(self, group: Group, canvas_shape: tuple[int, int]) -> Tensor:
        """See `Generator.forward`."""
        photons = photons_per_exposure(group.mean_probe())[:, None, None, None]
        pixels = math.prod(group.counts.shape[-2:])
        patches = self.patches((group.counts * group.mask[:, None] / photons * pixels).sqrt())
        layout = group_layout(group, canvas_shape)
        weight = (layout.probe.real.square() + layout.probe.imag.square()).sum(dim=2)
        total = place_patches(patches * weight, layout.indices, layout.canvas_shape)
        light = place_patches(weight, layout.indices, layout.canvas_shape)
        lit = light > FLOOR * light.amax(dim=(-2, -1), keepdim=True)
        return torch.where(
            lit, total / light.clamp_min(torch.finfo(light.dtype).tiny), torch.ones_like(total)
        )

    def on_whole_canvas(self, group: Group, canvas_shape: tuple[int, int]) -> Tensor:
        """See `Generator.on_whole_canvas`."""
        return self.forward(group, canvas_shape)

    def patches(self, amplitude: Tensor) -> Tensor:
        """Complex patches, (B, C, H, W), from amplitudes of mean square 1, (B, C, H, W)."""
        height, width = amplitude.shape[-2:]
        pad = (0, -width % 8, 0, -height % 8)  # three halvings
        features, skips = functional.pad(torch.log1p(amplitude), pad), []
        for level, block in enumerate(self.encoder):
            features = block(functional.max_pool2d(features, 2) if level else features)
            skips.append(features)
        modulus = functional.softplus(
            self.amplitude(skips).float() + math.log(math.e - 1)
        )  # 1 at the start
        angle = math.pi * torch.tanh(self.phase(skips).float())
        return torch.polar(modulus, angle)[..., :height, :width]


class Decoder(nn.Module):
    """From the coarsest features back to full resolution, joined with those of each level.

    Args:
        widths: Channels of the levels, finest first.
        channels_out: Channels of the result.
    """

    def __init__(self, widths: list[int], channels_out: int) -> None:
        super().__init__()
        coarser = [*widths[1:], widths[-1]]
        self.blocks = nn.ModuleList(_block(c + w, w) for w, c in zip(widths, coarser, strict=True))
        self.last = nn.Conv2d(widths[0], channels_out, 3, padding=1)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            self.last.weight.mul_(0.1)  # starts near empty space

    def forward(self, skips: list[Tensor]) -> Tensor:
        """Real, (B, C, H, W)."""
        features = skips[-1]
        for block, skip in zip(reversed(self.blocks), reversed(skips[:-1]), strict=True):
            larger = functional.interpolate(features, scale_factor=2.0)
            features = block(torch.cat([larger, skip], dim=1))
        return self.last(features)


def _block(channels_in: int, channels_out: int) -> nn.Sequential:
    """Two convolutions with normalisation that does not depend on the batch."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1),
        nn.GroupNorm(4, channels_out),
        nn.GELU(),
        nn.Conv2d(channels_out, channels_out, 3, padding=1),
        nn.GroupNorm(4, channels_out),
        nn.GELU(),
    )

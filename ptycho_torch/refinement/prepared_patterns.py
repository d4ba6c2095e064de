"""Patterns in the form that the loops of the refinement need, and their prediction.

Images are in the order of the propagator here. A position is split as in
`ptycho_torch.physics.patches`: the patch is cut at a whole pixel, and the probe is shifted by the
fraction of a pixel that is left.

Sub-pixel shifts by a few nodes. A probe shifted by a fraction f is F^-1[ramp(f) F[probe]], two
Fourier transforms for each position and mode, as many as the propagation itself. But the shifted
probe is a smooth function of f within [-1/2, 1/2]^2, so a polynomial in f describes it: the probe
is shifted exactly to 3 x 3 Chebyshev nodes once in a step, and the probe of every position is a
weighted sum of these nine, one matrix product. The error is 4e-7 of the probe's energy. The
gradient of the probe goes the same way backwards: residuals are summed with the same weights into
nine nodes, and nine shifts back end it. A probe that changes over the scan is a weighted sum of
a mean and a few components, so it is the same product with more columns.

Several processes. Each process owns the patterns of a compact region of the scan: it alone keeps
them and computes with them. What belongs to a pattern, such as its position, is there in every
process; its owner changes it, and `PreparedPatterns.share` gives the change to the others. Sums
over patterns are sums over the own ones, added up over the processes. So object and probe have the
same bits in every process, and one process, which owns all patterns, does the same.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptycho_torch.data.grouping import compact_regions
from ptycho_torch.data.lazy_patterns import BLOCK_BYTES
from ptycho_torch.data.scan import Scan
from ptycho_torch.distributed.communicator import SingleProcess
from ptycho_torch.distributed.device import keep_freed_memory
from ptycho_torch.physics.forward import ForwardModel
from ptycho_torch.physics.noise import AmplitudeNoise, NoiseModel, PoissonNoise, deviance
from ptycho_torch.physics.patches import split_corners
from ptycho_torch.physics.probe_shift import frequencies
from ptycho_torch.physics.propagation import Propagator, propagator_of
from ptycho_torch.refinement.pattern_store import (
    PatternStore,
    fits_in_memory,
    in_file,
    in_memory,
)

SHIFT_NODES = 3  # per axis; interpolation between 3 x 3 shifts has an error of 4e-7 of the energy
# Detector pixels x modes that are computed at once: on the CPU, what stays in its cache; on other
# devices, whose launches cost more than their work, what fits into their memory many times.
WAVE_BUDGET = {"cpu": 2**19, "other": 2**24}
# Mean counts per pixel; above, roots of counts have a constant variance.
POISSON_BELOW_COUNTS = 10.0


@dataclass(frozen=True)
class PreparedPatterns:
    """Counts, positions, and what else belongs to a pattern, in the form that the loops need.

    All tensors but `owner` are on one device, and an epoch does not leave it.

    Attributes:
        measured: Counts of the own patterns as the noise model keeps them, 0 on bad pixels.
        rows: Of the patterns in ``measured``, int64, (N,); of the own ones only.
        owner: Rank of the process that computes with each pattern, int64, on the CPU, (N,).
        comm: The processes.
        mask: Good pixels, bool, (H, W); None if every pixel is good.
        noise: The likelihood.
        propagator: From exit waves to the detector.
        ramps: Fourier phases of the node shifts, complex, (9, 1, H, W).
        corners: Whole-pixel minimum corners of the patches on the canvas, int64, (N, 2).
        fractions: Sub-pixel parts of the corners, float64, (N, 2).
        node_weights: Of the nine nodes in the shifted probe, (N, 9).
        flux: Photons relative to those of the probe, (N,); None is 1.
        background: Photons that come past the sample, (H, W); None is 0.
        probe_weights: Of the components of the probe, (N, K); None without components.
    """

    measured: PatternStore
    rows: Tensor
    owner: Tensor
    comm: SingleProcess
    mask: Tensor | None
    noise: NoiseModel
    propagator: Propagator
    ramps: Tensor
    corners: Tensor
    fractions: Tensor
    node_weights: Tensor
    flux: Tensor | None = None
    background: Tensor | None = None
    probe_weights: Tensor | None = None

    def __len__(self) -> int:
        return len(self.corners)

    @property
    def shape(self) -> tuple[int, int]:
        """``(H, W)``."""
        return int(self.ramps.shape[-2]), int(self.ramps.shape[-1])

    @property
    def like(self) -> Tensor:
        """A real tensor, (..., H, W), whose dtype and device those of the patterns are."""
        return self.ramps.real

    @property
    def poisson(self) -> bool:
        """Whether the likelihood is that of sparse counts."""
        return isinstance(self.noise, PoissonNoise)

    @property
    def half(self) -> Tensor:
        """Half of the shape, ``(y, x)``, float64, (2,)."""
        return pair(self.shape, self.like.device) / 2

    @property
    def centres(self) -> Tensor:
        """Positions of the patch centres on the canvas, float64, (N, 2)."""
        return self.corners + self.fractions + self.half

    @property
    def everything(self) -> Tensor:
        """The indices of all patterns, int64, (N,)."""
        return torch.arange(len(self), device=self.like.device)

    def model(self, index: Tensor) -> ForwardModel:
        """How some patterns come about."""
        flux = None if self.flux is None else self.flux[index]
        fractions = self.fractions[index].to(self.like.dtype)
        return ForwardModel(self.propagator, fractions, flux, self.background)

    def own(self, index: Tensor) -> Tensor:
        """Those of some patterns that this process owns, on the device.

        Args:
            index: On the CPU, (n,).
        """
        return index[self.owner[index] == self.comm.rank].to(self.like.device)

    def share(self, *values: Tensor) -> None:
        """Give the values of the own patterns, in place, to all processes, (N, ...) each."""
        others = (self.owner != self.comm.rank).nonzero()[:, 0].to(self.like.device)
        for each in values:
            each[others] = 0
        self.comm.sum(*values)

    def share_parameters(self) -> None:
        """Give position and flux of the own patterns, in place, to all processes."""
        flux = () if self.flux is None else (self.flux,)
        self.share(self.corners, self.fractions, self.node_weights, *flux)

    def measured_at(self, index: Tensor) -> Tensor:
        """A copy of some own patterns as the noise model keeps them, (B, H, W)."""
        return self.measured.read(self.rows[index])

    def announce(self, batches: Iterable[Tensor], modes: int) -> None:
        """Say which own patterns will be read, batch after batch, so many at once as of a step."""
        at_once = patterns_at_once(self, modes)
        self.measured.announce(
            self.rows[some] for batch in batches for some in parts_of(batch, at_once)
        )

    def counts(self, index: Tensor) -> Tensor:
        """Photons of some own patterns, (B, H, W)."""
        return self.noise.counts(self.measured_at(index))

    def amplitudes(self, index: Tensor) -> Tensor:
        """Square roots of the counts of some own patterns, (B, H, W)."""
        return self.noise.amplitudes(self.measured_at(index))

    def shift_weights(self, index: Tensor) -> Tensor:
        """Weights of the rows of `shift_basis` in the probes of some patterns, (B, 9 (1 + K))."""
        nodes = self.node_weights[index]
        if self.probe_weights is None:
            return nodes
        changes = self.probe_weights[index][:, :, None] * nodes[:, None]
        return torch.cat([nodes, changes.flatten(1)], dim=1)


def prepare(
    scan: Scan,
    origin_yx: Tensor,
    canvas_shape: tuple[int, int],
    device: torch.device | None = None,
    comm: SingleProcess | None = None,
) -> PreparedPatterns:
    """The patterns of a scan, in the order of the propagator, bad pixels zero.

    Where the patterns are in memory, the C library keeps freed memory for the epochs, see
    `keep_freed_memory`.

    Args:
        scan: Patterns, positions, probe, and what is known of flux and background. Real numbers
            have the precision of the probe.
        origin_yx: Of the canvas in the frame of the positions, (2,).
        canvas_shape: ``(Y, X)``.
        device: Where they are used; by default the CPU.
        comm: Processes that share them; by default this one alone.

    Raises:
        ValueError: If a patch reaches beyond the canvas.
        RunError: If there is no room for a scratch file, see `pattern_store`.
    """
    device = device or torch.device("cpu")
    comm = comm or SingleProcess(device)
    real = torch.from_numpy(scan.need_probe()[:0]).real.to(device)  # holds dtype and device
    number = None if scan.fresnel_number is None else real.new_tensor(scan.fresnel_number)
    propagator = propagator_of(number)
    height, width = scan.pattern_shape
    good = None
    if not bool(scan.mask.all()):
        good = propagator.from_detector(torch.from_numpy(scan.mask).to(device))
    pixels = height * width if good is None else int(good.sum())
    nodes = shift_nodes(device)
    ramp_y, ramp_x = (
        torch.exp(-2j * torch.pi * nodes[:, None] * along)
        for along in frequencies((height, width), nodes)
    )
    ramps = (ramp_y[:, None, :, None] * ramp_x[None, :, None, :]).reshape(-1, 1, height, width)
    flux, background, weights = (
        None if each is None else torch.from_numpy(each).to(real)
        for each in (scan.flux, scan.background, scan.probe_weights)
    )
    owner = owners_of(scan.positions_px, comm.world_size)
    own = (owner == comm.rank).nonzero()[:, 0]
    rows = torch.zeros_like(owner)
    rows[own] = torch.arange(len(own))
    store, total = read_photons(scan, own, real, propagator, good)
    comm.sum(total)
    sparse = float(total) / (pixels * len(scan)) < POISSON_BELOW_COUNTS
    noise: NoiseModel = PoissonNoise() if sparse else AmplitudeNoise()
    empty = real.new_empty(0)
    unplaced = PreparedPatterns(
        measured=store.prepared(noise.prepare),
        rows=rows.to(device),
        owner=owner,
        comm=comm,
        mask=good,
        noise=noise,
        propagator=propagator,
        ramps=ramps.to(real.dtype.to_complex()),
        corners=empty,
        fractions=empty,
        node_weights=empty,
        flux=flux,
        background=None if background is None else propagator.from_detector(background),
        probe_weights=weights,
    )
    on_canvas = torch.from_numpy(scan.positions_px).double() - origin_yx
    placed = placed_at(unplaced, on_canvas.to(device))
    last = placed.corners.new_tensor([canvas_shape[0] - height, canvas_shape[1] - width])
    if bool(((placed.corners < 0) | (placed.corners > last)).any()):
        raise ValueError(
            f"patches of {height}x{width} pixels reach beyond the object of {tuple(canvas_shape)} "
            "pixels; pad the object"
        )
    return placed


def read_photons(
    scan: Scan, own: Tensor, real: Tensor, propagator: Propagator, good: Tensor | None
) -> tuple[PatternStore, Tensor]:
    """The patterns of a process, in the order of the propagator, and the sum of their photons.

    Args:
        scan: All patterns.
        own: Those of this process, int64, on the CPU, (n,).
        real: Tensor of the dtype and on the device of the result.
        propagator: From exit waves to the detector.
        good: Good pixels, (H, W); None if every pixel is good. The others become zero.

    Raises:
        RunError: If there is no room for a scratch file.
    """
    height, width = scan.pattern_shape
    total = real.new_zeros((), dtype=torch.float64)

    def photons() -> Iterator[Tensor]:
        for some in parts_of(own, max(1, BLOCK_BYTES // (8 * height * width))):
            counts = torch.as_tensor(scan.counts[some.numpy()]).to(real)
            block = propagator.from_detector(counts)
            block = block if good is None else block * good
            total.add_(block.sum(dtype=torch.float64))
            yield block

    like = real.new_empty(0, height, width)
    size_bytes = len(own) * height * width * real.element_size()
    if isinstance(scan.counts, np.ndarray) or fits_in_memory(size_bytes, real.device):
        keep_freed_memory()  # which a scan that does not fit has no room for
        return in_memory(photons(), len(own), like), total
    return in_file(photons(), like), total


def pair(values: tuple[int, int], device: torch.device) -> Tensor:
    """Two numbers on a device, float64, (2,), without a copy from the host, which a GPU awaits."""
    return torch.cat([torch.full((1,), one, dtype=torch.float64, device=device) for one in values])


def owners_of(positions_px: NDArray[np.float64], world_size: int) -> Tensor:
    """Rank of the process that owns each pattern: that of its compact region, int64, (N,)."""
    owner = torch.zeros(len(positions_px), dtype=torch.int64)
    regions = compact_regions(positions_px, min(world_size, len(positions_px)))
    for rank, region in enumerate(regions):
        owner[torch.from_numpy(region)] = rank
    return owner


def placed_at(patterns: PreparedPatterns, centres: Tensor) -> PreparedPatterns:
    """The same patterns at other positions, float64, (N, 2)."""
    whole, fractions = split_corners(centres - patterns.half)
    weights = node_weights(fractions).to(patterns.like.dtype)
    return replace(patterns, corners=whole, fractions=fractions, node_weights=weights)


def subset_of(patterns: PreparedPatterns, index: Tensor) -> PreparedPatterns:
    """Some of the patterns."""
    flux, weights = patterns.flux, patterns.probe_weights
    return replace(
        patterns,
        rows=patterns.rows[index],
        owner=patterns.owner[index.cpu()],
        corners=patterns.corners[index],
        fractions=patterns.fractions[index],
        node_weights=patterns.node_weights[index],
        flux=None if flux is None else flux[index],
        probe_weights=None if weights is None else weights[index],
    )


def shift_nodes(device: torch.device) -> Tensor:
    """Chebyshev nodes of the fractions of a pixel, within [-0.5, 0.5], float64."""
    k = torch.arange(SHIFT_NODES, dtype=torch.float64, device=device)
    return 0.5 * torch.cos(torch.pi * (2 * k + 1) / (2 * SHIFT_NODES))


def lagrange_weights(x: Tensor) -> Tensor:
    """Weights of the nodes in the polynomial through them, (N, SHIFT_NODES)."""
    nodes = shift_nodes(x.device)
    weights = x.new_ones(len(x), SHIFT_NODES)
    for i in range(SHIFT_NODES):
        for j in range(SHIFT_NODES):
            if i != j:
                weights[:, i] *= (x - nodes[j]) / (nodes[i] - nodes[j])
    return weights


def node_weights(fractions: Tensor) -> Tensor:
    """Weights of the nine node shifts for fractions (N, 2), float64, (N, 9)."""
    along_y, along_x = lagrange_weights(fractions[:, 0]), lagrange_weights(fractions[:, 1])
    return (along_y[:, :, None] * along_x[:, None, :]).flatten(1)


def shift_basis(patterns: PreparedPatterns, probe: Tensor, components: Tensor) -> Tensor:
    """Probe and components at the nodes' shifts, real, (9 (1 + K), M * H * W * 2).

    Args:
        patterns: Whose nodes.
        probe: Complex, (M, H, W).
        components: Complex, (K, M, H, W); K may be 0.
    """
    stack = torch.cat([probe[None], components]) if len(components) else probe[None]
    shifted = torch.fft.ifft2(torch.fft.fft2(stack)[:, None] * patterns.ramps)
    return torch.view_as_real(shifted).reshape(shifted.shape[0] * shifted.shape[1], -1)


def modes_of(patterns: PreparedPatterns, basis: Tensor) -> int:
    """The number of modes in a `shift_basis`."""
    return basis.shape[1] // (2 * math.prod(patterns.shape))


def probes_at(patterns: PreparedPatterns, weights: Tensor, basis: Tensor) -> Tensor:
    """Probe at the fraction of each position, complex, (B, M, H, W)."""
    return torch.view_as_complex((weights @ basis).reshape(len(weights), -1, *patterns.shape, 2))


def cut(obj: Tensor, corners: Tensor, shape: tuple[int, int]) -> Tensor:
    """Patches of the object, (B, H, W)."""
    windows = obj.unfold(0, shape[0], 1).unfold(1, shape[1], 1)
    return windows[corners[:, 0], corners[:, 1]]


def illuminated_patches(
    patterns: PreparedPatterns, obj: Tensor, basis: Tensor, index: Tensor
) -> tuple[Tensor, Tensor]:
    """Patches of the object, (B, H, W), and the probes as they fall there, (B, M, H, W).

    Args:
        patterns: All patterns.
        obj: Complex, (Y, X).
        basis: From `shift_basis`.
        index: Of the patterns.
    """
    patches = cut(obj, patterns.corners[index], patterns.shape)
    return patches, probes_at(patterns, patterns.shift_weights(index), basis)


def expected_counts(
    patterns: PreparedPatterns, obj: Tensor, basis: Tensor, index: Tensor
) -> Tensor:
    """Expected photons of some patterns, (B, H, W); see `illuminated_patches`."""
    model = patterns.model(index)
    waves = model.detector_waves(*illuminated_patches(patterns, obj, basis, index))
    return model.expected_counts(waves)


@dataclass(frozen=True)
class Prediction:
    """How well patterns are predicted.

    Attributes:
        r: R-factor; of patterns without a photon, as if there were one.
        deviance: Poisson deviance, per good pixel.
        dispersion: Misfit in units of counting noise; 1 for a right model. Where no photon is
            expected, the misfit itself.
    """

    r: float
    deviance: float
    dispersion: float


def predict(patterns: PreparedPatterns, obj: Tensor, basis: Tensor, own: Tensor) -> Prediction:
    """How well some patterns are predicted; see `expected_counts`.

    Args:
        patterns: All patterns.
        obj: Complex, (Y, X).
        basis: From `shift_basis`.
        own: Those of the patterns that this process owns, (n,).
    """
    sums = misfit_sums(patterns, obj, basis, own).sum(0)
    patterns.comm.sum(sums)
    return prediction_of(patterns, sums.tolist())


def prediction_of(patterns: PreparedPatterns, sums: Sequence[float]) -> Prediction:
    """The prediction from the numbers of `misfit_sums`."""
    amplitude, total, summed, misfit, noise, count = sums
    good = math.prod(patterns.shape) if patterns.mask is None else int(patterns.mask.sum())
    return Prediction(amplitude / (total or 1.0), summed / (count * good), misfit / (noise or 1.0))


def misfit_sums(patterns: PreparedPatterns, obj: Tensor, basis: Tensor, index: Tensor) -> Tensor:
    """The sums that `prediction_of` divides, of each pattern of this process, float64, (B, 6)."""
    sums = torch.ones(len(index), 6, dtype=torch.float64, device=obj.device)
    at_once = patterns_at_once(patterns, modes_of(patterns, basis))
    for some, result in zip(parts_of(index, at_once), parts_of(sums, at_once), strict=True):
        intensity = expected_counts(patterns, obj, basis, some)
        counts = patterns.counts(some)
        if patterns.mask is not None:
            intensity = intensity * patterns.mask
        parts = (
            (intensity.sqrt() - patterns.amplitudes(some)).square(),
            counts,
            deviance(intensity, counts),
            (counts - intensity).square() / (intensity + 1),
            intensity / (intensity + 1),
        )
        result[:, :-1] = torch.stack([part.sum((1, 2)) for part in parts], dim=1).double()
    return sums


def parts_of(index: Tensor, at_once: int) -> Sequence[Tensor]:
    """Some patterns in turn, so many at once; no part where there is none."""
    return index.split(at_once) if len(index) else ()


def patterns_at_once(patterns: PreparedPatterns, modes: int) -> int:
    """How many patterns are computed at once."""
    budget = WAVE_BUDGET["cpu" if patterns.like.device.type == "cpu" else "other"]
    return max(1, budget // (modes * math.prod(patterns.shape)))

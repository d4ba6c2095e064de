"""One accelerated step of object and probe on a batch of far-apart patterns."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ptycho_torch.data.grouping import compact_regions
from ptycho_torch.physics.forward import illumination_nearest_pixel
from ptycho_torch.physics.incoherent import incoherent_sum, squared_modulus
from ptycho_torch.physics.low_frequency import low_frequency_gain, precondition_phase
from ptycho_torch.physics.patches import add_patch
from ptycho_torch.physics.probe_modes import mode_boost
from ptycho_torch.physics.probe_shift import photons_per_exposure
from ptycho_torch.physics.propagation import far_field, far_field_adjoint
from ptycho_torch.refinement.prepared_patterns import (
    COUNT_FLOOR,
    PreparedPatterns,
    cut,
    probes_at,
    shift_basis,
)

WAVE_BUDGET = 2**21  # detector pixels x modes that are computed at once


@dataclass(frozen=True)
class StepTuning:
    """Numbers of a step, chosen on simulated scans of 10^4 to 10^9 photons and on a measured scan.

    Attributes:
        momentum: Share of the last step that the next one continues (Nesterov).
        object_damping: Share of the brightest illumination that is added to the object's
            preconditioner, as alpha of rPIE.
        probe_damping: The same for the probe.
        probe_step: Step of the probe relative to that of the object.
        edge: Difference of neighbouring object pixels above which it is an edge and smoothed less.
        support: Share of the brightest illumination above which a pixel belongs to the support.
        usual_batch: Largest number of patterns in a batch, unless more are needed to cover the
            support.
        cover: Share of the support that the beams of a batch cover. Where pixels wait too long for
            the next batch, momentum carries them away.
    """

    momentum: float = 0.9
    object_damping: float = 0.1
    probe_damping: float = 0.1
    probe_step: float = 0.7
    edge: float = 0.1
    support: float = 0.1
    usual_batch: int = 128
    cover: float = 0.8


TUNING = StepTuning()


@dataclass
class State:
    """Object and probe while they are refined, with the velocities of the momentum.

    Attributes:
        obj: Complex, (Y, X).
        probe: Complex, (M, H, W), in sqrt(photons).
    """

    obj: Tensor
    probe: Tensor
    obj_velocity: Tensor = field(init=False)
    probe_velocity: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.reset_momentum()

    def reset_momentum(self) -> None:
        """Set the velocities to zero."""
        self.obj_velocity = torch.zeros_like(self.obj)
        self.probe_velocity = torch.zeros_like(self.probe)

    def copy(self) -> "State":
        """An independent state without momentum."""
        return State(self.obj.clone(), self.probe.clone())


@dataclass(frozen=True)
class Illumination:
    """The light that fell on the object in the whole scan.

    Attributes:
        photons: On each pixel, real, (Y, X).
        support: 1 where they are more than a share of the brightest, 0 elsewhere, real, (Y, X).
        gain: From `low_frequency_gain`.
        beams: Number of beams that would cover the support, side by side.
    """

    photons: Tensor
    support: Tensor
    gain: Tensor
    beams: float


def illumination_of(
    patterns: PreparedPatterns, probe: Tensor, work: Tensor, obj: Tensor
) -> Illumination:
    """The light of the patterns of ``work``."""
    shape = (obj.shape[0], obj.shape[1])
    photons = illumination_nearest_pixel(patterns.corners[work][None], probe[None], shape)[0]
    support = (photons > TUNING.support * photons.max()).to(photons.dtype)
    power = incoherent_sum(probe)
    beam_px = power.sum().square() / power.square().sum()  # area of an even beam of the same power
    beams = float((support.sum() / beam_px).nan_to_num())  # 0 for a state that has diverged
    return Illumination(photons, support, low_frequency_gain(probe, shape), beams)


def sparse_batches(
    patterns: PreparedPatterns, work: Tensor, beams: float, rng: torch.Generator
) -> Iterator[Tensor]:
    """Batches of far-apart positions in random order, one of every compact group each.

    They are small, so that there are many steps, but a batch nearly covers the support.

    Args:
        patterns: All patterns.
        work: Indices of those to use.
        beams: See `Illumination`.
        rng: Random generator of the order.
    """
    wanted = min(len(work) // (8 if patterns.poisson else 12), TUNING.usual_batch)
    size = max(wanted, round(TUNING.cover * beams), 4)
    places = patterns.corners[work].double().numpy()
    groups = [
        work[torch.from_numpy(region)] for region in compact_regions(places, min(size, len(work)))
    ]
    drawn = [group[torch.randperm(len(group), generator=rng)] for group in groups]
    longest = max(map(len, drawn))
    for k in torch.randperm(longest, generator=rng).tolist():
        yield torch.stack([group[k] for group in drawn if k < len(group)])


def step_on_batch(
    patterns: PreparedPatterns,
    state: State,
    index: Tensor,
    illumination: Illumination,
    *,
    batches: float,
    step: float,
    prior: float,
    update_probe: bool,
) -> None:
    """Move object and probe by one accelerated step, in place.

    Args:
        patterns: All patterns.
        state: Object and probe.
        index: Patterns of the batch.
        illumination: Of the whole scan.
        batches: How many batches like this one make an epoch.
        step: Step size, relative to the preconditioned gradient.
        prior: Strength of the prior, in photons per object pixel.
        update_probe: Whether the probe moves.
    """
    # 1. Nesterov's momentum: the gradient is taken where the last step leads
    ahead = torch.add(state.obj, state.obj_velocity, alpha=TUNING.momentum)
    probe = state.probe
    if update_probe:
        probe = torch.add(state.probe, state.probe_velocity, alpha=TUNING.momentum)
    basis = shift_basis(patterns, probe)
    gradient = torch.zeros_like(ahead)
    probe_gradient = ProbeGradient(patterns, probe)
    shape = (ahead.shape[0], ahead.shape[1])
    here = illumination_nearest_pixel(patterns.corners[index][None], state.probe[None], shape)[0]
    for some in index.split(max(1, WAVE_BUDGET // (len(probe) * math.prod(patterns.shape)))):
        # 2. residual on the detector, propagated back to exit waves
        patches = cut(ahead, patterns.corners[some], patterns.shape)
        probes = probes_at(patterns, patterns.weights[some], basis)
        waves = far_field(patches[:, None] * probes)
        residual = far_field_adjoint(waves.mul_(residual_factor(patterns, some, waves)[:, None]))
        # 3. adjoint of the interaction: to the object, and to the probe
        back = probes.conj_physical_().mul_(residual)
        placed = back[:, 0] if len(probe) == 1 else back.sum(1)
        for corner, patch in zip(patterns.corners[some].tolist(), placed, strict=True):
            add_patch(gradient, patch, corner)
        if update_probe:
            probe_gradient.add(some, patches, residual)
    # 4. preconditioned direction of the object, with the prior
    curvature = (
        torch.maximum(illumination.photons, here.mul_(batches))
        .mul_(1 - TUNING.object_damping)
        .add_(TUNING.object_damping * illumination.photons.max() + 4 * prior)
    )
    gradient.mul_(batches).sub_(roughness_gradient(ahead), alpha=0.5 * prior)
    direction = precondition_phase(
        gradient.mul_(curvature.reciprocal_()), ahead, illumination.support, illumination.gain
    )
    # 5. step
    state.obj_velocity.mul_(TUNING.momentum).add_(direction, alpha=step)
    state.obj.add_(state.obj_velocity)
    if update_probe:
        boosted = probe_gradient.direction() * mode_boost(probe)
        state.probe_velocity.mul_(TUNING.momentum).add_(boosted, alpha=TUNING.probe_step * step)
        state.probe.add_(state.probe_velocity)


def residual_factor(patterns: PreparedPatterns, index: Tensor, waves: Tensor) -> Tensor:
    """Factor from detector waves to residual, real, (B, H, W); 0 where the model is right."""
    intensity = incoherent_sum(waves)
    if patterns.poisson:
        counts = patterns.counts(index).add_(COUNT_FLOOR)
        factor = counts.div_(intensity.add_(COUNT_FLOOR)).sub_(1).mul_(0.5)
    else:
        factor = patterns.amplitudes(index).mul_(intensity.add_(1e-6).rsqrt_()).sub_(1)
    return factor if patterns.mask is None else factor * patterns.mask


def roughness_gradient(obj: Tensor) -> Tensor:
    """Gradient of the edge-preserving prior, complex, (Y, X).

    The prior is ``edge^2 * sum sqrt(1 + |difference|^2 / edge^2)`` over neighbouring pixels.
    """
    total = torch.zeros_like(obj)
    for axis in (0, 1):
        size = obj.shape[axis] - 1
        difference = obj.narrow(axis, 1, size) - obj.narrow(axis, 0, size)
        flux = difference * torch.rsqrt(1 + squared_modulus(difference) / TUNING.edge**2)
        total.narrow(axis, 1, size).add_(flux)
        total.narrow(axis, 0, size).sub_(flux)
    return total


class ProbeGradient:
    """The gradient of the probe over the patterns of a batch, by the adjoint of `probes_at`.

    Args:
        patterns: All patterns.
        probe: Where the gradient is taken, (M, H, W).
    """

    def __init__(self, patterns: PreparedPatterns, probe: Tensor) -> None:
        self.patterns = patterns
        self.at_nodes = probe.new_zeros(len(patterns.ramps), *probe.shape)
        self.curvature = torch.zeros(patterns.shape)

    def add(self, index: Tensor, patches: Tensor, residual: Tensor) -> None:
        """Add some patterns; overwrites ``patches``, (B, H, W), and ``residual``, (B, M, H, W)."""
        products = residual.mul_(patches.conj_physical_()[:, None])
        flat = torch.view_as_real(products).reshape(len(index), -1)
        sums = (self.patterns.weights[index].T @ flat).reshape(*self.at_nodes.shape, 2)
        self.at_nodes.add_(torch.view_as_complex(sums))
        self.curvature.add_(squared_modulus(patches).sum(0))

    def direction(self) -> Tensor:
        """The preconditioned direction of descent, complex, (M, H, W)."""
        spectrum = (torch.fft.fft2(self.at_nodes) * self.patterns.ramps.conj()).sum(0)
        damping = TUNING.probe_damping
        return torch.fft.ifft2(spectrum) / (
            self.curvature * (1 - damping) + damping * self.curvature.max()
        )


def keep_photons(state: State, probe: Tensor) -> None:
    """Scale the probe to the photons of another one, and the object by the inverse."""
    photons = photons_per_exposure(probe.to(torch.complex64))
    scale = torch.sqrt(photons / photons_per_exposure(state.probe))
    state.probe, state.obj = state.probe * scale, state.obj / scale

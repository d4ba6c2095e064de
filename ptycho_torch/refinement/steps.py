"""One accelerated step of object and probe on a batch of far-apart patterns."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ptycho_torch.grouping import compact_regions
from ptycho_torch.physics.forward import coverage
from ptycho_torch.physics.incoherent import incoherent_sum, squared_modulus
from ptycho_torch.physics.patches import add_patch
from ptycho_torch.physics.probe import photons_per_exposure
from ptycho_torch.physics.propagate import far_field, far_field_adjoint
from ptycho_torch.physics.slow_phase import slow_phase_gain, with_slow_phase
from ptycho_torch.refinement.modes import mode_boost
from ptycho_torch.refinement.patterns import COUNT_FLOOR, Patterns, cut, probes_at, shift_basis

MOMENTUM = 0.9
OBJECT_DAMPING = 0.1  # share of the brightest illumination added to the preconditioner
PROBE_DAMPING = 0.1
PROBE_STEP = 0.7  # of the object's step
EDGE = 0.1  # difference of neighbouring object pixels above which it is an edge and smoothed less
LIT = 0.1  # of the brightest light, above which a pixel counts as lit
USUAL_BATCH = 128  # patterns, at most, unless more are needed to cover what is lit
COVER = 0.8  # of what is lit, by the beams of a batch; where pixels wait too long for the next batch, momentum carries them away
WAVE_BUDGET = 2**21  # detector pixels x modes at once


@dataclass
class State:
    """What is being refined, with the velocities of the momentum."""

    obj: Tensor
    probe: Tensor
    obj_velocity: Tensor = field(init=False)
    probe_velocity: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.halt()

    def halt(self) -> None:
        """Forget the momentum."""
        self.obj_velocity = torch.zeros_like(self.obj)
        self.probe_velocity = torch.zeros_like(self.probe)

    def copy(self) -> "State":
        """An independent state at rest."""
        return State(self.obj.clone(), self.probe.clone())


@dataclass(frozen=True)
class Light:
    """What fell on the object in the whole scan.

    Attributes:
        photons: On each pixel, real, (Y, X).
        lit: 1 where they are more than a share of the brightest, 0 elsewhere, real, (Y, X).
        gain: From `slow_phase_gain`.
        beams: That would cover what is lit, side by side.
    """

    photons: Tensor
    lit: Tensor
    gain: Tensor
    beams: float


def light_on(patterns: Patterns, probe: Tensor, work: Tensor, obj: Tensor) -> Light:
    """The light of the patterns of ``work``."""
    shape = (obj.shape[0], obj.shape[1])
    photons = coverage(patterns.corners[work][None], probe[None], shape)[0]
    lit = (photons > LIT * photons.max()).to(photons.dtype)
    power = incoherent_sum(probe)
    beam_px = power.sum().square() / power.square().sum()  # the area that it would have if it were even
    beams = float((lit.sum() / beam_px).nan_to_num())  # a state that is lost has none, and is judged later
    return Light(photons, lit, slow_phase_gain(probe, shape), beams)


def sparse_batches(patterns: Patterns, work: Tensor, beams: float, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches of far-apart positions in random order: each takes one from every compact group of neighbours.

    They are small, so that there are many steps, but a batch nearly covers what is lit.

    Args:
        patterns: All of them.
        work: Indices of those to use.
        beams: See `Light`.
        generator: Of the order.
    """
    wanted = min(len(work) // (8 if patterns.poisson else 12), USUAL_BATCH)
    size = max(wanted, round(COVER * beams), 4)
    places = patterns.corners[work].double().numpy()
    groups = [work[torch.from_numpy(region)] for region in compact_regions(places, min(size, len(work)))]
    drawn = [group[torch.randperm(len(group), generator=generator)] for group in groups]
    longest = max(map(len, drawn))
    for k in torch.randperm(longest, generator=generator).tolist():
        yield torch.stack([group[k] for group in drawn if k < len(group)])


def step_on_batch(
    patterns: Patterns,
    state: State,
    index: Tensor,
    light: Light,
    share: float,
    step: float,
    prior: float,
    update_probe: bool,
) -> None:
    """One accelerated step of object and probe; ``share`` batches like this one make an epoch."""
    ahead = torch.add(state.obj, state.obj_velocity, alpha=MOMENTUM)
    probe = torch.add(state.probe, state.probe_velocity, alpha=MOMENTUM) if update_probe else state.probe
    basis = shift_basis(patterns, probe)
    gradient = torch.zeros_like(ahead)
    here = coverage(patterns.corners[index][None], state.probe[None], (ahead.shape[0], ahead.shape[1]))[0]
    probe_gradient = ProbeGradient(patterns, probe)
    for some in index.split(max(1, WAVE_BUDGET // (len(probe) * math.prod(patterns.shape)))):
        patches = cut(ahead, patterns.corners[some], patterns.shape)
        probes = probes_at(patterns, patterns.weights[some], basis)
        waves = far_field(patches[:, None] * probes)
        residual = far_field_adjoint(waves.mul_(correction(patterns, some, waves)[:, None]))
        back = probes.conj_physical_().mul_(residual)
        one_each = back[:, 0] if len(probe) == 1 else back.sum(1)
        for corner, patch in zip(patterns.corners[some].tolist(), one_each, strict=True):
            add_patch(gradient, patch, corner)
        if update_probe:
            probe_gradient.add(some, patches, residual)

    curvature = (
        torch.maximum(light.photons, here.mul_(share))
        .mul_(1 - OBJECT_DAMPING)
        .add_(OBJECT_DAMPING * light.photons.max() + 4 * prior)
    )
    gradient.mul_(share).sub_(roughness_gradient(ahead), alpha=0.5 * prior)
    direction = with_slow_phase(gradient.mul_(curvature.reciprocal_()), ahead, light.lit, light.gain)
    state.obj_velocity.mul_(MOMENTUM).add_(direction, alpha=step)
    state.obj.add_(state.obj_velocity)
    if update_probe:
        state.probe_velocity.mul_(MOMENTUM).add_(probe_gradient.direction() * mode_boost(probe), alpha=PROBE_STEP * step)
        state.probe.add_(state.probe_velocity)


def correction(patterns: Patterns, index: Tensor, waves: Tensor) -> Tensor:
    """What detector waves are to be multiplied by to descend, (B, H, W); 0 where the model is right."""
    intensity = incoherent_sum(waves)
    if patterns.poisson:
        factor = patterns.counts(index).add_(COUNT_FLOOR).div_(intensity.add_(COUNT_FLOOR)).sub_(1).mul_(0.5)
    else:
        factor = patterns.amplitudes(index).mul_(intensity.add_(1e-6).rsqrt_()).sub_(1)
    return factor if patterns.good is None else factor * patterns.good


def roughness_gradient(obj: Tensor) -> Tensor:
    """Derivative of ``EDGE^2 * sum sqrt(1 + |difference|^2 / EDGE^2)`` over neighbouring pixels, (Y, X)."""
    total = torch.zeros_like(obj)
    for axis in (0, 1):
        size = obj.shape[axis] - 1
        difference = obj.narrow(axis, 1, size) - obj.narrow(axis, 0, size)
        flux = difference * torch.rsqrt(1 + squared_modulus(difference) / EDGE**2)
        total.narrow(axis, 1, size).add_(flux)
        total.narrow(axis, 0, size).sub_(flux)
    return total


class ProbeGradient:
    """The gradient of the probe over the patterns of a batch, by the adjoint of `probes_at`.

    Args:
        patterns: All of them.
        probe: Where the gradient is taken, (M, H, W).
    """

    def __init__(self, patterns: Patterns, probe: Tensor) -> None:
        self.patterns = patterns
        self.at_nodes = probe.new_zeros(len(patterns.ramps), *probe.shape)
        self.curvature = torch.zeros(patterns.shape)

    def add(self, index: Tensor, patches: Tensor, residual: Tensor) -> None:
        """Add that of some of them; spends ``patches``, (B, H, W), and ``residual``, (B, M, H, W)."""
        products = torch.view_as_real(residual.mul_(patches.conj_physical_()[:, None])).reshape(len(index), -1)
        pulled = (self.patterns.weights[index].T @ products).reshape(*self.at_nodes.shape, 2)
        self.at_nodes.add_(torch.view_as_complex(pulled))
        self.curvature.add_(squared_modulus(patches).sum(0))  # patches are conjugate by now

    def direction(self) -> Tensor:
        """The preconditioned direction of descent, (M, H, W)."""
        gradient = torch.fft.ifft2((torch.fft.fft2(self.at_nodes) * self.patterns.ramps.conj()).sum(0))
        return gradient / (self.curvature * (1 - PROBE_DAMPING) + PROBE_DAMPING * self.curvature.max())


def keep_photons(state: State, probe: Tensor) -> None:
    """Move the scale that probe and object share so that the probe has the photons it came with."""
    scale = torch.sqrt(photons_per_exposure(probe.to(torch.complex64)) / photons_per_exposure(state.probe))
    state.probe, state.obj = state.probe * scale, state.obj / scale

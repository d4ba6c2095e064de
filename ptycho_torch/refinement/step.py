"""One accelerated step of object and probe on a batch of far-apart patterns."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ptycho_torch.data.grouping import compact_regions
from ptycho_torch.physics.forward import quick_illumination
from ptycho_torch.physics.incoherent import coherent_sum, incoherent_sum, squared_modulus
from ptycho_torch.physics.low_frequency import low_frequency_gain, precondition_phase
from ptycho_torch.physics.patches import add_patches
from ptycho_torch.physics.probe_modes import mode_boost
from ptycho_torch.physics.probe_shift import photons_per_exposure
from ptycho_torch.refinement.prepared_patterns import (
    PreparedPatterns,
    illuminated_patches,
    parts_of,
    patterns_at_once,
    shift_basis,
)

SAME_REGIONS = 0.05  # relative difference of a number of regions from the one that is wanted


@dataclass(frozen=True)
class StepTuning:
    """Numbers of a step, chosen on simulated scans of 10^4 to 10^9 photons and on a measured scan.

    Attributes:
        momentum: Share of the last step that the next one continues (Nesterov).
        object_damping: Share of the brightest illumination that is added to the object's
            preconditioner, as alpha of rPIE.
        probe_damping: The same for the probe.
        component_damping: The same for the components of a probe that changes over the scan.
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
    component_damping: float = 0.3
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
        probe: Complex, (M, H, W), in sqrt(photons); the mean where it changes over the scan.
        components: How it changes, complex, (K, M, H, W); by default none.
    """

    obj: Tensor
    probe: Tensor
    components: Tensor = None  # type: ignore[assignment]
    obj_velocity: Tensor = field(init=False)
    probe_velocity: Tensor = field(init=False)

    def __post_init__(self) -> None:
        if self.components is None:
            self.components = self.probe.new_zeros(0, *self.probe.shape)
        self.reset_momentum()

    def reset_momentum(self) -> None:
        """Set the velocities to zero."""
        self.obj_velocity = torch.zeros_like(self.obj)
        self.probe_velocity = self.probe.new_zeros(1 + len(self.components), *self.probe.shape)

    @property
    def shape(self) -> tuple[int, int]:
        """``(Y, X)`` of the object."""
        return int(self.obj.shape[0]), int(self.obj.shape[1])

    @property
    def is_finite(self) -> bool:
        """Whether object and probe are finite; refinement that diverges ends in NaN."""
        total = self.obj.abs().sum() + self.probe.abs().sum() + self.components.abs().sum()
        return bool(total.isfinite())

    def copy(self) -> "State":
        """An independent state without momentum."""
        return State(self.obj.clone(), self.probe.clone(), self.components.clone())

    def restore(self, other: "State") -> None:
        """Take object and probe of another state, without momentum."""
        self.obj, self.probe = other.obj.clone(), other.probe.clone()
        self.components = other.components.clone()
        self.reset_momentum()


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """How far a step goes.

    Attributes:
        batches: How many batches like this one make an epoch.
        step: Step size, relative to the preconditioned gradient.
        prior: Strength of the prior, in photons per object pixel.
        update_probe: Whether the probe moves.
    """

    batches: float
    step: float
    prior: float
    update_probe: bool


@dataclass(frozen=True)
class Descent:
    """Some patterns of a batch, and the direction in which their misfit falls.

    Attributes:
        index: Of the patterns, (B,).
        patches: Of the object, complex, (B, H, W).
        probes: As they fall there, complex, (B, M, H, W).
        intensity: Expected photons, real, (B, H, W).
        slope: From `NoiseModel.descent`, 0 on bad pixels, real, (B, H, W).
        exit_waves: Direction of descent of the exit waves, complex, (B, M, H, W).
    """

    index: Tensor
    patches: Tensor
    probes: Tensor
    intensity: Tensor
    slope: Tensor
    exit_waves: Tensor


class Observer(Protocol):
    """Something that is refined beside object and probe; it sees every batch."""

    def add(self, descent: Descent) -> None:
        """See some own patterns of a batch; must not change the tensors."""

    def finish_batch(self) -> None:
        """Take the step of the batch, after the processes have seen all patterns of it."""


@dataclass(frozen=True)
class WorkingSet:
    """The patterns that epochs use.

    Batches are planned in the host's memory, so that an epoch waits for no copy from the device.

    Attributes:
        own: Indices of those that this process owns, int64, on the device of the patterns.
        host_index: Indices of all of them, on the CPU, int64, (n,).
        host_places: Their corners when the set was made, in pixels, float64, (n, 2).
    """

    own: Tensor
    host_index: Tensor
    host_places: NDArray[np.float64]
    _regions: dict[int, tuple[Tensor, list[int]]] = field(default_factory=dict, init=False)

    def __len__(self) -> int:
        return len(self.host_index)

    def regions(self, wanted: int) -> tuple[Tensor, list[int]]:
        """All of them in about as many compact regions as wanted.

        The number that is wanted changes a little from epoch to epoch, and to make regions takes
        long beside an epoch on a GPU. So some that were made stay, up to `SAME_REGIONS`.

        Returns:
            One region in a row, filled up with -1, int64, on the CPU, (count, L), and their sizes.
        """
        for count, made in self._regions.items():
            if abs(count - wanted) <= SAME_REGIONS * wanted:
                return made
        each = [
            self.host_index[torch.from_numpy(region)]
            for region in compact_regions(self.host_places, wanted)
        ]
        rows = pad_sequence(each, batch_first=True, padding_value=-1)
        self._regions[wanted] = rows, [*map(len, each)]
        return self._regions[wanted]


def working_set(patterns: PreparedPatterns, index: Tensor) -> WorkingSet:
    """The `WorkingSet` of some patterns; waits for the device."""
    host_index, index = index.cpu(), index.to(patterns.like.device)
    places = patterns.corners[index].double().cpu().numpy()
    return WorkingSet(patterns.own(host_index), host_index, places)


@dataclass(frozen=True)
class Illumination:
    """The light that fell on the object in the whole scan.

    Attributes:
        photons: On each pixel, real, (Y, X).
        support: 1 where they are more than a share of the brightest, 0 elsewhere, real, (Y, X).
        gain: From `low_frequency_gain`.
        beams: Number of beams that would cover the support, side by side, a number.
        typical: Photons on a pixel of the support on average, a number.
        brightest: Photons on the brightest pixel, a number.
        basis: From `shift_basis` of the probe that lights the object.
    """

    photons: Tensor
    support: Tensor
    gain: Tensor
    beams: Tensor
    typical: Tensor
    brightest: Tensor
    basis: Tensor


def illumination_of(patterns: PreparedPatterns, state: State, own: Tensor) -> Illumination:
    """The light of some patterns, of which this process owns the given ones."""
    probe = state.probe
    shape = state.shape
    photons = quick_illumination(patterns.corners[own], probe, shape)
    patterns.comm.sum(photons)
    brightest = photons.max()
    support = (photons > TUNING.support * brightest).to(photons.dtype)
    power = incoherent_sum(probe)
    beam_px = power.sum().square() / power.square().sum()  # area of an even beam of the same power
    beams = (support.sum() / beam_px).nan_to_num()  # 0 for a state that has diverged
    typical = (photons * support).sum() / support.sum()
    return Illumination(
        photons=photons,
        support=support,
        gain=low_frequency_gain(probe, shape),
        beams=beams,
        typical=typical,
        brightest=brightest,
        basis=shift_basis(patterns, probe, state.components),
    )


class Batch(NamedTuple):
    """A batch of patterns that the processes share.

    Attributes:
        own: Indices of those that this process owns, on the device of the patterns.
        size: Number of all of them.
    """

    own: Tensor
    size: int


def sparse_batches(
    patterns: PreparedPatterns, work: WorkingSet, beams: float, rng: torch.Generator
) -> Iterator[Batch]:
    """Batches of far-apart positions in random order, one of every compact group each.

    They are small, so that there are many steps, but a batch nearly covers the support.

    Args:
        patterns: All patterns.
        work: Those to use.
        beams: See `Illumination`.
        rng: Random generator of the order, on the CPU.
    """
    wanted = min(len(work) // (8 if patterns.poisson else 12), TUNING.usual_batch)
    size = max(wanted, round(TUNING.cover * beams), 4)
    regions, sizes = work.regions(min(size, len(work)))
    shuffles = [torch.randperm(one, generator=rng) for one in sizes]
    places = pad_sequence(shuffles, batch_first=True, padding_value=regions.shape[1] - 1)
    drawn = regions.gather(1, places)  # those of a region in a row
    order = torch.randperm(drawn.shape[1], generator=rng)
    batches = [column[column >= 0] for column in drawn.T[order]]
    own = [batch[patterns.owner[batch] == patterns.comm.rank] for batch in batches]
    parts = torch.cat(own).to(work.own.device).split([*map(len, own)])
    yield from map(Batch, parts, map(len, batches))


def step_on_batch(
    patterns: PreparedPatterns,
    state: State,
    own: Tensor,
    illumination: Illumination,
    settings: StepSettings,
    observers: Sequence[Observer] = (),
) -> None:
    """Move object and probe by one accelerated step, in place.

    Args:
        patterns: All patterns.
        state: Object and probe.
        own: Patterns of the batch that this process owns.
        illumination: Of the whole scan.
        settings: How far.
        observers: What else learns from the batch.
    """
    batches, prior = settings.batches, settings.prior
    # 1. Nesterov's momentum: the gradient is taken where the last step leads
    ahead = torch.add(state.obj, state.obj_velocity, alpha=TUNING.momentum)
    probe, components, basis = state.probe, state.components, illumination.basis
    if settings.update_probe:
        probe = torch.add(probe, state.probe_velocity[0], alpha=TUNING.momentum)
        components = torch.add(components, state.probe_velocity[1:], alpha=TUNING.momentum)
        basis = shift_basis(patterns, probe, components)
    gradient = torch.zeros_like(ahead)
    probe_gradient = ProbeGradient(patterns, probe, len(components))
    here = quick_illumination(patterns.corners[own], state.probe, state.shape)
    for some in parts_of(own, patterns_at_once(patterns, len(probe))):
        # 2. residual on the detector, propagated back to exit waves
        descent = descent_of(patterns, ahead, basis, some)
        for observer in observers:
            observer.add(descent)
        # 3. adjoint of the interaction: to the object, and to the probe, both conjugated
        conjugated = descent.exit_waves.conj_physical_()
        add_patches(gradient, coherent_sum(descent.probes * conjugated), patterns.corners[some])
        if settings.update_probe:
            probe_gradient.add(patterns.shift_weights(some), descent)
    for observer in observers:
        observer.finish_batch()
    patterns.comm.sum(gradient.conj_physical_(), here)
    # 4. preconditioned direction of the object, with the prior
    curvature = (
        torch.maximum(illumination.photons, here.mul_(batches))
        .mul_(1 - TUNING.object_damping)
        .add_(TUNING.object_damping * illumination.brightest + 4 * prior)
    )
    gradient.mul_(batches).sub_(roughness_gradient(ahead), alpha=0.5 * prior)
    direction = precondition_phase(
        gradient.mul_(curvature.reciprocal_()), ahead, illumination.support, illumination.gain
    )
    # 5. step
    state.obj_velocity.mul_(TUNING.momentum).add_(direction, alpha=settings.step)
    state.obj.add_(state.obj_velocity)
    if settings.update_probe:
        boosted = probe_gradient.direction() * mode_boost(probe)
        state.probe_velocity.mul_(TUNING.momentum).add_(
            boosted, alpha=TUNING.probe_step * settings.step
        )
        state.probe.add_(state.probe_velocity[0])
        state.components.add_(state.probe_velocity[1:])


def descent_of(patterns: PreparedPatterns, obj: Tensor, basis: Tensor, index: Tensor) -> Descent:
    """The direction of descent of some patterns; see `illuminated_patches`."""
    model = patterns.model(index)
    patches, probes = illuminated_patches(patterns, obj, basis, index)
    waves = model.detector_waves(patches, probes)
    intensity = model.expected_counts(waves)
    slope = patterns.noise.descent(intensity, patterns.measured_at(index))
    if patterns.mask is not None:
        slope = slope * patterns.mask
    exit_waves = model.exit_wave_gradient(waves, slope)
    return Descent(index, patches, probes, intensity, slope, exit_waves)


def roughness_gradient(obj: Tensor) -> Tensor:
    """Gradient of the edge-preserving prior, complex, (Y, X).

    The prior is ``edge^2 * sum sqrt(1 + |difference|^2 / edge^2)`` over neighbouring pixels.
    """
    total = torch.zeros_like(obj)
    for axis in (0, 1):
        size = obj.shape[axis] - 1
        difference = obj.narrow(axis, 1, size) - obj.narrow(axis, 0, size)
        flux = difference.mul_(
            squared_modulus(difference).mul_(1 / TUNING.edge**2).add_(1).rsqrt_()
        )
        total.narrow(axis, 1, size).add_(flux)
        total.narrow(axis, 0, size).sub_(flux)
    return total


class ProbeGradient:
    """The gradient of probe and components over a batch, by the adjoint of `probes_at`.

    Args:
        patterns: All patterns.
        probe: Where the gradient is taken, (M, H, W).
        components: Their number.
    """

    def __init__(self, patterns: PreparedPatterns, probe: Tensor, components: int) -> None:
        self.patterns, self.ramps = patterns, patterns.ramps
        self.shape = (1 + components, len(patterns.ramps), *probe.shape)
        rows = math.prod(self.shape[:2])
        self.at_nodes = patterns.like.new_zeros(rows, 2 * probe.numel())
        self.curvature = patterns.like.new_zeros(1 + components, *patterns.shape)

    def add(self, weights: Tensor, descent: Descent) -> None:
        """Add some patterns, with the weights of the basis.

        Their exit waves must be conjugated, which leaves a copy out; they are overwritten.
        """
        transmitted = squared_modulus(descent.patches)
        self.curvature[0] += transmitted.sum(0)
        if self.patterns.probe_weights is not None:
            shares = self.patterns.probe_weights[descent.index].square()
            self.curvature[1:] += torch.einsum("nk,nhw->khw", shares, transmitted)
        products = descent.exit_waves.mul_(descent.patches[:, None])
        self.at_nodes.addmm_(weights.T, torch.view_as_real(products).flatten(1))

    def direction(self) -> Tensor:
        """The preconditioned direction of descent, complex, (1 + K, M, H, W)."""
        at_nodes = torch.view_as_complex(self.at_nodes.reshape(*self.shape, 2)).conj_physical_()
        spectrum = (torch.fft.fft2(at_nodes) * self.ramps.conj()).sum(1)
        self.patterns.comm.sum(spectrum, self.curvature)
        of_components = (TUNING.component_damping,) * (len(self.curvature) - 1)
        damped = [
            curvature * (1 - damping) + damping * curvature.max()
            for curvature, damping in zip(
                self.curvature, (TUNING.probe_damping, *of_components), strict=True
            )
        ]
        return torch.fft.ifft2(spectrum) / torch.stack(damped)[:, None]


def keep_photons(state: State, probe: Tensor) -> None:
    """Scale the probe to the photons of another one, and the object by the inverse."""
    photons = photons_per_exposure(probe.to(state.probe))
    scale = torch.sqrt(photons / photons_per_exposure(state.probe))
    state.probe, state.obj = state.probe * scale, state.obj / scale
    state.components = state.components * scale

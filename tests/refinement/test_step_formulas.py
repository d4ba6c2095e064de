"""A step, and what moves beside it, are those of the formulas, in double precision.

The measurement is random, with everything that a pattern can have: two modes, two components, a
flux, a background, bad pixels, patterns that are not square. Gradients are those that torch derives
from the misfit of a dense model, blurs those of SciPy. The sub-pixel parts of the positions are
nodes of the interpolation, at which it is exact.
"""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from ptycho_torch.data.scan import Scan
from ptycho_torch.distributed.communicator import SingleProcess
from ptycho_torch.physics.forward import position_gradient
from ptycho_torch.physics.low_frequency import low_frequency_gain, precondition_phase
from ptycho_torch.physics.noise import EPS, AmplitudeNoise, deviance
from ptycho_torch.physics.probe_shift import shift_probe
from ptycho_torch.refinement import background, flux, positions, step
from ptycho_torch.refinement.background import BackgroundObserver
from ptycho_torch.refinement.flux import FluxObserver
from ptycho_torch.refinement.joint_refinement import first_state
from ptycho_torch.refinement.positions import AffineSums, PositionObserver, move
from ptycho_torch.refinement.prepared_patterns import (
    WAVE_BUDGET,
    expected_counts,
    misfit_sums,
    prediction_of,
    prepare,
    shift_basis,
    shift_nodes,
    subset_of,
)

CPU = torch.device("cpu")
N, SHAPE, CANVAS = 14, (12, 9), (30, 24)
FEW_PHOTONS, MANY_PHOTONS = 3.0, 300.0  # per pixel


def made(photons=MANY_PHOTONS, fresnel_number=None, modes=2, components=2):
    """Patterns and a state that does not explain them, in double precision."""
    rng = np.random.default_rng(3)

    def waves(*shape):
        return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)

    whole = np.stack([rng.integers(0, 1 + y - h, N) for y, h in zip(CANVAS, SHAPE, strict=True)], 1)
    # away from the border of the canvas, so that no sub-pixel part leads beyond it
    whole = whole.clip(1, np.array(CANVAS) - SHAPE - 1)
    nodes = shift_nodes(CPU).numpy()
    corners = whole + nodes[rng.integers(0, 3, (N, 2))]
    mask = rng.random(SHAPE) > 0.1
    probe = waves(modes, *SHAPE) * np.sqrt(photons / 2 / modes)
    scan = Scan(
        counts=rng.poisson(photons * rng.exponential(1, (N, *SHAPE))).astype(np.float64),
        positions_px=corners + np.array(SHAPE) / 2,
        probe=probe,
        mask=mask,
        scan_index=np.arange(N),
        fresnel_number=fresnel_number,
        flux=rng.uniform(0.7, 1.3, N),
        background=rng.uniform(0.1, 1, SHAPE),
        probe_components=0.2 * waves(components, *probe.shape) if components else None,
        probe_weights=rng.standard_normal((N, components)) if components else None,
    )
    patterns = prepare(scan, torch.zeros(2, dtype=torch.float64), CANVAS)
    obj = torch.from_numpy(1 + 0.5 * waves(*CANVAS))
    state = first_state(scan, obj, modes, CPU)
    state.obj_velocity = 0.05 * torch.from_numpy(waves(*CANVAS))
    state.probe_velocity = 0.05 * torch.from_numpy(waves(1 + components, *probe.shape))
    return scan, patterns, state


def dense(patterns, obj, probe, components, index):
    """Expected photons, each pattern by its own probe, shifted exactly, (B, H, W)."""
    every = []
    for n in index.tolist():
        weights = patterns.probe_weights[n].to(probe.dtype)
        own = shift_probe(
            probe + torch.einsum("k,kmhw->mhw", weights, components), patterns.fractions[n]
        )
        top, left = patterns.corners[n].tolist()
        exit_waves = own * obj[top : top + SHAPE[0], left : left + SHAPE[1]]
        detector = patterns.propagator.forward(exit_waves, patterns.fractions[n])
        light = patterns.flux[n] * detector.abs().square().sum(0)
        every.append(light + patterns.background)
    return torch.stack(every)


def misfit(patterns, intensity, index):
    """The deviance of good pixels, or four times the misfit of amplitudes."""
    if isinstance(patterns.noise, AmplitudeNoise):
        each = 4 * ((intensity + EPS).sqrt() - patterns.amplitudes(index)).square()
    else:
        each = deviance(intensity, patterns.counts(index))
    return (each * patterns.mask).sum()


def slope_of(patterns, intensity, index):
    """Minus a quarter of the derivative of the misfit by the expected photons."""
    free = intensity.detach().clone().requires_grad_()
    misfit(patterns, free, index).backward()
    return -free.grad / 4


def descents(patterns, obj, probe, components, index):
    """Minus an eighth of the gradients of the misfit: of object, probe, components."""
    free = [one.detach().clone().requires_grad_() for one in (obj, probe, components)]
    misfit(patterns, dense(patterns, *free, index), index).backward()
    return [-one.grad / 8 for one in free]


def roughness(obj):
    """The edge-preserving prior."""
    edge = step.TUNING.edge
    differences = (obj[1:] - obj[:-1], obj[:, 1:] - obj[:, :-1])
    return sum(edge**2 * (1 + one.abs().square() / edge**2).sqrt().sum() for one in differences)


def light_of(patterns, probe, index):
    """Photons on each pixel of the canvas, at the nearest whole pixels."""
    light = torch.zeros(CANVAS, dtype=torch.float64)
    for top, left in patterns.corners[index].tolist():
        light[top : top + SHAPE[0], left : left + SHAPE[1]] += probe.abs().square().sum(0)
    return light


KINDS = [
    (MANY_PHOTONS, None, True),
    (FEW_PHOTONS, None, True),
    (MANY_PHOTONS, (0.2, 0.3), True),
    (MANY_PHOTONS, None, False),
]


@pytest.mark.parametrize(("photons", "fresnel_number", "update_probe"), KINDS)
def test_a_step_follows_the_preconditioned_gradient_with_momentum(
    photons, fresnel_number, update_probe
):
    _, patterns, state = made(photons, fresnel_number)
    tuning, batches, size, prior = step.TUNING, 2.5, 0.4, 0.3 * photons
    index = torch.tensor([1, 4, 5, 11])
    light = step.illumination_of(patterns, state, patterns.everything)
    # 1. the formulas
    ahead = state.obj + tuning.momentum * state.obj_velocity
    moving = tuning.momentum * update_probe * state.probe_velocity
    probe, components = state.probe + moving[0], state.components + moving[1:]
    of_obj, of_probe, of_components = descents(patterns, ahead, probe, components, index)
    free = ahead.clone().requires_grad_()
    roughness(free).backward()
    every, here = (light_of(patterns, state.probe, one) for one in (patterns.everything, index))
    curvature = (1 - tuning.object_damping) * torch.maximum(every, batches * here)
    curvature += tuning.object_damping * every.max() + 4 * prior
    direction = (batches * of_obj - 0.5 * prior * free.grad) / curvature
    support = (every > tuning.support * every.max()).double()
    direction = precondition_phase(
        direction, ahead, support, low_frequency_gain(state.probe, CANVAS)
    )
    obj_velocity = tuning.momentum * state.obj_velocity + size * direction
    expected_obj = state.obj + obj_velocity
    power = [torch.zeros(SHAPE, dtype=torch.float64) for _ in range(3)]
    for n in index.tolist():
        top, left = patterns.corners[n].tolist()
        patch = ahead[top : top + SHAPE[0], left : left + SHAPE[1]].abs().square()
        for total, weight in zip(power, (1, *patterns.probe_weights[n].tolist()), strict=True):
            total += weight**2 * patch
    dampings = (tuning.probe_damping, tuning.component_damping, tuning.component_damping)
    photons_of_modes = probe.abs().square().sum((1, 2))
    boost = (photons_of_modes.sum() / photons_of_modes).sqrt().clamp(max=2)[:, None, None]
    moved = [
        boost * one / ((1 - damping) * total + damping * total.max())
        for one, total, damping in zip((of_probe, *of_components), power, dampings, strict=True)
    ]
    probe_velocity = tuning.momentum * state.probe_velocity
    probe_velocity += tuning.probe_step * size * torch.stack(moved)
    expected_probe = torch.cat([state.probe[None], state.components]) + probe_velocity
    if not update_probe:
        expected_probe = torch.cat([state.probe[None], state.components])
        probe_velocity = state.probe_velocity.clone()
    # 2. the step
    settings = step.StepSettings(batches=batches, step=size, prior=prior, update_probe=update_probe)
    step.step_on_batch(patterns, state, index, light, settings)
    torch.testing.assert_close(light.photons, every)
    torch.testing.assert_close(light.support, support)
    torch.testing.assert_close(state.obj_velocity, obj_velocity)
    torch.testing.assert_close(state.obj, expected_obj)
    torch.testing.assert_close(state.probe_velocity, probe_velocity)
    torch.testing.assert_close(torch.cat([state.probe[None], state.components]), expected_probe)


def test_the_light_of_a_scan_is_described_by_its_numbers():
    _, patterns, state = made()
    light = step.illumination_of(patterns, state, patterns.everything[:9])
    every = light_of(patterns, state.probe, patterns.everything[:9])
    inside = every > step.TUNING.support * every.max()
    power = state.probe.abs().square().sum(0)
    assert float(light.brightest) == pytest.approx(float(every.max()))
    assert float(light.typical) == pytest.approx(float(every[inside].mean()))
    area = float(power.sum() ** 2 / power.square().sum())
    assert float(light.beams) == pytest.approx(int(inside.sum()) / area)


def descent(patterns, state, index):
    basis = shift_basis(patterns, state.probe, state.components)
    return step.descent_of(patterns, state.obj, basis, index)


@pytest.mark.parametrize("photons", [MANY_PHOTONS, FEW_PHOTONS])
def test_a_prediction_holds_the_misfits_of_good_pixels(photons, monkeypatch):
    scan, patterns, state = made(photons)
    two = 2 * len(state.probe) * math.prod(SHAPE)  # two patterns at once, of three
    monkeypatch.setitem(WAVE_BUDGET, "cpu", two)
    index = torch.tensor([0, 3, 8])
    basis = shift_basis(patterns, state.probe, state.components)
    sums = misfit_sums(patterns, state.obj, basis, index)
    assert torch.equal(sums[1:2], misfit_sums(patterns, state.obj, basis, index[1:2]))
    found = prediction_of(patterns, sums.sum(0).tolist())
    good = patterns.mask
    intensity = dense(patterns, state.obj, state.probe, state.components, index)[:, good]
    counts = torch.fft.ifftshift(torch.from_numpy(scan.counts[index.numpy()]), dim=(1, 2))[:, good]
    amplitudes = (intensity.sqrt() - counts.sqrt()).square().sum()
    assert found.r == pytest.approx(float(amplitudes / counts.sum()))
    assert found.deviance == pytest.approx(float(deviance(intensity, counts).mean()))
    misfits = ((counts - intensity).square() / (intensity + 1)).sum()
    noise = (intensity / (intensity + 1)).sum()
    assert found.dispersion == pytest.approx(float(misfits / noise))


@pytest.mark.parametrize("with_background", [True, False])
def test_the_flux_takes_a_step_of_second_order_to_a_limit(with_background):
    _, patterns, state = made()
    patterns = replace(patterns, flux=torch.linspace(0.1, 1.2, N).double())
    if not with_background:
        patterns = replace(patterns, background=None)
    index = patterns.everything[1:]
    intensity = expected_counts(
        patterns, state.obj, shift_basis(patterns, state.probe, state.components), index
    )
    slope = slope_of(patterns, intensity, index)
    through = intensity - patterns.background if with_background else intensity
    curvature = (through.square() / (2 * intensity) * patterns.mask).sum((1, 2))
    change = flux.STEP * (slope * through).sum((1, 2)) / curvature
    limits = (1 / flux.MAX_RATIO, flux.MAX_RATIO)
    ratio = (1 + change).clamp(*limits)
    expected = patterns.flux.clone()
    expected[index] *= ratio
    assert (ratio.min(), ratio.max()) == limits
    assert len(ratio.unique()) > 4
    FluxObserver(patterns).add(descent(patterns, state, index))
    torch.testing.assert_close(patterns.flux, expected)


def test_the_background_takes_a_step_of_second_order_and_is_averaged_where_it_is_low():
    _, patterns, state = made()
    before = patterns.background.clone()
    index = torch.tensor([2, 3, 7, 9, 12])
    intensity = expected_counts(
        patterns, state.obj, shift_basis(patterns, state.probe, state.components), index
    )
    slope = slope_of(patterns, intensity, index)
    moved = before + background.STEP * slope.sum(0) / (0.5 / intensity).sum(0)
    moved = moved.clamp_min(0)
    share = moved * len(index) / (moved * len(index) + background.FEW_PHOTONS)

    def blurred(image):
        on_detector = torch.fft.fftshift(image).numpy()
        smooth = gaussian_filter(on_detector, background.SMOOTHING_PX, mode="nearest")
        return torch.fft.ifftshift(torch.from_numpy(smooth))

    good = patterns.mask.double()
    even = blurred(moved * good) / blurred(good)
    observer = BackgroundObserver(patterns)
    observer.add(descent(patterns, state, index[:2]))
    observer.add(descent(patterns, state, index[2:]))
    observer.finish_epoch()
    torch.testing.assert_close(
        patterns.background, (share * moved + (1 - share) * even) * good, rtol=1e-5, atol=1e-6
    )
    # what was added is forgotten: the next epoch is that of a fresh observer
    again = replace(patterns, background=patterns.background.clone())
    for one, observing in ((patterns, observer), (again, BackgroundObserver(again))):
        observing.add(descent(one, state, index))
        observing.finish_epoch()
    assert torch.equal(patterns.background, again.background)


def test_positions_take_a_damped_step_to_a_limit_with_momentum(monkeypatch):
    monkeypatch.setattr(positions, "MAX_STEP_PX", 0.1)  # which some reach in each direction
    _, patterns, state = made()
    parts = patterns.everything[1:6], patterns.everything[6:]
    observer = PositionObserver(patterns, CANVAS)
    observer.velocity = 0.01 * torch.arange(2 * N, dtype=torch.float64).reshape(N, 2)
    velocity, before = observer.velocity.clone(), patterns.centres
    seen = [descent(patterns, state, one) for one in parts]
    gradients = [position_gradient(one.exit_waves, one.probes, one.patches) for one in seen]
    top = torch.cat([slopes.sum((-2, -1)).T for slopes, _ in gradients])
    curvature = torch.cat([products[[0, 2]].sum((-2, -1)).T for _, products in gradients])
    stepped = positions.STEP * top / (curvature + positions.DAMPING * curvature.mean(0))
    stepped = stepped.clamp(-positions.MAX_STEP_PX, positions.MAX_STEP_PX)
    index = torch.cat(parts)
    velocity[index] = positions.MOMENTUM * velocity[index] + stepped
    assert (stepped.min(), stepped.max()) == (-positions.MAX_STEP_PX, positions.MAX_STEP_PX)
    assert (stepped.abs() < positions.MAX_STEP_PX).any()
    for one in seen:
        observer.add(one)
    observer.finish_batch()
    torch.testing.assert_close(observer.velocity, velocity)
    expected = before.clone()
    expected[index] += velocity[index]
    half = torch.tensor(SHAPE) / 2
    expected = torch.minimum(expected.maximum(half), torch.tensor(CANVAS) - half)
    torch.testing.assert_close(patterns.centres, expected)
    observer.finish_batch()  # a batch is forgotten
    torch.testing.assert_close(patterns.centres, expected)


def test_the_affine_map_is_the_damped_answer_of_all_pixels():
    """One row for the displacement of each pixel along y and x: A r, by the entries of A."""
    _, patterns, state = made()
    sums = AffineSums(patterns)
    normal, right = torch.zeros(4, 4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    y, x = (torch.arange(size, dtype=torch.float64) - size / 2 for size in SHAPE)
    r = torch.stack(torch.broadcast_tensors(y[:, None], x)).reshape(2, -1)
    for index in (torch.tensor([2, 3, 7]), torch.tensor([9, 12])):
        one = descent(patterns, state, index)
        slopes, products = position_gradient(one.exit_waves, one.probes, one.patches)
        sums.add(slopes, products)
        for n in range(len(index)):
            s, p = slopes[:, n].reshape(2, -1), products[:, n].reshape(3, -1)
            for a, (i, j) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
                right[a] -= (s[i] * r[j]).sum()
                for b, (k, m) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
                    normal[a, b] += (p[i + k] * r[j] * r[m]).sum()
    damping = positions.AFFINE_DAMPING * normal.diagonal().mean()
    found = torch.linalg.solve(normal + damping * torch.eye(4), right)
    torch.testing.assert_close(sums.solve(), positions.AFFINE_STEP * found.reshape(2, 2))
    assert not sums.solve().any()  # a new start


class Twins(SingleProcess):
    """Stands for two processes that own the same patterns: every sum is twice the own one."""

    def sum(self, *values):
        for each in values:
            each.mul_(2)


@pytest.mark.parametrize("kind", ["background", "affine map"])
def test_sums_over_patterns_are_those_of_all_processes(kind):
    """What two processes with the same patterns find, one finds that sees each pattern twice."""
    found = []
    for comm, times in ((Twins(CPU), 1), (SingleProcess(CPU), 2)):
        _, patterns, state = made()
        patterns = replace(patterns, comm=comm)
        observer = BackgroundObserver(patterns)
        sums = AffineSums(patterns)
        for _ in range(times):
            one = descent(patterns, state, torch.tensor([2, 3, 7, 9, 12]))
            observer.add(one)
            sums.add(*position_gradient(one.exit_waves, one.probes, one.patches))
        observer.finish_epoch()
        found.append(patterns.background if kind == "background" else sums.solve())
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("update_probe", [True, False])
def test_a_step_of_two_processes_is_that_of_all_their_patterns(update_probe):
    found = []
    settings = step.StepSettings(batches=3.5, step=0.4, prior=9.0, update_probe=update_probe)
    for comm, times in ((Twins(CPU), 1), (SingleProcess(CPU), 2)):
        _, patterns, state = made()
        patterns = replace(patterns, comm=comm)
        light = step.illumination_of(patterns, state, patterns.everything.repeat(times))
        batch = torch.tensor([1, 4, 5, 11]).repeat(times)
        step.step_on_batch(patterns, state, batch, light, settings)
        found.append((state.obj, state.probe, state.components, light.photons))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(("counts", "poisson"), [(9.99, True), (10.0, False)])
def test_counts_are_sparse_below_a_mean_over_good_pixels(counts, poisson):
    scan, _, _ = made(modes=1, components=0)
    even = np.where(scan.mask, counts, 1e4) * np.ones((N, 1, 1))
    for mask, sparse in ((scan.mask, poisson), (np.ones(SHAPE, dtype=bool), False)):
        one = replace(scan, counts=even, mask=mask)
        assert prepare(one, torch.zeros(2).double(), CANVAS).poisson is sparse


def test_momentum_goes_with_object_and_probe_where_a_slope_moves():
    """The next step of a state with momentum is that of the moved state, pattern by pattern."""
    _, patterns, state = made()
    obj, probe = state.obj.clone(), state.probe.clone()
    obj_velocity, probe_velocity = state.obj_velocity.clone(), state.probe_velocity.clone()
    flux.move_slope(patterns, state, torch.tensor([0.02, -0.03]).double())
    torch.testing.assert_close(state.obj_velocity / state.obj, obj_velocity / obj)
    torch.testing.assert_close(state.probe_velocity / state.probe, probe_velocity / probe)
    assert not torch.allclose(state.obj, obj)


@pytest.mark.parametrize(
    ("photons", "beams", "size"),
    [(FEW_PHOTONS, 0.0, 10), (MANY_PHOTONS, 0.0, 6), (MANY_PHOTONS, 10.0, 8), (1.0, 1e9, 80)],
)
def test_a_batch_is_a_share_of_the_patterns_or_covers_the_support(photons, beams, size):
    """Of 80 patterns: an eighth where counts are sparse, else a twelfth."""
    _, patterns, _ = made(photons)
    many = subset_of(patterns, torch.arange(80) % N)
    work = step.working_set(many, many.everything)
    batches = list(step.sparse_batches(many, work, beams, torch.Generator().manual_seed(0)))
    assert max(batch.size for batch in batches) == size
    assert sorted(torch.cat([batch.own for batch in batches]).tolist()) == list(range(80))
    few = subset_of(patterns, patterns.everything[:9])
    work = step.working_set(few, few.everything)
    batches = step.sparse_batches(few, work, 0.0, torch.Generator().manual_seed(0))
    assert max(batch.size for batch in batches) == 4  # of few patterns still some at once


def test_the_common_shift_of_all_positions_is_taken_out_with_the_affine_map():
    _, patterns, state = made()
    given = patterns.centres
    inside = torch.tensor([[15.0, 12.0]]).double() + 0.1 * (given - given.mean(0))
    move(patterns, patterns.everything, inside, CANVAS)
    start = inside + torch.tensor([0.4, -0.3])  # what was given lies beside it
    observer = PositionObserver(patterns, CANVAS)
    affine = torch.tensor([[0.1, 0.05], [-0.02, -0.1]]).double()
    observer.affine = SimpleNamespace(solve=lambda: affine)
    observer.finish_epoch(state, start)
    mapped = inside + (inside - start.mean(0)) @ affine.T
    torch.testing.assert_close(patterns.centres, mapped - (mapped - start).mean(0))
    assert not state.obj_velocity.any()
    assert math.isclose(float((patterns.centres - start).mean()), 0, abs_tol=1e-12)

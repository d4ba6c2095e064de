"""Refinement computes on the device of its tensors, in their precision, and does not leave it.

Where there is no GPU, torch's fake tensors stand for one: they have shapes and a device, here
torch's device without values, so that an operation raises an error that mixes devices, or that
waits for a value.
"""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch._functorch.config as functorch_config
from torch._subclasses.fake_tensor import FakeTensorMode

import ptycho_torch.refinement.loop as loop_module
from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.evaluation.metrics.residuals import pattern_residuals
from ptycho_torch.refinement import RefineOptions
from ptycho_torch.refinement.background import BackgroundObserver
from ptycho_torch.refinement.flux import FluxObserver
from ptycho_torch.refinement.joint_refinement import first_state
from ptycho_torch.refinement.loop import EpochSettings, RefinementLoop, run_epoch
from ptycho_torch.refinement.measurement import refine_measurement
from ptycho_torch.refinement.measurement_refiner import MeasurementOptions
from ptycho_torch.refinement.positions import PositionObserver, misfit_of_each, warped
from ptycho_torch.refinement.prepared_patterns import misfit_sums, prepare, shift_basis
from ptycho_torch.refinement.probe_change import remove_described_elsewhere, weights_of_time
from ptycho_torch.refinement.probe_retrieval import refine_from_uniform
from ptycho_torch.refinement.step import (
    State,
    StepSettings,
    illumination_of,
    step_on_batch,
    working_set,
)

CPU, ELSEWHERE = torch.device("cpu"), torch.device("meta")
gpu = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.fixture(scope="module")
def made():
    return simulate_scan(photons=1e7, n_side=8, step_px=4.0, pattern_size=32, seed=4)


def with_everything(scan, truth):
    """Patterns and state with flux, background, a mask, two modes and two components."""
    height, width = scan.pattern_shape
    mask = np.ones((height, width), dtype=bool)
    mask[3, 5] = False
    full = replace(
        scan,
        mask=mask,
        flux=np.ones(len(scan)),
        background=np.full((height, width), 0.1, dtype=np.float32),
        probe_components=np.zeros((2, *scan.probe.shape), dtype=scan.probe.dtype),
        probe_weights=weights_of_time(len(scan), 2).numpy(),
    )
    obj = torch.from_numpy(truth.object)
    patterns = prepare(full, torch.from_numpy(truth.origin_yx), tuple(obj.shape))
    return patterns, first_state(full, obj, 2, CPU)


def difference(one, other):
    """Largest difference of two objects where all patterns overlap."""
    return np.abs(one.object - other.object)[20:-20, 20:-20].max()


def observers_of(patterns, state):
    return [
        PositionObserver(patterns, tuple(state.obj.shape)),
        FluxObserver(patterns),
        BackgroundObserver(patterns),
    ]


def as_fake(thing, mode):
    """A copy of a dataclass whose tensors are fake ones elsewhere."""
    changed = {
        name: mode.from_tensor(value).to(ELSEWHERE)
        for name, value in vars(thing).items()
        if isinstance(value, torch.Tensor)
    }
    return replace(thing, **changed)


def fake_of(patterns, state, mode):
    """Patterns and state on the device without values."""
    obj, probe, components = (
        mode.from_tensor(one).to(ELSEWHERE) for one in (state.obj, state.probe, state.components)
    )
    fake = replace(as_fake(patterns, mode), measured=as_fake(patterns.measured, mode))
    return fake, State(obj, probe, components)


def all_elsewhere(*things):
    tensors = [one for thing in things for one in vars(thing).values() if torch.is_tensor(one)]
    return tensors and all(one.device == ELSEWHERE for one in tensors)


@contextlib.contextmanager
def on_the_device_alone(monkeypatch):
    """A block in which no tensor may be moved to the CPU or read by NumPy."""

    def refuse(*_, **__):
        raise AssertionError("the tensor left its device")

    with monkeypatch.context() as patch:
        for name in ("numpy", "cpu", "__array__"):
            patch.setattr(torch.Tensor, name, refuse)
        yield


@torch.no_grad()
@pytest.mark.parametrize("fresnel_number", [None, (0.05, 0.05)], ids=["far field", "near field"])
def test_all_steps_of_an_epoch_stay_on_another_device(made, fresnel_number, monkeypatch):
    """Those of a step with everything that is refined, its ends, and the scores."""
    on_cpu = with_everything(replace(made.scan, fresnel_number=fresnel_number), made.truth)
    with (
        on_the_device_alone(monkeypatch),
        functorch_config.patch(fake_tensor_allow_meta=True),
        FakeTensorMode(allow_non_fake_inputs=True) as mode,
    ):
        patterns, state = fake_of(*on_cpu, mode)
        if fresnel_number is not None:
            number = torch.empty(2, device=ELSEWHERE)
            propagator = replace(patterns.propagator, fresnel_number=number)
            patterns = replace(patterns, propagator=propagator)
        index = torch.arange(20, device=ELSEWHERE)
        light = illumination_of(patterns, state, index)
        observers = observers_of(patterns, state)
        settings = StepSettings(batches=2.0, step=0.5, prior=1.0, update_probe=True)
        step_on_batch(patterns, state, index, light, settings, observers)
        positions, flux, background = observers
        affine = positions.affine.solve()
        state.obj = warped(state.obj, affine, patterns.centres.mean(0))
        flux.finish_epoch(index)
        background.finish_epoch()
        remove_described_elsewhere(state)
        basis = shift_basis(patterns, state.probe, state.components)
        sums = misfit_sums(patterns, state.obj, basis, index)
        misfits = misfit_of_each(patterns, state.obj, basis, index)
        assert all_elsewhere(patterns, state, light, positions.affine)
        assert sums.device == misfits.device == ELSEWHERE
        assert (state.obj.shape, state.probe.shape) == (on_cpu[1].obj.shape, (2, 32, 32))
        assert (state.obj.dtype, patterns.node_weights.dtype) == (torch.complex64, torch.float32)


@torch.no_grad()
def test_an_epoch_never_leaves_the_device(made, monkeypatch):
    patterns, state = with_everything(made.scan, made.truth)
    work = working_set(patterns, torch.arange(60))
    loop = RefinementLoop(patterns, torch.arange(60), torch.arange(60, 64), RefineOptions(), None)
    settings = EpochSettings(step=0.5, smoothness=120.0, update_probe=True)
    rng = torch.Generator().manual_seed(0)
    before = state.obj.clone()
    with on_the_device_alone(monkeypatch):
        run_epoch(patterns, state, work, settings, rng=rng, observers=observers_of(patterns, state))
        loop.choose(state, state.copy())
    assert not torch.equal(before, state.obj)


def test_the_precision_is_that_of_the_probe(made):
    """After two epochs the round-off of single precision is below a hundredth of the object."""
    scan = replace(made.scan, probe=made.scan.probe.astype(np.complex128))
    double, single = (
        refine_from_uniform(one, RefineOptions(epochs=2, update_probe=True)).reconstruction
        for one in (scan, made.scan)
    )
    assert (double.object.dtype, double.probe.dtype) == (np.complex128, np.complex128)
    assert (single.object.dtype, single.probe.dtype) == (np.complex64, np.complex64)
    assert 0 < difference(double, single) < 1e-2


@gpu
@needs_gpu
def test_a_gpu_gives_the_image_of_the_cpu(made):
    """Single precision; an epoch multiplies round-off by about ten, as on the CPU."""
    options = RefineOptions(epochs=4, update_probe=True, probe_modes=2)
    on_gpu, on_cpu = (
        refine_from_uniform(made.scan, replace(options, device=torch.device(device)))
        for device in ("cuda", "cpu")
    )
    assert difference(on_gpu.reconstruction, on_cpu.reconstruction) < 1e-2
    assert on_gpu.r_free == pytest.approx(on_cpu.r_free, rel=1e-3)


@gpu
@needs_gpu
def test_a_gpu_finds_the_measurement_that_the_cpu_finds(made):
    options = MeasurementOptions(positions="on", flux="on", background="on")
    found = [
        refine_measurement(made.scan, replace(options, device=torch.device(device))).scan
        for device in ("cuda", "cpu")
    ]
    assert np.abs(found[0].positions_px - found[1].positions_px).max() < 0.02


@gpu
@needs_gpu
def test_a_gpu_gives_the_residuals_of_the_cpu(made):
    on_gpu, on_cpu = (
        pattern_residuals(made.truth, made.scan, torch.device(device)) for device in ("cuda", "cpu")
    )
    np.testing.assert_allclose(on_gpu.misfit, on_cpu.misfit, rtol=1e-3)
    assert on_gpu.chi2_per_dof == pytest.approx(on_cpu.chi2_per_dof, rel=1e-3)


@gpu
@needs_gpu
@torch.no_grad()
def test_a_recorded_epoch_has_the_bits_of_the_epoch(made, monkeypatch):
    """With everything that is refined, and twice, so that recorded steps are there already."""
    scan = replace(made.scan, flux=np.ones(64), background=np.full((32, 32), 0.1, np.float32))
    objects = {}
    for recorded in (True, False):
        with monkeypatch.context() as patch:
            if not recorded:
                patch.setattr(loop_module, "can_be_recorded", lambda _: False)
            device = torch.device("cuda")
            obj = torch.from_numpy(made.truth.object)
            origin = torch.from_numpy(made.truth.origin_yx)
            patterns = prepare(scan, origin, tuple(obj.shape), device)
            state = first_state(scan, torch.ones_like(obj), 2, device)
            rng = torch.Generator().manual_seed(0)
            settings = EpochSettings(step=0.5, smoothness=120.0, update_probe=True)
            observers = observers_of(patterns, state)
            for _ in range(2):
                work = working_set(patterns, torch.arange(60))
                run_epoch(patterns, state, work, settings, rng=rng, observers=observers)
            objects[recorded] = state.obj.cpu(), state.probe.cpu(), patterns.centres.cpu()
    assert all(map(torch.equal, objects[True], objects[False]))

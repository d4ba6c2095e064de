"""The loss of a training step that a GPU records: what is recorded is the loss.

A GPU records operations that wait for no value. Where there is none, torch's fake tensors on its
device without values stand for one, so that an operation that waits raises an error.
"""

import csv
from collections import Counter

import pytest
import torch
import torch._functorch.config as functorch_config
from torch._subclasses.fake_tensor import FakeTensorMode

from ptycho_torch.config import TrainingConfig
from ptycho_torch.data.augmentation import split_photons
from ptycho_torch.data.grouping import join_groups, make_group
from ptycho_torch.data.scan import Group
from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.generators import build_generator
from ptycho_torch.physics.noise import poisson_loss
from ptycho_torch.train import recorded_loss
from ptycho_torch.train.fit import fit
from ptycho_torch.train.group_loss import common_canvas_shape, group_loss
from ptycho_torch.train.module import PtychoModule
from ptycho_torch.train.recorded_loss import (
    LAUNCHED,
    LossOfTensors,
    RecordedLoss,
    can_be_recorded,
    square_canvas_shape,
    tensors_of,
)

ELSEWHERE = torch.device("meta")
SIDE = 6  # groups of 36 patterns
gpu = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.fixture(scope="module")
def scan():
    return simulate_scan(photons=1e6, n_side=SIDE, step_px=4.0, pattern_size=32, seed=4).scan


@pytest.fixture(params=["unrolled", "unet"])
def generator(request):
    torch.manual_seed(0)
    settings = {} if request.param == "unrolled" else {"group_size": SIDE**2}
    return build_generator(request.param, settings)


def halves(scan, seed=0, device="cpu"):
    """Both halves of the photons of all patterns."""
    group = make_group(scan, range(len(scan)))
    group = Group._make(None if part is None else part.to(device) for part in group)
    return split_photons(group, 0.5, torch.Generator(device).manual_seed(seed))


def gradients(loss, generator):
    return torch.autograd.grad(loss.sum(), list(generator.parameters()))


def test_the_canvas_is_square_and_holds_all_patches(scan):
    """Its side is the smallest multiple of 32 that does; so most groups have the same."""
    shown, target = halves(scan)
    rows, columns = common_canvas_shape(shown, target)
    assert 32 < min(rows, columns) <= max(rows, columns) <= 64
    assert square_canvas_shape(shown, target) == (64, 64)
    wide = shown._replace(corners_px=shown.corners_px * torch.tensor([1.0, 2.0]))
    assert square_canvas_shape(wide, target) == square_canvas_shape(shown, wide) == (96, 96)


def test_on_the_larger_canvas_the_loss_is_nearly_the_same(scan, generator):
    """Where a canvas is larger there is no light; only what lies at its border differs."""
    shown, target = halves(scan)
    own = group_loss(generator, poisson_loss, shown, target, common_canvas_shape(shown, target))
    larger = RecordedLoss(generator, poisson_loss)(shown, target)
    assert larger.shape == (1,)
    torch.testing.assert_close(own, larger, rtol=0.02, atol=0)


@pytest.mark.parametrize("fresnel_number", [None, (0.05, 0.05)], ids=["far field", "near field"])
def test_no_operation_waits_for_a_value(scan, generator, fresnel_number):
    """Forward and back, with all that a group may have."""
    shown, target = halves(scan)
    if fresnel_number is not None:
        number = torch.tensor([fresnel_number])
        shown, target = (one._replace(fresnel_number=number) for one in (shown, target))
    shown, target = (
        one._replace(background=torch.ones_like(one.mask, dtype=torch.float32))
        for one in (shown, target)
    )
    with (
        functorch_config.patch(fake_tensor_allow_meta=True),
        FakeTensorMode(allow_non_fake_inputs=True) as mode,
    ):
        fake = [
            Group._make(
                None if part is None else mode.from_tensor(part).to(ELSEWHERE) for part in group
            )
            for group in (shown, target)
        ]
        generator.to(ELSEWHERE)
        function = LossOfTensors(generator, poisson_loss, (shown, target), (64, 64))
        loss = function(*tensors_of(*fake))
        slopes = gradients(loss, generator)
        assert loss.device == ELSEWHERE
        assert all(slope.device == ELSEWHERE for slope in slopes)
        assert loss.shape == (1,)


@pytest.fixture
def recordings(monkeypatch):
    """Shapes of what was recorded, by a recorder that launches the function again."""
    shapes = []

    def record(function, own, **_):
        shapes.append([tensor.shape for tensor in own])
        return function

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", record)
    return shapes


def test_a_shape_that_comes_again_is_recorded_once(scan, generator, recordings):
    """The first ones are launched; larger canvases, and other groups, are recorded for themselves.

    A canvas has no tensor of its own among those that are given.
    """
    loss = RecordedLoss(generator, poisson_loss)
    shown, target = halves(scan)
    wider = shown._replace(corners_px=2 * shown.corners_px)
    two = [join_groups([group, group]) for group in (shown, target)]
    for number, pair in enumerate(((shown, target), (wider, target), two)):
        several = [loss(*pair) for _ in range(LAUNCHED)]
        assert len(recordings) == number
        several += [loss(*pair) for _ in range(3)]
        assert len(recordings) == number + 1
        assert all(torch.equal(one, several[0]) for one in several)


def test_what_is_recorded_learns(scan, generator, recordings):
    """The gradient of the recorded function is that of each parameter of the generator."""
    loss = RecordedLoss(generator, poisson_loss)
    pair = halves(scan)
    slopes = [gradients(loss(*pair), generator) for _ in range(LAUNCHED + 1)]
    assert recordings
    assert all(map(torch.equal, slopes[0], slopes[-1]))


def test_only_so_many_shapes_are_recorded(scan, generator, recordings, monkeypatch):
    monkeypatch.setattr(recorded_loss, "MOST", 1)
    loss = RecordedLoss(generator, poisson_loss)
    shown, target = halves(scan)
    wider = shown._replace(corners_px=2 * shown.corners_px)
    for _ in range(LAUNCHED + 2):
        loss(shown, target)
        loss(wider, target)
    assert len(recordings) == 1


def test_a_batch_of_groups_gives_the_loss_of_each(scan, generator):
    pairs = [halves(scan, seed) for seed in (0, 1)]
    loss = RecordedLoss(generator, poisson_loss)
    together = loss(*map(join_groups, zip(*pairs, strict=True)))
    alone = torch.cat([loss(*pair) for pair in pairs])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=0)


def test_on_the_cpu_nothing_is_recorded(scan, generator):
    assert generator.recordable
    assert not can_be_recorded(generator, halves(scan)[0])


def trained(scan_file, folder, **options):
    common = {"gridsize": 4, "quiet": True}
    return fit(TrainingConfig(train_data_file=[scan_file], output_dir=folder, **common, **options))


def on_cuda(generator, scan):
    return generator.to("cuda"), [halves(scan, seed, "cuda") for seed in range(LAUNCHED + 2)]


@gpu
@needs_gpu
def test_a_recorded_loss_has_the_bits_of_the_loss(scan, generator):
    """And its gradient, for patterns that were not there when it was recorded."""
    generator, pairs = on_cuda(generator, scan)
    assert can_be_recorded(generator, pairs[0][0])
    loss = RecordedLoss(generator, poisson_loss)
    torch.use_deterministic_algorithms(True)
    try:
        for shown, target in pairs:
            ours = loss(shown, target)
            slopes = gradients(ours, generator)
            shape = square_canvas_shape(shown, target)
            launched = group_loss(generator.on_whole_canvas, poisson_loss, shown, target, shape)
            assert torch.equal(ours, launched)
            assert all(map(torch.equal, slopes, gradients(launched, generator)))
    finally:
        torch.use_deterministic_algorithms(False)
    assert len(loss.recorded) == 1


@gpu
@needs_gpu
def test_a_training_on_a_gpu_records_its_steps(scan, scan_file, tmp_path, monkeypatch):
    """All but the first of each shape, and learns what it learns when they are launched."""
    calls = Counter()
    record = RecordedLoss._record

    def counted(self, function, own):
        recorded = record(self, function, own)

        def call(*both):
            calls["replayed"] += 1
            return recorded(*both)

        return call

    monkeypatch.setattr(RecordedLoss, "_record", counted)
    losses = []
    for launched in (LAUNCHED, 10**6):
        monkeypatch.setattr(recorded_loss, "LAUNCHED", launched)
        run = trained(scan_file, tmp_path / str(launched), max_epochs=6, accelerator="gpu")
        with run.metrics_csv.open() as file:
            losses.append([row["train_loss"] for row in csv.DictReader(file)])
        assert calls["replayed"] > 0
    assert losses[0] == losses[1]


def test_a_finished_training_keeps_nothing_recorded(monkeypatch, scan_file, tmp_path):
    kept = []
    end = PtychoModule.on_train_end

    def watched(module):
        before = module.recorded_loss
        end(module)
        kept.append(module.recorded_loss is before)

    monkeypatch.setattr(PtychoModule, "on_train_end", watched)
    trained(scan_file, tmp_path / "run", max_epochs=1, accelerator="cpu")
    assert kept == [False]

"""Training and inference in process: what is left in the folders, and that the bits are the
same.
"""

import csv
import json
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

from ptycho_torch.config import InferenceConfig, TrainingConfig
from ptycho_torch.config.registry import GENERATORS
from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.distributed.device import threads_for
from ptycho_torch.errors import InputError, RunError
from ptycho_torch.generators.checkpoint import find_checkpoint, load_generator
from ptycho_torch.inference import reconstruct
from ptycho_torch.inference.in_memory import check_not_flat
from ptycho_torch.inference.tiling import reconstruct_scan
from ptycho_torch.io.run_dir import RunDir
from ptycho_torch.io.writers import write_scan
from ptycho_torch.train import datamodule, train
from ptycho_torch.train.budget import default_epochs
from ptycho_torch.train.module import WARM_UP_STEPS


@pytest.fixture(scope="module")
def small_file(tmp_path_factory):
    """A scan of 16 patterns: one group of a step, or four."""
    path = tmp_path_factory.mktemp("small") / "scan.npz"
    write_scan(path, simulate_scan(photons=1e6, n_side=4, pattern_size=32, seed=2).scan)
    return path


def config_of(file, output_dir) -> TrainingConfig:
    return TrainingConfig(
        train_data_file=[file],
        output_dir=output_dir,
        max_epochs=3,
        gridsize=4,
        accelerator="cpu",
        quiet=True,
    )


@pytest.fixture
def config(small_file, tmp_path):
    return config_of(small_file, tmp_path / "run")


@pytest.fixture(scope="module")
def trained(scan_file, tmp_path_factory) -> RunDir:
    """A short run that several tests look at."""
    config = config_of(scan_file, tmp_path_factory.mktemp("trained") / "run")
    return train(replace(config, test_data_file=scan_file, max_epochs=4))


@pytest.fixture(scope="module")
def unvalidated(scan_file, tmp_path_factory) -> RunDir:
    """A run without validation, of small steps."""
    config = config_of(scan_file, tmp_path_factory.mktemp("unvalidated") / "run")
    return train(replace(config, learning_rate=1e-6, scheduler="constant"))


@pytest.fixture(scope="module")
def frozen(scan_file, tmp_path_factory) -> RunDir:
    """A run of steps of no size, so that the weights stay the same."""
    config = config_of(scan_file, tmp_path_factory.mktemp("frozen") / "run")
    return train(replace(config, test_data_file=scan_file, learning_rate=0.0))


@pytest.fixture(scope="module", params=sorted(GENERATORS))
def two_epochs(request, small_file, tmp_path_factory) -> tuple[TrainingConfig, RunDir]:
    """Two epochs of four groups by each generator; other runs are compared with it."""
    config = config_of(small_file, tmp_path_factory.mktemp("two_epochs") / "run")
    config = replace(config, generator=request.param, gridsize=2, max_epochs=2)
    return config, train(config)


def weights(run):
    return torch.load(run.last_checkpoint, weights_only=True)["state_dict"]


def assert_same_weights(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_leaves_what_the_contract_names(trained):
    run = trained
    for path in (
        run.last_checkpoint,
        run.best_checkpoint,
        run.config,
        run.metrics_csv,
        run.history,
        run.train_log,
    ):
        assert path.stat().st_size > 0, path
    header = trained.metrics_csv.read_text().splitlines()[0]
    assert header == "epoch,step,fixed_loss,learning_rate,train_loss,val_loss"
    assert len(column(trained, "epoch")) == 4


def column(run, name):
    """A column of `metrics.csv`."""
    with run.metrics_csv.open() as file:
        return [float(row[name]) for row in csv.DictReader(file)]


def test_best_checkpoint_is_the_epoch_with_the_least_judging_loss(trained):
    best = int(np.argmin(column(trained, "val_loss")))
    assert torch.load(trained.best_checkpoint, weights_only=True)["epoch"] == best


class WeightsOfEpochs(Callback):
    """The weights as each epoch leaves them."""

    def __init__(self):
        self.seen = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.seen.append({key: value.clone() for key, value in pl_module.state_dict().items()})


def test_each_checkpoint_holds_the_weights_of_its_epoch(config):
    watch = WeightsOfEpochs()
    run = train(replace(config, checkpoint_save_top_k=2), callbacks=[watch])
    kept = [torch.load(path, weights_only=True) for path in run.checkpoints.iterdir()]
    assert sorted(content["epoch"] for content in kept) == [1, 2, 2, 2]
    for content in kept:
        assert_same_weights(content["state_dict"], watch.seen[content["epoch"]])
    assert any(not torch.equal(watch.seen[0][key], watch.seen[2][key]) for key in watch.seen[0])


def test_without_validation_the_best_checkpoint_is_the_last(unvalidated):
    """Training losses of epochs do not compare: the last of these is not the least, by chance
    alone.
    """
    losses = column(unvalidated, "train_loss")
    assert min(losses[:-1]) < losses[-1]
    assert torch.load(unvalidated.best_checkpoint, weights_only=True)["epoch"] == 2
    assert unvalidated.metrics_csv.read_text().splitlines()[0] == (
        "epoch,step,fixed_loss,learning_rate,train_loss"
    )


def test_validation_judges_all_epochs_alike(frozen):
    first, *others = column(frozen, "val_loss")
    assert others == [first, first]


def test_the_loss_of_the_fixed_groups_compares_between_epochs(frozen):
    """With weights that stay the same it is one number, where the training loss is three."""
    assert len(set(column(frozen, "fixed_loss"))) == 1
    assert len(set(column(frozen, "train_loss"))) == 3


def test_the_loss_of_the_fixed_groups_falls(trained):
    losses = column(trained, "fixed_loss")
    assert losses[-1] < losses[0]


def test_watching_the_loss_changes_no_bit(two_epochs, tmp_path, monkeypatch):
    """More groups to watch, and so more random numbers, leave the same weights."""
    config, few = two_epochs
    monkeypatch.setattr(datamodule, "FIXED_SHARE", 2)
    many = train(replace(config, output_dir=tmp_path / "many"))
    assert column(few, "fixed_loss") != column(many, "fixed_loss")
    assert_same_weights(weights(few), weights(many))


def test_the_learning_rate_is_kept_for_every_epoch(unvalidated):
    rate = 1e-6 * min(1, 13 / WARM_UP_STEPS)
    assert column(unvalidated, "learning_rate")[-1] == pytest.approx(rate)


def test_progress_counts_epochs_from_one_to_the_last(config, capsys):
    train(replace(config, quiet=False, max_epochs=2))
    assert "epoch 2 of 2" in capsys.readouterr().out
    resumed = replace(config, quiet=False, max_epochs=3, resume="auto")
    train(resumed)
    printed = capsys.readouterr().out
    assert "epoch 3 of 3" in printed
    assert "0:00:00 left, loss" in printed


def test_the_judging_loss_falls(trained):
    losses = column(trained, "val_loss")
    assert losses[-1] < losses[0]


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(two_epochs, tmp_path):
    config, first = two_epochs
    again = train(replace(config, output_dir=tmp_path / "again"))
    other = train(replace(config, output_dir=tmp_path / "other", seed=1))
    assert_same_weights(weights(first), weights(again))
    assert any(not torch.equal(weights(first)[key], weights(other)[key]) for key in weights(first))


def test_lower_precision_trains_as_well(config, tmp_path):
    """Its layers round to eight bits, and its gradients are clipped like others."""
    losses = {}
    for precision in ("32-true", "bf16-mixed"):
        run = train(replace(config, output_dir=tmp_path / precision, precision=precision))
        losses[precision] = np.array(column(run, "train_loss"))
    assert not np.array_equal(*losses.values())
    np.testing.assert_allclose(*losses.values(), rtol=0.05)


@pytest.mark.parametrize(("wanted", "expected"), [(None, 1), ("3", 3)])
def test_small_patterns_are_trained_with_one_thread(config, monkeypatch, wanted, expected):
    """Unless the user says otherwise; and a program that calls has its number again."""
    monkeypatch.delenv("OMP_NUM_THREADS")
    if wanted:
        monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    seen = []

    class Watcher(Callback):
        def on_train_batch_start(self, *_):
            seen.append(torch.get_num_threads())

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        train(replace(config, max_epochs=1), callbacks=[Watcher()])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {expected}


def test_larger_patterns_are_computed_with_all_threads(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with threads_for((64, 65)):
            assert torch.get_num_threads() == 3
        with threads_for((64, 64)):
            assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_loading_workers_change_no_bit(config, tmp_path):
    config = replace(config, gridsize=2, max_epochs=2)
    alone = train(config)
    helped = train(replace(config, output_dir=tmp_path / "helped", num_workers=2))
    assert_same_weights(weights(alone), weights(helped))


def test_resume_auto_without_a_checkpoint_starts_from_the_beginning(config):
    assert train(replace(config, resume="auto", max_epochs=1)).last_checkpoint.is_file()


def test_resume_with_another_network_is_refused(config):
    train(replace(config, max_epochs=1))
    with pytest.raises(InputError, match="was trained with generator unrolled, not unet"):
        train(replace(config, resume="auto", generator="unet", gridsize=2))


def test_a_run_is_not_written_over(config):
    run = train(replace(config, max_epochs=1))
    before = {path: path.read_bytes() for path in run.files("train")}
    with pytest.raises(InputError, match=r"already holds a run .*--overwrite"):
        train(replace(config, max_epochs=1, seed=3))
    assert {path: path.read_bytes() for path in run.files("train")} == before
    train(replace(config, max_epochs=1, seed=3, overwrite=True))
    assert run.last_checkpoint.read_bytes() != before[run.last_checkpoint]


def test_a_second_run_in_a_folder_in_use_is_refused(config):
    with (
        RunDir(config.output_dir).claim("train"),
        pytest.raises(InputError, match="in use by another run"),
    ):
        train(config)


def test_too_few_patterns_for_a_group_is_said(config):
    with pytest.raises(InputError, match="10 patterns are used but a group needs 16"):
        train(replace(config, n_images=10))


def test_scans_of_different_pattern_size_are_refused(config, tmp_path):
    other = tmp_path / "other.npz"
    write_scan(other, simulate_scan(photons=1e5, n_side=5, pattern_size=16).scan)
    with pytest.raises(InputError, match="train on scans of one shape"):
        train(replace(config, train_data_file=[*config.train_data_file, other]))


def test_several_scans_are_learned_from_together(config, tmp_path):
    other = tmp_path / "other.npz"
    write_scan(other, simulate_scan(photons=1e4, n_side=6, pattern_size=32, seed=9).scan)
    run = train(replace(config, train_data_file=[*config.train_data_file, other], max_epochs=1))
    assert (
        len(
            torch.load(run.last_checkpoint, weights_only=True)["hyper_parameters"]["about"][
                "conditions"
            ]
        )
        == 2
    )


def test_a_tracker_keeps_the_losses_beside_the_table(config):
    run = train(replace(config, logger="tensorboard", max_epochs=1))
    assert list((run.path / "tensorboard").rglob("events.out.tfevents.*"))
    assert run.metrics_csv.is_file()


def test_no_logger_writes_no_table(config):
    assert not train(replace(config, logger="none", max_epochs=1)).metrics_csv.exists()


@pytest.mark.skipif(find_spec("mlflow") is not None, reason="mlflow is installed")
def test_a_tracker_that_is_not_installed_is_said_before_anything_is_written(config):
    with pytest.raises(InputError, match=r"pip install 'ptycho_torch\[mlflow\]'"):
        train(replace(config, logger="mlflow"))
    assert not RunDir(config.output_dir).files("train")


@pytest.mark.parametrize("limit", ["4m", "00:00:04"])
def test_a_time_limit_has_one_form(config, limit):
    with pytest.raises(InputError, match="DD:HH:MM:SS"):
        train(replace(config, max_time=limit))


def test_a_run_folder_and_a_checkpoint_file_mean_the_same_network(trained):
    assert find_checkpoint(trained.path) == trained.best_checkpoint
    folder, _ = load_generator(find_checkpoint(trained.path))
    file, _ = load_generator(trained.best_checkpoint)
    assert_same_weights(folder.state_dict(), file.state_dict())


def test_inference_gives_the_same_bits_twice_and_traces_every_pixel(
    trained, scan_file, simulation, tmp_path
):
    runs = [
        reconstruct(
            InferenceConfig(
                model_path=trained.path,
                test_data=scan_file,
                output_dir=tmp_path / name,
                accelerator="cpu",
                quiet=True,
            )
        )
        for name in ("first", "second")
    ]
    first, second = (np.load(run.reconstruction) for run in runs)
    for key in ("object", "coverage", "origin_yx", "probe", "positions_px", "scan_index"):
        assert np.array_equal(first[key], second[key])
    assert first["object"].dtype == np.complex64
    assert first["coverage"].dtype == np.float32
    assert np.array_equal(first["positions_px"], simulation.scan.positions_px)
    assert np.array_equal(first["origin_yx"], np.floor(simulation.scan.corners_px().min(axis=0)))
    metrics = json.loads(runs[0].metrics.read_text())
    assert metrics["device"] == "cpu"
    assert metrics["cuda_initialized"] is False
    assert metrics["r_factor"] < metrics["r_factor_empty"]


def test_inference_on_a_subset_takes_the_middle(trained, scan_file, simulation, tmp_path):
    run = reconstruct(
        InferenceConfig(
            model_path=trained.path,
            test_data=scan_file,
            output_dir=tmp_path / "out",
            n_images=9,
            accelerator="cpu",
            quiet=True,
        )
    )
    positions = np.load(run.reconstruction)["positions_px"]
    middle = simulation.scan.positions_px.mean(axis=0)
    assert len(positions) == 9
    assert np.linalg.norm(positions - middle, axis=1).max() < 10


def test_permuting_the_patterns_changes_nothing(trained, simulation):
    generator, _ = load_generator(trained.best_checkpoint)
    order = np.random.default_rng(0).permutation(64)
    scan = simulation.scan
    shuffled = replace(
        scan,
        counts=scan.counts[order],
        positions_px=scan.positions_px[order],
        scan_index=scan.scan_index[order],
    )
    a = reconstruct_scan(generator, scan, sizes=(64, 64), batch_size=1)
    b = reconstruct_scan(generator, shuffled, sizes=(64, 64), batch_size=1)
    assert np.abs(a.object - b.object).max() < 1e-3  # float32 sums in another order


def test_a_flat_reconstruction_is_a_failure_and_not_an_image(
    trained, scan_file, simulation, tmp_path
):
    generator, _ = load_generator(trained.best_checkpoint)
    result = reconstruct_scan(generator, simulation.scan, sizes=(64, 64), batch_size=1)
    check_not_flat(result)
    with pytest.raises(RunError, match="is flat"):
        check_not_flat(replace(result, object=np.ones_like(result.object) * (0.7 + 0.1j)))
    with pytest.raises(RunError, match="not finite"):
        check_not_flat(replace(result, object=result.object * np.nan))


def test_a_collapsed_network_delivers_no_image(config, scan_file, tmp_path):
    """A U-Net whose last layers are zero gives the same for every pattern: flat."""
    run = train(replace(config, generator="unet", gridsize=2, max_epochs=1))
    content = torch.load(run.best_checkpoint, weights_only=True)
    for key, value in content["state_dict"].items():
        if ".last." in key:
            value.zero_()
    torch.save(content, run.best_checkpoint)
    out = RunDir(tmp_path / "out")
    with pytest.raises(RunError, match="flat"):
        reconstruct(
            InferenceConfig(
                model_path=run.path,
                test_data=scan_file,
                output_dir=out.path,
                accelerator="cpu",
                quiet=True,
            )
        )
    assert not out.reconstruction.exists()
    assert not out.amplitude.exists()
    assert "flat" in out.inference_log.read_text()


def test_damaged_and_foreign_checkpoints_get_a_sentence(trained, tmp_path):
    cut, foreign, text, hostile = (
        tmp_path / name for name in ("cut.ckpt", "foreign.ckpt", "text.ckpt", "hostile.ckpt")
    )
    cut.write_bytes(trained.last_checkpoint.read_bytes()[:5000])
    torch.save({"state_dict": {}, "hyper_parameters": {"lr": 1}}, foreign)
    text.write_text("weights")
    sprung = tmp_path / "sprung"
    torch.save({"x": Trap(sprung)}, hostile)
    for path, sentence in (
        (cut, "whose end is missing"),
        (foreign, "another program"),
        (text, "readable"),
        (hostile, "readable"),
    ):
        with pytest.raises(InputError, match=sentence) as error:
            load_generator(path)
        assert str(path) in str(error.value)
    assert not sprung.exists()
    with pytest.raises(InputError, match="no such checkpoint"):
        find_checkpoint(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no checkpoint"):
        find_checkpoint(tmp_path)


class Trap:
    """Unpickling it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_weights_that_do_not_fit_are_refused(trained, tmp_path):
    content = torch.load(trained.best_checkpoint, weights_only=True)
    content["state_dict"].popitem()
    path = tmp_path / "partial.ckpt"
    torch.save(content, path)
    with pytest.raises(InputError, match="does not hold a trained generator 'unrolled'"):
        load_generator(path)


@pytest.mark.parametrize(
    ("photons", "steps", "scans", "epochs"),
    [
        (1e4, 16, 1, 40),
        (1e4, 1, 1, 320),
        (1e4, 4, 4, 320),
        (1e4, 64, 4, 40),
        (1e3, 1, 1, 160),
        (1e4, 256, 1, 16),
        (1e4, 9000, 1, 1),
    ],
)
def test_few_groups_are_seen_more_often_unless_they_have_little_light_and_many_less_often(
    photons, steps, scans, epochs
):
    """At 5 px between positions 1000 photons are 40 on a pixel, by which a network soon learns a
    scan by heart.
    """
    scan = simulate_scan(photons=photons, n_side=4).scan
    assert default_epochs([scan] * scans, steps=steps) == epochs

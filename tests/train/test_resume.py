"""A run that ended, was killed, moved or resumed ends with the bits of an undisturbed one."""

import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from child import Moment, finish
from child import train as start
from lightning.pytorch import Callback

from ptycho_torch.config import TrainingConfig
from ptycho_torch.config.parser import to_yaml
from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.errors import InputError
from ptycho_torch.io.run_dir import RunDir
from ptycho_torch.io.writers import write_scan
from ptycho_torch.train import main, train

LOSSES = (3.0, 2.0, 2.5, 2.4, 1.0, 1.5)  # of the epochs of a scripted validation


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> list[Path]:
    """Two small scans; the second is for validation."""
    folder = tmp_path_factory.mktemp("scans")
    for seed in (1, 2):
        made = simulate_scan(photons=1e5, n_side=4, step_px=3.0, pattern_size=32, seed=seed)
        write_scan(folder / f"scan_{seed}.npz", made.scan)
    return [folder / f"scan_{seed}.npz" for seed in (1, 2)]


@pytest.fixture
def config(scans, tmp_path) -> TrainingConfig:
    return config_of(scans, tmp_path / "run")


def config_of(scans, output_dir) -> TrainingConfig:
    return TrainingConfig(
        train_data_file=[scans[0]],
        test_data_file=scans[1],
        output_dir=output_dir,
        scheduler="constant",
        max_epochs=6,
        gridsize=4,
        accelerator="cpu",
        quiet=True,
    )


@pytest.fixture
def scripted(monkeypatch):
    """Validation losses that are known beforehand, whatever the network does."""
    script_losses(monkeypatch)


def script_losses(monkeypatch):
    def log(module, name, losses):
        value = LOSSES[module.current_epoch] if name == "val_loss" else 1.0
        module.log(name, torch.tensor(value), on_step=False, on_epoch=True, batch_size=1)

    monkeypatch.setattr("ptycho_torch.train.module.PtychoModule._log_mean", log)


@pytest.fixture(scope="module")
def three_best(scans, tmp_path_factory) -> RunDir:
    """An undisturbed run of scripted losses that keeps its three best checkpoints."""
    config = config_of(scans, tmp_path_factory.mktemp("three_best") / "run")
    with pytest.MonkeyPatch.context() as patch:
        script_losses(patch)
        return train(replace(config, checkpoint_save_top_k=3))


def epoch_of(path: Path) -> int:
    return torch.load(path, weights_only=True)["epoch"]


def names(run: RunDir) -> list[str]:
    return sorted(path.name for path in run.checkpoints.iterdir())


def bits(run: RunDir) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.checkpoints.iterdir()}


def flat(content, place=""):
    """Place and value of everything in a checkpoint; a tensor as its bytes."""
    if isinstance(content, dict | list | tuple):
        items = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in items:
            yield from flat(value, f"{place}/{key}")
    else:
        yield place, content.numpy().tobytes() if isinstance(content, torch.Tensor) else content


def assert_same(run: RunDir, other: RunDir, apart: str = "no part") -> None:
    """The same checkpoint files with the same training state, and the same table.

    Only the facts about the run hold the options, whose output folder and flags differ.
    """
    assert names(run) == names(other)
    for name in names(run):
        found, expected = (
            torch.load(r.checkpoints / name, weights_only=True) for r in (run, other)
        )
        for content in (found, expected):
            content["hyper_parameters"]["about"].pop("config")
        found, expected = (
            {place: value for place, value in flat(content) if apart not in place}
            for content in (found, expected)
        )
        assert found == expected, name
    assert run.metrics_csv.read_text() == other.metrics_csv.read_text()


@pytest.mark.usefixtures("scripted")
def test_a_run_that_early_stopping_ended_stays_ended(config):
    config = replace(config, early_stop_patience=2)
    run = train(config)
    assert len(run.metrics_csv.read_text().splitlines()) == 1 + 4
    before = bits(run), run.metrics_csv.read_text()
    train(replace(config, resume="auto"))
    assert (bits(run), run.metrics_csv.read_text()) == before


@pytest.mark.usefixtures("scripted")
def test_more_patience_continues_a_run_that_early_stopping_ended(config, tmp_path):
    straight = train(replace(config, early_stop_patience=3))
    stopped = replace(config, output_dir=tmp_path / "stopped", early_stop_patience=2)
    train(stopped)
    resumed = train(replace(stopped, early_stop_patience=3, resume="auto"))
    assert_same(resumed, straight, apart="EarlyStopping")  # which notes that it once stopped


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize("first", range(1, 6))
def test_the_best_and_the_three_best_survive_a_resume_in_a_renamed_folder(
    config, three_best, tmp_path, first
):
    config = replace(config, checkpoint_save_top_k=3)
    assert epoch_of(three_best.best_checkpoint) == 4
    assert names(three_best)[1:-1] == [
        f"epoch=000{epoch}-val_loss={LOSSES[epoch]:.6f}.ckpt" for epoch in (1, 4, 5)
    ]
    train(replace(config, output_dir=tmp_path / "a", max_epochs=first))
    (tmp_path / "a").rename(tmp_path / "b")
    assert_same(train(replace(config, output_dir=tmp_path / "b", resume="auto")), three_best)


@pytest.mark.usefixtures("scripted")
def test_a_worse_epoch_does_not_replace_the_best_of_a_moved_run(config, tmp_path):
    train(replace(config, max_epochs=2))
    config.output_dir.rename(tmp_path / "moved")
    run = train(replace(config, output_dir=tmp_path / "moved", max_epochs=4, resume="auto"))
    assert epoch_of(run.best_checkpoint) == 1
    assert epoch_of(run.last_checkpoint) == 3


@pytest.mark.usefixtures("scripted")
def test_a_run_that_continues_in_another_folder_has_a_best_of_its_own(config, tmp_path):
    first = train(replace(config, max_epochs=2))
    before = bits(first)
    there = replace(config, output_dir=tmp_path / "there", resume=str(first.last_checkpoint))
    run = train(replace(there, max_epochs=4))
    assert epoch_of(run.best_checkpoint) == 3
    assert bits(first) == before
    with pytest.raises(InputError, match="holds another training; continue it with --resume auto"):
        train(there)


@pytest.mark.usefixtures("scripted")
def test_a_run_whose_last_checkpoint_was_deleted_is_not_started_anew(config):
    run = train(replace(config, max_epochs=2))
    run.last_checkpoint.unlink()
    with pytest.raises(InputError, match=r"best\.ckpt is; continue from that one"):
        train(replace(config, resume="auto"))
    assert epoch_of(train(replace(config, resume=str(run.best_checkpoint))).best_checkpoint) == 4


def test_fewer_epochs_than_before_is_a_sentence(config, capsys):
    run = train(replace(config, max_epochs=2))
    before = bits(run)
    words = ["--config", str(run.config), "--resume", "auto", "--max_epochs"]
    assert main([*words, "1"]) == 2
    assert capsys.readouterr().err == (
        f"error: {run.last_checkpoint} was trained for 2 epochs, more than 1; "
        "resume with --max_epochs 2 or more\n"
    )
    assert main([*words, "2"]) == 0
    assert bits(run) == before


def test_validation_that_begins_or_ends_with_a_resume(config):
    without = replace(config, test_data_file=None)
    for epochs, options in enumerate((without, config, without), start=1):
        run = train(replace(options, max_epochs=epochs, resume="auto"))
        assert epoch_of(run.best_checkpoint) == epochs - 1
    header, *rows = run.metrics_csv.read_text().splitlines()
    assert [row.split(",")[:2] for row in rows] == [["0", "1"], ["1", "2"], ["2", "3"]]
    assert header == "epoch,step,fixed_loss,learning_rate,train_loss"


def test_a_quiet_run_that_goes_on_without_early_stopping_warns_of_nothing(config, capfd, recwarn):
    """Lightning would name the callback that is missing, on stderr."""
    train(replace(config, max_epochs=1, early_stop_patience=3))
    train(replace(config, max_epochs=2, resume="auto"))
    assert capfd.readouterr() == ("", "")
    assert [str(one.message) for one in recwarn if "lightning" in one.filename] == []


class SlowStep(Callback):
    """A first step that takes longer than a second."""

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 0:
            time.sleep(1.1)


def test_a_time_limit_ends_a_run_between_epochs(config, tmp_path):
    straight = train(replace(config, max_epochs=2))
    stopped = replace(config, output_dir=tmp_path / "stopped", max_epochs=2)
    run = train(replace(stopped, max_time="00:00:00:01"), callbacks=[SlowStep()])
    assert len(run.metrics_csv.read_text().splitlines()) == 1 + 1
    assert_same(train(replace(stopped, resume="auto")), straight)


def test_no_time_at_all_is_refused(config):
    with pytest.raises(InputError, match="--max_time 00:00:00:00"):
        train(replace(config, max_time="00:00:00:00"))


KILLS = {
    "before the first checkpoint": Moment("os.rename", "last.ckpt"),
    "between the best and the others": Moment("open", ".epoch=0002"),
    "between the others and the last": Moment("os.rename", ".last.ckpt", 3),
    "when a worse epoch was removed": Moment("os.remove", "epoch=000"),
    "when the table is a line ahead": Moment("os.rename", "metrics.csv", 3),
}
WAYS = {
    "with early stopping and the three best": ["--early_stop_patience", "2"],
    "with workers": ["--num_workers", "2"],
    "with TensorBoard": ["--logger", "tensorboard"],
}
CASES = [
    *((next(iter(WAYS)), kill) for kill in KILLS),
    ("with workers", "between the best and the others"),
    ("with TensorBoard", "between the others and the last"),
]


@pytest.fixture(scope="module")
def straight(scans, tmp_path_factory):
    """Undisturbed runs, each trained once."""
    made: dict[str, RunDir] = {}

    def run(way: str) -> RunDir:
        if way not in made:
            folder = tmp_path_factory.mktemp("straight")
            output = folder / "said"
            assert finish(start(words(scans, folder / "run", way), output)) == 0, output.read_text()
            made[way] = RunDir(folder / "run")
        return made[way]

    return run


def words(scans, folder: Path, way: str) -> list[str]:
    """Two training scans, of which one also validates."""
    config = TrainingConfig(
        train_data_file=list(scans),
        test_data_file=scans[1],
        output_dir=folder,
        scheduler="constant",
        max_epochs=4,
        gridsize=4,
        checkpoint_save_top_k=2,
        accelerator="cpu",
        quiet=True,
    )
    file = folder.parent / f"{folder.name}.yaml"
    file.write_text(to_yaml(config))
    return ["--config", str(file), *WAYS[way]]


@pytest.mark.parametrize(("way", "kill"), CASES)
def test_killed_moved_and_resumed_gives_the_same_bits(way, kill, scans, straight, tmp_path):
    output = tmp_path / "said"
    ended = finish(start(words(scans, tmp_path / "a", way), output, KILLS[kill]))
    assert ended == -signal.SIGKILL, output.read_text()
    (tmp_path / "a").rename(tmp_path / "b")
    resumed = start([*words(scans, tmp_path / "b", way), "--resume", "auto"], output)
    assert finish(resumed) == 0, output.read_text()
    assert_same(RunDir(tmp_path / "b"), straight(way))

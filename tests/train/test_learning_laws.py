"""Laws of training: each scan and each setting does what it says, and nothing else."""

import csv
from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Callback

from ptycho_torch.config import TrainingConfig
from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.io.readers import read_scan
from ptycho_torch.io.writers import write_scan
from ptycho_torch.train import trainer
from ptycho_torch.train.datamodule import ScanDataModule
from ptycho_torch.train.fit import fit
from ptycho_torch.train.module import WARM_UP_STEPS, PtychoModule


@pytest.fixture
def config(scan_file, tmp_path):
    return TrainingConfig(
        train_data_file=[scan_file],
        output_dir=tmp_path / "run",
        max_epochs=1,
        gridsize=4,
        accelerator="cpu",
        quiet=True,
    )


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Two further scans, each of an object of its own."""
    paths = []
    for seed in (8, 9):
        path = tmp_path_factory.mktemp("others") / f"{seed}.npz"
        scan = simulate_scan(photons=1e6, n_side=6, pattern_size=32, seed=seed).scan
        write_scan(path, scan)
        paths.append(path)
    return paths


def weights(run):
    state = torch.load(run.last_checkpoint, weights_only=True)["state_dict"]
    return torch.cat([value.flatten() for value in state.values()])


def validation_losses(run):
    with run.metrics_csv.open() as file:
        return [float(row["val_loss"]) for row in csv.DictReader(file)]


def test_another_validation_scan_changes_the_validation_loss_and_no_weight(
    config, others, tmp_path
):
    one, other = (
        fit(replace(config, test_data_file=path, output_dir=tmp_path / path.stem))
        for path in others
    )
    assert torch.equal(weights(one), weights(other))
    assert validation_losses(one) != validation_losses(other)


def test_each_of_several_scans_changes_what_is_learned(config, others, scan_file, tmp_path):
    """Also the last one: with another object in it, the weights are others."""
    learned = [
        weights(fit(replace(config, train_data_file=files, output_dir=tmp_path / str(number))))
        for number, files in enumerate(
            ([scan_file, others[0]], [scan_file, others[1]], [others[0], others[1]])
        )
    ]
    assert not torch.equal(learned[0], learned[1])
    assert not torch.equal(learned[1], learned[2])


def test_an_epoch_shows_every_point_of_every_scan_once():
    scans = [
        simulate_scan(photons=1e4, n_side=side, pattern_size=32, seed=side).scan for side in (5, 6)
    ]
    module = ScanDataModule(
        scans[:1], scans[1:], group_size=4, variable_group_size=True,
        batch_size=1, num_workers=0, seed=3,
    )  # fmt: skip
    both = ScanDataModule(
        scans, [], group_size=4, variable_group_size=True, batch_size=1, num_workers=0, seed=3
    )
    for loader, expected in (
        (module.train_dataloader(), scans[:1]),
        (module.val_dataloader(), scans[1:]),
        (both.train_dataloader(), scans),
    ):
        shown = sorted((number, point) for number, points in loader.sampler for point in points)
        assert shown == [
            (number, point) for number, scan in enumerate(expected) for point in range(len(scan))
        ]
        assert loader.dataset.scans == expected


def test_the_first_step_is_a_small_part_of_the_learning_rate(config, tmp_path):
    """Adam's first step is the learning rate in each weight that has a gradient: with a warm-up
    of W steps it is the W-th part of that.
    """
    rate = 1e-3
    one, two = (
        weights(
            fit(
                replace(
                    config,
                    n_images=16,
                    batch_size=64,
                    learning_rate=factor * rate,
                    output_dir=tmp_path / str(factor),
                )
            )
        )
        for factor in (1, 2)
    )
    assert (two - one).abs().max() == pytest.approx(rate / WARM_UP_STEPS, rel=0.02)


def test_no_photon_is_both_seen_and_judged_by(config, scan_file, others, monkeypatch):
    """In training, in validation and in the loss that compares epochs, what the network sees and
    what it is judged by are together one of the measured patterns.
    """
    measured = {
        int(total)
        for path in (scan_file, others[0])
        for total in read_scan(path).counts.sum(axis=(1, 2))
    }
    together, shares = [], []
    loss = PtychoModule.group_loss

    def watched(self, shown, target):
        both = [part.counts.double().sum(dim=(2, 3)).flatten() for part in (shown, target)]
        together.extend(sum(both).round().int().tolist())
        shares.extend((both[0] / sum(both)).tolist())
        return loss(self, shown, target)

    monkeypatch.setattr(PtychoModule, "group_loss", watched)
    fit(replace(config, test_data_file=others[0]))
    assert len(set(together)) > len(read_scan(scan_file))  # both scans were shown
    assert set(together) <= measured
    assert 0 < min(shares) <= max(shares) < 1


class Norms(Callback):
    """The norm of the gradients of each step, as the optimiser got them."""

    def __init__(self):
        self.found = []

    def on_train_batch_end(self, _, module, *__):
        grads = [one.grad.flatten() for one in module.parameters() if one.grad is not None]
        self.found.append(float(torch.cat(grads).norm()))


def test_long_gradients_are_shortened_to_the_stated_norm(config, monkeypatch):
    """With a bound below every gradient of this scan, all steps have just that norm."""
    bound = 1e-4
    monkeypatch.setattr(trainer, "GRADIENT_NORM", bound)
    norms = Norms()
    fit(config, callbacks=[norms])
    assert norms.found
    assert norms.found == pytest.approx([bound] * len(norms.found), rel=1e-3)

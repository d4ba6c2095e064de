"""The picture of a training shows whether it has ended, and which epoch is the best."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from ptycho_torch.evaluation.history_plot import (
    fall_at_the_end,
    plot_history,
    running_mean,
    save_history,
)


def rows(count, **columns):
    return [
        {"epoch": n, "learning_rate": 1e-3}
        | {name: values[n] for name, values in columns.items() if values[n] is not None}
        for n in range(count)
    ]


def test_a_running_mean_is_that_of_its_window_and_is_cut_at_the_ends():
    values = np.array([1.0, 2, 3, 4, 10])
    assert running_mean(values, 3) == pytest.approx([1.5, 2, 3, 17 / 3, 7])
    assert running_mean(np.full(7, 2.5), 4) == pytest.approx(2.5)


def test_the_mean_of_noisy_losses_shows_their_course():
    noise = np.random.default_rng(0).standard_normal(100)
    course = 1 + np.exp(-np.arange(100) / 30)
    noisy = course + 0.3 * noise
    smooth = running_mean(noisy, 10)
    assert np.std((smooth - course)[10:-10]) < 0.5 * np.std((noisy - course)[10:-10])


def test_epochs_count_from_one_and_the_best_is_marked():
    axes = plot_history(
        Figure().subplots(),
        rows(4, train_loss=[4, 3, 2, 1], fixed_loss=[5, 4, 3, 2], val_loss=[None, 3, None, 2]),
        best_epoch=3,
    )
    assert axes.get_xlim() == (0.5, 4.5)
    drawn = {line.get_label(): np.array(line.get_xdata()) for line in axes.lines}
    assert drawn["training"].tolist() == [1, 2, 3, 4]
    assert drawn["training, always the same groups and photons"].tolist() == [1, 2, 3, 4]
    assert drawn["validation"].tolist() == [2, 4], "where there is a value"
    assert drawn["best.ckpt: epoch 4"].tolist() == [4, 4]


def test_the_title_says_whether_training_has_ended():
    falling = [2.0 - 0.1 * n for n in range(12)]
    assert "fell by 25 % over the last 3 epochs" in fall_at_the_end(rows(12, fixed_loss=falling))
    ended = [2.0] * 8 + [1.0, 1.0, 1.0, 1.01]
    said = fall_at_the_end(rows(12, fixed_loss=falling, val_loss=ended))
    assert said == "The validation loss rose by 1 % over the last 3 epochs"
    assert fall_at_the_end(rows(2, fixed_loss=[2, 1])) == "Losses"


def test_a_history_of_an_older_run_can_be_drawn(tmp_path):
    """Its rows have neither fixed groups nor a learning rate."""
    older = [{"epoch": 0, "train_loss": 2.0}, {"epoch": 1, "train_loss": 1.0}]
    save_history(tmp_path / "history.png", older, best_epoch=None)
    assert (tmp_path / "history.png").stat().st_size > 0

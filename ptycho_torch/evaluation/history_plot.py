"""The picture of a training: losses and learning rate over the epochs, counted from 1."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter
from numpy.typing import NDArray

from ptycho_torch.evaluation.plots import PANEL_IN, save_figure

MEAN_SHARE = 10  # the running mean is over one in so many epochs, at least `LEAST_MEAN`
LEAST_MEAN = 3
END_SHARE = 4  # the fall of the loss is stated for the last one in so many epochs
FEW_EPOCHS = 8  # with fewer there is no end to speak of
LINE_POINTS = 14  # height of a line of the legend, which stands between the axes and their title

Rows = Sequence[Mapping[str, float]]


def plot_history(axes: Axes, rows: Rows, *, best_epoch: int | None) -> Axes:
    """Losses over the epochs.

    Args:
        axes: Where to draw.
        rows: Of `metrics.csv`, with epochs from 0.
        best_epoch: That of `best.ckpt`, from 0; None for none.
    """
    epochs, losses = _column(rows, "train_loss")
    if len(epochs):
        axes.plot(epochs, losses, ".", color="tab:blue", alpha=0.35, label="training")
        window = max(LEAST_MEAN, len(epochs) // MEAN_SHARE)
        label = f"training, mean of {window} epochs"
        axes.plot(epochs, running_mean(losses, window), color="tab:blue", label=label)
    for name, colour, label in (
        ("fixed_loss", "tab:green", "training, always the same groups and photons"),
        ("val_loss", "tab:orange", "validation"),
    ):
        epochs, losses = _column(rows, name)
        if len(epochs):
            axes.plot(epochs, losses, color=colour, marker=".", markersize=4, label=label)
    if best_epoch is not None:
        label = f"best.ckpt: epoch {best_epoch + 1}"
        axes.axvline(best_epoch + 1, color="0.4", linestyle="--", linewidth=1, label=label)
    axes.set_xlim(0.5, rows[-1]["epoch"] + 1.5)  # there is no epoch 0
    axes.set_yscale("log")
    for axis_format in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        axis_format(ScalarFormatter())
    axes.set_ylabel("loss [per detector pixel]")
    axes.grid(alpha=0.3)
    # above the axes, since a noisy loss leaves no corner of them free
    legend = axes.legend(
        fontsize="small", ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False
    )
    lines = -(-len(legend.get_texts()) // 2)
    axes.set_title(
        fall_at_the_end(rows), fontsize="medium", pad=LINE_POINTS * lines + LINE_POINTS / 2
    )
    return axes


def running_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Mean over a window around each value, which is cut at both ends, (N,)."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    first = np.maximum(places - window // 2, 0)
    stop = np.minimum(places - window // 2 + window, len(values))
    return (sums[stop] - sums[first]) / (stop - first)


def fall_at_the_end(rows: Rows) -> str:
    """How much a loss that compares between epochs fell in the last quarter of the training."""
    epochs, losses = _column(rows, "val_loss" if "val_loss" in rows[-1] else "fixed_loss")
    if len(epochs) < FEW_EPOCHS:
        return "Losses"
    name = "validation loss" if "val_loss" in rows[-1] else "loss of the same groups"
    last = len(epochs) // END_SHARE
    fall = 100 * (1 - losses[-1] / losses[-1 - last])
    change = "fell" if fall >= 0 else "rose"
    return f"The {name} {change} by {abs(fall):.2g} % over the last {last} epochs"


def save_history(path: Path, rows: Rows, *, best_epoch: int | None) -> None:
    """Picture of the losses and of the learning rate over the epochs.

    Args:
        path: Of the picture.
        rows: Of `metrics.csv`, with epochs from 0, at least one.
        best_epoch: That of `best.ckpt`, from 0; None for none.
    """
    figure = Figure(figsize=PANEL_IN)
    room = {"left": 0.14, "right": 0.97, "bottom": 0.11, "top": 0.83, "hspace": 0.08}
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1], gridspec_kw=room)
    plot_history(above, rows, best_epoch=best_epoch)
    below.plot(*_column(rows, "learning_rate"), color="0.3")
    below.set_ylabel("learning rate")
    below.set_ylim(bottom=0)
    below.set_xlabel("epoch")
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    below.grid(alpha=0.3)
    save_figure(path, figure)


def _column(rows: Rows, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Epochs from 1 and values of a column, where it has any, (N,) each."""
    known = [(row["epoch"] + 1, row[name]) for row in rows if name in row]
    epochs, values = np.array(known, dtype=np.float64).reshape(-1, 2).T
    return epochs, values

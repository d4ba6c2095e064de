"""Training: from scans to a run folder with checkpoints and history. No torch is imported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ptycho_torch.config import TrainingConfig
from ptycho_torch.config.runner import run
from ptycho_torch.io.run_dir import RunDir

if TYPE_CHECKING:
    from lightning.pytorch import Callback


def train(config: TrainingConfig, *, callbacks: Sequence[Callback] = ()) -> RunDir:
    """Train a generator on scans, without ground truth.

    Args:
        config: Scans, generator, and all other options.
        callbacks: Further Lightning callbacks.

    Returns:
        The folder of the run.

    Raises:
        InputError: If a file, a value or the folder cannot be used.
        RunError: If the training diverged.
    """
    # torch and Lightning take seconds to import; --help and a mistyped path do not wait
    from ptycho_torch.io.readers import files_read, scans_in

    given = [*config.train_data_file, *filter(None, [config.test_data_file])]
    for path in (one for each in given for one in scans_in(each)):
        files_read(path, config)
    from ptycho_torch.train.fit import fit

    return fit(config, callbacks=callbacks)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run("train", argv, prog="python -m ptycho_torch.train")

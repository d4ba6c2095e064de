"""`python -m ptycho_torch.train`: learn a generator from measured patterns."""

import sys
from collections.abc import Sequence

from ptycho_torch.command import run_command
from ptycho_torch.config import TrainingConfig
from ptycho_torch.run_dir import RunDir


def train(config: TrainingConfig) -> RunDir:
    """Train a generator on scans, without ground truth.

    Args:
        config: Scans, generator, and everything else that can be chosen.

    Returns:
        The folder of the run.

    Raises:
        InputError: If a file, a value or the folder cannot be used.
        RunError: If the training diverged.
    """
    from ptycho_torch.training import fit  # torch and Lightning take seconds to import; --help does not wait

    return fit(config)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see `run_command` for the exit status."""
    return run_command(TrainingConfig, train, argv, prog="python -m ptycho_torch.train")


if __name__ == "__main__":
    sys.exit(main())

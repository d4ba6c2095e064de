"""`python -m ptycho_torch.inference`: reconstruct a scan with a trained generator."""

import sys
from collections.abc import Sequence

from ptycho_torch.command import run_command
from ptycho_torch.config import InferenceConfig
from ptycho_torch.run_dir import RunDir


def reconstruct(config: InferenceConfig) -> RunDir:
    """Reconstruct a scan and write the object, its pictures and its figures.

    Args:
        config: Checkpoint, scan, and everything else that can be chosen.

    Returns:
        The folder of the reconstruction.

    Raises:
        InputError: If a file, a value or the folder cannot be used.
        RunError: If the reconstruction is flat.
    """
    from ptycho_torch.reconstruction import infer  # torch takes seconds to import; --help does not wait

    return infer(config)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; see `run_command` for the exit status."""
    return run_command(InferenceConfig, reconstruct, argv, prog="python -m ptycho_torch.inference")


if __name__ == "__main__":
    sys.exit(main())

"""Inference: a trained generator and a scan in, a stitched object out; imports no torch."""

from collections.abc import Sequence

from ptycho_torch.config import InferenceConfig
from ptycho_torch.config.runner import run
from ptycho_torch.io.run_dir import RunDir


def reconstruct(config: InferenceConfig) -> RunDir:
    """Reconstruct a scan and write the object, its pictures and its metrics.

    Args:
        config: Checkpoint, scan, and everything else that can be chosen.

    Returns:
        The folder of the reconstruction.

    Raises:
        InputError: If a file, a value or the folder cannot be used.
        RunError: If the reconstruction is flat.
    """
    # torch takes seconds to import; --help and a mistyped path do not wait for it
    from ptycho_torch.io.readers import files_read

    files_read(config.test_data, config)
    from ptycho_torch.inference.workflow import run_inference

    return run_inference(config)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run("infer", argv, prog="python -m ptycho_torch.inference")

"""Ptychography that learns from the measured patterns themselves."""

from importlib import import_module
from importlib.util import find_spec

if find_spec("torch") is None:
    raise ImportError("ptycho_torch needs PyTorch: pip install torch")

__version__ = "0.1.0"

_HOME = {  # public name -> module; imported on first use, so that `--help` needs no torch
    "InferenceConfig": "config",
    "ReadingOptions": "config",
    "TrainingConfig": "config",
    "InputError": "errors",
    "RunError": "errors",
    "Group": "data.scan",
    "Reconstruction": "data.scan",
    "Scan": "data.scan",
    "MeasurementFaults": "data.measurement_faults",
    "simulate_scan": "data.simulation",
    "RunDir": "io.run_dir",
    "read_scan": "io.readers",
    "read_reconstruction": "io.readers.reconstruction",
    "write_scan": "io.writers",
    "write_reconstruction": "io.writers",
    "fit": "train.fit",
    "RefineOptions": "refinement",
    "refine": "refinement",
    "reconstruct": "inference",
    "compare": "evaluation.metrics.agreement",
}
__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)

"""The options of every command, and how a command line becomes a call. No torch is imported."""

from ptycho_torch.config.command_options import (
    CompareConfig,
    ConversionConfig,
    DemoConfig,
    DoctorConfig,
    InferenceConfig,
    LiveConfig,
    ReportConfig,
    SimulationConfig,
    TrainingConfig,
    VerifyConfig,
)
from ptycho_torch.config.options import ReadingOptions, ReconstructionOptions

__all__ = [
    "CompareConfig",
    "ConversionConfig",
    "DemoConfig",
    "DoctorConfig",
    "InferenceConfig",
    "LiveConfig",
    "ReadingOptions",
    "ReconstructionOptions",
    "ReportConfig",
    "SimulationConfig",
    "TrainingConfig",
    "VerifyConfig",
]

"""Names that Ptychodus imports in its own process, without torch; see `ptycho_torch.ptychodus`."""

from ptycho_torch.ptychodus.settings import (
    DataConfig,
    DatagenConfig,
    InferenceConfig,
    ModelConfig,
    TrainingConfig,
)

__all__ = ["DataConfig", "DatagenConfig", "InferenceConfig", "ModelConfig", "TrainingConfig"]

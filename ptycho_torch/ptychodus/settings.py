"""The settings that Ptychodus passes, and which of them have a meaning here. It imports no torch.

Ptychodus constructs these classes in its own process, pickles them and sends them to a child
process. It always passes all of its settings, so that a value that the user chose and one that was
left alone cannot be told apart; a value that equals Ptychodus's default is taken as left alone.
"""

import importlib.metadata
import inspect
from typing import ClassVar

from ptycho_torch.errors import InputError

TESTED_VERSIONS = "1.5.1, 1.6.0 and 1.7.0"  # of Ptychodus; all three pass the same settings
UNSUPERVISED = "Unsupervised"


def host_version() -> tuple[int, ...]:
    """Version of the installed Ptychodus, such as (1, 7, 0); empty where it is not installed."""
    try:
        version = importlib.metadata.version("ptychodus")
    except importlib.metadata.PackageNotFoundError:
        return ()
    return tuple(int(part) for part in version.split(".")[:3] if part.isdecimal())


def host_name() -> str:
    """Ptychodus with its version, for messages."""
    return " ".join(["Ptychodus", ".".join(map(str, host_version()))]).strip()


class Settings:
    """Keyword arguments of Ptychodus as attributes.

    The annotated attributes in lower case have a meaning here; their values are Ptychodus's
    defaults. All of them must be passed. Keyword arguments that are not known are accepted.

    Args:
        given: Every setting of the class.

    Raises:
        InputError: If a setting that has a meaning here is missing.
    """

    NO_EFFECT: ClassVar[dict[str, object]] = {}  # setting -> Ptychodus's default
    # Settings that the user cannot change, that repeat another one, or that only describe the run.
    CONSTANT: ClassVar[tuple[str, ...]] = ()

    def __init__(self, **given: object) -> None:
        missing = [name for name in self.meaningful() if name not in given]
        if missing:
            raise InputError(
                f"{host_name()} does not pass {type(self).__name__}.{missing[0]}; this back end "
                f"was tested with Ptychodus {TESTED_VERSIONS}"
            )
        vars(self).update(given)

    @classmethod
    def meaningful(cls) -> tuple[str, ...]:
        """Names of the settings that have a meaning here."""
        return tuple(name for name in inspect.get_annotations(cls) if not name.isupper())

    @classmethod
    def defaults(cls) -> dict[str, object]:
        """Ptychodus's default of every setting that has a meaning here."""
        return {name: getattr(cls, name) for name in cls.meaningful()}

    def is_chosen(self, name: str) -> bool:
        """Whether a setting differs from Ptychodus's default."""
        return getattr(self, name) != getattr(type(self), name)

    def without_effect(self) -> list[str]:
        """Settings that were chosen and have no meaning here, with their values."""
        return [
            f"{name} {value}"
            for name, value in vars(self).items()
            if name in self.NO_EFFECT and value != self.NO_EFFECT[name]
        ]

    def unknown(self) -> list[str]:
        """Settings that no tested version of Ptychodus has."""
        known = {*self.meaningful(), *self.NO_EFFECT, *self.CONSTANT}
        return [f"{type(self).__name__}.{name}" for name in vars(self) if name not in known]


class DataConfig(Settings):
    """Settings of how another network groups and scales its data; none has a meaning here."""

    NO_EFFECT: ClassVar[dict[str, object]] = {
        "N": 128,
        "C": 4,
        "normalize": "Batch",
        "neighbor_function": "Nearest",
        "scan_pattern": "Isotropic",
        "probe_normalize": True,
        "x_bounds": (0.1, 0.9),
        "y_bounds": (0.1, 0.9),
        "min_neighbor_distance": 0.0,
        "max_neighbor_distance": 3.0,
        "K_quadrant": 30,
        "n_subsample": 7,
        "probe_scale": 4.0,
        "K": 6,
        "grid_size": (2, 2),
        "probe_ramp_removal": False,
        "data_scaling": "Parseval",
        "phase_subtraction": True,
    }


class ModelConfig(Settings):
    """Settings of the network and of the loss.

    Raises:
        InputError: For the mode "Supervised".
    """

    mode: str = UNSUPERVISED
    loss_function: str = "Poisson"

    NO_EFFECT: ClassVar[dict[str, object]] = {
        "object_big": True,
        "probe_big": True,
        "amp_activation": "silu",
        "cbam_encoder": True,
        "use_shared_decoder": False,
        "intensity_scale_trainable": False,
        "intensity_scale": 10000.0,
        "max_position_jitter": 10,
        "num_datasets": 1,
        "amp_loss": None,
        "phase_loss": None,
        "amp_loss_coeff": 1.0,
        "phase_loss_coeff": 1.0,
        "n_filters_scale": 2,
        "eca_decoder": False,
        "batch_norm": False,
        "edge_pad": 10,
        "decoder_last_c_outer_fraction": 0.125,
        "cbam_bottleneck": False,
        "cbam_decoder": False,
        "spatial_decoder": False,
        "decoder_spatial_kernel": 7,
        "eca_encoder": False,
        "offset": 6,
        "probe_reference_coeff": 0.0,
        "amplitude_variance_loss": False,
        "amplitude_variance_coeff": 0.01,
    }
    CONSTANT: ClassVar[tuple[str, ...]] = (
        "decoder_last_amp_channels",
        "C_model",
        "C_forward",
        "probe_mask",
    )

    def __init__(self, **given: object) -> None:
        super().__init__(**given)
        if self.mode != UNSUPERVISED:
            raise InputError(
                f"ptycho_torch learns from the patterns alone and has no mode {self.mode!r}; "
                "choose the algorithm ptychopinn-torch_unsupervised"
            )


class TrainingConfig(Settings):
    """Settings of the training."""

    epochs: int = 50
    learning_rate: float = 0.001
    scheduler: str = "Default"
    device: str = "cuda"
    n_devices: int = 1
    num_workers: int = 4

    NO_EFFECT: ClassVar[dict[str, object]] = {
        "batch_size": 16,
        "accum_steps": 1,
        "epochs_fine_tune": 0,
        "fine_tune_gamma": 0.1,
        "gradient_clip_val": None,
        "nll": True,
        "strategy": "ddp_spawn",
        "warmup_epochs": 0,
        "min_lr_ratio": 0.1,
        "enable_staged_finetuning": False,
        "finetune_stage1_epochs": 7,
        "finetune_stage2_epochs": 7,
        "finetune_stage3_epochs": 5,
        "finetune_stage1_lr_decoder": 0.1,
        "finetune_stage2_lr_encoder_top": 0.01,
        "finetune_stage2_lr_decoder": 0.05,
        "finetune_stage2_lr_phase_head": 0.1,
        "finetune_stage3_lr_encoder_bottom": 0.005,
        "finetune_stage3_lr_encoder_top": 0.01,
        "finetune_stage3_lr_decoder": 0.02,
        "finetune_stage3_lr_phase_head": 0.05,
        "finetune_skip_stage3": True,
        "finetune_early_stop_patience": 3,
        "finetune_val_split": 0.05,
    }
    CONSTANT: ClassVar[tuple[str, ...]] = ("framework", "orchestrator", "notes", "model_name")


class InferenceConfig(Settings):
    """Settings of the inference of another network; no inference gets them from Ptychodus."""

    NO_EFFECT: ClassVar[dict[str, object]] = {
        "batch_size": 1000,
        "middle_trim": 32,
        "experiment_number": 0,
        "patch_weighting": "probe",
        "pad_eval": True,
        "window": 20,
    }


class DatagenConfig(Settings):
    """Ptychodus passes nothing in it."""

"""The calls of Ptychodus 1.7.0, in their order, and the data that it passes, without Ptychodus."""

import logging
import multiprocessing
import pickle
import queue
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

START_S = 180.0  # more than a child needs on a busy machine

DATA = {
    "N": 128, "C": 4, "normalize": "Batch", "neighbor_function": "Nearest", "scan_pattern":
    "Isotropic", "probe_normalize": True, "x_bounds": (0.1, 0.9), "y_bounds": (0.1, 0.9),
    "min_neighbor_distance": 0.0, "max_neighbor_distance": 3.0, "K_quadrant": 30, "n_subsample":
    7, "probe_scale": 4.0, "K": 6, "grid_size": (2, 2), "probe_ramp_removal": False,
    "data_scaling": "Parseval", "phase_subtraction": True,
}  # fmt: skip
MODEL = {
    "mode": "Unsupervised", "object_big": True, "probe_big": True, "loss_function": "Poisson",
    "amp_activation": "silu", "cbam_encoder": True, "decoder_last_amp_channels": 4,
    "use_shared_decoder": False, "intensity_scale_trainable": False, "intensity_scale": 10000.0,
    "max_position_jitter": 10, "num_datasets": 1, "C_model": 4, "C_forward": 4, "amp_loss": None,
    "phase_loss": None, "amp_loss_coeff": 1.0, "phase_loss_coeff": 1.0, "n_filters_scale": 2,
    "probe_mask": None, "eca_decoder": False, "batch_norm": False, "edge_pad": 10,
    "decoder_last_c_outer_fraction": 0.125, "cbam_bottleneck": False, "cbam_decoder": False,
    "spatial_decoder": False, "decoder_spatial_kernel": 7, "eca_encoder": False, "offset": 6,
    "probe_reference_coeff": 0.0, "amplitude_variance_loss": False, "amplitude_variance_coeff":
    0.01,
}  # fmt: skip
TRAINING = {
    "epochs": 50, "batch_size": 16, "learning_rate": 0.001, "n_devices": 1, "num_workers": 4,
    "accum_steps": 1, "epochs_fine_tune": 0, "fine_tune_gamma": 0.1, "gradient_clip_val": None,
    "nll": True, "device": "cuda", "strategy": "ddp_spawn", "framework": "Lightning",
    "orchestrator": "Lightning", "scheduler": "Default", "warmup_epochs": 0, "min_lr_ratio": 0.1,
    "notes": "", "model_name": "PtychoPINNv2", "enable_staged_finetuning": False,
    "finetune_stage1_epochs": 7, "finetune_stage2_epochs": 7, "finetune_stage3_epochs": 5,
    "finetune_stage1_lr_decoder": 0.1, "finetune_stage2_lr_encoder_top": 0.01,
    "finetune_stage2_lr_decoder": 0.05, "finetune_stage2_lr_phase_head": 0.1,
    "finetune_stage3_lr_encoder_bottom": 0.005, "finetune_stage3_lr_encoder_top": 0.01,
    "finetune_stage3_lr_decoder": 0.02, "finetune_stage3_lr_phase_head": 0.05,
    "finetune_skip_stage3": True, "finetune_early_stop_patience": 3, "finetune_val_split": 0.05,
}  # fmt: skip
INFERENCE = {
    "batch_size": 1000, "middle_trim": 32, "experiment_number": 0, "patch_weighting": "probe",
    "pad_eval": True, "window": 20,
}  # fmt: skip


@dataclass(frozen=True)
class Geometry:
    """The middle of element [i, j] is center + pixel * (i - (Y - 1) / 2, j - (X - 1) / 2)."""

    height_px: int
    width_px: int
    center_m: NDArray[np.float64]
    pixel_m: float

    def positions_px(self, positions_m: NDArray[np.float64]) -> NDArray[np.float64]:
        middle = (np.array([self.height_px, self.width_px]) - 1) / 2
        return (positions_m - self.center_m) / self.pixel_m + middle


@dataclass(frozen=True)
class HostObject:
    """The object of a product."""

    geometry: Geometry
    layer_spacing_m: tuple[float, ...] = ()

    def get_geometry(self) -> Geometry:
        return self.geometry


@dataclass(frozen=True)
class Product:
    """The parts of a product that Ptychodus hands over."""

    object_: HostObject
    probe: NDArray
    positions_m: NDArray[np.float64]


@dataclass(frozen=True)
class ReconstructInput:
    """What Ptychodus sends to its child for an inference."""

    product: Product
    diffraction_patterns: NDArray
    bad_pixels: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class TrainInput:
    """What Ptychodus sends to its child for a training."""

    configs: dict[str, Any]
    input_path: Path
    output_path: Path


@dataclass
class Outcome:
    """What a child left."""

    result: Any = None
    error: str = ""
    log: list[tuple[int, str, str]] = field(default_factory=list)

    def lines(self, level: int = logging.INFO) -> list[str]:
        return [text for number, _, text in self.log if number >= level]


def build_configs(**training: Any) -> dict[str, Any]:
    """In the parent, before there is a child."""
    from ptycho_torch.config_params import (
        DataConfig,
        DatagenConfig,
        InferenceConfig,
        ModelConfig,
        TrainingConfig,
    )

    model = {key: training.pop(key) for key in list(training) if key in MODEL}
    return {
        "data_config": DataConfig(**DATA),
        "model_config": ModelConfig(**MODEL | model),
        "training_config": TrainingConfig(**TRAINING | training),
        "inference_config": InferenceConfig(**INFERENCE),
        "datagen_config": DatagenConfig(),
    }


def run_train(payload: TrainInput) -> dict[str, Any]:
    """In the child."""
    from lightning.pytorch.callbacks import Callback

    from ptycho_torch.api.base_api import (
        ConfigManager,
        DataloaderFormats,
        PtychoDataLoader,
        PtychoModel,
        Trainer,
    )
    from ptycho_torch.lightning_utils import find_best_checkpoint
    from ptycho_torch.model import PtychoPINN_Lightning

    training_config = payload.configs["training_config"]
    training_config.n_devices = min(1, training_config.n_devices)
    config_manager = ConfigManager(**payload.configs)

    class Collector(Callback):
        def __init__(self, train_metric_name: str, val_metric_name: str) -> None:
            super().__init__()
            self.names, self.losses = (train_metric_name, val_metric_name), ([], [])
            self.epochs_completed = 0

        def on_train_epoch_end(self, trainer, pl_module) -> None:
            value = trainer.callback_metrics.get(self.names[0])
            if value is not None:
                self.losses[0].append((trainer.current_epoch, float(value)))
            self.epochs_completed = trainer.current_epoch + 1

        def on_validation_epoch_end(self, trainer, pl_module) -> None:
            value = trainer.callback_metrics.get(self.names[1])
            if not trainer.sanity_checking and value is not None:
                self.losses[1].append((trainer.current_epoch, float(value)))

    loader = PtychoDataLoader(
        data_dir=payload.input_path,
        config_manager=config_manager,
        data_format=DataloaderFormats("lightning_only_module"),
        output_dir=payload.output_path,
    )
    model = PtychoModel._new_model(model=PtychoPINN_Lightning, config_manager=config_manager)
    trainer = Trainer._from_lightning(
        model=model, dataloader=loader, orchestration="lightning", config_manager=config_manager
    )
    collector = Collector(
        train_metric_name=model.model.loss_name, val_metric_name=model.model.val_loss_name
    )
    trainer._trainer.callbacks.append(collector)
    trainer.train(orchestration="lightning", experiment_name="")
    run = Path(loader.output_dir)
    checkpoint = find_best_checkpoint(run)
    if checkpoint is None:
        raise FileNotFoundError(f"No checkpoints found in {run} after training.")
    return {
        "losses": collector.losses,
        "progress": collector.epochs_completed,
        "checkpoint": str(checkpoint),
    }


def run_reconstruct(payload: tuple[Path, ReconstructInput]) -> NDArray:
    """In the child. The names of the local variables are part of the contract."""
    from ptycho_torch.api.base_api import (
        ConfigManager,
        InferenceEngine,
        PtychoDataLoader,
        PtychoModel,
    )
    from ptycho_torch.model import PtychoPINN_Lightning

    model_path, parameters = payload
    names = ("data_config", "model_config", "training_config", "inference_config")
    found = PtychoModel._extract_configs_from_checkpoint(str(model_path))
    assert all(config is not None for config in found)
    configs = dict(zip(names, found, strict=True))
    ptycho_model = PtychoModel(**configs)
    ptycho_model.model = PtychoPINN_Lightning.load_from_checkpoint(model_path, **configs)
    config_manager = ConfigManager.from_loaded_model(ptycho_model)
    config_manager.validate_arch_compatibility(ptycho_model)
    assert config_manager.model_config.mode == "Unsupervised"
    engine = InferenceEngine(config_manager=config_manager, ptycho_model=ptycho_model)
    object_geometry = parameters.product.object_.get_geometry()
    loader = PtychoDataLoader.from_np(
        diff_patterns=parameters.diffraction_patterns,
        probe=parameters.product.probe,
        positions=object_geometry.positions_px(parameters.product.positions_m),
        config_manager=config_manager,
    )
    return np.asarray(engine.predict_and_stitch(loader))


def in_child(function: Any, payload: Any) -> Outcome:
    """Run a function in a spawned child as Ptychodus does; its log and its error come back."""
    context = multiprocessing.get_context("spawn")
    messages = context.Queue()
    process = context.Process(target=_child, args=(function, pickle.dumps(payload), messages))
    process.start()
    outcome = Outcome()
    try:
        while (message := messages.get(timeout=START_S)) is not None:
            kind, *content = message
            if kind == "log":
                outcome.log.append(tuple(content))
            else:
                setattr(outcome, kind, content[0])
    except queue.Empty:
        process.kill()
        raise AssertionError("the child does not end") from None
    process.join()
    return outcome


class _Forward(logging.Handler):
    def __init__(self, messages: Any) -> None:
        super().__init__()
        self.messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.put(("log", record.levelno, record.name, record.getMessage()))


def _child(function: Any, payload: bytes, messages: Any) -> None:
    root = logging.getLogger()
    root.addHandler(_Forward(messages))
    root.setLevel(logging.INFO)
    sys.stdout = sys.stderr = SimpleNamespace(write=len, flush=lambda: None, isatty=lambda: False)
    try:
        messages.put(("result", function(pickle.loads(payload))))
    except Exception as error:  # noqa: BLE001 - every error goes to the parent
        messages.put(("error", f"{type(error).__name__}: {error}"))
    messages.put(None)

"""The classes and functions that Ptychodus calls in its child processes, in the order of its calls.

Their names, arguments and attributes are Ptychodus's contract; names of arguments that are not used
belong to it too. A training calls `PtychoDataLoader`, `PtychoModel._new_model`,
`Trainer._from_lightning`, `Trainer.train`, `find_best_checkpoint`. An inference calls
`PtychoModel._extract_configs_from_checkpoint`, `PtychoPINN_Lightning.load_from_checkpoint`,
`ConfigManager.from_loaded_model`, `PtychoDataLoader.from_np`, `InferenceEngine.predict_and_stitch`.
"""

import logging
import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ptycho_torch.config.parser import to_dict
from ptycho_torch.data.conditions import training_conditions
from ptycho_torch.distributed.device import (
    choose_device,
    double_precision_device,
    require_determinism,
)
from ptycho_torch.errors import InputError
from ptycho_torch.evaluation.metrics.residuals import pattern_residuals
from ptycho_torch.generators import Generator
from ptycho_torch.generators.checkpoint import find_checkpoint, load_generator
from ptycho_torch.inference.in_memory import (
    check_not_flat,
    image_metrics,
    reconstruct_and_refine,
)
from ptycho_torch.inference.training_domain import outside_domain
from ptycho_torch.ptychodus.host_log import messages_in_window
from ptycho_torch.ptychodus.host_options import BackEndOptions, options_file, read_options
from ptycho_torch.ptychodus.host_scan import (
    HostScan,
    object_of_caller,
    to_host_object,
    to_host_scan,
)
from ptycho_torch.ptychodus.settings import (
    DataConfig,
    InferenceConfig,
    ModelConfig,
    TrainingConfig,
)
from ptycho_torch.ptychodus.training import (
    log_settings,
    new_run,
    offer_checkpoint,
    to_config,
    training_scans,
)
from ptycho_torch.refinement import RefinementEpoch
from ptycho_torch.train.callbacks import EpochLog
from ptycho_torch.train.fit import fit

logger = logging.getLogger(__name__)


class DataloaderFormats(StrEnum):
    """How another program lays out its data; nothing depends on it."""

    LIGHTNING = "lightning_only_module"


class Network(NamedTuple):
    """A trained network with what is needed to run it.

    Attributes:
        generator: With its weights.
        about: Facts about its training.
        options: How to reconstruct with it.
    """

    generator: Generator
    about: dict[str, Any]
    options: BackEndOptions


class PtychoPINN_Lightning:  # noqa: N801 - Ptychodus's name
    """A network, with the names of the losses that its training logs.

    Args:
        network: The trained network; None before the training.
    """

    loss_name = "train_loss"
    val_loss_name = "val_loss"

    def __init__(self, network: Network | None = None) -> None:
        self.network = network

    @classmethod
    def load_from_checkpoint(cls, path: Path, **_configs: object) -> "PtychoPINN_Lightning":
        """The network in a checkpoint, with the options beside it.

        Raises:
            InputError: If it is damaged or of another program, or the options cannot be used.
        """
        checkpoint = Path(path)
        options = read_options(checkpoint)
        source = options_file(checkpoint)
        where = "as" if source.is_file() else "the defaults, which can be changed in"
        words = ", ".join(f"{name} {value}" for name, value in to_dict(options).items())
        with messages_in_window():
            logger.info("reconstructs with %s, %s %s", words, where, source)
            return cls(Network(*load_generator(checkpoint), options))


class PtychoModel:
    """A network with Ptychodus's settings.

    Args:
        configs: Those settings.
    """

    def __init__(self, **configs: object) -> None:
        self.configs = configs
        self.model: PtychoPINN_Lightning | None = None

    @classmethod
    def _new_model(
        cls, *, model: type[PtychoPINN_Lightning], config_manager: "ConfigManager"
    ) -> "PtychoModel":
        """A network that is to be trained."""
        made = cls(**vars(config_manager))
        made.model = model()
        return made

    @staticmethod
    def _extract_configs_from_checkpoint(
        _path: str,
    ) -> tuple[DataConfig, ModelConfig, TrainingConfig, InferenceConfig]:
        """Settings of another network, which a checkpoint of this package has none of."""
        return (
            DataConfig(),
            ModelConfig(**ModelConfig.defaults()),
            TrainingConfig(**TrainingConfig.defaults()),
            InferenceConfig(),
        )


class ConfigManager(SimpleNamespace):
    """Ptychodus's settings: ``data_config``, ``model_config``, ``training_config`` and so on."""

    @classmethod
    def from_loaded_model(cls, model: PtychoModel) -> "ConfigManager":
        """The settings of a network from a checkpoint."""
        return cls(**model.configs)

    def validate_arch_compatibility(self, _model: PtychoModel) -> None:
        """Nothing is left to check: the weights were loaded strictly."""


class PtychoDataLoader:
    """The scans to train on, or the scan to reconstruct.

    Args:
        data_dir: Ptychodus's input folder.
        output_dir: Ptychodus's output folder.
        config_manager: Settings.
        data_format: Has no effect.

    Attributes:
        output_dir: Folder of the run, once it is trained.
    """

    def __init__(
        self,
        *,
        data_dir: Path,
        output_dir: Path,
        config_manager: ConfigManager,
        data_format: DataloaderFormats,
    ) -> None:
        self.folder = Path(output_dir)
        self.scans = training_scans(Path(data_dir))
        self.output_dir = str(output_dir)

    @staticmethod
    def from_np(
        *,
        diff_patterns: NDArray,
        probe: NDArray[np.complexfloating],
        positions: NDArray[np.float64],
        config_manager: ConfigManager,
    ) -> HostScan:
        """The scan to reconstruct; Ptychodus only passes it on to `predict_and_stitch`.

        Raises:
            InputError: See `object_of_caller` and `to_host_scan`.
        """
        host = object_of_caller(sys._getframe(1))
        with messages_in_window():
            return to_host_scan(diff_patterns, probe, positions, host)


class Trainer:
    """A training to come."""

    def __init__(self, dataloader: PtychoDataLoader, config_manager: ConfigManager) -> None:
        self.dataloader = dataloader
        self.configs = config_manager
        self._trainer = SimpleNamespace(callbacks=[])  # Ptychodus appends its own

    @classmethod
    def _from_lightning(
        cls,
        *,
        model: PtychoModel,
        dataloader: PtychoDataLoader,
        orchestration: str,
        config_manager: ConfigManager,
    ) -> "Trainer":
        """The training of a network on scans."""
        return cls(dataloader, config_manager)

    def train(self, *, orchestration: str, experiment_name: str) -> None:
        """Train, and leave the name of the run's folder in the loader.

        Raises:
            InputError: If a scan, a setting or the folder cannot be used.
            RunError: If the training diverged.
        """
        data, configs = self.dataloader, self.configs
        training, model = configs.training_config, configs.model_config
        run = new_run(data.folder)
        with messages_in_window():
            log_settings([configs.data_config, model, training, configs.inference_config])
            config = to_config(training, model, data.scans, run)
            fit(config, callbacks=[*self._trainer.callbacks, EpochLog()])
            offer_checkpoint(run.best_checkpoint, data.folder)
        data.output_dir = str(run.path)


def find_best_checkpoint(run: Path) -> Path | None:
    """The best checkpoint of a run; None if there is none."""
    try:
        return find_checkpoint(run)
    except InputError:
        return None


class InferenceEngine:
    """A network that reconstructs.

    Args:
        config_manager: Has no effect.
        ptycho_model: From a checkpoint.
    """

    def __init__(self, *, config_manager: ConfigManager, ptycho_model: PtychoModel) -> None:
        if ptycho_model.model is None or ptycho_model.model.network is None:
            raise InputError("the network is not trained; load a checkpoint")
        self.network = ptycho_model.model.network

    def predict_and_stitch(self, host: HostScan) -> NDArray[np.complex64]:
        """The object of a scan, complex, (Y, X), at the place and in the scale of the product.

        Raises:
            RunError: If it is flat or not finite.
        """
        with messages_in_window():
            return self._reconstruct(host)

    def _reconstruct(self, host: HostScan) -> NDArray[np.complex64]:
        """Reconstruct, and log how well the image explains the patterns."""
        generator, about, options = self.network
        device = choose_device("auto")
        torch.manual_seed(options.seed)
        require_determinism(required=True)
        trained = training_conditions(about)
        unknown = outside_domain(trained, host.scan)
        if unknown:
            text = "the network was trained on other scans than this one, of %s"
            logger.warning(text, ", ".join(unknown))
        logger.info("reconstructing %d patterns on %s", len(host.scan), device.type)
        result, history = reconstruct_and_refine(
            generator.to(device), host.scan, options, trained=trained, on_epoch=log_refinement
        )
        check_not_flat(result)
        scan = replace(host.scan, positions_px=result.positions_px)
        image_metrics(
            result,
            scan,
            pattern_residuals(result, scan, double_precision_device(device)),
            refined=bool(history),
        )
        return to_host_object(result, host)


def log_refinement(epoch: int, entry: RefinementEpoch, _obj: torch.Tensor) -> None:
    """Log an epoch of the refinement; epoch 0 is its start."""
    logger.info("refinement, epoch %d: R-free %.4g", epoch, entry.r_free)

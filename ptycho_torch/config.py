"""What a user can set. A field is a flag, a key of the YAML file, and a line in the run's `config.yaml`.

Importing this module imports no torch, so that `--help` answers at once.
"""

import dataclasses
import logging
import types
import typing
from collections.abc import Sequence
from dataclasses import MISSING, Field, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from jsonargparse import ActionYesNo, ArgumentError, ArgumentParser

from ptycho_torch.errors import InputError

logger = logging.getLogger(__name__)

Config = TypeVar("Config")

OLDER_NAMES = {"--device": "--accelerator", "--torch_loss_mode": "--loss"}
OLDER_VALUES = {("--loss", "mae"): "amplitude"}
UNNEEDED = {"--disable_mlflow": "MLflow is used only with --logger mlflow"}


def option(text: str, *, default: Any = MISSING, unit: str = "", least: float | None = None, positional: bool = False) -> Any:
    """A dataclass field that is also a flag, or a positional argument: its help text, default, and smallest accepted value."""
    metadata = {"help": f"{text} [{unit}]" if unit else text, "least": least, "positional": positional}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


def check_ranges(config: Any) -> None:
    """Raise `InputError` for a number below what its field accepts."""
    for item in dataclasses.fields(config):
        value, least = getattr(config, item.name), item.metadata["least"]
        if least is not None and value is not None and not value >= least:
            raise InputError(f"--{item.name} is {value}; it must be at least {least}")


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How a scan is read: what its file leaves open, and what it says wrongly."""

    diffraction: Literal["auto", "counts", "amplitude"] = option(
        "what the patterns are; auto goes by the format, then by their values, and says so", default="auto"
    )
    crop: int | None = option("keep the middle K x K detector pixels", default=None, least=2)
    bin: int = option("add up squares of K x K detector pixels, after cropping", default=1, least=1)
    center: str | None = option("zero frequency y,x in detector pixels; default: as the file says, else the middle", default=None)
    transpose: bool = option("exchange rows and columns of the patterns", default=False)
    flip_y: bool = option("turn the patterns upside down, after transposing", default=False)
    flip_x: bool = option("turn the patterns left to right, after transposing", default=False)
    swap_xy: bool = option("exchange the x and y positions", default=False)
    negate_positions: Literal["none", "y", "x", "both"] = option("reverse the direction of the positions", default="none")
    check: Literal["refuse", "warn"] = option("what to do about a scan that is certainly not what it says", default="refuse")
    probe: Path | None = option("take the probe from this NPY, NPZ or HDF5 file", default=None)
    map: Path | None = option("YAML file that says where an HDF5 file of another layout keeps what is needed", default=None)
    energy_ev: float | None = option("photon energy; default: as the file says", default=None, unit="eV", least=0.0)
    distance_m: float | None = option("sample to detector; default: as the file says", default=None, unit="m", least=0.0)
    detector_pixel_m: float | None = option("detector pixel; default: as the file says", default=None, unit="m", least=0.0)
    pixel_size_m: float | None = option("object pixel; default: from the three above", default=None, unit="m", least=0.0)

    def __post_init__(self) -> None:
        check_ranges(self)
        self.beam_center()

    def beam_center(self) -> tuple[float, float] | None:
        """``(y, x)`` of `center`.

        Raises:
            InputError: If it is not two numbers.
        """
        if self.center is None:
            return None
        try:
            y, x = (float(part) for part in self.center.split(","))
        except ValueError as error:
            raise InputError(f"--center {self.center}: expected y,x in detector pixels, such as 63,64.5") from error
        return y, x


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(ReadingOptions):
    """Learn a generator from the measured patterns of one or more scans."""

    train_data_file: list[Path] = option("scans to learn from: files, or folders of them")
    test_data_file: Path | None = option(
        "scan that judges the network after every epoch and chooses best.ckpt; without it, that is the last epoch", default=None
    )
    output_dir: Path = option("folder of the run: checkpoints, configuration, metrics, log")
    n_images: int | None = option("use the K positions nearest to the middle of each scan; default: all", default=None, least=1)
    generator: Literal["unrolled", "unet"] = option("network that makes an object from patterns", default="unrolled")
    gridsize: int | None = option(
        "a group is gridsize^2 neighbouring patterns; default: the generator's own", default=None, least=1
    )
    loss: Literal["poisson", "amplitude"] = option("distance of expected and measured counts", default="poisson")
    probe_trainable: bool = option(
        "refine the probe of each scan first, with as many modes as it turns out to need; probe_K.npy of the run keeps it",
        default=False,
    )
    max_epochs: int | None = option(
        "passes over the scans; default: 40, more where a scan has few groups and fewer where it has many", default=None, least=1
    )
    max_time: str | None = option("stop after this time, DD:HH:MM:SS", default=None)
    batch_size: int = option("groups in a training step", default=1, least=1)
    learning_rate: float = option("step of the optimiser at its largest", default=5e-3, least=0.0)
    scheduler: Literal["cosine", "constant"] = option("course of the learning rate over the run", default="cosine")
    early_stop_patience: int | None = option(
        "stop when the judging loss has not improved for this many epochs", default=None, least=1
    )
    checkpoint_save_top_k: int = option(
        "keep the K best checkpoints, or the last where no --test_data_file judges", default=1, least=1
    )
    resume: str | None = option("continue a run: auto for the last checkpoint in the output folder, or a path", default=None)
    overwrite: bool = option("replace the run that the output folder holds", default=False)
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = option("where to compute; auto takes a GPU", default="auto")
    devices: int = option("processes or GPUs on each machine", default=1, least=1)
    num_nodes: int = option("machines", default=1, least=1)
    strategy: str = option("Lightning's strategy for several devices, such as ddp", default="auto")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = option("precision of the network's layers", default="32-true")
    num_workers: int = option("processes that load patterns; 0 loads them in the main one", default=0, least=0)
    seed: int = option("the same seed gives the same bits on the CPU", default=0, least=0)
    deterministic: bool = option("refuse operations whose result varies from run to run", default=True)
    logger: Literal["csv", "tensorboard", "mlflow", "none"] = option(
        "metrics.csv alone, or a tracker beside it; none writes neither", default="csv"
    )
    quiet: bool = option("no progress bar and no messages but warnings", default=False)
    debug: bool = option("show the traceback of an error", default=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.overwrite and self.resume:
            raise InputError("--overwrite starts anew and --resume continues; give one of them")


@dataclass(frozen=True, kw_only=True)
class InferenceConfig(ReadingOptions):
    """Reconstruct a scan with a trained generator, and write the picture."""

    model_path: Path = option("folder of a training run, or a checkpoint file")
    test_data: Path = option("scan to reconstruct")
    output_dir: Path = option("folder for the reconstruction and its pictures")
    format: list[Literal["ptychodus", "cxi", "tiff"]] = option(
        "formats besides reconstruction.npz: a product of Ptychodus, CXI, TIFF", default=()
    )
    n_images: int | None = option("use the K positions nearest to the middle of the scan; default: all", default=None, least=1)
    gridsize: int | None = option(
        "a group is gridsize^2 neighbouring patterns; default: as the generator prefers", default=None, least=1
    )
    refine: str = option(
        "refine the picture: a number of passes over the patterns, or auto for as many as patterns kept out reward; 0 does not",
        default="0",
    )
    refine_probe: bool = option("refine the probe with the picture", default=False)
    refine_positions: bool = option("refine the positions after the picture; kept only if that predicts better", default=False)
    probe_modes: int | None = option(
        "incoherent modes of the refined probe; default: those of the file, or 3 if the beam turns out to need more",
        default=None,
        least=1,
    )
    devices: int = option("processes or GPUs on each machine, which share the scan", default=1, least=1)
    num_nodes: int = option("machines", default=1, least=1)
    inference_batch_size: int = option("groups that go through the network at once", default=1, least=1)
    metrics: bool = option(
        "judge the image without ground truth: the ring correlation of two reconstructions from random halves of the "
        "scan, which doubles the time, and the residual of each position in metrics.json",
        default=False,
    )
    overwrite: bool = option("replace the reconstruction that the output folder holds", default=False)
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = option("where to compute; auto takes a GPU", default="auto")
    seed: int = option("the same seed gives the same bits on the CPU", default=0, least=0)
    deterministic: bool = option("refuse operations whose result varies from run to run", default=True)
    quiet: bool = option("no progress bar and no messages but warnings", default=False)
    debug: bool = option("show the traceback of an error", default=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.refine != "auto" and not self.refine.isdecimal():
            raise InputError(f"--refine is {self.refine}; expected a number of passes or auto")
        for name in ("refine_probe", "refine_positions", "probe_modes"):
            if getattr(self, name) and self.refine == "0":
                raise InputError(f"--{name} is part of the refinement; add --refine auto")
        if (self.probe_modes or 1) > 1 and not self.refine_probe:
            raise InputError("--probe_modes finds more modes by refining the probe; add --refine_probe")


@dataclass(frozen=True, kw_only=True)
class SimulationConfig:
    """Simulate a scan of an object that is known, and write both."""

    output_dir: Path = option("folder for scan.npz, truth.npz and a picture of them")
    format: Literal["npz", "cxi", "ptychodus", "ptyd"] = option(
        "of the scan; ptychodus is two files, diffraction.h5 and product.h5", default="npz"
    )
    photons: float = option("photons per exposure", default=1e6, least=1.0)
    n_side: int = option("positions along each side of the raster", default=16, least=2)
    step_px: float = option("distance of neighbouring positions", default=5.0, unit="object pixels", least=0.1)
    pattern_size: int = option("detector pixels along each side", default=64, least=16)
    seed: int = option("object, positions and counting noise", default=0, least=0)
    overwrite: bool = option("replace the scan that the output folder holds", default=False)
    quiet: bool = option("no messages but warnings", default=False)
    debug: bool = option("show the traceback of an error", default=False)

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Compare a reconstruction with the truth or with another reconstruction, in figures and in a picture."""

    result: Path = option("what is judged: run folder, reconstruction.npz or truth.npz", positional=True)
    reference: Path = option("what it is compared with: another of these, in the same frame of positions", positional=True)
    output_dir: Path = option("folder for comparison.json and comparison.png", default=Path("comparison"))
    pair: Literal["auto", "half", "full", "truth"] = option(
        "threshold curves for two halves of the data, two full sets, or an image and the truth; "
        "auto: truth where one is a truth.npz, else full",
        default="auto",
    )
    overwrite: bool = option("replace the comparison that the output folder holds", default=False)
    quiet: bool = option("no table and no messages but warnings", default=False)
    debug: bool = option("show the traceback of an error", default=False)

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Make the page of a reconstruction, or of an archive of tests, again."""

    folder: Path = option("folder of an inference run, or of pytest --archive", positional=True)
    debug: bool = option("show the traceback of an error", default=False)

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Simulate two scans, train on one, reconstruct the other, and compare with the known object."""

    output_dir: Path = option("folder for everything the demonstration makes", default=Path("demo"))
    max_epochs: int = option("passes over the training scan", default=40, least=1)
    photons: float = option("photons per exposure", default=1e6, least=1.0)
    seed: int = option("objects, noise and training", default=0, least=0)
    overwrite: bool = option("replace an earlier demonstration", default=False)
    quiet: bool = option("no progress bar and no messages but warnings", default=False)
    debug: bool = option("show the traceback of an error", default=False)

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class ConversionConfig(ReadingOptions):
    """Write a scan in another format; what the format has no place for is named."""

    file: Path = option("scan to read", positional=True)
    output: Path = option("file to write; for ptychodus the folder of its two files", positional=True)
    format: Literal["npz", "cxi", "ptychodus", "ptyd"] = option("format to write")
    n_images: int | None = option("use the K positions nearest to the middle of the scan; default: all", default=None, least=1)
    overwrite: bool = option("replace what is there", default=False)
    quiet: bool = option("no messages but warnings", default=False)
    debug: bool = option("show the traceback of an error", default=False)


@dataclass(frozen=True, kw_only=True)
class DoctorConfig(ReadingOptions):
    """Say whether a scan is what it says it is, with the evidence; exit status 1 if it certainly is not."""

    file: Path = option("scan to examine", positional=True)
    json: bool = option("print the findings as JSON", default=False)
    picture: Path | None = option("draw what was seen into this PNG file", default=None)
    quiet: bool = option("no messages but warnings", default=False)
    debug: bool = option("show the traceback of an error", default=False)


def build_parser(config_type: type[Config], prog: str) -> ArgumentParser:
    """Parser of the flags of a configuration class, with `--config FILE.yaml`."""
    parser = ArgumentParser(prog=prog, description=config_type.__doc__, exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML or JSON file with any of these options; flags override it")
    hints = typing.get_type_hints(config_type)
    for item in dataclasses.fields(config_type):  # type: ignore[arg-type]
        add_flag(parser, item, hints[item.name])
    return parser


def add_flag(parser: ArgumentParser, item: Field, annotation: Any) -> None:
    """Add the flag, or the positional argument, of one field."""
    if item.metadata["positional"]:
        parser.add_argument(item.name, type=annotation, help=item.metadata["help"])
        return
    name = f"--{item.name}"
    required = item.default is MISSING
    if annotation is bool:
        action = ActionYesNo(yes_prefix="", no_prefix="no_")
        parser.add_argument(name, action=action, default=item.default, help=item.metadata["help"])
        return
    settings: dict[str, Any] = {"type": annotation, "help": item.metadata["help"], "required": required}
    if not required:
        settings["default"] = item.default
    if typing.get_origin(annotation) is list:
        settings |= {"type": typing.get_args(annotation)[0], "nargs": "+"}
        if "default" in settings:
            settings["default"] = list(settings["default"])
    elif isinstance(annotation, types.UnionType):  # T | None: None is the absence of the flag
        settings["type"] = typing.get_args(annotation)[0]
    parser.add_argument(name, **settings)


def current_names(argv: Sequence[str]) -> list[str]:
    """The command line with ``-`` in flag names as ``_``, and older names and values replaced."""
    result: list[str] = []
    for word in argv:
        if not word.startswith("--"):
            result.append(OLDER_VALUES.get((result[-1] if result else "", word), word))
            continue
        name, equals, value = word.partition("=")
        name = "--" + name[2:].replace("-", "_")
        if name in UNNEEDED:
            logger.warning("%s has no effect: %s", name, UNNEEDED[name])
            continue
        if name in OLDER_NAMES:
            logger.warning("%s is an older name; use %s", name, OLDER_NAMES[name])
            name = OLDER_NAMES[name]
        result.append(name)
        if equals:
            result.append(OLDER_VALUES.get((name, value), value))
    return _file_first(result)


def _file_first(words: list[str]) -> list[str]:
    """The words with ``--config FILE`` before all others, which then override it."""
    places = [i for i, word in enumerate(words) if word == "--config"]
    files = [word for i in places for word in words[i : i + 2]]
    return files + [word for i, word in enumerate(words) if i not in places and i - 1 not in places]


def parse(config_type: type[Config], argv: Sequence[str], *, prog: str) -> Config:
    """The configuration that a command line asks for.

    Args:
        config_type: A configuration class of this module.
        argv: Words after the program's name.
        prog: Name for the usage line.

    Returns:
        The configuration; ``--help`` prints and leaves with status 0.

    Raises:
        InputError: For a word that is not understood, or a value out of range.
    """
    parser = build_parser(config_type, prog)
    try:
        values = parser.parse_args(current_names(argv)).as_dict()
    except (ArgumentError, UnicodeDecodeError) as error:  # the latter for a file that is no text
        raise InputError(f"{' '.join(str(error).split())}; see {prog} --help") from error
    values.pop("config")
    return config_type(**values)


def to_yaml(config: Any) -> str:
    """The configuration as YAML that `--config` reads back; what is not set is left out."""
    return yaml.safe_dump({key: value for key, value in plain(config).items() if value is not None}, sort_keys=False)


def plain(config: Any) -> dict[str, Any]:
    """The configuration as plain numbers, strings and lists."""
    return {name: _plain_value(value) for name, value in dataclasses.asdict(config).items()}


def _plain_value(value: Any) -> Any:
    """A path as a string, a list of paths as a list of strings, anything else as it is."""
    if isinstance(value, list):
        return [_plain_value(item) for item in value]
    return str(value) if isinstance(value, Path) else value

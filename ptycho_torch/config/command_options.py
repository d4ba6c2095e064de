"""The options of each command, one class a command."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ptycho_torch.config.options import (
    ComputeOptions,
    GroupOptions,
    MessageOptions,
    OutputOptions,
    ReadingOptions,
    ReconstructionOptions,
    SeedOptions,
    SelectionOptions,
    check_suffix,
    option,
)
from ptycho_torch.config.registry import GENERATORS, LOSSES, RESULT_WRITERS, SCAN_WRITERS
from ptycho_torch.errors import InputError

MAX_RATE = 1000.0  # of the optimiser; with more the weights leave the range of numbers at once
MAX_PHOTONS = 1e15  # per exposure; NumPy draws no larger Poisson numbers safely
MAX_BACKGROUND = 0.99  # share of the light; with more there is no pattern left to see
MAX_WORKERS = 256  # processes; more of them fill the memory and load nothing faster


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(OutputOptions, ComputeOptions, GroupOptions, SelectionOptions, ReadingOptions):
    """Train a generator on the measured patterns of one or more scans."""

    train_data_file: list[Path] = option("scans to train on: files, or folders of them")
    test_data_file: Path | None = option(
        "scan for validation after every epoch, which chooses best.ckpt; "
        "without it, that is the last epoch",
        default=None,
    )
    generator: str = option(
        "network that makes an object from patterns", default="unrolled", choices=GENERATORS
    )
    loss: str = option(
        "distance of expected and measured counts", default="poisson", choices=LOSSES
    )
    refine_measurement: bool = option(
        "refine probe, positions, flux and background of each scan first, as far as needed; "
        "measurement_K.npz and probe_K.npy of the run keep them for inference",
        default=False,
    )
    max_epochs: int | None = option(
        "epochs; default: 40, more where a scan has few groups and fewer where it has many",
        default=None,
        minimum=1,
    )
    max_time: str | None = option(
        "stop at the end of the epoch in which this time has passed, DD:HH:MM:SS", default=None
    )
    batch_size: int = option("groups in a training step", default=1, minimum=1)
    learning_rate: float = option(
        "largest step of the optimiser", default=5e-3, minimum=0.0, maximum=MAX_RATE
    )
    scheduler: Literal["cosine", "constant"] = option(
        "learning rate over the run", default="cosine"
    )
    early_stop_patience: int | None = option(
        "stop when the validation loss has not improved for this many epochs; "
        "without validation, the training loss",
        default=None,
        minimum=1,
    )
    checkpoint_save_top_k: int = option(
        "keep the K best checkpoints, or the K last without --test_data_file", default=1, minimum=1
    )
    resume: str | None = option(
        "continue a run: auto for the last checkpoint in the output folder, or a path", default=None
    )
    strategy: str = option("Lightning's strategy for several devices, such as ddp", default="auto")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = option(
        "precision of the network's layers", default="32-true"
    )
    num_workers: int = option(
        "processes that load patterns; 0 loads them in the main one",
        default=0,
        minimum=0,
        maximum=MAX_WORKERS,
    )
    logger: Literal["csv", "tensorboard", "mlflow", "none"] = option(
        "metrics.csv alone, or a tracker beside it; none writes neither", default="csv"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.train_data_file:
            raise InputError("--train_data_file is empty; give at least one scan")
        if self.overwrite and self.resume:
            raise InputError("--overwrite starts anew and --resume continues; give one of them")


@dataclass(frozen=True, kw_only=True)
class InferenceConfig(
    OutputOptions, ReconstructionOptions, ComputeOptions, SelectionOptions, ReadingOptions
):
    """Reconstruct a scan with a trained generator."""

    model_path: Path = option("folder of a training run, or a checkpoint file")
    test_data: Path = option("scan to reconstruct")
    format: list[str] = option(
        "formats besides reconstruction.npz: a product of Ptychodus, CXI, TIFF",
        default=(),
        choices=RESULT_WRITERS,
    )
    strict: bool = option(
        "end with status 3 if the verdict on the result is 'do not trust it'", default=False
    )
    metrics: bool = option(
        "measure the quality without ground truth: the ring correlation of two reconstructions "
        "from random halves of the scan, which doubles the time, and the residual of each position "
        "in metrics.json",
        default=False,
    )
    movie: Path | None = option(
        "show the epochs of the refinement as an animation in this file, .gif or .png (APNG)",
        default=None,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_suffix("--movie", self.movie, ".gif", ".png")
        if self.movie is not None and self.refine == "0":
            raise InputError("--movie shows the refinement; give --refine auto, or its epochs")


@dataclass(frozen=True, kw_only=True)
class LiveConfig(OutputOptions, ReconstructionOptions, ComputeOptions, ReadingOptions):
    """Reconstruct a scan while it is measured, and show it on a page of this machine."""

    source: str = option(
        "HDF5 file that is being written, folder into which files arrive, or address of a ZeroMQ "
        "stream such as tcp://host:5555",
        positional=True,
    )
    model_path: Path = option("folder of a training run, or a checkpoint file")
    port: int = option(
        "port of the page on 127.0.0.1; 0 for any free one", default=0, minimum=0, maximum=65535
    )
    socket: Literal["pull", "sub"] = option(
        "kind of the ZeroMQ socket: pull for a sender that pushes, sub for one that publishes",
        default="pull",
    )
    n_frames: int | None = option(
        "the scan has ended after so many frames; default: when its writer says so, or is silent",
        default=None,
        minimum=1,
    )
    timeout_s: float = option(
        "the scan has ended when nothing came for so long", default=30.0, unit="s", above=0.0
    )
    save_s: float = option(
        "time between two savings of the pictures and the image", default=5.0, unit="s", above=0.0
    )


@dataclass(frozen=True, kw_only=True)
class SimulationConfig(OutputOptions, SeedOptions):
    """Simulate a scan of a known object, and write both."""

    format: str = option(
        "format of the scan; ptychodus is two files, diffraction.h5 and product.h5",
        default="npz",
        choices=SCAN_WRITERS,
    )
    photons: float = option("photons per exposure", default=1e6, minimum=1.0, maximum=MAX_PHOTONS)
    n_side: int = option("positions along each side of the raster", default=16, minimum=2)
    step_px: float = option(
        "distance of neighbouring positions", default=5.0, unit="object pixels", minimum=0.1
    )
    pattern_size: int = option("detector pixels along each side", default=64, minimum=16)
    radiation: Literal["photons", "electrons"] = option(
        "what is diffracted: X-rays of 8 keV, or electrons of 300 keV", default="photons"
    )
    propagator: Literal["far_field", "near_field"] = option(
        "from the sample to the detector; near_field: a diffuse beam that fills the detector",
        default="far_field",
    )
    fresnel_number: float = option(
        "of an object pixel, pixel^2 / (wavelength distance), in the near field",
        default=0.05,
        above=0.0,
    )
    position_error_px: float = option(
        "error of the positions in the scan's file, rms of each axis",
        default=0.0,
        unit="object pixels",
        minimum=0.0,
    )
    position_scale: float = option(
        "size of the true scan relative to the one in the file; 1.02: 2 % larger",
        default=1.0,
        above=0.0,
    )
    position_rotation_deg: float = option(
        "angle by which the true scan is turned against the one in the file, counterclockwise in a "
        "picture",
        default=0.0,
        unit="degrees",
    )
    flux_spread: float = option(
        "standard deviation of the photons of a shot, relative to their mean",
        default=0.0,
        minimum=0.0,
        maximum=1.0,
    )
    background: float = option(
        "share of the counted photons that are background: 3/5 of it a smooth halo, 2/5 flat",
        default=0.0,
        minimum=0.0,
        maximum=MAX_BACKGROUND,
    )
    source_size_px: float = option(
        "size of the source's image on the sample, rms of each axis",
        default=0.0,
        unit="object pixels",
        minimum=0.0,
    )
    motion_px: float = option(
        "way of the sample in x during a shot", default=0.0, unit="object pixels", minimum=0.0
    )
    probe_drift: float = option(
        "relative change of the defocus, from minus this at the first pattern to plus this at the "
        "last; at 0.1 the probe also wanders around a circle of 1.8 pixels",
        default=0.0,
        minimum=0.0,
        maximum=1.0,
    )


@dataclass(frozen=True, kw_only=True)
class CompareConfig(OutputOptions):
    """Compare a reconstruction with the truth or another one, in numbers and in a picture."""

    result: Path = option("the image: run folder, reconstruction.npz or truth.npz", positional=True)
    reference: Path = option(
        "what it is compared with: another of these, in the same frame of positions",
        positional=True,
    )
    output_dir: Path = option(
        "folder for comparison.json and comparison.png", default=Path("comparison")
    )
    pair: Literal["auto", "half", "full", "truth"] = option(
        "threshold curves for two halves of the data, two full sets, or an image and the truth; "
        "auto: truth where one is a truth.npz, else full",
        default="auto",
    )


@dataclass(frozen=True, kw_only=True)
class ReportConfig(MessageOptions):
    """Make the page of a reconstruction or of an archive of tests again, or draw several archives.

    The history of several archives has a plot of each metric and duration over the sessions.
    """

    folder: list[Path] = option(
        "folder of an inference run, or of pytest --archive; several archives: their history",
        positional=True,
    )
    history: Path | None = option(
        "page of the history; history.html if several archives are given", default=None
    )

    def __post_init__(self) -> None:
        """Raise `InputError` for a page of another kind."""
        super().__post_init__()
        check_suffix("--history", self.history, ".html")


@dataclass(frozen=True, kw_only=True)
class VerifyConfig(MessageOptions):
    """Say whether an archive of tests is as it was written: every file, every verdict."""

    folder: Path = option("folder of pytest --archive", positional=True)
    digest: str | None = option(
        "SHA-256 that pytest printed at the end of the session; without it, only whether all parts "
        "of the archive agree",
        default=None,
    )


@dataclass(frozen=True, kw_only=True)
class DemoConfig(OutputOptions, SeedOptions):
    """Simulate two scans, train on one, reconstruct the other, compare with the known object."""

    output_dir: Path = option(
        "folder for everything that the demonstration makes", default=Path("demo")
    )
    max_epochs: int = option("epochs of the training", default=40, minimum=1)
    photons: float = option("photons per exposure", default=1e6, minimum=1.0, maximum=MAX_PHOTONS)


@dataclass(frozen=True, kw_only=True)
class ConversionConfig(MessageOptions, SelectionOptions, ReadingOptions):
    """Write a scan in another format; what the format has no place for is named."""

    file: Path = option("scan to read", positional=True)
    output: Path = option(
        "file to write; for ptychodus the folder of its two files", positional=True
    )
    format: str = option(
        "format to write; auto is the ending of the output: .npz, .cxi or .ptyd",
        default="auto",
        choices=("auto", *SCAN_WRITERS),
    )
    overwrite: bool = option("replace the file", default=False)


@dataclass(frozen=True, kw_only=True)
class DoctorConfig(MessageOptions, ReadingOptions):
    """Say whether a scan is what its file says, with evidence; status 1 if it certainly is not."""

    file: Path = option("scan to examine", positional=True)
    json: bool = option("print the findings as JSON", default=False)
    picture: Path | None = option("draw the examination into this PNG file", default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_suffix("--picture", self.picture, ".png")

"""A field of a dataclass as an option of a command, and the options that several commands share.

A field is a flag, a key of the YAML file, and a line of the run's ``config.yaml``. Its default
stands here and nowhere else.
"""

import dataclasses
import math
import re
import types
import typing
from collections.abc import Iterable
from dataclasses import MISSING, Field, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ptycho_torch.errors import InputError

MAX_SEED = 2**32 - 1  # the largest that NumPy, torch and Lightning all accept
MAX_INT = 2**31 - 1  # of every option that counts; what lies above is a slip of the hand
KINDS = {int: "whole number", float: "number", str: "text", Path: "path", bool: "switch"}
Switch = Literal["auto", "on", "off"]  # the flag alone is "on"
SWITCHES = ("refine_probe", "refine_positions", "refine_flux", "refine_background")

# In metres or electronvolts; far beyond those of any microscope, and their squares are numbers.
SMALLEST_SIZE, LARGEST_SIZE = 1e-15, 1e15


def option(
    text: str,
    *,
    default: Any = MISSING,
    unit: str = "",
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    choices: Iterable[str] = (),
    positional: bool = False,
) -> Any:
    """A dataclass field that is also a flag, or a positional argument.

    Args:
        text: Help text.
        default: Value if the flag is not given; without it the option is required.
        unit: Unit of the value, shown in the help.
        minimum: Smallest accepted value.
        above: Largest number that is refused as too small.
        maximum: Largest accepted value; every integer has one.
        choices: Accepted words, from a registry; those of a `Literal` need not be given.
        positional: Whether the value is given by its place instead of a flag.
    """
    metadata = {
        "help": f"{text} [{unit}]" if unit else text,
        "minimum": minimum,
        "above": above,
        "maximum": maximum,
        "choices": tuple(choices),
        "positional": positional,
    }
    if default is MISSING:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


def size_option(text: str, *, unit: str) -> Any:
    """A length or energy of the instrument, which may also stand in the file."""
    return option(text, default=None, unit=unit, minimum=SMALLEST_SIZE, maximum=LARGEST_SIZE)


def choices_of(item: Field, annotation: Any) -> tuple[str, ...]:
    """Words that an option accepts; empty where any value of its type is."""
    if item.metadata["choices"]:
        return item.metadata["choices"]
    parts = [annotation, *typing.get_args(annotation)]
    literal = next((part for part in parts if typing.get_origin(part) is Literal), None)
    return typing.get_args(literal) if literal is not None else ()


def is_optional(annotation: Any) -> bool:
    """Whether a type is ``T | None``: None is the absence of the flag."""
    return isinstance(annotation, types.UnionType)


def value_type(annotation: Any) -> Any:
    """The type of one value of an option: of an item of a list, and of ``T | None`` it is T."""
    if typing.get_origin(annotation) is list or is_optional(annotation):
        annotation = typing.get_args(annotation)[0]
    return str if typing.get_origin(annotation) is Literal else annotation


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options that are checked when they are set."""

    def __post_init__(self) -> None:
        """Raise `InputError` for a number out of its range, or a word that is no choice."""
        hints = typing.get_type_hints(type(self))
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if value is None:
                continue
            if isinstance(value, int | float):
                _check_range(item, value)
            choices = choices_of(item, hints[item.name])
            for word in value if isinstance(value, list | tuple) else [value]:
                if choices and word not in choices:
                    raise InputError(
                        f"--{item.name} is {word}; expected one of {', '.join(choices)}"
                    )
                if "\0" in str(word):
                    raise InputError(f"--{item.name} holds a zero byte")


def _check_range(item: Field, value: float) -> None:
    """Raise `InputError` for a number that is not finite, or outside the range of its option."""
    minimum, above, maximum = (item.metadata[name] for name in ("minimum", "above", "maximum"))
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"--{item.name} is {value}; it must be a finite number")
    if minimum is not None and not value >= minimum:
        raise InputError(f"--{item.name} is {value}; it must be at least {minimum}")
    if above is not None and not value > above:
        raise InputError(f"--{item.name} is {value}; it must be greater than {above:g}")
    if maximum is None and isinstance(value, int):
        maximum = MAX_INT
    if maximum is not None and value > maximum:
        raise InputError(f"--{item.name} is too large; it must be at most {maximum:.12g}")


def check_suffix(flag: str, path: Path | None, *suffixes: str) -> None:
    """Raise `InputError` if a file that is to be written has not one of these suffixes."""
    if path is not None and path.suffix.lower() not in suffixes:
        raise InputError(f"{flag} is {path}; its name must end with {' or '.join(suffixes)}")


@dataclass(frozen=True, kw_only=True)
class ReadingOptions(Options):
    """How a scan is read: what its file does not say, and what it says wrongly."""

    diffraction: Literal["auto", "counts", "amplitude"] = option(
        "what the patterns are; auto goes by the format, then by their values, and reports it",
        default="auto",
    )
    clip_negative: bool = option(
        "set negative values of the patterns to zero; some formats say it themselves",
        default=False,
    )
    crop: int | None = option("keep the middle K x K detector pixels", default=None, minimum=2)
    bin: int = option(
        "add up squares of K x K detector pixels, after cropping", default=1, minimum=1
    )
    center: str | None = option(
        "zero frequency y,x in detector pixels; default: as the file says, else the middle",
        default=None,
    )
    transpose: bool = option("exchange rows and columns of the patterns", default=False)
    flip_y: bool = option("turn the patterns upside down, after transposing", default=False)
    flip_x: bool = option("turn the patterns left to right, after transposing", default=False)
    swap_xy: bool = option("exchange the x and y positions", default=False)
    negate_positions: Literal["none", "y", "x", "both"] = option(
        "reverse the direction of the positions", default="none"
    )
    raster_step_m: float | None = size_option(
        "step of a raster scan, whose positions then follow; default: positions of the file",
        unit="m",
    )
    raster_shape: str | None = option(
        "rows,columns of the raster; default: as the file says, else a square", default=None
    )
    raster_rotation_deg: float | None = option(
        "angle of the raster against the detector, counterclockwise in a picture",
        default=None,
        unit="degrees",
    )
    positions_from: Literal["auto", "corner", "center"] = option(
        "whether position 0, in object pixels, is the corner of pixel 0 or its center; "
        "auto goes by the file, and reports it",
        default="auto",
    )
    propagator: Literal["auto", "far_field", "near_field"] = option(
        "from the sample to the detector; auto goes by the file, its numbers and the patterns",
        default="auto",
    )
    check: Literal["refuse", "warn"] = option(
        "what to do with a scan that is certainly not what its file says", default="refuse"
    )
    probe: Path | None = option("take the probe from this NPY, NPZ or HDF5 file", default=None)
    map: Path | None = option(
        "YAML file that names the datasets of an HDF5 file of another layout", default=None
    )
    radiation: Literal["auto", "photons", "electrons"] = option(
        "what was diffracted, for the wavelength; auto: as the file says, else photons",
        default="auto",
    )
    energy_ev: float | None = size_option(
        "of a photon or an electron; default: as the file says", unit="eV"
    )
    distance_m: float | None = size_option(
        "sample to detector; default: as the file says", unit="m"
    )
    detector_pixel_m: float | None = size_option(
        "detector pixel; default: as the file says", unit="m"
    )
    pixel_size_m: float | None = size_option(
        "object pixel; default: from the three above", unit="m"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.beam_center()
        self.raster_rows_columns()

    def raster_rows_columns(self) -> tuple[int, int] | None:
        """``(rows, columns)`` of `raster_shape`.

        Raises:
            InputError: If it is not two whole numbers above 0.
        """
        if self.raster_shape is None:
            return None
        rows, comma, columns = self.raster_shape.partition(",")
        if not (comma and re.fullmatch("[1-9][0-9]{0,8}", rows.strip())):
            columns = ""
        if not re.fullmatch("[1-9][0-9]{0,8}", columns.strip()):
            raise InputError(
                f"--raster_shape {self.raster_shape}: expected rows,columns, such as 64,128"
            )
        return int(rows), int(columns)

    def beam_center(self) -> tuple[float, float] | None:
        """``(y, x)`` of `center`.

        Raises:
            InputError: If it is not two numbers.
        """
        if self.center is None:
            return None
        try:
            y, x = (float(part) for part in self.center.split(","))
            if not math.isfinite(y + x):
                raise ValueError("not finite")
        except ValueError as error:
            raise InputError(
                f"--center {self.center}: expected y,x in detector pixels, such as 63,64.5"
            ) from error
        return y, x


@dataclass(frozen=True, kw_only=True)
class SelectionOptions(Options):
    """Which part of a scan is used."""

    n_images: int | None = option(
        "use the K positions nearest to the middle of each scan; default: all",
        default=None,
        minimum=1,
    )


@dataclass(frozen=True, kw_only=True)
class GroupOptions(Options):
    """How many patterns the network sees together."""

    gridsize: int | None = option(
        "a group is gridsize^2 neighbouring patterns; default: the generator's own",
        default=None,
        minimum=1,
    )


@dataclass(frozen=True, kw_only=True)
class SeedOptions(Options):
    """Randomness."""

    seed: int = option(
        "the same seed gives the same bits on the CPU", default=0, minimum=0, maximum=MAX_SEED
    )


@dataclass(frozen=True, kw_only=True)
class ComputeOptions(SeedOptions):
    """Where and how to compute."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = option(
        "where to compute; auto takes a GPU if there is one", default="auto"
    )
    devices: int = option("processes or GPUs on each machine", default=1, minimum=1)
    num_nodes: int = option("machines", default=1, minimum=1)
    deterministic: bool = option(
        "refuse operations whose result varies from run to run", default=True
    )


@dataclass(frozen=True, kw_only=True)
class ReconstructionOptions(GroupOptions, SeedOptions):
    """How the image is made of a scan: by the network alone, or refined.

    With ``--refine auto`` everything that is "auto" is tried and kept if held-out patterns are
    predicted better with it; with a number of epochs, "auto" is "off".
    """

    refine: str = option(
        "refine the image: a number of epochs, or auto for as many as the held-out patterns "
        "reward; 0 for none",
        default="0",
    )
    refine_probe: Switch = option(
        "refine the probe together with the image; auto: if the held-out patterns need it",
        default="auto",
    )
    refine_positions: Switch = option(
        "refine the positions, and their scale, rotation and shear; auto: if needed",
        default="auto",
    )
    refine_flux: Switch = option(
        "refine the photons of each pattern, for a beam that flickers; auto: if needed",
        default="auto",
    )
    refine_background: Switch = option(
        "refine light that comes past the sample, the same in every pattern; auto: if needed",
        default="auto",
    )
    probe_components: str = option(
        "components of a probe that changes over the scan: a number, off, or auto: if needed",
        default="auto",
    )
    probe_modes: int | None = option(
        "incoherent modes of the refined probe; "
        "default: those of the file, or 3 if the beam needs more",
        default=None,
        minimum=1,
    )
    inference_batch_size: int = option(
        "groups that go through the network at once", default=1, minimum=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.refine != "auto" and not self.refine.isdecimal():
            raise InputError(f"--refine is {self.refine}; expected a number of epochs or auto")
        if not re.fullmatch("auto|off|[0-9]", self.probe_components):
            raise InputError(
                f"--probe_components is {self.probe_components}; expected auto, off or a number "
                "below 10"
            )
        for name in SWITCHES:
            if getattr(self, name) == "on" and self.refine == "0":
                raise InputError(f"--{name} is part of the refinement; add --refine auto")
        if self.probe_modes and self.refine == "0":
            raise InputError("--probe_modes is part of the refinement; add --refine auto")
        if (self.probe_modes or 1) > 1 and self.refine_probe != "on":
            raise InputError(
                "--probe_modes finds more modes by refining the probe; add --refine_probe"
            )
        if self.probe_components not in ("auto", "off", "0"):
            if self.refine == "0":
                raise InputError("--probe_components is part of the refinement; add --refine auto")
            if self.refine_probe == "off":
                raise InputError(
                    "--probe_components refines the probe, and --refine_probe off does not; "
                    "leave one of them out"
                )


@dataclass(frozen=True, kw_only=True)
class MessageOptions(Options):
    """What is printed."""

    quiet: bool = option("print warnings and errors only, and no progress bar", default=False)
    debug: bool = option("show the traceback of an error", default=False)


@dataclass(frozen=True, kw_only=True)
class OutputOptions(MessageOptions):
    """Where the results go."""

    output_dir: Path = option("folder of the results; it is made if it is not there")
    overwrite: bool = option(
        "replace what an earlier run of this command left there", default=False
    )

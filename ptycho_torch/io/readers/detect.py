"""Detect the format of a file, and read its scan."""

import dataclasses
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import h5py

from ptycho_torch.config import ReadingOptions
from ptycho_torch.config.registry import READERS, load
from ptycho_torch.data.raster import raster_positions_m
from ptycho_torch.data.scan import Scan
from ptycho_torch.errors import InputError, memory_for
from ptycho_torch.io.readers import npz
from ptycho_torch.io.readers.file_kind import kind_of_file
from ptycho_torch.io.readers.hdf5 import names_in, open_hdf5
from ptycho_torch.io.readers.hdf5_map import read_hdf5_map
from ptycho_torch.io.readers.probe_file import read_probe
from ptycho_torch.io.readers.raw_scan import Format, RawScan
from ptycho_torch.io.readers.to_scan import to_scan

logger = logging.getLogger(__name__)

FORMATS: tuple[Format, ...] = tuple(load(entry) for entry in READERS)

Paths = Path | str | Sequence[Path | str]

DEFAULTS = ReadingOptions()


def read_scan(path: Paths, *, options: ReadingOptions = DEFAULTS) -> Scan:
    """The scan that a file holds, in the units of the package.

    Args:
        path: A file of any supported format; for a pair of files both, also as one word joined by
            a comma, or the folder that holds the two.
        options: What the file leaves open, and what it says wrongly.

    Returns:
        The scan; its ``decisions`` say what was concluded about the file.

    Raises:
        InputError: If the file is missing, unreadable, of no supported format, or contradicts
            itself.
    """
    with memory_for(_joined(path)):
        raw = read_raw_scan(path, options=options)
    with memory_for(f"{raw.source}: {raw.patterns_key}"):
        return to_scan(raw, options)


def _joined(path: Paths) -> str:
    """The names of the files of a scan, as one word."""
    return str(path) if isinstance(path, Path | str) else ",".join(map(str, path))


def read_raw_scan(path: Paths, *, options: ReadingOptions = DEFAULTS) -> RawScan:
    """What a file holds, in its own units; see `read_scan`."""
    paths = split_paths(path)
    raw = (
        find_format(paths).read(paths)
        if options.map is None
        else read_hdf5_map(paths[0], options.map)
    )
    if options.probe is not None:
        probe, key = read_probe(options.probe)
        raw = dataclasses.replace(raw, probe=probe, probe_key=key)
    return place_on_raster(raw, options)


def place_on_raster(raw: RawScan, options: ReadingOptions) -> RawScan:
    """The file's content with the positions of its raster, where the user or the file has a step.

    Raises:
        InputError: If there are no positions and no step, or the raster has another number of
            points than there are patterns.
    """
    known, count = raw.raster, raw.patterns.shape[0]
    given = None if options.raster_step_m is None else (options.raster_step_m,) * 2
    if given is None and len(raw.positions):
        if options.raster_shape is not None or options.raster_rotation_deg is not None:
            raise InputError(
                f"{raw.source}: has positions; --raster_shape and --raster_rotation_deg replace "
                "them together with --raster_step_m"
            )
        return raw
    step = given or known.step_m
    if step is None:
        hint = raw.positions_hint or "there are no positions"
        raise InputError(f"{raw.source}: {hint}; or give the step of a raster, --raster_step_m")
    side = math.isqrt(count)
    shape = options.raster_rows_columns() or known.shape or (side, side)
    if shape[0] * shape[1] != count:
        raise InputError(
            f"{raw.source}: a raster of {shape[0]} x {shape[1]} points for {count} patterns; "
            "give --raster_shape rows,columns"
        )
    turn = options.raster_rotation_deg
    rotation = known.rotation_deg if turn is None else turn
    note = (
        f"positions are those of a raster of {shape[0]} x {shape[1]} points with a step of "
        f"{step[0]:.4g} m, turned by {rotation:g} degrees"
    )
    return dataclasses.replace(
        raw,
        positions=raster_positions_m(shape, step, rotation),
        positions_unit="m",
        notes=(*raw.notes, note),
    )


def split_paths(path: Paths) -> list[Path]:
    """The file or the pair of files that is meant, all of which are there.

    Raises:
        InputError: If one is not.
    """
    if isinstance(path, Path | str):
        whole = Path(path)
        paths = (
            [Path(part) for part in str(path).split(",")]
            if "," in str(path) and not whole.exists()
            else [whole]
        )
    else:
        paths = [Path(part) for part in path]
    if len(paths) == 1 and paths[0].is_dir():
        paths = pair_in_folder(paths[0])
    for one in paths:
        if not one.is_file():
            raise InputError(f"{one}: no such file")
    return paths


def files_read(path: Paths, options: ReadingOptions) -> list[Path]:
    """Every file that is read for a scan, so that a command can keep from deleting one."""
    return split_paths(path) + [one for one in (options.probe, options.map) if one is not None]


def pair_in_folder(folder: Path) -> list[Path]:
    """The pair of files in a folder, whose other files are of no format that comes in pairs.

    Raises:
        InputError: If there is none, or more than one.
    """
    for candidate in (one for one in FORMATS if one.pair):
        found = [
            path
            for path in sorted(folder.iterdir())
            if path.is_file() and h5py.is_hdf5(path) and detect_format(path) is candidate
        ]
        if len(found) == 2:
            return found
        if found:
            names = ", ".join(path.name for path in found)
            raise InputError(
                f"{folder}: holds {names}; expected the two files of one scan ({candidate.name})"
            )
    pairs = " or ".join(one.name for one in FORMATS if one.pair)
    raise InputError(
        f"{folder}: is a folder without a pair of files of one scan ({pairs}); give the file of "
        "the scan"
    )


def scans_in(path: Path) -> list[Path]:
    """The scans in a folder of scans, each in one file, by name; else the path itself.

    Raises:
        InputError: If it is a folder without any.
    """
    if not path.is_dir():
        return [path]
    files = [
        one for one in sorted(path.iterdir()) if one.is_file() and not one.name.startswith(".")
    ]
    scans = [one for one in files if holds_scan(one)]
    if not scans:
        raise InputError(
            f"{path}: is a folder without scans; give files, or a folder that holds some"
        )
    if any(detect_format(one).pair for one in scans):
        return [path]
    logger.info("%s: %d scans: %s", path, len(scans), ", ".join(one.name for one in scans))
    return scans


def holds_scan(path: Path) -> bool:
    """Whether a file is of a known format; an NPZ file must hold patterns."""
    try:
        found = detect_format(path)
    except InputError:
        return False
    return found.container != "npz" or bool(
        {"reciprocal", *npz.PATTERN_KEYS} & npz.array_names(path)
    )


def find_format(paths: Sequence[Path]) -> Format:
    """The format that all of some files are of.

    Raises:
        InputError: If there is none, or they are too many.
    """
    found = [detect_format(path) for path in paths]
    for path, one in zip(paths, found, strict=True):
        if one is not found[0]:
            raise InputError(
                f"{path}: is of the format {one.name} but {paths[0]} of {found[0].name}; expected "
                "one scan"
            )
    if len(paths) > (2 if found[0].pair else 1):
        raise InputError(
            f"{paths[0]} and {len(paths) - 1} more: expected "
            f"{'two files' if found[0].pair else 'one file'} of {found[0].name}"
        )
    return found[0]


def detect_format(path: Path) -> Format:
    """The format of a file.

    Raises:
        InputError: If it is not readable, or of no format that is known.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if head.startswith(b"PK\x03\x04"):
        names = npz.array_names(path)
        return next(one for one in FORMATS if one.container == "npz" and one.recognises(names))
    for one in FORMATS:
        if one.container == "raw" and one.recognises(path):
            return one
    if not h5py.is_hdf5(path):
        known = ", ".join(one.name for one in FORMATS)
        raise InputError(
            f"{path}: not a file of a known format; it is {kind_of_file(path)}; known: {known}"
        )
    with open_hdf5(path) as opened:
        for one in FORMATS:
            if one.container == "hdf5" and one.recognises(opened):
                return one
        keys = names_in(opened)
    known = ", ".join(one.name for one in FORMATS if one.container == "hdf5")
    raise InputError(
        f"{path}: an HDF5 file of none of the formats {known}; found {keys}; describe it with "
        "--map FILE.yaml"
    )

"""Read raw files of the EMPAD, a detector of electron microscopes, first generation.

The file is a stream of frames of 130 x 128 float32 numbers without a header: 128 x 128 pixels, and
two rows of the detector's own. An XML file beside it holds the shape of the raster, which the name
of the raw file often tells too: ``scan_x256_y256.raw``.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from ptycho_torch.data.lazy_patterns import LazyPatterns
from ptycho_torch.data.raster import Raster
from ptycho_torch.data.scan import Instrument
from ptycho_torch.errors import InputError
from ptycho_torch.io.readers.raw_scan import Format, RawScan

ROWS, COLUMNS, PATTERN_ROWS = 130, 128, 128
FRAME_BYTES = ROWS * COLUMNS * 4
PIXEL_M = 150e-6
WHOLE_NUMBER = re.compile(r"\s*\d{1,9}\s*", re.ASCII)
LARGEST_XML_BYTES = 2**22  # a sidecar has some kilobytes


@dataclass(frozen=True)
class EmpadPatterns(LazyPatterns):
    """The patterns of a raw file, which are read when they are needed.

    Attributes:
        path: Of the file.
        count: Frames in it.
    """

    path: Path
    count: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(n, H, W)``."""
        return self.count, PATTERN_ROWS, COLUMNS

    @property
    def dtype(self) -> np.dtype:
        """float32."""
        return np.dtype(np.float32)

    def read(self, indices: NDArray[np.int64]) -> NDArray:
        """See `LazyPatterns.read`.

        Raises:
            InputError: If the file became shorter, or cannot be read.
        """
        patterns = np.empty((len(indices), PATTERN_ROWS, COLUMNS), dtype="<f4")
        try:
            with open(self.path, "rb") as file:  # a map of a file that is cut off crashes (SIGBUS)
                for pattern, index in zip(patterns, indices.tolist(), strict=True):
                    file.seek(index * FRAME_BYTES)
                    if file.readinto(pattern.data.cast("B")) < pattern.nbytes:
                        raise InputError(f"{self.path}: ends before frame {index}; is it complete?")
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror})") from error
        return patterns.astype(np.float32, copy=False)


def is_empad(path: Path) -> bool:
    """Whether a file is a raw file by its name, or the XML file of one."""
    if path.suffix.lower() == ".raw":
        return True
    return path.suffix.lower() == ".xml" and raw_file_of(path) is not None


def read_empad(paths: Sequence[Path]) -> RawScan:
    """The content of a raw file, with the shape of the raster; it has no positions.

    Args:
        paths: The raw file or its XML file.

    Raises:
        InputError: If the file is not whole frames, or not there.
    """
    (path,) = paths
    raw_path = path
    if path.suffix.lower() == ".xml":
        raw_path = path.parent / (raw_file_of(path) or path.name)
        if not raw_path.is_file():
            raise InputError(f"{path}: names {raw_path.name}, which is not in its folder")
    size = raw_path.stat().st_size
    count, rest = divmod(size, FRAME_BYTES)
    if count == 0 or rest:
        raise InputError(
            f"{raw_path}: has {size} bytes, {count} frames of {FRAME_BYTES} and {rest} bytes; "
            f"expected whole frames of {ROWS} x {COLUMNS} float32 numbers, as the EMPAD writes "
            "them; is it complete?"
        )
    return RawScan(
        source=str(path),
        patterns=EmpadPatterns(raw_path, count),
        patterns_key="frames",
        values="counts",
        positions=np.empty((0, 2)),
        positions_unit="m",
        negative_is_zero=True,
        instrument=Instrument(detector_pixel_m=(PIXEL_M, PIXEL_M), radiation="electrons"),
        raster=Raster(shape=raster_shape(path, raw_path)),
        notes=("frames of an EMPAD; values below zero, its noise, were set to zero",),
    )


def raster_shape(path: Path, raw_path: Path) -> tuple[int, int] | None:
    """Rows and columns of the raster: from the XML file, else from the name of the raw file."""
    beside = path if path.suffix.lower() == ".xml" else raw_path.with_suffix(".xml")
    if beside.is_file():
        root = xml_root(beside)
        for one in root.iter("scan_parameters"):
            rows, columns = (one.findtext(f"scan_resolution_{axis}") for axis in "yx")
            if one.get("mode") == "acquire" and rows and columns:
                if not (WHOLE_NUMBER.fullmatch(rows) and WHOLE_NUMBER.fullmatch(columns)):
                    raise InputError(
                        f"{beside}: scan_resolution is {rows[:20]}, {columns[:20]}; expected whole "
                        "numbers"
                    )
                return int(rows), int(columns)
    named = re.search(r"x(\d+)_y(\d+)", raw_path.stem)
    return (int(named[2]), int(named[1])) if named else None


def raw_file_of(path: Path) -> str | None:
    """The name of the raw file in an XML file, without the folder; None in other XML files."""
    found = xml_root(path).find(".//raw_file")
    name = None if found is None else found.get("filename")
    return re.split(r"[/\\]", name)[-1] if name else None


def xml_root(path: Path) -> ElementTree.Element:
    """The content of an XML file, which is small and defines no entities.

    Raises:
        InputError: If it is no such file.
    """
    if path.stat().st_size > LARGEST_XML_BYTES:
        raise InputError(f"{path}: is too large for the XML file of a scan")
    data = path.read_bytes()
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise InputError(f"{path}: defines entities; expected the XML file of an EMPAD")
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # the last two: encodings
        raise InputError(f"{path}: is no readable XML file ({error})") from error


FORMAT = Format(name="EMPAD raw", container="raw", recognises=is_empad, read=read_empad)

"""The content of a scan file in its own units, and the description of a format."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from ptycho_torch.data.lazy_patterns import PatternArray
from ptycho_torch.data.raster import Raster
from ptycho_torch.data.scan import Instrument


@dataclass(frozen=True)
class RawScan:
    """The content of a file, in its own units and on the whole detector.

    Attributes:
        source: Path of the file, for messages.
        patterns: As stored, (N, H, W), zero frequency near the middle; read by index.
        patterns_key: Name of their place in the file, for messages.
        values: What they are; "unknown" where the format leaves it open.
        positions: ``(y, x)`` of the illumination on the object, (N, 2); (0, 2) where the file has
            none, and the raster gives them.
        positions_unit: Metres, or object pixels of patches of the stored size.
        positions_from: For object pixels, whether position 0 is the outer border of pixel 0, its
            "corner", or its "center".
        probe: Illumination modes at any scale, (H, W) or (..., M, H, W); None if the file has none.
        probe_weights: Where the probe is (C, M, H, W) and changes over the scan: the weights of its
            C parts in each exposure, (N, C).
        probe_key: Name of its place in the file; empty where the format has none.
        mask: Detector pixels to trust, bool, (H, W), True = good; None if all are.
        dark: Mean dark frame, (H, W), still in the patterns; None if there is none.
        negative_is_zero: Whether the format takes negative values for zero.
        center: Zero frequency ``(y, x)`` in detector pixels; None for ``[H // 2, W // 2]``.
        scan_index: Identifier of each exposure, whole numbers, (N,); None for 0, 1, 2, ...
        instrument: What is known of the experiment.
        wavelength_stated: Whether the file has the wavelength, from which the instrument's energy
            was computed.
        object_pixel_m: Object pixel ``(y, x)`` that the file states, in metres.
        far_field: Whether the patterns are far-field ones, where the file says so.
        raster: What is known of the raster of a scan without positions.
        positions_hint: Where the file would have positions, for the message that misses them.
        notes: What was concluded about the file, one sentence each.
    """

    source: str
    patterns: PatternArray
    patterns_key: str
    values: Literal["counts", "amplitude", "unknown"]
    positions: NDArray
    positions_unit: Literal["m", "px"]
    positions_from: Literal["corner", "center"] = "corner"
    probe: NDArray | None = None
    probe_weights: NDArray | None = None
    probe_key: str = ""
    mask: NDArray | None = None
    dark: NDArray | None = None
    negative_is_zero: bool = False
    center: tuple[float, float] | None = None
    scan_index: NDArray | None = None
    instrument: Instrument = field(default_factory=Instrument)
    wavelength_stated: bool = False
    object_pixel_m: tuple[float, float] | None = None
    far_field: bool | None = None
    raster: Raster = field(default_factory=Raster)
    positions_hint: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """A file format that the package reads.

    Attributes:
        name: For messages.
        container: What the files are at the outside.
        recognises: Whether a container holds the format: an open `h5py.File`, or the names of the
            arrays of an NPZ file, or the path of a file without a mark of its own.
        read: The raw in one file, or in the two files of a pair.
        pair: Whether a scan is two files, of which each is recognised.
    """

    name: str
    container: Literal["hdf5", "npz", "raw"]
    recognises: Callable[[Any], bool]
    read: Callable[[Sequence[Path]], RawScan]
    pair: bool = False

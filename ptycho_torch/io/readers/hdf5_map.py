"""Any HDF5 file, through a YAML file that says where it keeps what is needed.

::

    patterns: /entry/data            # (n, H, W)
    values: counts                   # or amplitude; without it the values decide
    positions_um: /entry/xy          # (n, 2) or (2, n); _m, _mm, _nm, _px too
                                     # or positions_y_um and positions_x_um
    positions_order: yx              # or xy
    raster_step_nm: 0.04             # instead of positions: of a raster; one number, or [y, x]
    raster_shape: [64, 64]           # rows, columns; default: as stored, else a square
    raster_rotation_deg: 0           # against the detector, counterclockwise in a picture
    energy_kev: 8.0                  # or energy_ev, wavelength_m, wavelength_nm
                                     # a number, or where it is in the file
    radiation: photons               # or electrons
    distance_m: /entry/distance
    detector_pixel_um: 75            # one number, or [y, x]
    pixel_size_nm: 30                # of the object, instead of the three above
    probe: /entry/probe              # (M, H, W), complex
    mask: /entry/mask                # True = good; or bad_pixels, True = bad
    dark: /entry/dark
    center_px: [63.5, 64]            # zero frequency y, x
    index: /entry/index
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptycho_torch.config.yaml_file import read_yaml
from ptycho_torch.data.raster import Raster
from ptycho_torch.data.scan import Instrument
from ptycho_torch.data.wavelength import RADIATIONS, energy_of
from ptycho_torch.errors import InputError
from ptycho_torch.io.readers.checks import check_quantity, check_real
from ptycho_torch.io.readers.hdf5 import (
    PROBE_KINDS,
    UNITS,
    need_dataset,
    need_patterns,
    open_hdf5,
    read_array,
    unit_factor,
)
from ptycho_torch.io.readers.raw_scan import RawScan

PLAIN = {
    "patterns",
    "values",
    "radiation",
    "positions_order",
    "raster_shape",
    "raster_rotation_deg",
    "probe",
    "mask",
    "bad_pixels",
    "dark",
    "index",
    "center_px",
}
LENGTHS, ENERGIES = ("m", "mm", "um", "nm"), ("ev", "kev")
MEASURED = {
    **{
        f"{name}_{unit}": unit
        for name in ("distance", "detector_pixel", "pixel_size", "wavelength", "raster_step")
        for unit in LENGTHS
    },
    **{
        f"{name}_{unit}": unit
        for name in ("positions", "positions_y", "positions_x")
        for unit in (*LENGTHS, "px")
    },
    **{f"energy_{unit}": unit for unit in ENERGIES},
}


@dataclass(frozen=True)
class Layout:
    """What a YAML file says about an HDF5 file, with the file open beside it."""

    path: Path
    entries: dict[str, Any]
    file: h5py.File

    def value(self, key: str) -> NDArray | None:
        """What a key stands for: a number, or what the file holds there."""
        entry = self.entries.get(key)
        if entry is None:
            return None
        if isinstance(entry, str):
            return read_array(need_dataset(self.file, entry), PROBE_KINDS)
        return _numbers(f"{self.path}: {key}", entry)

    def measured(self, name: str) -> tuple[NDArray[np.float64], str] | None:
        """A quantity in metres, electronvolts or pixels, and its key; ``@units`` comes first."""
        for key, unit in MEASURED.items():
            value = self.value(key) if key.rpartition("_")[0] == name else None
            if value is None:
                continue
            value = check_real(f"{self.path}: {key}", value, (None,) * value.ndim)
            entry = self.entries[key]
            if unit == "px":
                return value, key
            return value * (
                unit_factor(self.file[entry], unit) if isinstance(entry, str) else UNITS[unit]
            ), key
        return None

    def number(self, name: str) -> float | None:
        """A single quantity above 0."""
        found = self.measured(name)
        if found is None:
            return None
        values = np.unique(found[0])
        if len(values) != 1 or values[0] <= 0:
            raise InputError(
                f"{self.path}: {found[1]} is {values.tolist()[:3]}; expected one number above 0"
            )
        return check_quantity(f"{self.path}: {found[1]}", float(values[0]))

    def sizes(self, name: str) -> tuple[float, float] | None:
        """A quantity ``(y, x)``, given as one number or two."""
        found = self.measured(name)
        if found is None:
            return None
        values = found[0].ravel()
        if len(values) not in (1, 2) or values.min() <= 0:
            raise InputError(
                f"{self.path}: {found[1]} is {values.tolist()[:3]}; expected one number or two, "
                "above 0"
            )
        where = f"{self.path}: {found[1]}"
        return check_quantity(where, float(values[0])), check_quantity(where, float(values[-1]))


def read_hdf5_map(path: Path, layout_path: Path) -> RawScan:
    """The raw in an HDF5 file of any layout.

    Args:
        path: The HDF5 file.
        layout_path: The YAML file; the module's first lines list its keys.

    Raises:
        InputError: If the YAML file has an unknown key, or what it names is missing or cannot be
            what it should.
    """
    entries = load_layout(layout_path)
    with open_hdf5(path) as file:
        layout = Layout(layout_path, entries, file)
        patterns = need_patterns(need_dataset(file, entries["patterns"]), path)
        found = find_positions(layout, patterns.shape[0])
        positions, unit = found or (np.empty((0, 2)), "m")
        wavelength = layout.number("wavelength")
        radiation = entries.get("radiation", RADIATIONS[0])
        energy = layout.number("energy") if wavelength is None else energy_of(wavelength, radiation)
        mask, bad = layout.value("mask"), layout.value("bad_pixels")
        center = layout.value("center_px")
        return RawScan(
            source=str(path),
            patterns=patterns,
            patterns_key=entries["patterns"],
            values=entries.get("values", "unknown"),
            positions=positions,
            positions_unit="px" if unit == "px" else "m",
            probe=layout.value("probe"),
            probe_key=str(entries.get("probe", "")),
            mask=mask.astype(bool)
            if mask is not None
            else None
            if bad is None
            else ~bad.astype(bool),
            dark=layout.value("dark"),
            center=None
            if center is None
            else tuple(check_real(f"{layout_path}: center_px", center, (2,))),
            scan_index=layout.value("index"),
            instrument=Instrument(
                energy, layout.number("distance"), layout.sizes("detector_pixel"), radiation
            ),
            wavelength_stated=wavelength is not None,
            object_pixel_m=layout.sizes("pixel_size"),
            raster=find_raster(layout, file[entries["patterns"]].shape[:-2]),
            positions_hint=f"--map {layout_path}: key 'positions_m' is missing; expected it, or "
            "positions_y_m and positions_x_m, or raster_step_m",
        )


def _numbers(where: str, entry: Any) -> NDArray:
    """The numbers that the YAML file itself holds under a key: one, or a list of them.

    Raises:
        InputError: If it holds something else.
    """
    values = entry if isinstance(entry, list) else [entry]
    if not values or not all(type(value) in (int, float) for value in values):
        raise InputError(f"{where} is {entry}; expected a number, numbers, or a place in the file")
    if any(type(value) is int and abs(value) > sys.float_info.max for value in values):
        raise InputError(f"{where} is beyond {sys.float_info.max:.2g}; expected a finite number")
    return np.asarray(entry, dtype=np.float64)


def load_layout(path: Path) -> dict[str, Any]:
    """The content of the YAML file, whose keys are all known.

    Raises:
        InputError: If it cannot be read, or has a key that is not known.
    """
    entries = read_yaml(path)
    if not isinstance(entries, dict) or not isinstance(entries.get("patterns"), str):
        raise InputError(
            f"--map {path}: key 'patterns' is missing; expected the place of the patterns, such as "
            "/entry/data"
        )
    unknown = sorted(str(key) for key in set(entries) - PLAIN - set(MEASURED))
    if unknown:
        raise InputError(
            f"--map {path}: key '{unknown[0]}' is not known; known: "
            f"{', '.join(sorted(PLAIN | set(MEASURED)))}"
        )
    for key in ("probe", "mask", "bad_pixels", "dark", "index"):
        if not isinstance(entries.get(key, ""), str):
            raise InputError(
                f"--map {path}: {key} is {entries[key]}; expected its place in the file"
            )
    for key, allowed in (
        ("values", ("counts", "amplitude")),
        ("positions_order", ("yx", "xy")),
        ("radiation", RADIATIONS),
    ):
        if key in entries and entries[key] not in allowed:
            raise InputError(
                f"--map {path}: {key} is {entries[key]}; expected {' or '.join(allowed)}"
            )
    return entries


def find_raster(layout: Layout, stored: tuple[int, ...]) -> Raster:
    """The raster that the map describes; without a shape there, that of the stored patterns."""
    shape = layout.entries.get("raster_shape")
    rotation = layout.entries.get("raster_rotation_deg", 0.0)
    if shape is not None and not (
        isinstance(shape, list)
        and len(shape) == 2
        and all(type(count) is int and count > 0 for count in shape)
    ):
        raise InputError(
            f"{layout.path}: raster_shape is {shape}; expected [rows, columns], such as [64, 128]"
        )
    if type(rotation) not in (int, float) or not math.isfinite(rotation):
        raise InputError(
            f"{layout.path}: raster_rotation_deg is {rotation}; expected a number of degrees"
        )
    if shape is None and len(stored) == 2:
        shape = stored
    return Raster(
        layout.sizes("raster_step"), None if shape is None else (shape[0], shape[1]), rotation
    )


def find_positions(layout: Layout, n: int) -> tuple[NDArray[np.float64], str] | None:
    """Positions ``(y, x)``, (n, 2), and the end of the key that gave them; None without such."""
    whole = layout.measured("positions")
    if whole is None:
        parts = [layout.measured(f"positions_{axis}") for axis in "yx"]
        if parts[0] is None and parts[1] is None:
            return None
        if parts[0] is None or parts[1] is None:
            raise InputError(
                f"--map {layout.path}: key 'positions_m' is missing; expected it, or positions_y_m "
                "and positions_x_m"
            )
        y, x = parts[0][0].ravel(), parts[1][0].ravel()
        if len(y) != len(x):
            raise InputError(
                f"{layout.file.filename}: {len(y)} positions along y but {len(x)} along x; "
                "expected equal numbers"
            )
        return np.stack([y, x], axis=1), parts[0][1].rpartition("_")[2]
    values, key = whole
    values = (
        values.T if values.ndim == 2 and values.shape[0] == 2 and values.shape[1] == n else values
    )
    values = check_real(f"{layout.file.filename}: {layout.entries[key]}", values, (None, 2))
    return values[:, ::-1] if layout.entries.get(
        "positions_order"
    ) == "xy" else values, key.rpartition("_")[2]

"""The geometry of a scan in SI units, and the log of what a format omits."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptycho_torch.data.scan import Reconstruction, Scan
from ptycho_torch.data.wavelength import Radiation, energy_of
from ptycho_torch.errors import InputError

logger = logging.getLogger(__name__)

FORMATS_IN_METRES = ("cxi", "ptychodus", "ptyd")


@dataclass(frozen=True)
class SiGeometry:
    """The experiment and the positions in SI units; pairs are ``(y, x)``.

    Attributes:
        radiation: What was diffracted.
        energy_ev: Its energy.
        wavelength_m: The same as a wavelength.
        distance_m: From the sample to the detector.
        detector_pixel_m: Of the patterns.
        pixel_m: Of the object.
        positions_m: Of the illumination, (N, 2).
        is_far_field: Whether the patterns are far-field ones.
    """

    radiation: Radiation
    energy_ev: float
    wavelength_m: float
    distance_m: float
    detector_pixel_m: tuple[float, float]
    pixel_m: tuple[float, float]
    positions_m: NDArray[np.float64]
    is_far_field: bool

    @property
    def photon_energy_ev(self) -> float:
        """Energy of a photon of that wavelength, for programs that know photons alone.

        They compute the right object pixel from it.
        """
        return self.energy_ev if self.radiation == "photons" else energy_of(self.wavelength_m)


def in_metres(item: Scan | Reconstruction, format_name: str) -> SiGeometry:
    """A scan or a reconstruction in metres.

    Raises:
        InputError: If something that the format needs is not known; names the flags.
    """
    known = item.instrument
    probe = item.need_probe() if isinstance(item, Scan) else item.probe
    pixel = item.pixel_size_m or known.object_pixel_m((probe.shape[1], probe.shape[2]))
    if (
        known.energy_ev is None
        or known.wavelength_m is None
        or known.distance_m is None
        or known.detector_pixel_m is None
        or pixel is None
    ):
        needed = {
            "energy_ev": known.energy_ev,
            "distance_m": known.distance_m,
            "detector_pixel_m": known.detector_pixel_m,
        }
        flags = ", ".join(f"--{name}" for name, value in needed.items() if value is None)
        raise InputError(
            f"--format {format_name} is in metres, and the scan does not tell all that it needs; "
            f"give {flags}"
        )
    return SiGeometry(
        radiation=known.radiation,
        energy_ev=known.energy_ev,
        wavelength_m=known.wavelength_m,
        distance_m=known.distance_m,
        detector_pixel_m=known.detector_pixel_m,
        pixel_m=pixel,
        positions_m=item.positions_px * np.array(pixel),
        is_far_field=item.is_far_field,
    )


def check_known(item: Scan, formats: Sequence[str]) -> None:
    """Raise `InputError` now for what a writer would miss when all is computed."""
    for name in formats:
        if name in FORMATS_IN_METRES:
            in_metres(item, name)


def log_omitted(format_name: str, *parts: str) -> None:
    """Name what a file of some format does not hold."""
    left = [part for part in parts if part]
    if left:
        logger.info("%s has no place for %s: left out", format_name, "; ".join(left))

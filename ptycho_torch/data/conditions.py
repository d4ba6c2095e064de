"""The conditions of a scan: dose, overlap, probe and sampling, as a checkpoint keeps them."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from ptycho_torch.data.augmentation import min_input_fraction
from ptycho_torch.data.probe import aperture_radius, beam_diameter
from ptycho_torch.data.scan import Scan


@dataclass(frozen=True)
class Conditions:
    """Dose, overlap, probe and sampling of a scan.

    Attributes:
        photons: Per exposure.
        step_px: Median distance of nearest neighbours, in object pixels; 0 for a single position.
        beam_px: Diameter that holds 90 % of the photons of the probe, in object pixels.
        aperture: Radius of the aperture on the detector, as a fraction of Nyquist.
        probe_modes: Incoherent modes.
        pattern_rows: Detector pixels.
        pattern_columns: Detector pixels.
    """

    photons: float
    step_px: float
    beam_px: float
    aperture: float
    probe_modes: int
    pattern_rows: int
    pattern_columns: int

    def at_lowest_dose(self) -> "Conditions":
        """The conditions of the darkest exposures that training makes of such a scan."""
        fraction = min_input_fraction(self.photons / (self.pattern_rows * self.pattern_columns))
        return replace(self, photons=self.photons * fraction)


def conditions_of(scan: Scan) -> Conditions:
    """The conditions of a scan."""
    probe = scan.need_probe()
    rows, columns = scan.pattern_shape
    return Conditions(
        photons=scan.photons,
        step_px=median_step_px(scan.positions_px),
        beam_px=beam_diameter(probe),
        aperture=2 * aperture_radius(probe[0]),
        probe_modes=len(probe),
        pattern_rows=rows,
        pattern_columns=columns,
    )


def median_step_px(positions_px: NDArray[np.float64]) -> float:
    """Median distance of nearest neighbours, in pixels; 0 for a single position."""
    places = np.unique(positions_px, axis=0)
    return float(np.median(KDTree(places).query(places, k=2)[0][:, 1])) if len(places) > 1 else 0.0


def training_conditions(about: Mapping[str, Any]) -> list[Conditions]:
    """The conditions of the training scans, from the facts that a checkpoint holds about its run.

    Raises:
        LookupError, TypeError, ValueError: If they are not there, or damaged.
    """
    kinds: dict[str, Any] = {one.name: one.type for one in fields(Conditions)}
    return [
        Conditions(**{name: kind(entry[name]) for name, kind in kinds.items()})
        for entry in about["conditions"]
    ]

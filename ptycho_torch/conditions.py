"""Under which conditions a scan was measured, and whether a network was trained under such."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from scipy.spatial import KDTree

from ptycho_torch.augmentation import smallest_part
from ptycho_torch.doctor.positions import beam_diameter
from ptycho_torch.illumination import aperture_radius
from ptycho_torch.scan import Scan

LIMITS = {  # name: factor by which a scan may lie beyond what was trained on, and what it is called
    "photons": (30.0, "photons a pattern"),
    "step_px": (1.5, "px between neighbours"),
    "beam_px": (1.5, "px of beam"),
    "aperture": (1.5, "of Nyquist of aperture"),
    "probe_modes": (1.0, "probe modes"),
    "pattern_rows": (1.0, "rows of a pattern"),
    "pattern_columns": (1.0, "columns of a pattern"),
}
FAR_APART = 0.4  # of the beam; at 0.42 either start is as good, at 0.47 an empty one is better


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

    def poorest(self) -> "Conditions":
        """Of the poorest exposures that training makes of such a scan."""
        part = smallest_part(self.photons / (self.pattern_rows * self.pattern_columns))
        return replace(self, photons=self.photons * part)


def conditions_of(scan: Scan) -> Conditions:
    """The conditions of a scan."""
    places = np.unique(scan.positions_px, axis=0)
    step = float(np.median(KDTree(places).query(places, k=2)[0][:, 1])) if len(places) > 1 else 0.0
    rows, columns = scan.pattern_shape
    return Conditions(
        photons=scan.photons,
        step_px=step,
        beam_px=beam_diameter(scan.probe),
        aperture=2 * aperture_radius(scan.probe[0]),
        probe_modes=len(scan.probe),
        pattern_rows=rows,
        pattern_columns=columns,
    )


def trained_under(about: dict[str, Any]) -> list[Conditions]:
    """The conditions of the training scans, from what a checkpoint says about its run.

    Raises:
        LookupError, TypeError, ValueError: If they are not there, or damaged.
    """
    return [
        Conditions(**{one.name: one.type(entry[one.name]) for one in fields(Conditions)})  # type: ignore[operator]
        for entry in about["conditions"]
    ]


def far_apart(trained: Sequence[Conditions], scan: Scan) -> bool:
    """Whether the positions of a scan lie so far apart that a refinement does not undo the slow phases that a network leaves.

    A network leaves more of them where it was trained on positions that lie much closer.
    """
    conditions = conditions_of(scan)
    usual = max(known.step_px for known in trained)
    return conditions.step_px > min(FAR_APART * conditions.beam_px, LIMITS["step_px"][0] * usual)


def beyond(trained: Sequence[Conditions], scan: Scan) -> list[str]:
    """In what a scan lies beyond the scans that a network was trained on, a few words each."""
    words = []
    shown = [*trained, *(conditions.poorest() for conditions in trained)]
    for name, value in asdict(conditions_of(scan)).items():
        factor, unit = LIMITS[name]
        known = [getattr(conditions, name) for conditions in shown]
        if not min(known) / factor <= value <= max(known) * factor:
            span = f"{min(known):.3g}" if min(known) == max(known) else f"{min(known):.3g} to {max(known):.3g}"
            words.append(f"{value:.3g} {unit} (trained with {span})")
    return words

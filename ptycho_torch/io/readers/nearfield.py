"""Near-field scans, which far-field physics would turn into a wrong picture without an error."""

import numpy as np

from ptycho_torch.data.scan import PHOTON_ENERGY_WAVELENGTH, Instrument
from ptycho_torch.errors import InputError
from ptycho_torch.io.readers.raw_scan import RawScan

SAMPLE = 32  # patterns whose mean shows how far the light reaches
FILLED = 0.25  # light at the border over the mean; far-field patterns have below a hundredth


def refuse_near_field(raw: RawScan, instrument: Instrument, binning: int) -> None:
    """Raise `InputError` for a scan that was recorded in the near field.

    Far-field patterns show a field of view ``wavelength z / pixel``. A beam that fills it has the
    Fresnel number ``F = wavelength z / pixel^2``: below 1 the detector is in its far field for
    certain. Above 1 the pattern decides: in the far field it falls off before the border of the
    detector, in the near field the beam itself is seen, and it fills the detector.

    Args:
        raw: Patterns, and what the file says.
        instrument: Energy, distance, detector pixel; where one is missing, only what the file says
            counts.
        binning: That is in the instrument's detector pixel and not in the patterns.
    """
    cannot = "this package knows far-field patterns only"
    if raw.far_field is False:
        raise InputError(
            f"{raw.source}: the file says that its patterns are near-field ones; {cannot}"
        )
    if (
        instrument.energy_ev is None
        or instrument.distance_m is None
        or instrument.detector_pixel_m is None
    ):
        return
    pixel = min(instrument.detector_pixel_m) / binning
    fresnel = PHOTON_ENERGY_WAVELENGTH / instrument.energy_ev * instrument.distance_m / pixel**2
    if fresnel > 1 and border_light(raw) > FILLED:
        raise InputError(
            f"{raw.source}: at {instrument.distance_m:g} m and {instrument.energy_ev:.5g} eV with "
            f"pixels of {pixel:.2g} m "
            f"the Fresnel number reaches {fresnel:.2g} and the light fills the detector: these are "
            f"near-field patterns; {cannot}"
        )


def border_light(raw: RawScan) -> float:
    """Mean of the mean pattern over its border, an eighth wide, relative to the whole."""
    n, height, width = raw.patterns.shape
    sample = raw.patterns[np.unique(np.linspace(0, n - 1, min(n, SAMPLE)).astype(int))]
    mean = np.nan_to_num(np.asarray(sample, dtype=np.float64)).mean(axis=0)
    good = np.ones(mean.shape, dtype=bool) if raw.mask is None else raw.mask
    border = np.ones(mean.shape, dtype=bool)
    border[height // 8 : height - height // 8, width // 8 : width - width // 8] = False
    total = float(mean[good].mean()) if good.any() else 0.0
    return float(mean[good & border].mean()) / total if total > 0 and (good & border).any() else 0.0

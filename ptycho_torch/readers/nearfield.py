"""Near-field scans, which far-field physics would turn into a wrong picture without an error."""

import numpy as np

from ptycho_torch.errors import InputError
from ptycho_torch.readers.recording import Recording
from ptycho_torch.scan import PHOTON_ENERGY_WAVELENGTH, Instrument

SAMPLE = 32  # patterns whose mean shows how far the light reaches
FILLED = 0.25  # border over mean; far-field patterns fall to below a hundredth, a beam that fills the detector does not fall


def refuse_near_field(recording: Recording, instrument: Instrument, binning: int) -> None:
    """Raise `InputError` for a scan that was recorded in the near field.

    Far-field patterns show a field of view ``wavelength z / pixel``. A beam that fills it has the
    Fresnel number ``F = wavelength z / pixel^2``: below 1 the detector is in its far field for
    certain. Above 1 the pattern decides: in the far field it falls off before the border of the
    detector, in the near field the beam itself is seen, and it fills the detector.

    Args:
        recording: Patterns, and what the file says.
        instrument: Energy, distance, detector pixel; where one is missing, only what the file says counts.
        binning: That is in the instrument's detector pixel and not in the patterns.
    """
    cannot = "this package knows far-field patterns only"
    if recording.far_field is False:
        raise InputError(f"{recording.source}: the file says that its patterns are near-field ones; {cannot}")
    if instrument.energy_ev is None or instrument.distance_m is None or instrument.detector_pixel_m is None:
        return
    pixel = min(instrument.detector_pixel_m) / binning
    fresnel = PHOTON_ENERGY_WAVELENGTH / instrument.energy_ev * instrument.distance_m / pixel**2
    if fresnel > 1 and border_light(recording) > FILLED:
        raise InputError(
            f"{recording.source}: at {instrument.distance_m:g} m and {instrument.energy_ev:.5g} eV with pixels of {pixel:.2g} m "
            f"the Fresnel number reaches {fresnel:.2g} and the light fills the detector: these are near-field patterns; {cannot}"
        )


def border_light(recording: Recording) -> float:
    """Light at the border of the mean pattern, an eighth of its size wide, relative to the mean of the whole."""
    n, height, width = recording.patterns.shape
    sample = recording.patterns[np.unique(np.linspace(0, n - 1, min(n, SAMPLE)).astype(int))]
    mean = np.nan_to_num(np.asarray(sample, dtype=np.float64)).mean(axis=0)
    good = np.ones(mean.shape, dtype=bool) if recording.mask is None else recording.mask
    border = np.ones(mean.shape, dtype=bool)
    border[height // 8 : height - height // 8, width // 8 : width - width // 8] = False
    total = float(mean[good].mean()) if good.any() else 0.0
    return float(mean[good & border].mean()) / total if total > 0 and (good & border).any() else 0.0

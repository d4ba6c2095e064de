"""Which propagator a scan needs: far-field physics would turn a near-field scan into a wrong image.

Far-field patterns show a field of view ``wavelength z / pixel``. A beam that fills it has the
Fresnel number ``F = wavelength z / pixel^2``: below 1 the detector is in its far field for certain.
Above 1 the pattern decides: in the far field it falls off before the border of the detector, in the
near field the beam itself is seen, and it fills the detector.
"""

import numpy as np

from ptycho_torch.config import ReadingOptions
from ptycho_torch.data.scan import Instrument
from ptycho_torch.errors import InputError
from ptycho_torch.io.readers.raw_scan import RawScan

SAMPLE = 32  # patterns whose mean shows how far the light reaches
FILLED = 0.25  # light at the border over the mean; far-field patterns have below a hundredth

Pair = tuple[float, float]


def fresnel_number(raw: RawScan, options: ReadingOptions, instrument: Instrument) -> Pair | None:
    """The Fresnel number of an object pixel, ``(y, x)``; None for far-field patterns.

    Args:
        raw: Patterns, and what the file says.
        options: ``propagator`` decides, unless it is "auto".
        instrument: Energy, distance, detector pixel; where one is missing, only what the file says
            counts.

    Raises:
        InputError: If the patterns are near-field ones and a number for the propagator is missing,
            or part of the detector is cut off.
    """
    if options.propagator == "far_field":
        return None
    if options.propagator == "auto" and not is_near_field(raw, instrument, options.bin):
        return None
    if options.crop is not None or options.bin > 1:
        raise InputError(
            f"{raw.source}: the patterns are near-field ones, and cropping or binning them cuts "
            "the object; leave --crop and --bin out"
        )
    pixel = near_field_pixel(raw, options, instrument)
    reach = instrument.reach_m2
    if pixel is None or reach is None:
        raise InputError(
            f"{raw.source}: the patterns are near-field ones; their propagator needs --energy_ev, "
            "--distance_m and --pixel_size_m (the detector pixel over the magnification), or take "
            "them for far-field ones with --propagator far_field"
        )
    number = pixel[0] ** 2 / reach, pixel[1] ** 2 / reach
    shape = raw.patterns.shape[1:]
    if number[0] * shape[0] < 1 or number[1] * shape[1] < 1:
        raise InputError(
            f"{raw.source}: the patterns are near-field ones, but with an object pixel of "
            f"{min(pixel):.3g} m at {instrument.distance_m:g} m light crosses the whole detector; "
            "give the right --distance_m and --pixel_size_m, or --propagator far_field"
        )
    return number


def near_field_pixel(raw: RawScan, options: ReadingOptions, instrument: Instrument) -> Pair | None:
    """Object pixel ``(y, x)`` of near-field patterns; without magnification the detector pixel."""
    if options.pixel_size_m is not None:
        return options.pixel_size_m, options.pixel_size_m
    return raw.object_pixel_m or instrument.detector_pixel_m


def is_near_field(raw: RawScan, instrument: Instrument, binning: int) -> bool:
    """Whether the file says that its patterns are near-field ones, or numbers and light do.

    Args:
        raw: Patterns, and what the file says.
        instrument: Energy, distance, detector pixel.
        binning: That is in the instrument's detector pixel and not in the patterns.
    """
    if raw.far_field is False:
        return True
    reach = instrument.reach_m2
    if reach is None or instrument.detector_pixel_m is None:
        return False
    pixel = min(instrument.detector_pixel_m) / binning
    return reach / pixel**2 > 1 and border_light(raw) > FILLED


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

"""Make a `Scan` from the content of a file: units, orientation and scale are settled here."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ptycho_torch.config import ReadingOptions
from ptycho_torch.config.options import LARGEST_SIZE, SMALLEST_SIZE
from ptycho_torch.data.detector import Orientation, Window
from ptycho_torch.data.lazy_patterns import LazyPatterns, PatternArray
from ptycho_torch.data.probe import resample_probe
from ptycho_torch.data.scan import Instrument, Scan
from ptycho_torch.data.wavelength import energy_of
from ptycho_torch.errors import InputError
from ptycho_torch.io.readers.checks import (
    LARGEST_AMPLITUDE,
    LARGEST_COUNT,
    check_index,
    check_mask,
    check_patterns,
    check_real,
    decide_values,
)
from ptycho_torch.io.readers.nearfield import fresnel_number, near_field_pixel
from ptycho_torch.io.readers.pattern_transforms import (
    AmplitudesToCounts,
    Bin,
    ClipNegative,
    Crop,
    Orient,
    SubtractDark,
    ZeroBadPixels,
    fold,
)
from ptycho_torch.io.readers.raw_scan import RawScan

SIGNS = {
    "none": (1, 1),
    "y": (-1, 1),
    "x": (1, -1),
    "both": (-1, -1),
}  # (y, x) for --negate_positions

FROM_CORNER = {"corner": 0.0, "center": 0.5}  # position 0, from the corner of pixel 0, in pixels
LEAST_PROBE = 1e-316  # largest modulus of a stored probe; below, float64 holds less than float32

Pair = tuple[float, float]
Shape = tuple[int, int]


def to_scan(raw: RawScan, options: ReadingOptions) -> Scan:
    """The scan of a file's content, in the units of the package.

    Args:
        raw: From a reader.
        options: What the user says about the file.

    Raises:
        InputError: If the parts contradict each other, or an option does not fit.
    """
    where = f"{raw.source}: {raw.patterns_key}"
    n = _check_shapes(where, raw)
    # 1. the part of the detector to keep
    orientation = Orientation(options.transpose, options.flip_y, options.flip_x)
    stored: Shape = orientation.apply(np.empty(raw.patterns.shape[1:], dtype=bool)).shape
    window, notes = find_window(raw, options, orientation, stored)
    instrument = _instrument(raw, options, orientation)
    number = fresnel_number(raw, options, instrument)
    # 2. counts and mask
    view, reason = _as_counts(where, raw, options, _clean(raw, options, window, orientation))
    good = window.apply(orientation.apply(_stored_mask(raw)))
    if options.bin > 1:
        good = np.asarray(fold(good, options.bin).all(axis=(-3, -1)))
        view = ZeroBadPixels(Bin(view, options.bin), good)
    photons = float(check_patterns(where, view).mean())
    in_memory = isinstance(raw.patterns, np.ndarray) and isinstance(view, LazyPatterns)
    # 3. probe, at the photons of a mean pattern
    fit = {"stored": stored, "window": window.size, "shape": good.shape}
    constant, change = separate_change(raw)
    probe, sentences = _probe(constant, photons, **fit)
    components, weights = _components(constant, change, probe, **fit)
    # 4. positions
    if number is not None:
        pixel = near_field_pixel(raw, options, instrument)
        notes.append("the patterns are near-field ones, with the Fresnel propagator")
    else:
        pixel = _pixel_size(raw, options, instrument, stored, window.size)
    return Scan(
        counts=view[:] if in_memory else view,
        positions_px=_positions(raw, options, pixel, stored, window.size),
        probe=probe,
        mask=check_mask(f"{raw.source}: the mask", good, good.shape),
        scan_index=check_index(f"{raw.source}: the index of the exposures", raw.scan_index, n),
        pixel_size_m=pixel,
        instrument=instrument,
        source=raw.source,
        decisions=(*raw.notes, reason, *notes, *sentences),
        fresnel_number=number,
        probe_components=components,
        probe_weights=weights,
    )


def _check_shapes(where: str, raw: RawScan) -> int:
    """The number of patterns, which is that of the positions."""
    shape, dtype = raw.patterns.shape, raw.patterns.dtype
    if len(shape) != 3 or 0 in shape or dtype.kind not in "biuf":
        raise InputError(
            f"{where} is {dtype} of shape {shape}; expected real numbers of shape (n, H, W)"
        )
    if len(raw.positions) != shape[0]:
        raise InputError(
            f"{where} has {shape[0]} patterns but there are {len(raw.positions)} positions; "
            "expected equal numbers"
        )
    return shape[0]


def _stored_mask(raw: RawScan) -> NDArray[np.bool_]:
    """Good pixels of the whole detector, as stored."""
    shape = raw.patterns.shape[1:]
    mask = raw.mask if raw.mask is not None else np.ones(shape, dtype=bool)
    return check_mask(f"{raw.source}: the mask", mask, shape)


def _clean(
    raw: RawScan, options: ReadingOptions, window: Window, orientation: Orientation
) -> PatternArray:
    """The wanted part of the patterns, turned, without dark frame and bad pixels."""
    view = raw.patterns
    shape = view.shape[1:]
    _stored_mask(raw)
    if raw.dark is not None:
        dark = check_real(f"{raw.source}: the dark frame", raw.dark, shape)
        if np.abs(dark).max() > LARGEST_COUNT:
            raise InputError(
                f"{raw.source}: the dark frame holds {dark.max():.3g}; expected counts"
            )
        view = SubtractDark(view, dark)
    elif (raw.negative_is_zero or options.clip_negative) and view.dtype.kind != "u":
        view = ClipNegative(view)
    if raw.mask is not None and not raw.mask.all():
        view = ZeroBadPixels(view, raw.mask)
    if orientation != Orientation():
        view = Orient(view, orientation)
    if window != Window((0, 0), (view.shape[1], view.shape[2])):
        view = Crop(view, window)
    return view


def _as_counts(
    where: str, raw: RawScan, options: ReadingOptions, view: PatternArray
) -> tuple[PatternArray, str]:
    """Patterns as photon counts, and a sentence on what they were taken for."""
    values = decide_values(where, view, stated=raw.values, told=options.diffraction)
    if values.unit is None:
        return view, values.reason
    check_patterns(where, view, largest=LARGEST_AMPLITUDE)
    return AmplitudesToCounts(view, values.unit, values.whole), values.reason


def find_window(
    raw: RawScan, options: ReadingOptions, orientation: Orientation, shape: Shape
) -> tuple[Window, list[str]]:
    """The part of the detector to keep, with zero frequency at its middle, and conclusions.

    Args:
        raw: Its ``center`` is in the frame of the stored patterns.
        options: Its ``center`` is too, and comes first.
        orientation: How the patterns are turned.
        shape: Of the turned patterns.
    """
    size = (options.crop, options.crop) if options.crop is not None else shape
    if size[0] > shape[0] or size[1] > shape[1]:
        raise InputError(
            f"{raw.source}: --crop {options.crop} is larger than the patterns of "
            f"{shape[0]}x{shape[1]} pixels"
        )
    if size[0] % options.bin or size[1] % options.bin:
        raise InputError(
            f"{raw.source}: --bin {options.bin} does not divide the {size[0]}x{size[1]} pixels; "
            "add --crop with a multiple"
        )
    notes = []
    height, width = raw.patterns.shape[1:]
    middle = (height // 2, width // 2)
    stated = options.beam_center() or raw.center or middle
    moved = orientation.move(stated, (height, width))
    center = (round(moved[0]), round(moved[1]))
    if not (0 <= center[0] < shape[0] and 0 <= center[1] < shape[1]):
        raise InputError(
            f"{raw.source}: the centre ({stated[0]:g}, {stated[1]:g}) lies outside the "
            f"patterns of {height}x{width} pixels; give it as --center y,x"
        )
    window = Window((center[0] - size[0] // 2, center[1] - size[1] // 2), size)
    if center != orientation.move(middle, (height, width)):
        notes.append(
            f"patterns were moved so that their centre ({center[0]}, {center[1]}) is in the middle"
        )
    if options.crop is not None or options.bin > 1:
        notes.append(
            f"patterns were cropped to {size[0]}x{size[1]} and binned {options.bin}x{options.bin}"
        )
    return window, notes


def _instrument(raw: RawScan, options: ReadingOptions, orientation: Orientation) -> Instrument:
    """Known facts about the experiment, for the kept patterns; the user's come first."""
    known = raw.instrument
    pixel = orientation.swap(known.detector_pixel_m) if known.detector_pixel_m else None
    if options.detector_pixel_m is not None:
        pixel = (options.detector_pixel_m, options.detector_pixel_m)
    radiation = known.radiation if options.radiation == "auto" else options.radiation
    energy = known.energy_ev
    if radiation != known.radiation and raw.wavelength_stated and known.wavelength_m is not None:
        energy = energy_of(known.wavelength_m, radiation)
    instrument = Instrument(
        radiation=radiation,
        energy_ev=options.energy_ev if options.energy_ev is not None else energy,
        distance_m=options.distance_m if options.distance_m is not None else known.distance_m,
        detector_pixel_m=(pixel[0] * options.bin, pixel[1] * options.bin) if pixel else None,
    )
    for name in ("energy_ev", "distance_m", "detector_pixel_m"):
        value = getattr(instrument, name)
        sizes = np.ravel(() if value is None else value)
        if not np.all((sizes >= SMALLEST_SIZE) & (sizes <= LARGEST_SIZE)):
            raise InputError(
                f"{raw.source}: {name} is {sizes}; expected {SMALLEST_SIZE:g} to {LARGEST_SIZE:g}; "
                f"give the right one with --{name}"
            )
    return instrument


def _pixel_size(
    raw: RawScan, options: ReadingOptions, instrument: Instrument, stored: Shape, window: Shape
) -> Pair | None:
    """Object pixel for the kept patterns: cropping makes it larger, binning does not change it."""
    if options.pixel_size_m is not None:
        return options.pixel_size_m, options.pixel_size_m
    if raw.object_pixel_m is not None:
        height, width = raw.object_pixel_m
        return height * stored[0] / window[0], width * stored[1] / window[1]
    return instrument.object_pixel_m((window[0] // options.bin, window[1] // options.bin))


def _positions(
    raw: RawScan, options: ReadingOptions, pixel: Pair | None, stored: Shape, window: Shape
) -> NDArray[np.float64]:
    """Patch centres in object pixels."""
    positions = check_real(f"{raw.source}: the positions", raw.positions, (None, 2))
    if options.swap_xy:
        positions = positions[:, ::-1]
    positions = positions * SIGNS[options.negate_positions]
    if raw.positions_unit == "px":
        first = raw.positions_from if options.positions_from == "auto" else options.positions_from
        return (positions + FROM_CORNER[first]) * (np.array(window) / np.array(stored))
    if options.positions_from != "auto":
        raise InputError(
            f"{raw.source}: positions are in metres, and --positions_from is for object pixels; "
            "leave it out"
        )
    if pixel is None:
        raise InputError(
            f"{raw.source}: positions are in metres and the object pixel is not known; "
            "give --pixel_size_m, or --energy_ev, --distance_m and --detector_pixel_m"
        )
    return positions / np.array(pixel)


def _probe(
    raw: RawScan, photons: float, *, stored: Shape, window: Shape, shape: Shape
) -> tuple[NDArray[np.complex64] | None, list[str]]:
    """Probe modes (M, H, W) that carry ``photons``, None if the file has none, and conclusions."""
    key = raw.probe_key
    if raw.probe is None:
        found = f"key '{key}' is missing" if key else "this format has no probe"
        return None, [f"{found}; give one with --probe FILE if there is one"]
    modes, notes = _stored_modes(raw, stored, shape)
    brightest = float(np.abs(modes).max())  # squares of 1e-300 and of 1e300 are no float64
    if brightest < LEAST_PROBE:
        raise InputError(
            f"{raw.source}: {key} is {brightest:.3g} at most, so small that its digits are lost; "
            "expected it at a larger scale"
        )
    modes /= brightest
    if modes.shape[-2:] != shape:
        modes = resample_probe(modes, window, shape)
        notes.append(f"{key} was fitted to the patterns of {shape[0]}x{shape[1]} pixels")
    scale = float(np.sqrt(photons / np.sum(np.abs(modes) ** 2)))
    notes.append(
        f"{key} was multiplied by {scale / brightest:.6g}, so that it carries the {photons:.6g} "
        "photons of a mean pattern"
    )
    return (modes * scale).astype(np.complex64), notes


Change = tuple[NDArray, NDArray[np.float64]]  # parts (C, M, H, W), and deviations (N, C)


def separate_change(raw: RawScan) -> tuple[RawScan, Change | None]:
    """The file's content with the mean probe, and how the probe changes over the scan.

    Raises:
        InputError: If weights and parts of the probe do not fit together.
    """
    weights = raw.probe_weights
    if weights is None or raw.probe is None:
        return raw, None
    probe = np.asarray(raw.probe)
    if probe.ndim != 4 or weights.shape[1] != len(probe):
        raise InputError(
            f"{raw.source}: {raw.probe_key} has shape {probe.shape} and its weights have "
            f"{weights.shape}; expected (C, M, H, W) and (n, C)"
        )
    mean = weights.mean(axis=0)
    deviations = weights - mean
    changing = np.abs(deviations).max(axis=0) > 0
    with np.errstate(over="ignore", invalid="ignore"):  # numbers that are not finite are refused
        constant = replace(raw, probe=np.tensordot(mean, probe, axes=1))
    return constant, (probe[changing], deviations[:, changing]) if changing.any() else None


def _components(
    constant: RawScan,
    change: Change | None,
    probe: NDArray[np.complex64] | None,
    *,
    stored: Shape,
    window: Shape,
    shape: Shape,
) -> tuple[NDArray[np.complex64] | None, NDArray[np.float32] | None]:
    """Components of a probe that changes, at the scale of the mean, and their weights."""
    if change is None or probe is None:
        return None, None
    parts, deviations = change
    fitted = []
    brightest = np.abs(np.asarray(constant.probe)).max()
    for modes in (constant.probe, *parts):
        stored_modes, _ = _stored_modes(replace(constant, probe=modes), stored, shape)
        stored_modes /= brightest
        if stored_modes.shape[-2:] != shape:
            stored_modes = resample_probe(stored_modes, window, shape)
        fitted.append(stored_modes)
    mean, *components = fitted
    scale = float(np.linalg.norm(probe) / np.linalg.norm(mean))
    scaled = np.stack(components) * scale
    for name, values in (("components of the probe", scaled), ("weights of them", deviations)):
        if not np.abs(values).max() < np.finfo(np.float32).max:
            raise InputError(
                f"{constant.source}: the {name} are up to {np.abs(values).max():.2g}; expected "
                "numbers that float32 holds"
            )
    return scaled.astype(np.complex64), deviations.astype(np.float32)


def _stored_modes(
    raw: RawScan, stored: Shape, shape: Shape
) -> tuple[NDArray[np.complex128], list[str]]:
    """Probe modes as the file has them, of the size of the stored or of the kept patterns.

    Raises:
        InputError: If they have another size, or are no light.
    """
    probe, key, notes = np.asarray(raw.probe), raw.probe_key, []
    found = probe.shape
    if probe.ndim == 3 and probe.shape[:2] in (stored, shape) and probe.shape[2] == 1:
        probe = probe[..., 0]
    if probe.ndim == 4:
        if probe.shape[0] > 1:
            further = probe.shape[0] - 1
            notes.append(
                f"{key} varies over the scan; its {further} further components were left out"
            )
        probe = probe[0]
    sized = probe.ndim in (2, 3) and probe.shape[-2:] in (stored, shape)
    if probe.dtype.kind not in "iufc" or not sized:
        raise InputError(
            f"{raw.source}: {key} is {probe.dtype} of shape {found}; expected {stored} or "
            f"(modes, {stored[0]}, {stored[1]}), the size of the patterns"
        )
    modes = probe.reshape(-1, *probe.shape[-2:]).astype(np.complex128)
    if not np.isfinite(modes).all() or not modes.any():
        with np.errstate(over="ignore"):
            power = float(np.sum(np.abs(modes) ** 2))
        raise InputError(
            f"{raw.source}: {key} has a total power of {power}; expected finite values that are "
            "not all zero"
        )
    return modes, notes

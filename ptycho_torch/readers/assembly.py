"""From the content of a file to a `Scan`: the one door at which units, orientation and scale are settled."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptycho_torch.config import ReadingOptions
from ptycho_torch.errors import InputError
from ptycho_torch.patterns import Counts, PatternView
from ptycho_torch.readers.checks import check_index, check_mask, check_patterns, check_real, decide_values
from ptycho_torch.readers.conversion import (
    Binned,
    Cropped,
    Orientation,
    Oriented,
    Positive,
    Squares,
    Window,
    WithoutBad,
    WithoutDark,
    fold,
)
from ptycho_torch.readers.nearfield import refuse_near_field
from ptycho_torch.readers.recording import Recording
from ptycho_torch.scan import Instrument, Scan, focused_probe

AVERAGED = 1024  # patterns, which show the aperture as well as all do
SIGNS = {"none": (1, 1), "y": (-1, 1), "x": (1, -1), "both": (-1, -1)}  # (y, x) for --negate_positions


@dataclass(frozen=True)
class Measurement:
    """A recording in the units of the package, without an illumination.

    Attributes:
        counts: Photons, (N, H, W), zero frequency at ``[H // 2, W // 2]``.
        totals: Photons of each pattern on good pixels, (N,).
        mask: Good pixels, bool, (H, W).
        positions_px: Patch centres ``(y, x)`` in object pixels, (N, 2).
        scan_index: Identifiers of the exposures, (N,).
        pixel_size_m: Object pixel ``(y, x)``, where known.
        instrument: What is known of the experiment.
        stored_shape: ``(H, W)`` of the patterns before they were cropped and binned.
        window_shape: ``(H, W)`` of what was cropped, before it was binned.
        notes: What was concluded.
    """

    counts: Counts
    totals: NDArray[np.float64]
    mask: NDArray[np.bool_]
    positions_px: NDArray[np.float64]
    scan_index: NDArray[np.int64]
    pixel_size_m: tuple[float, float] | None
    instrument: Instrument
    stored_shape: tuple[int, int]
    window_shape: tuple[int, int]
    notes: tuple[str, ...]


def measure(recording: Recording, options: ReadingOptions) -> Measurement:
    """Patterns, mask and positions of a recording in the units of the package.

    Args:
        recording: From a reader.
        options: How the user wants it read.

    Raises:
        InputError: If the parts contradict each other, or an option does not fit.
    """
    where = f"{recording.source}: {recording.patterns_key}"
    stored = recording.patterns
    n = _check_shapes(where, recording)
    orientation = Orientation(options.transpose, options.flip_y, options.flip_x)
    height, width = orientation.apply(np.empty(stored.shape[1:], dtype=bool)).shape
    window, notes = find_window(recording, options, orientation, (height, width))
    mask = recording.mask if recording.mask is not None else np.ones(stored.shape[1:], dtype=bool)
    good: NDArray = orientation.apply(check_mask(f"{recording.source}: the mask", mask, stored.shape[1:]))
    view = _clean(recording, options, window, orientation)
    instrument = _instrument(recording, options, orientation)
    refuse_near_field(recording, instrument, options.bin)
    values = decide_values(where, view, stated=recording.values, told=options.diffraction)
    if values.unit is not None:
        check_patterns(where, view)
        view = Squares(view, values.unit, values.whole)
    good = window.apply(good)
    if options.bin > 1:
        good = np.asarray(fold(good, options.bin).all(axis=(-3, -1)))
        view = WithoutBad(Binned(view, options.bin), good)
    totals = check_patterns(where, view)
    counts = view[:] if isinstance(stored, np.ndarray) and isinstance(view, PatternView) else view
    pixel = _pixel_size(recording, options, instrument, (height, width), window.size)
    return Measurement(
        counts=counts,
        totals=totals,
        mask=check_mask(f"{recording.source}: the mask", good, good.shape),
        positions_px=_positions(recording, options, pixel, (height, width), window.size),
        scan_index=check_index(f"{recording.source}: the index of the exposures", recording.scan_index, n),
        pixel_size_m=pixel,
        instrument=instrument,
        stored_shape=(height, width),
        window_shape=window.size,
        notes=(*recording.notes, values.reason, *notes),
    )


def assemble(recording: Recording, options: ReadingOptions) -> Scan:
    """The scan of a recording; without a probe in the file, with one in focus that is marked as not known.

    Raises:
        InputError: If the parts contradict each other.
    """
    measured = measure(recording, options)
    photons = float(measured.totals.mean())
    notes: list[str] = []
    if recording.probe is None:
        probe = focused_probe(mean_pattern(measured))
        found = f"key '{recording.probe_key}' is missing" if recording.probe_key else "this format has no probe"
        said = f"{found}; give one with --probe FILE if there is one"
    else:
        probe, scale, notes = scale_probe(recording, measured, photons)
        said = (
            f"{recording.probe_key} was multiplied by {scale:.6g}, so that it carries the {photons:.6g} photons of a mean pattern"
        )
    return Scan(
        counts=measured.counts,
        positions_px=measured.positions_px,
        probe=probe,
        mask=measured.mask,
        scan_index=measured.scan_index,
        pixel_size_m=measured.pixel_size_m,
        instrument=measured.instrument,
        source=recording.source,
        decisions=(*measured.notes, *notes, said),
        probe_known=recording.probe is not None,
    )


def mean_pattern(measured: Measurement) -> NDArray[np.float64]:
    """Mean of some patterns from all over the scan, on good pixels, with the photons of all, (H, W)."""
    n = len(measured.totals)
    chosen = np.unique(np.linspace(0, n - 1, min(n, AVERAGED)).round().astype(int))
    mean = np.asarray(measured.counts[chosen], dtype=np.float64).mean(axis=0) * measured.mask
    total: float = mean.sum()
    return mean * (measured.totals.mean() / total)


def _check_shapes(where: str, recording: Recording) -> int:
    """The number of patterns, which is that of the positions."""
    shape, dtype = recording.patterns.shape, recording.patterns.dtype
    if len(shape) != 3 or 0 in shape or dtype.kind not in "biuf":
        raise InputError(f"{where} is {dtype} of shape {shape}; expected real numbers of shape (n, H, W)")
    if len(recording.positions) != shape[0]:
        raise InputError(
            f"{where} has {shape[0]} patterns but there are {len(recording.positions)} positions; expected equal numbers"
        )
    return shape[0]


def _clean(recording: Recording, options: ReadingOptions, window: Window, orientation: Orientation) -> Counts:
    """The patterns without what the detector added, as they are to lie, and the part of them that is wanted."""
    view = recording.patterns
    shape = view.shape[1:]
    if recording.dark is not None:
        dark = check_real(f"{recording.source}: the dark frame", recording.dark, shape)
        view = WithoutDark(view, dark)
    elif recording.negative_is_zero and view.dtype.kind != "u":
        view = Positive(view)
    if recording.mask is not None and not recording.mask.all():
        view = WithoutBad(view, recording.mask)
    if orientation != Orientation():
        view = Oriented(view, orientation)
    if window != Window((0, 0), (view.shape[1], view.shape[2])):
        view = Cropped(view, window)
    return view


def find_window(
    recording: Recording, options: ReadingOptions, orientation: Orientation, shape: tuple[int, int]
) -> tuple[Window, list[str]]:
    """The part of the detector to keep, with zero frequency at its ``[H // 2, W // 2]``, and what was concluded.

    Args:
        recording: Its ``center`` is in the frame of the stored patterns.
        options: Its ``center`` is too, and comes first.
        orientation: How the patterns are to lie.
        shape: Of the patterns as they are to lie.
    """
    size = (options.crop, options.crop) if options.crop is not None else shape
    if size[0] > shape[0] or size[1] > shape[1]:
        raise InputError(f"{recording.source}: --crop {options.crop} is larger than the patterns of {shape[0]}x{shape[1]} pixels")
    if size[0] % options.bin or size[1] % options.bin:
        raise InputError(
            f"{recording.source}: --bin {options.bin} does not divide the {size[0]}x{size[1]} pixels; add --crop with a multiple"
        )
    notes = []
    stated = options.beam_center() or recording.center
    center = (shape[0] // 2, shape[1] // 2)
    if stated is not None:
        moved = orientation.move(stated, (recording.patterns.shape[1], recording.patterns.shape[2]))
        center = (round(moved[0]), round(moved[1]))
        if not (0 <= center[0] < shape[0] and 0 <= center[1] < shape[1]):
            raise InputError(
                f"{recording.source}: the centre ({stated[0]:g}, {stated[1]:g}) lies outside the patterns of "
                f"{shape[0]}x{shape[1]} pixels; give it as --center y,x"
            )
    window = Window((center[0] - size[0] // 2, center[1] - size[1] // 2), size)
    if center != (shape[0] // 2, shape[1] // 2):
        notes.append(f"patterns were moved so that their centre ({center[0]}, {center[1]}) is in the middle")
    if options.crop is not None or options.bin > 1:
        notes.append(f"patterns were cropped to {size[0]}x{size[1]} and binned {options.bin}x{options.bin}")
    return window, notes


def _instrument(recording: Recording, options: ReadingOptions, orientation: Orientation) -> Instrument:
    """What is known of the experiment, for patterns as they are to be; what the user states comes first."""
    known = recording.instrument
    pixel = orientation.swap(known.detector_pixel_m) if known.detector_pixel_m else None
    if options.detector_pixel_m is not None:
        pixel = (options.detector_pixel_m, options.detector_pixel_m)
    return Instrument(
        energy_ev=options.energy_ev if options.energy_ev is not None else known.energy_ev,
        distance_m=options.distance_m if options.distance_m is not None else known.distance_m,
        detector_pixel_m=(pixel[0] * options.bin, pixel[1] * options.bin) if pixel else None,
    )


def _pixel_size(
    recording: Recording,
    options: ReadingOptions,
    instrument: Instrument,
    stored: tuple[int, int],
    window: tuple[int, int],
) -> tuple[float, float] | None:
    """Object pixel of the patterns as they are to be: it grows as they are cropped, and not as they are binned."""
    if options.pixel_size_m is not None:
        return options.pixel_size_m, options.pixel_size_m
    if recording.object_pixel_m is not None:
        return tuple(size * have / keep for size, have, keep in zip(recording.object_pixel_m, stored, window, strict=True))  # type: ignore[return-value]
    return instrument.object_pixel_m((window[0] // options.bin, window[1] // options.bin))


def _positions(
    recording: Recording,
    options: ReadingOptions,
    pixel: tuple[float, float] | None,
    stored: tuple[int, int],
    window: tuple[int, int],
) -> NDArray[np.float64]:
    """Patch centres in object pixels."""
    positions = check_real(f"{recording.source}: the positions", recording.positions, (None, 2))
    if options.swap_xy:
        positions = positions[:, ::-1]
    positions = positions * SIGNS[options.negate_positions]
    if recording.positions_unit == "px":
        return positions * (np.array(window) / np.array(stored))
    if pixel is None:
        raise InputError(
            f"{recording.source}: positions are in metres and the object pixel is not known; "
            "give --pixel_size_m, or --energy_ev, --distance_m and --detector_pixel_m"
        )
    return positions / np.array(pixel)


def scale_probe(recording: Recording, measured: Measurement, photons: float) -> tuple[NDArray[np.complex64], float, list[str]]:
    """Probe modes (M, H, W) that carry ``photons``, the factor that was applied, and what was concluded."""
    stored = measured.stored_shape
    shape = (measured.counts.shape[1], measured.counts.shape[2])
    probe, key, notes = np.asarray(recording.probe), recording.probe_key, []
    found = probe.shape
    if probe.ndim == 3 and probe.shape[:2] in (stored, shape) and probe.shape[2] == 1:
        probe = probe[..., 0]
    if probe.ndim == 4:
        if probe.shape[0] > 1:
            notes.append(f"{key} varies over the scan; its {probe.shape[0] - 1} further components were left out")
        probe = probe[0]
    if probe.dtype.kind not in "iufc" or probe.ndim not in (2, 3) or probe.shape[-2:] not in (stored, shape):
        raise InputError(
            f"{recording.source}: {key} is {probe.dtype} of shape {found}; expected {stored} or "
            f"(modes, {stored[0]}, {stored[1]}), the size of the patterns"
        )
    modes = probe.reshape(-1, *probe.shape[-2:]).astype(np.complex128)
    if not np.isfinite(modes).all() or not modes.any():
        power = float(np.sum(np.abs(modes) ** 2))
        raise InputError(f"{recording.source}: {key} has a total power of {power}; expected finite values that are not all zero")
    if modes.shape[-2:] != shape:
        modes = resample_probe(modes, measured.window_shape, shape)
        notes.append(f"{key} was fitted to the patterns of {shape[0]}x{shape[1]} pixels")
    scale = float(np.sqrt(photons / np.sum(np.abs(modes) ** 2)))
    return (modes * scale).astype(np.complex64), scale, notes


def resample_probe(modes: NDArray[np.complex128], window: tuple[int, int], shape: tuple[int, int]) -> NDArray[np.complex128]:
    """A probe for cropped and binned patterns.

    Cropping the detector takes high spatial frequencies away, so that the pixels of the object
    grow; binning it narrows the field of view, which keeps the middle of the probe.

    Args:
        modes: (M, H, W).
        window: What is kept of the detector, ``(H, W)``.
        shape: The same after binning.

    Returns:
        (M, *shape), at a scale of its own.
    """
    axes = (-2, -1)
    spectrum = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(modes, axes=axes)), axes=axes)
    spectrum = _middle(window, modes.shape[-2:]).apply(spectrum)
    small = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(spectrum, axes=axes)), axes=axes)
    return _middle(shape, window).apply(small)


def _middle(size: tuple[int, int], full: tuple[int, ...]) -> Window:
    """The window around the zero frequency of a larger image."""
    return Window((full[0] // 2 - size[0] // 2, full[1] // 2 - size[1] // 2), size)

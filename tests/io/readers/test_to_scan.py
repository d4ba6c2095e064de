"""What a scan is made of, from the content of a file and from what the user says of it.

The content is made here, with every part that a file can have; what is expected is computed by
NumPy from its definition.
"""

import dataclasses

import numpy as np
import pytest

from ptycho_torch.config import ReadingOptions
from ptycho_torch.data.detector import Orientation
from ptycho_torch.data.lazy_patterns import SelectedPatterns
from ptycho_torch.data.probe import resample_probe
from ptycho_torch.data.scan import Instrument
from ptycho_torch.data.wavelength import energy_of
from ptycho_torch.errors import InputError
from ptycho_torch.io.readers import checks
from ptycho_torch.io.readers.checks import (
    INTEGER_TOLERANCE,
    LARGEST_SMALL_COUNT,
    check_index,
    check_mask,
    check_patterns,
    check_real,
    check_size,
    count_unit,
    decide_values,
)
from ptycho_torch.io.readers.nearfield import fresnel_number, is_near_field, near_field_pixel
from ptycho_torch.io.readers.raw_scan import RawScan
from ptycho_torch.io.readers.to_scan import find_window, separate_change, to_scan

N, SHAPE = 5, (12, 10)
RNG = np.random.default_rng(1)
COUNTS = RNG.integers(10, 60, (N, *SHAPE)).astype(np.int32)
PIXEL_M = (2e-8, 3e-8)
KNOWN = Instrument(8000.0, 1.2, (50e-6, 70e-6))
PROBE = RNG.normal(size=(2, *SHAPE)) + 1j * RNG.normal(size=(2, *SHAPE))


def content(**changed):
    positions = np.array([[1.0, 7.0], [2.0, 5.5], [3.0, 9.0], [4.0, 6.5], [6.0, 8.0]])
    given = RawScan("a.file", COUNTS, "there", "counts", positions, "px", probe=PROBE)
    return dataclasses.replace(given, **changed)


def scan_of(raw, **options):
    return to_scan(raw, ReadingOptions(**options))


def test_patterns_are_cleaned_turned_cropped_and_binned_in_this_order():
    mask = np.ones(SHAPE, dtype=bool)
    mask[3, 4] = mask[8, 2] = False
    dark = RNG.uniform(0, 20, SHAPE)
    raw = content(mask=mask, dark=dark, center=(7.0, 4.0), probe=None)
    scan = scan_of(raw, transpose=True, flip_x=True, crop=8, bin=2)
    clean = np.maximum(COUNTS - dark.astype(np.float32), 0) * mask
    # of (12, 10), transposed (10, 12): the centre (7, 4) comes to (4, 7), and flipped to (4, 4)
    turned = clean.swapaxes(1, 2)[:, :, ::-1][:, :8, :8]
    good = mask.T[:, ::-1][:8, :8].reshape(4, 2, 4, 2).all(axis=(1, 3))
    binned = turned.reshape(N, 4, 2, 4, 2).sum(axis=(2, 4)) * good
    assert np.array_equal(scan.mask, good)
    assert not good.all()
    assert np.allclose(scan.counts[:], binned)
    assert scan.decisions[:3] == (
        "patterns were read as photon counts, as the format has them",
        "patterns were moved so that their centre (4, 4) is in the middle",
        "patterns were cropped to 8x8 and binned 2x2",
    )


def test_values_below_zero_are_set_to_zero_where_that_is_said():
    negative = COUNTS - 30
    for said in ({"negative_is_zero": True}, {}):
        raw = content(patterns=negative, **said)
        scan = scan_of(raw, clip_negative=not said)
        assert np.array_equal(scan.counts[:], np.maximum(negative, 0))
    with pytest.raises(InputError, match=r"a.file: there holds \d+ negative values"):
        scan_of(content(patterns=negative))


def test_patterns_stay_where_they_are():
    """In memory as an array, also where they change; in a file as a view of it."""
    assert scan_of(content()).counts is COUNTS
    assert isinstance(scan_of(content(), crop=8).counts, np.ndarray)
    stored = SelectedPatterns(COUNTS, np.arange(N))
    assert scan_of(content(patterns=stored)).counts is stored
    assert not isinstance(scan_of(content(patterns=stored), crop=8).counts, np.ndarray)


@pytest.mark.parametrize("center", [None, (6.0, 5.0)])
def test_a_scan_that_needs_nothing_stays_as_it_is(center):
    index = np.array([3, 4, 7, 9, 12])
    scan = scan_of(content(center=center, scan_index=index, notes=("said before",)))
    assert np.array_equal(scan.scan_index, index)
    assert scan.mask.all()
    assert scan.mask.shape == SHAPE
    assert scan.source == "a.file"
    said, counts, probe = scan.decisions
    assert said == "said before"
    assert counts == "patterns were read as photon counts, as the format has them"
    assert probe.startswith(" was multiplied by")
    assert np.array_equal(scan_of(content()).scan_index, np.arange(N))


@pytest.mark.parametrize(
    ("options", "corner"),
    [
        ({}, (1, 0)), ({"center": "6,5"}, (0, 0)), ({"flip_y": True}, (-2, 0)),
        ({"flip_x": True}, (1, -1)), ({"crop": 4}, (5, 3)), ({"transpose": True}, (0, 1)),
        ({"transpose": True, "flip_y": True}, (-1, 1)),
    ],
)  # fmt: skip
def test_the_centre_of_the_beam_comes_to_the_middle(options, corner):
    """The user's comes first; the file has (7, 5)."""
    given = ReadingOptions(**options)
    orientation = Orientation(given.transpose, given.flip_y, given.flip_x)
    shape = SHAPE[::-1] if given.transpose else SHAPE
    window, notes = find_window(content(center=(7.0, 5.0)), given, orientation, shape)
    assert window.corner == corner
    assert window.size == ((4, 4) if given.crop else shape)
    moved = [note for note in notes if "were moved" in note]
    assert bool(moved) is (given.center is None)
    assert bool([note for note in notes if "cropped" in note]) is bool(given.crop)


@pytest.mark.parametrize("center", [(-1, 5), (12, 5), (5, -1), (5, 10)])
def test_a_centre_outside_the_patterns_is_refused(center):
    with pytest.raises(InputError, match="lies outside the patterns of 12x10"):
        scan_of(content(center=tuple(map(float, center))))
    inside = tuple(
        float(np.clip(one, 0, size - 1)) for one, size in zip(center, SHAPE, strict=True)
    )
    assert scan_of(content(center=inside))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": 11}, "--crop 11 is larger than the patterns of 12x10"),
        ({"bin": 4}, "--bin 4 does not divide the 12x10"),
        ({"bin": 5}, "--bin 5 does not divide the 12x10"),
    ],
)
def test_a_window_that_does_not_fit_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        scan_of(content(), **options)
    assert scan_of(content(), crop=10)
    assert scan_of(content(), bin=2)


def test_the_experiment_is_that_of_the_file_for_the_kept_patterns():
    raw = content(instrument=KNOWN, probe=None)
    assert scan_of(raw).instrument == KNOWN
    assert scan_of(raw, transpose=True).instrument.detector_pixel_m == (70e-6, 50e-6)
    assert scan_of(raw, bin=2).instrument.detector_pixel_m == pytest.approx((100e-6, 140e-6))
    told = scan_of(raw, energy_ev=9000, distance_m=2, detector_pixel_m=1e-4, bin=2).instrument
    assert told == Instrument(9000, 2, (2e-4, 2e-4))
    assert scan_of(content()).instrument == Instrument()


@pytest.mark.parametrize("stated", [True, False])
def test_another_radiation_keeps_the_wavelength_that_the_file_states(stated):
    raw = content(instrument=KNOWN, wavelength_stated=stated)
    found = scan_of(raw, radiation="electrons").instrument
    assert found.radiation == "electrons"
    energy = energy_of(KNOWN.wavelength_m, "electrons") if stated else KNOWN.energy_ev
    assert found.energy_ev == pytest.approx(energy)
    assert scan_of(raw, radiation="photons").instrument == KNOWN
    told = scan_of(raw, radiation="electrons", energy_ev=1e5).instrument
    assert told.energy_ev == 1e5


@pytest.mark.parametrize("name", ["energy_ev", "distance_m", "detector_pixel_m"])
def test_a_size_of_the_file_that_cannot_be_is_refused_with_its_flag(name):
    for value in (0.0, 1e30, float("nan")):
        wrong = (50e-6, value) if name == "detector_pixel_m" else value
        raw = content(instrument=dataclasses.replace(KNOWN, **{name: wrong}))
        with pytest.raises(InputError, match=f"give the right one with --{name}"):
            scan_of(raw)


def test_the_object_pixel_is_the_users_or_the_files_or_that_of_the_experiment():
    raw = content(object_pixel_m=PIXEL_M, instrument=KNOWN)
    assert scan_of(raw).pixel_size_m == pytest.approx(PIXEL_M)
    assert scan_of(raw, crop=6).pixel_size_m == pytest.approx((4e-8, 3e-8 * 10 / 6))
    assert scan_of(raw, bin=2).pixel_size_m == pytest.approx(PIXEL_M)
    assert scan_of(raw, pixel_size_m=1e-8, crop=6).pixel_size_m == (1e-8, 1e-8)
    raw = content(instrument=KNOWN)
    reach = KNOWN.wavelength_m * 1.2
    for options, size in (({}, SHAPE), ({"crop": 6}, (6, 6)), ({"bin": 2}, SHAPE)):
        found = scan_of(raw, **options).pixel_size_m
        assert found == pytest.approx((reach / (size[0] * 50e-6), reach / (size[1] * 70e-6)))
    assert scan_of(content()).pixel_size_m is None


def test_positions_are_in_pixels_of_the_kept_patterns():
    raw = content()
    given = raw.positions
    for options, expected in (
        ({}, given), ({"positions_from": "center"}, given + 0.5),
        ({"positions_from": "corner"}, given), ({"crop": 6}, given * (0.5, 0.6)),
        ({"swap_xy": True}, given[:, ::-1]), ({"negate_positions": "y"}, given * (-1, 1)),
        ({"negate_positions": "x"}, given * (1, -1)), ({"negate_positions": "both"}, -given),
        ({"swap_xy": True, "negate_positions": "y"}, given[:, ::-1] * (-1, 1)),
    ):  # fmt: skip
        assert np.allclose(scan_of(raw, **options).positions_px, expected)
    centred = content(positions_from="center")
    assert np.allclose(scan_of(centred, crop=6).positions_px, (given + 0.5) * (0.5, 0.6))
    assert np.allclose(scan_of(centred, positions_from="corner").positions_px, given)
    metric = content(positions=given * 1e-8, positions_unit="m", object_pixel_m=PIXEL_M)
    assert np.allclose(scan_of(metric).positions_px, given * (0.5, 1 / 3))
    with pytest.raises(InputError, match="--positions_from is for object pixels"):
        scan_of(metric, positions_from="center")
    with pytest.raises(InputError, match="the object pixel is not known"):
        scan_of(content(positions=given * 1e-8, positions_unit="m"))


def test_a_probe_has_the_photons_of_a_mean_pattern_in_any_shape():
    photons = COUNTS.sum() / N
    scaled = PROBE * np.sqrt(photons / np.sum(np.abs(PROBE) ** 2))
    one = PROBE[:1] * np.sqrt(photons / np.sum(np.abs(PROBE[:1]) ** 2))
    for stored, expected in (
        (PROBE, scaled), (PROBE[None], scaled), (PROBE[0], one), (PROBE[0][..., None], one),
        (np.stack([PROBE, 3 * PROBE]), scaled), (1e200 * PROBE, scaled), (1e-200 * PROBE, scaled),
    ):  # fmt: skip
        scan = scan_of(content(probe=stored, probe_key="light"))
        assert scan.probe.dtype == np.complex64
        assert np.allclose(scan.probe, expected, rtol=1e-5)
        more = "light varies over the scan; its 1 further components were left out"
        assert (more in scan.decisions) is (stored.ndim == 4 and len(stored) == 2)
    scale = np.sqrt(photons / np.sum(np.abs(PROBE) ** 2))
    assert scan_of(content(probe_key="light")).decisions[-1] == (
        f"light was multiplied by {scale:.6g}, so that it carries the {photons:.6g} photons of a "
        "mean pattern"
    )


@pytest.mark.parametrize(("crop", "bins"), [(8, 1), (8, 2), (None, 2)])
def test_a_probe_is_fitted_to_the_kept_patterns(crop, bins):
    """One of the stored size; one of the kept size stays as it is."""
    window = (crop, crop) if crop else SHAPE
    shape = tuple(size // bins for size in window)
    raw = content(probe_key="light")
    scan = scan_of(raw, crop=crop, bin=bins)
    expected = resample_probe(PROBE, window, shape)
    expected *= np.linalg.norm(scan.probe) / np.linalg.norm(expected)
    assert np.allclose(scan.probe, expected, rtol=1e-4, atol=1e-4)
    photons = float(scan.pattern_totals().mean())
    assert np.sum(np.abs(scan.probe) ** 2) == pytest.approx(photons, rel=1e-5)
    note = f"light was fitted to the patterns of {shape[0]}x{shape[1]} pixels"
    assert note in scan.decisions
    kept = RNG.normal(size=(1, *shape)) + 0j
    scan = scan_of(content(probe=kept, probe_key="light"), crop=crop, bin=bins)
    assert np.allclose(scan.probe, kept * np.linalg.norm(scan.probe) / np.linalg.norm(kept))
    assert note not in scan.decisions


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        (np.ones((7, 10)), r"expected \(12, 10\) or \(modes, 12, 10\)"),
        (np.ones((2, 12, 7)), "the size of the patterns"),
        (np.ones(120), "the size of the patterns"),
        (np.ones(SHAPE, dtype=bool), "light is bool"),
        (np.zeros(SHAPE), "total power of 0.0"),
        (np.full(SHAPE, np.nan), "total power of nan"),
        (np.full(SHAPE, 1e-320), "so small that its digits are lost"),
    ],
)
def test_a_probe_that_is_none_is_refused(probe, message):
    with pytest.raises(InputError, match=message):
        scan_of(content(probe=probe, probe_key="light"))


@pytest.mark.parametrize(
    ("key", "said"), [("light", "key 'light' is missing"), ("", "this format has no probe")]
)
def test_a_file_without_a_probe_says_so(key, said):
    scan = scan_of(content(probe=None, probe_key=key))
    assert scan.probe is None
    assert scan.decisions[-1] == f"{said}; give one with --probe FILE if there is one"


@pytest.mark.parametrize("crop", [None, 8])
def test_a_probe_that_changes_is_its_mean_and_what_deviates_from_it(crop):
    """Three parts, of which the second has the same weight everywhere."""
    parts = np.stack([PROBE, 0.5j * PROBE[::-1], 0.1 * PROBE.conj()])
    weights = RNG.normal(size=(N, 3))
    weights[:, 1] = 0.5
    raw = content(probe=parts, probe_weights=weights, probe_key="light")
    scan = scan_of(raw, crop=crop)
    assert scan.probe_components.shape[0] == 2
    assert scan.probe_weights.dtype == np.float32
    assert np.allclose(scan.probe_weights.mean(axis=0), 0, atol=1e-6)
    each = np.tensordot(weights, parts, axes=1)  # (n, M, H, W)
    if crop:
        each = np.stack([resample_probe(one, (8, 8), (8, 8)) for one in each])
    found = scan.probe + np.tensordot(scan.probe_weights, scan.probe_components, axes=1)
    factor = np.vdot(each, found) / np.vdot(each, each)
    assert np.allclose(found, factor * each, rtol=1e-4, atol=1e-3)
    photons = float(scan.pattern_totals().mean())
    assert np.sum(np.abs(scan.probe) ** 2) == pytest.approx(photons, rel=1e-5)
    constant = scan_of(dataclasses.replace(raw, probe_weights=np.ones((N, 3))))
    assert (constant.probe_components, constant.probe_weights) == (None, None)
    none = content(probe=None, probe_weights=weights)
    assert separate_change(none) == (none, None)
    for wrong in ({"probe": PROBE}, {"probe_weights": weights[:, :2]}):
        with pytest.raises(InputError, match=r"expected \(C, M, H, W\) and \(n, C\)"):
            separate_change(dataclasses.replace(raw, **wrong))


def test_numbers_of_patterns_and_positions_are_equal():
    with pytest.raises(InputError, match="has 5 patterns but there are 4 positions"):
        scan_of(content(positions=np.ones((4, 2))))
    for wrong in (COUNTS[0], COUNTS[:0], COUNTS[:, :0], COUNTS.astype(complex)):
        with pytest.raises(InputError, match=r"expected real numbers of shape \(n, H, W\)"):
            scan_of(content(patterns=wrong))
    assert scan_of(content(patterns=COUNTS > 20)).counts.dtype == bool


def test_a_dark_frame_that_is_none_is_refused():
    for wrong, message in (
        (np.ones((3, 3)), "the dark frame is"),
        (np.full(SHAPE, 1e31), "the dark frame holds 1e"),
        (np.full(SHAPE, -1e31), "the dark frame holds"),
    ):
        with pytest.raises(InputError, match=message):
            scan_of(content(dark=wrong))


# Near field.


NEAR = Instrument(17000.0, 4.0, (1e-6, 2e-6))


def number(raw, instrument=NEAR, **options):
    return fresnel_number(raw, ReadingOptions(**options), instrument)


def test_the_fresnel_number_is_that_of_an_object_pixel():
    raw = content(far_field=False)
    reach = NEAR.reach_m2
    for stated, options, pixel in (
        (None, {}, (1e-6, 2e-6)), ((3e-6, 4e-6), {}, (3e-6, 4e-6)),
        ((3e-6, 4e-6), {"pixel_size_m": 5e-6}, (5e-6, 5e-6)),
    ):  # fmt: skip
        one = dataclasses.replace(raw, object_pixel_m=stated)
        assert near_field_pixel(one, ReadingOptions(**options), NEAR) == pixel
        instrument = dataclasses.replace(NEAR, distance_m=0.05)
        found = number(one, instrument, **options)
        assert found == pytest.approx([side**2 / (reach * 0.05 / 4) for side in pixel])
    near = dataclasses.replace(NEAR, distance_m=0.05)
    assert number(raw, near, propagator="far_field") is None
    assert number(content(), Instrument()) is None
    assert number(content(far_field=True), near, propagator="near_field") is not None
    for options in ({"crop": 8}, {"bin": 2}):
        with pytest.raises(InputError, match="leave --crop and --bin out"):
            number(raw, near, **options)
    for gone in ("energy_ev", "distance_m", "detector_pixel_m"):
        with pytest.raises(InputError, match="their propagator needs --energy_ev"):
            number(raw, dataclasses.replace(near, **{gone: None}))


@pytest.mark.parametrize(("axis", "size"), [(0, 12), (1, 10)])
def test_light_that_crosses_the_whole_detector_is_refused(axis, size):
    """Where the Fresnel number of the detector's width is below one."""
    reach = NEAR.reach_m2
    for factor in (0.99, 1.01):
        pixel = [1e-3, 1e-3]
        pixel[axis] = float(np.sqrt(factor * reach / size))
        raw = content(far_field=False, object_pixel_m=tuple(pixel))
        if factor > 1:
            assert number(raw)
        else:
            with pytest.raises(InputError, match="light crosses the whole detector"):
                number(raw)


def test_numbers_and_light_tell_the_near_field():
    """A beam of a Fresnel number above 1 that lights the border."""
    lit = content(patterns=np.ones((N, *SHAPE)))
    dark = np.zeros((N, *SHAPE))
    dark[:, 6, 5] = 1.0
    limit = float(np.sqrt(NEAR.reach_m2))
    for pixel, patterns, binning, near in (
        (0.9 * limit, lit.patterns, 1, True), (1.1 * limit, lit.patterns, 1, False),
        (0.9 * limit, dark, 1, False), (1.9 * limit, lit.patterns, 2, True),
    ):  # fmt: skip
        for pair in ((pixel, 9 * limit), (9 * limit, pixel)):
            instrument = dataclasses.replace(NEAR, detector_pixel_m=pair)
            raw = dataclasses.replace(lit, patterns=patterns)
            assert is_near_field(raw, instrument, binning) is near
            assert is_near_field(dataclasses.replace(raw, far_field=False), instrument, 1)
    assert not is_near_field(lit, Instrument(17000.0, 4.0), 1)
    assert not is_near_field(lit, Instrument(17000.0, None, (1e-6, 1e-6)), 1)


# Checks.


def test_sums_of_patterns_are_those_of_all_and_what_is_none_is_counted():
    patterns = COUNTS.astype(np.float64)
    assert np.array_equal(check_patterns("here", patterns), patterns.sum(axis=(1, 2)))
    spoiled = patterns.copy()
    spoiled[0, 1, 2], spoiled[3, 0, :2] = np.nan, np.inf
    with pytest.raises(InputError, match="here holds 3 values that are not finite"):
        check_patterns("here", spoiled)
    spoiled = COUNTS.copy()
    spoiled[1, :2, 3] = -1
    with pytest.raises(InputError, match="here holds 2 negative values"):
        check_patterns("here", spoiled)
    with pytest.raises(InputError, match="here: all patterns are all zero"):
        check_patterns("here", 0 * patterns)
    for scale in (1e31, 1e-40):
        with pytest.raises(InputError, match="the sum of a pattern is"):
            check_patterns("here", scale * patterns)
    with pytest.raises(InputError, match="the sum of a pattern is"):
        check_patterns("here", patterns, largest=float(patterns.sum(axis=(1, 2)).max()))


AMPLITUDES = np.sqrt(COUNTS)


@pytest.mark.parametrize(
    ("patterns", "stated", "told", "unit", "whole", "reason"),
    [
        (COUNTS, "counts", "auto", None, True, "as the format has them"),
        (AMPLITUDES, "amplitude", "counts", None, True, "photon counts, as told"),
        (COUNTS, "unknown", "counts", None, True, "photon counts, as told"),
        (COUNTS, "unknown", "auto", None, True, "are whole numbers: read as photon counts"),
        (COUNTS.astype(float), "unknown", "auto", None, True, "are whole numbers"),
        (AMPLITUDES, "unknown", "auto", 1.0, True, "whole multiples of 1: read as amplitudes"),
        (2 * AMPLITUDES, "amplitude", "auto", 4.0, True, "whole multiples of 4"),
        (AMPLITUDES, "counts", "amplitude", 1.0, True, "whole multiples of 1"),
        (COUNTS**0.7, "amplitude", "auto", 1.0, False, "amplitudes, as the format has them"),
        (COUNTS**0.7, "unknown", "amplitude", 1.0, False, "read as amplitudes, as told"),
    ],
)  # fmt: skip
def test_patterns_are_counts_or_amplitudes(patterns, stated, told, unit, whole, reason):
    patterns = np.concatenate([patterns, np.broadcast_to(patterns[:1] * 0 + 1, patterns[:1].shape)])
    if unit == 4.0:
        patterns[-1] = 2.0
    found = decide_values("here", patterns, stated=stated, told=told)
    assert found.unit == (None if unit is None else pytest.approx(unit))
    assert found.whole is whole
    assert reason in found.reason


def test_values_that_tell_nothing_are_refused():
    with pytest.raises(InputError, match="say which with --diffraction"):
        decide_values("here", COUNTS**0.7, stated="unknown", told="auto")
    large = AMPLITUDES * checks.LARGEST_AMPLITUDE
    with pytest.raises(InputError, match="expected amplitudes of photons"):
        decide_values("here", large, stated="amplitude", told="auto")


def test_the_unit_of_whole_numbers_is_one_photon():
    whole = np.array([0, 1, 2, 3, 5, 900, 0, 7])
    assert count_unit(0.25 * whole) == pytest.approx(0.25)
    assert count_unit(np.append(0.25 * whole, [np.inf, np.nan])) == pytest.approx(0.25)
    rounded = whole * (1 + 1e-4 * (-1.0) ** np.arange(8))
    assert count_unit(rounded) == pytest.approx(1, rel=1e-3)
    assert count_unit(whole + 0.0) == 1
    assert count_unit(whole + 2 * INTEGER_TOLERANCE * (whole > 2)) is None
    assert count_unit(np.zeros(5)) is None
    assert count_unit(np.array([2.0, 2.0, 0.0])) is None  # one value tells no unit
    assert count_unit(np.array([2.0, 4.0])) == 2
    # counts that float32 amplitudes do not tell apart say nothing
    beyond = np.array([1.0, 2.0, LARGEST_SMALL_COUNT + 0.5])
    assert count_unit(beyond) == 1


def test_numbers_of_a_shape_are_told_from_others():
    values = np.arange(6, dtype=np.int16).reshape(2, 3)
    for shape in ((2, 3), (None, 3), (2, None), (None, None)):
        found = check_real("here", values, shape)
        assert np.array_equal(found, values)
        assert found.dtype == np.float64
    for shape, wanted in (
        ((3, 3), r"\(3, 3\)"),
        ((None,), r"\(n,\)"),
        ((2, 3, None), r"\(2, 3, n\)"),
    ):
        with pytest.raises(InputError, match=f"here is int16 of shape .* of shape {wanted}"):
            check_real("here", values, shape)
    with pytest.raises(InputError, match="expected real numbers"):
        check_real("here", values.astype(complex), (2, 3))
    spoiled = values.astype(float)
    spoiled[0, :2] = np.inf
    with pytest.raises(InputError, match="here holds 2 values that are not finite"):
        check_real("here", spoiled, (2, 3))


def test_sizes_masks_and_indices_are_checked(monkeypatch):
    monkeypatch.setattr(checks, "MAX_ARRAY_BYTES", 48)
    check_size("here", np.dtype(np.float64), (2, 3))
    with pytest.raises(InputError, match=r"here is float64 of shape \(7, 1\)"):
        check_size("here", np.dtype(np.float64), (7, 1))
    mask = np.zeros((2, 3), dtype=bool)
    with pytest.raises(InputError, match="here marks every pixel"):
        check_mask("here", mask, (2, 3))
    mask[1, 1] = True
    assert check_mask("here", mask, (2, 3)) is mask
    with pytest.raises(InputError, match=r"expected shape \(3, 2\)"):
        check_mask("here", mask, (3, 2))
    assert np.array_equal(check_index("here", None, 3), [0, 1, 2])
    found = check_index("here", np.array([4.0, -2.0, 2.0**62]), 3)
    assert found.tolist() == [4, -2, 2**62]
    assert found.dtype == np.int64
    for wrong in ([1, 2], [1, 2, 2.5], [1, 2, 2.0**63], [-(2.0**63), 1, 2], ["a", "b", "c"]):
        with pytest.raises(InputError, match="expected 3 whole numbers"):
            check_index("here", np.array(wrong), 3)

"""Checks of positions, index, probe and experiment: units, overlap, order, agreement."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ptycho_torch.data.conditions import median_step_px
from ptycho_torch.data.probe import beam_diameter, ring_centroid, ring_offset
from ptycho_torch.data.scan import Instrument, Scan
from ptycho_torch.doctor.findings import ERROR, INFO, OK, WARNING, Finding, Sample
from ptycho_torch.doctor.lost_positions import lost_positions, say_lost
from ptycho_torch.doctor.pattern_checks import CORNER
from ptycho_torch.physics.forward import diffraction_intensity
from ptycho_torch.physics.propagation import propagator_of

LEAST_SPAN_PX = 2.0  # a scan moves farther
LEAST_OVERLAP = 0.0  # of the beam's diameter; below, neighbours do not touch
GOOD_OVERLAP = 0.4  # the field's rule of thumb is 60 %
BEAM_SHARE = 0.9  # of the photons, inside the diameter of the beam
# Correlation of the mean pattern with that of the probe alone; unrelated ones are near 0.
RELATED = 0.3
FLAT = 1e-6  # relative spread of a picture; below is the rounding of float32
PIXEL_TOLERANCE = 0.02  # relative difference of the stated object pixel and that of the experiment
TELLING = 50.0  # photons of a pattern; patterns of fewer are equal by chance now and then
MOST_EXPOSURES = 2  # successive patterns at a place; some scans expose each place twice
ENERGIES_EV = (10.0, 1e6)  # from the far ultraviolet to electron microscopes
# From which energy on the radiation is that of an electron microscope: in its range of voltages an
# object pixel below a nanometre, and above that of any ptychography with X-rays, any pixel.
LOWEST_ELECTRONS_EV, LARGEST_ELECTRONS_PIXEL_M, BEYOND_XRAYS_EV = 20e3, 1e-9, 60e3


def check_overlap(scan: Scan, sample: Sample) -> Finding:
    """Distance of neighbours relative to the beam; it shows a wrong unit too."""
    positions, shape = scan.positions_px, np.array(scan.mask.shape)
    span = np.ptp(positions, axis=0)
    step = median_step_px(positions)
    beam = beam_diameter(scan.probe) if scan.probe is not None else float(shape.min())
    overlap = 1 - step / beam if beam > 0 else 0.0  # a window of one pixel has no width
    evidence = {
        "span_y_px": float(span[0]),
        "span_x_px": float(span[1]),
        "step_px": step,
        "beam_px": beam,
        "overlap": overlap,
    }
    flag = (
        "--pixel_size_m" if scan.pixel_size_m is not None else ""
    )  # positions in pixels do not depend on it
    if span.max() < LEAST_SPAN_PX:
        text = (
            f"positions span {span.max():.2g} px in all: their unit, or the object pixel, is wrong"
        )
        return Finding("overlap", ERROR, text, evidence, flag)
    if overlap < LEAST_OVERLAP:
        text = (
            f"neighbours are {step:.3g} px apart and the beam is {beam:.3g} px wide, so nothing "
            "overlaps: is their unit right?"
        )
        return Finding("overlap", ERROR, text, evidence, flag)
    kind = "the beam of" if scan.probe is not None else "the window of"
    text = (
        f"neighbours are {step:.3g} px apart, {kind} {beam:.3g} px overlaps by {100 * overlap:.0f} "
        "%"
    )
    return Finding("overlap", OK if overlap > GOOD_OVERLAP else WARNING, text, evidence)


def check_lost(scan: Scan, sample: Sample) -> Finding:
    """Positions far from all others, which training and inference leave out; the rest's extent."""
    lost = lost_positions(scan)
    evidence = {"lost": float(len(lost))}
    kept = scan.subset(np.setdiff1d(np.arange(len(scan)), lost)) if len(lost) else scan
    if fault := kept.extent_fault():
        return Finding("lost", ERROR, fault, evidence)
    if len(lost):
        evidence["first_lost"] = float(lost[0])
        text = f"{say_lost(scan, lost)}; training and inference leave them out"
        return Finding("lost", WARNING, text, evidence)
    return Finding("lost", OK, "no position lies far from the others", evidence)


def check_order(scan: Scan, sample: Sample) -> Finding:
    """Indices, positions and patterns that occur twice, and indices that are missing."""
    index = scan.scan_index
    twice = len(index) - len(np.unique(index))
    places = len(index) - len(np.unique(scan.positions_px, axis=0))
    holes = int(index.max() - index.min() + 1 - len(np.unique(index)))
    near = np.flatnonzero(np.diff(sample.indices) == 1)
    same = [
        int(sample.indices[i])
        for i in near
        if float(sample.patterns[i].sum()) >= TELLING
        and np.array_equal(sample.patterns[i], sample.patterns[i + 1])
    ]
    evidence = {
        "indices_twice": float(twice),
        "places_twice": float(places),
        "indices_missing": float(holes),
        "same": float(len(same)),
    }
    if same:
        text = (
            f"{len(same)} patterns equal the one before them (the first is number {same[0] + 1}): "
            "frames were repeated"
        )
        return Finding("order", ERROR, text, evidence)
    if twice:
        return Finding(
            "order",
            WARNING,
            f"{twice} indices of exposures occur twice; expected one for each pattern",
            evidence,
        )
    stuck = longest_stop(scan.positions_px)
    if MOST_EXPOSURES < stuck[1] <= len(index) / 2 and places <= len(index) / 2:
        first, count = stuck
        text = (
            f"the positions of patterns {first} to {first + count - 1} are the same, those of "
            "other patterns are not: did the stage or its encoder stand still?"
        )
        return Finding("order", WARNING, text, evidence | {"stuck": float(count)})
    if places > len(index) / 2:
        return Finding(
            "order",
            ERROR,
            f"{places} of {len(index)} positions occur twice or more; did the stage stand still?",
            evidence,
        )
    if places or holes:
        return Finding(
            "order", INFO, f"{places} positions occur twice, {holes} indices are missing", evidence
        )
    return Finding(
        "order", OK, f"{len(index)} patterns, each with an index and a place of its own", evidence
    )


def longest_stop(positions_px: NDArray[np.float64]) -> tuple[int, int]:
    """The first pattern of the longest run of equal positions, and its length."""
    moved = np.any(np.diff(positions_px, axis=0) != 0, axis=1)
    starts = np.concatenate([[0], np.flatnonzero(moved) + 1, [len(positions_px)]])
    longest = int(np.argmax(np.diff(starts)))
    return int(starts[longest]), int(np.diff(starts)[longest])


def check_probe(scan: Scan, sample: Sample) -> Finding:
    """Place of the probe, and correlation of its pattern in empty space with the mean pattern."""
    if scan.probe is None:
        return Finding(
            "probe", INFO, "there is no probe; give one with --probe FILE", {}, "--probe"
        )
    shape = scan.mask.shape
    intensity = np.sum(np.abs(scan.probe) ** 2, axis=0)
    off = ring_offset(
        ring_centroid(intensity), (shape[0] // 2, shape[1] // 2), (shape[0], shape[1])
    )
    number = None if scan.fresnel_number is None else torch.tensor(scan.fresnel_number)
    empty = torch.ones(shape, dtype=torch.complex64)
    alone = diffraction_intensity(
        empty, torch.from_numpy(scan.probe), propagator=propagator_of(number)
    ).numpy()
    soft = [np.sqrt(gaussian_filter(image, 1.5, mode="wrap")) for image in (alone, sample.mean)]
    related = correlation(soft[0][scan.mask], soft[1][scan.mask])
    evidence = {"offset_y_px": float(off[0]), "offset_x_px": float(off[1]), "correlation": related}
    if (np.abs(off) / np.array(shape)).min() > CORNER:
        return Finding(
            "probe",
            ERROR,
            "the probe is in the corner of its window; apply numpy.fft.fftshift",
            evidence,
            "--probe",
        )
    if related < RELATED:
        text = (
            "the probe does not make the light of the data: their mean patterns correlate by "
            f"{related:.2f} only"
        )
        return Finding("probe", WARNING, text, evidence, "--probe")
    return Finding(
        "probe", OK, f"the probe alone correlates with the mean pattern by {related:.2f}", evidence
    )


def correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Correlation coefficient of two pictures, from -1 to 1; 0 where one of them is flat."""
    if any(picture.std() <= FLAT * np.abs(picture).max() for picture in (one, other)):
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def check_experiment(scan: Scan, sample: Sample) -> Finding:
    """Energy, distance and pixels against each other; the Fresnel number of the window."""
    known, shape = scan.instrument, scan.mask.shape
    computed = known.object_pixel_m((shape[0], shape[1]))
    if scan.fresnel_number is not None:
        text = (
            f"near field of {known.radiation}: Fresnel number {scan.fresnel_number[1]:.3g} of an "
            "object pixel"
        )
        return Finding("experiment", OK, text, {"fresnel_number": scan.fresnel_number[1]})
    if known.energy_ev is not None and not ENERGIES_EV[0] <= known.energy_ev <= ENERGIES_EV[1]:
        text = f"an energy of {known.energy_ev:.3g} eV is beyond any instrument: its unit is wrong"
        return Finding("experiment", ERROR, text, {"energy_ev": known.energy_ev}, "--energy_ev")
    reach = known.reach_m2
    if computed is None or reach is None or known.detector_pixel_m is None:
        return Finding(
            "experiment",
            INFO,
            "energy, distance or detector pixel are not known: near or far field cannot be told",
        )
    fresnel = reach / min(known.detector_pixel_m) ** 2
    evidence = {"fresnel_number": fresnel, "pixel_from_experiment_m": computed[1]}
    electrons = replace(known, radiation="electrons").object_pixel_m((shape[0], shape[1]))
    if are_electrons(known, computed[1], scan.pixel_size_m) and electrons is not None:
        text = (
            f"{known.energy_ev:.4g} eV is an energy of electrons, and the object pixel of "
            f"{computed[1]:.4g} m is that of photons, {computed[1] / electrons[1]:.3g} times too "
            "large; are these electrons?"
        )
        evidence["pixel_of_electrons_m"] = electrons[1]
        return Finding("experiment", WARNING, text, evidence, "--radiation electrons")
    if scan.pixel_size_m not in (None, computed):
        ratio = scan.pixel_size_m[1] / computed[1]
        evidence["pixel_stated_m"] = scan.pixel_size_m[1]
        if abs(ratio - 1) > PIXEL_TOLERANCE:
            stated = scan.pixel_size_m[1]
            text = (
                f"the stated object pixel of {stated:.4g} m is {ratio:.4g} times that of energy, "
                "distance and detector"
            )
            return Finding("experiment", ERROR, text, evidence, "--pixel_size_m")
    pixel = (
        f"object pixel {computed[1]:.4g} m, wavelength {known.wavelength_m:.4g} m of "
        f"{known.radiation}"
    )
    if fresnel < 1:
        text = f"far field: Fresnel number at most {fresnel:.2g}, {pixel}"
        return Finding("experiment", OK, text, evidence)
    text = (
        f"taken for far field, {pixel}; a beam as wide as the window would have the Fresnel number "
        f"{fresnel:.2g}, so that the numbers alone do not tell"
    )
    return Finding("experiment", INFO, text, evidence)


def are_electrons(known: Instrument, pixel_m: float, stated_m: tuple[float, float] | None) -> bool:
    """Whether what is taken for photons must be electrons, by energy and object pixel.

    Args:
        known: Energy, distance and detector pixel.
        pixel_m: Object pixel that follows.
        stated_m: Object pixel ``(y, x)`` that the file states.
    """
    if known.radiation != "photons" or known.energy_ev is None:
        return False
    electrons = replace(known, radiation="electrons")
    if known.wavelength_m is None or electrons.wavelength_m is None:
        return False
    if stated_m is not None and stated_m[1] != pixel_m:
        fitting = pixel_m * electrons.wavelength_m / known.wavelength_m
        return abs(stated_m[1] / fitting - 1) <= PIXEL_TOLERANCE
    return known.energy_ev >= BEYOND_XRAYS_EV or (
        known.energy_ev >= LOWEST_ELECTRONS_EV and pixel_m < LARGEST_ELECTRONS_PIXEL_M
    )


CHECKS = (check_lost, check_overlap, check_order, check_probe, check_experiment)

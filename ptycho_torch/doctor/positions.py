"""What positions, index and illumination show: units, overlap, order, and whether the probe belongs to the data."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import KDTree

from ptycho_torch.doctor.findings import DOUBT, FAULT, GOOD, NOTE, Finding, Specimen
from ptycho_torch.doctor.patterns import CORNER, circular_center, offset
from ptycho_torch.scan import PHOTON_ENERGY_WAVELENGTH

LEAST_SPAN_PX = 2.0  # a scan that moves less than this is none
LEAST_OVERLAP = 0.0  # of the beam's diameter; neighbours that do not touch share nothing
GOOD_OVERLAP = 0.4  # the field's rule of thumb is 60 %
BEAM_SHARE = 0.9  # of the photons, inside the diameter of the beam
RELATED = 0.3  # correlation of the mean pattern with that of the probe alone, smoothed; unrelated ones are around 0
PIXEL_TOLERANCE = 0.02  # between the object pixel that a file states and that of its own experiment
ENERGIES_EV = (10.0, 1e6)  # from the far ultraviolet to electron microscopes


def beam_diameter(probe: NDArray[np.complex64]) -> float:
    """Diameter that holds 90 % of the photons around their centre, in pixels."""
    intensity = np.sum(np.abs(probe) ** 2, axis=0)
    center = circular_center(intensity)
    distance = np.hypot(*(np.indices(intensity.shape) - np.array(center)[:, None, None])).ravel()
    order = np.argsort(distance)
    inside = np.cumsum(intensity.ravel()[order])
    return float(2 * distance[order][np.searchsorted(inside, BEAM_SHARE * inside[-1])])


def check_overlap(specimen: Specimen) -> Finding:
    """Distance of neighbours against the beam, which shows a wrong unit too."""
    positions, shape = specimen.positions_px, np.array(specimen.mask.shape)
    span = np.ptp(positions, axis=0)
    places = np.unique(positions, axis=0)
    step = float(np.median(KDTree(places).query(places, k=2)[0][:, 1])) if len(places) > 1 else 0.0
    beam = beam_diameter(specimen.probe) if specimen.probe is not None else float(shape.min())
    overlap = 1 - step / beam
    evidence = {"span_y_px": float(span[0]), "span_x_px": float(span[1]), "step_px": step, "beam_px": beam, "overlap": overlap}
    flag = "--pixel_size_m" if specimen.pixel_size_m is not None else ""  # positions in pixels do not depend on it
    if span.max() < LEAST_SPAN_PX:
        text = f"positions span {span.max():.2g} px in all: their unit, or the object pixel, is wrong"
        return Finding("overlap", FAULT, text, evidence, flag)
    if overlap < LEAST_OVERLAP:
        text = f"neighbours are {step:.3g} px apart and the beam is {beam:.3g} px wide, so nothing overlaps: is their unit right?"
        return Finding("overlap", FAULT, text, evidence, flag)
    kind = "the beam of" if specimen.probe is not None else "the window of"
    text = f"neighbours are {step:.3g} px apart, {kind} {beam:.3g} px overlaps by {100 * overlap:.0f} %"
    return Finding("overlap", GOOD if overlap > GOOD_OVERLAP else DOUBT, text, evidence)


def check_order(specimen: Specimen) -> Finding:
    """Indices, positions and patterns that occur twice, and indices that are missing."""
    index = specimen.scan_index
    twice = len(index) - len(np.unique(index))
    places = len(index) - len(np.unique(specimen.positions_px, axis=0))
    holes = int(index.max() - index.min() + 1 - len(np.unique(index)))
    near = np.flatnonzero(np.diff(specimen.chosen) == 1)
    same = [int(specimen.chosen[i]) for i in near if np.array_equal(specimen.sample[i], specimen.sample[i + 1])]
    evidence = {
        "indices_twice": float(twice),
        "places_twice": float(places),
        "indices_missing": float(holes),
        "same": float(len(same)),
    }
    if same:
        text = f"{len(same)} patterns equal the one before them (the first is number {same[0] + 1}): frames were repeated"
        return Finding("order", FAULT, text, evidence)
    if twice:
        return Finding("order", DOUBT, f"{twice} indices of exposures occur twice; expected one for each pattern", evidence)
    if places > len(index) / 2:
        return Finding(
            "order", FAULT, f"{places} of {len(index)} positions occur twice or more; did the stage stand still?", evidence
        )
    if places or holes:
        return Finding("order", NOTE, f"{places} positions occur twice, {holes} indices are missing", evidence)
    return Finding("order", GOOD, f"{len(index)} patterns, each with an index and a place of its own", evidence)


def check_probe(specimen: Specimen) -> Finding:
    """Whether the probe is where it should be, and makes light where the data have it."""
    if specimen.probe is None:
        return Finding("probe", NOTE, "there is no probe; give one with --probe FILE", {}, "--probe")
    shape = specimen.mask.shape
    intensity = np.sum(np.abs(specimen.probe) ** 2, axis=0)
    off = offset(circular_center(intensity), (shape[0] // 2, shape[1] // 2), (shape[0], shape[1]))
    alone = np.fft.fftshift(np.sum(np.abs(np.fft.fft2(specimen.probe)) ** 2, axis=0))
    soft = [np.sqrt(gaussian_filter(image, 1.5, mode="wrap")) for image in (alone, specimen.mean)]
    related = float(np.corrcoef(soft[0][specimen.mask], soft[1][specimen.mask])[0, 1])
    evidence = {"offset_y_px": float(off[0]), "offset_x_px": float(off[1]), "correlation": related}
    if (np.abs(off) / np.array(shape)).min() > CORNER:
        return Finding("probe", FAULT, "the probe is in the corner of its window; apply numpy.fft.fftshift", evidence, "--probe")
    if related < RELATED:
        text = f"the probe does not make the light of the data: their mean patterns correlate by {related:.2f} only"
        return Finding("probe", DOUBT, text, evidence, "--probe")
    return Finding("probe", GOOD, f"the probe alone correlates with the mean pattern by {related:.2f}", evidence)


def check_experiment(specimen: Specimen) -> Finding:
    """Energy, distance and pixels against each other; the Fresnel number of the window."""
    known, shape = specimen.instrument, specimen.mask.shape
    computed = known.object_pixel_m((shape[0], shape[1]))
    if known.energy_ev is not None and not ENERGIES_EV[0] <= known.energy_ev <= ENERGIES_EV[1]:
        text = f"a photon energy of {known.energy_ev:.3g} eV is beyond any instrument: its unit is wrong"
        return Finding("experiment", FAULT, text, {"energy_ev": known.energy_ev}, "--energy_ev")
    if computed is None or known.energy_ev is None or known.distance_m is None or known.detector_pixel_m is None:
        return Finding("experiment", NOTE, "energy, distance or detector pixel are not known: near or far field cannot be told")
    fresnel = PHOTON_ENERGY_WAVELENGTH / known.energy_ev * known.distance_m / min(known.detector_pixel_m) ** 2
    evidence = {"fresnel_number": fresnel, "pixel_from_experiment_m": computed[1]}
    if specimen.stated_pixel_m is not None:
        ratio = specimen.stated_pixel_m[1] / computed[1]
        evidence["pixel_stated_m"] = specimen.stated_pixel_m[1]
        if abs(ratio - 1) > PIXEL_TOLERANCE:
            stated = specimen.stated_pixel_m[1]
            text = f"the stated object pixel of {stated:.4g} m is {ratio:.4g} times that of energy, distance and detector"
            return Finding("experiment", FAULT, text, evidence, "--pixel_size_m")
    text = f"far field: Fresnel number at most {fresnel:.2g}, object pixel {computed[1]:.4g} m"
    return Finding("experiment", GOOD if fresnel < 1 else NOTE, text, evidence)


CHECKS = (check_overlap, check_order, check_probe, check_experiment)

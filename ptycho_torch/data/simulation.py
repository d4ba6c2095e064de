"""Simulated scans of known objects: object, probe, positions, and Poisson counts."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ptycho_torch.data.measurement_faults import (
    MeasurementFaults,
    background_of,
    check_displacements,
    displaced_copies,
    displacements,
    draw_flux,
    drifting_probe,
    positions_in_file,
    scan_time,
    wander,
)
from ptycho_torch.data.probe import annular_probe, diffuse_probe
from ptycho_torch.data.scan import Instrument, Reconstruction, Scan
from ptycho_torch.data.wavelength import Radiation
from ptycho_torch.physics.forward import diffraction_intensity
from ptycho_torch.physics.patches import extract_patches, patch_indices, split_corners
from ptycho_torch.physics.probe_shift import shift_probe
from ptycho_torch.physics.propagation import propagator_of

JITTER = 0.2  # of the step; breaks the raster, whose symmetry would show in the image
MARGIN_PX = 2  # of the object beyond the outermost patches
CHUNK = 64  # patterns simulated at once
XRAYS = Instrument(
    energy_ev=8000.0, distance_m=1.0, detector_pixel_m=(75e-6, 75e-6)
)  # of a hard X-ray beamline
ELECTRONS = Instrument(
    energy_ev=300e3, distance_m=0.1, detector_pixel_m=(150e-6, 150e-6), radiation="electrons"
)  # of a microscope with an EMPAD
MAGNIFIED_PIXEL_M = 50e-9  # object pixel of near-field scans, in a beam that diverges
DARKEST = 0.52  # amplitude of the object
NO_FAULTS = MeasurementFaults()


@dataclass(frozen=True)
class Setup:
    """The radiation and the detector of a simulated experiment.

    Attributes:
        instrument: Energy, distance, detector pixel; in the near field those of a parallel beam.
        fresnel_number: Of an object pixel; None in the far field.
    """

    instrument: Instrument = XRAYS
    fresnel_number: float | None = None

    @property
    def fresnel_numbers(self) -> tuple[float, float] | None:
        """``(y, x)``."""
        return None if self.fresnel_number is None else (self.fresnel_number,) * 2

    def object_pixel_m(self, pattern_shape: tuple[int, int]) -> tuple[float, float] | None:
        """Object pixel ``(y, x)``, in metres."""
        if self.fresnel_number is None:
            return self.instrument.object_pixel_m(pattern_shape)
        return self.instrument.detector_pixel_m


FAR_FIELD = Setup()


def setup_of(radiation: Radiation, fresnel_number: float | None) -> Setup:
    """The setup for photons or electrons, in the far field or at a Fresnel number.

    In the near field, the distance is the one that makes the Fresnel number of a pixel,
    ``pixel^2 / (wavelength z)``, in a parallel beam; one that diverges is equivalent [1]_.

    References:
        .. [1] D. Paganin, "Coherent X-Ray Optics", section 4.4.2 (2006), the Fresnel scaling
           theorem.
    """
    known = XRAYS if radiation == "photons" else ELECTRONS
    if fresnel_number is None:
        return Setup(known)
    assert known.wavelength_m is not None
    return Setup(
        replace(
            known,
            distance_m=MAGNIFIED_PIXEL_M**2 / (known.wavelength_m * fresnel_number),
            detector_pixel_m=(MAGNIFIED_PIXEL_M, MAGNIFIED_PIXEL_M),
        ),
        fresnel_number,
    )


@dataclass(frozen=True)
class Simulation:
    """A scan and what it is a scan of.

    Attributes:
        scan: As measured.
        truth: Object, in the frame of the scan; probe, positions, flux and background as they
            really were.
    """

    scan: Scan
    truth: Reconstruction


def simulate_scan(
    *,
    photons: float,
    n_side: int = 16,
    step_px: float = 5.0,
    pattern_size: int = 64,
    seed: int = 0,
    probe: NDArray[np.complex64] | None = None,
    faults: MeasurementFaults = NO_FAULTS,
    setup: Setup = FAR_FIELD,
) -> Simulation:
    """A raster scan with jitter over a random object.

    Args:
        photons: That the probe carries in an exposure; the object absorbs a part of them.
        n_side: Positions along each side.
        step_px: Distance of neighbouring positions, in object pixels.
        pattern_size: Detector pixels along each side.
        seed: Of object, positions, faults and counting noise.
        probe: Modes of the illumination, (M, H, W), at any scale; by default `annular_probe`.
        faults: What the measurement does wrong. The scan holds what a file would say, the truth
            what really was.
        setup: Radiation and detector.

    Returns:
        The scan and the truth; both use the same frame.

    Raises:
        InputError: If the faults displace the probe out of its window.
    """
    rng = np.random.default_rng(seed)
    # a wandering probe needs more object than the margin once it goes further than that
    margin = max(MARGIN_PX, math.ceil(np.abs(wander(n_side**2, faults)).max()))
    positions = raster_positions(n_side, step_px, rng) + pattern_size / 2 + margin
    size = math.ceil(positions.max() + pattern_size / 2) + margin
    transmission = random_object(size, rng)
    if probe is not None:
        modes = probe
    elif setup.fresnel_number is None:
        modes = annular_probe(pattern_size)
    else:
        modes = diffuse_probe(pattern_size, seed=seed)
    modes = modes * np.float32(math.sqrt(photons) / np.linalg.norm(modes))
    return measure(transmission, modes, positions, faults=faults, seed=seed, rng=rng, setup=setup)


def measure(
    transmission: NDArray[np.complex64],
    probe: NDArray[np.complex64],
    positions_px: NDArray[np.float64],
    *,
    faults: MeasurementFaults = NO_FAULTS,
    seed: int,
    rng: np.random.Generator,
    setup: Setup = FAR_FIELD,
) -> Simulation:
    """A scan of an object, with the faults of a measurement and counting noise.

    Args:
        transmission: The object, complex, (Y, X); it must hold all patches.
        probe: Modes of the illumination, complex, (M, H, W), in sqrt(photons).
        positions_px: Patch centres ``(y, x)`` that the scan was meant to have, (N, 2).
        faults: What the measurement does wrong.
        seed: Of the faults.
        rng: Of the counting noise.
        setup: Radiation and detector.

    Returns:
        The scan, with the given probe and with positions as a file would give them; and the truth.

    Raises:
        InputError: If the faults displace the probe out of its window.
        ValueError: If a patch reaches beyond the object.
    """
    count, shape = len(positions_px), (probe.shape[-2], probe.shape[-1])
    check_displacements(faults, shape)
    # 1. what really happens
    truth = Reconstruction(
        object=transmission,
        coverage=np.zeros(transmission.shape, dtype=np.float32),
        origin_yx=np.zeros(2),
        probe=displaced_copies(probe, displacements(faults)),
        positions_px=positions_px + wander(count, faults) if faults.probe_drift else positions_px,
        scan_index=np.arange(count),
        pixel_size_m=setup.object_pixel_m(shape),
        instrument=setup.instrument,
        flux=draw_flux(count, faults, seed),
        is_far_field=setup.fresnel_number is None,
    )
    if faults.probe_drift:
        components, weights = drifting_probe(probe, scan_time(count), faults.probe_drift)
        truth = replace(
            truth,
            probe_components=displaced_copies(components, displacements(faults)),
            probe_weights=weights,
        )
    intensity, light = expected_counts(
        truth.object,
        truth.probe,
        truth.positions_px,
        flux=truth.flux,
        probe_components=truth.probe_components,
        probe_weights=truth.probe_weights,
        fresnel_number=setup.fresnel_numbers,
    )
    truth = replace(truth, coverage=(light / light.max()).astype(np.float32))
    if faults.background:
        mean_photons = float(intensity.sum(axis=(1, 2), dtype=np.float64).mean())
        background = background_of(faults, mean_photons, shape)
        truth = replace(truth, background=background)
        intensity += background
    # 2. what is counted, and what the file says
    counts = rng.poisson(intensity)
    scan = Scan(
        counts=counts.astype(np.uint16 if counts.max() <= np.iinfo(np.uint16).max else np.uint32),
        positions_px=positions_in_file(positions_px, faults, seed),
        probe=probe,
        mask=np.ones(shape, dtype=bool),
        scan_index=truth.scan_index,
        pixel_size_m=truth.pixel_size_m,
        instrument=setup.instrument,
        source="simulation",
        fresnel_number=setup.fresnel_numbers,
    )
    return Simulation(scan, truth)


def raster_positions(n_side: int, step_px: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Positions of a square raster with jitter, row by row, in pixels, (n_side^2, 2)."""
    grid = np.stack(
        np.meshgrid(np.arange(n_side), np.arange(n_side), indexing="ij"), axis=-1
    ).reshape(-1, 2)
    return step_px * (grid + rng.uniform(0, 2 * JITTER, grid.shape))


def random_object(
    size: int, rng: np.random.Generator, *, darkest: float = DARKEST
) -> NDArray[np.complex64]:
    """Transmission of a random object, (size, size), amplitude up to 1, phase within 1 rad.

    Edges, lines, round blobs, fine texture and slow variation, partly common to amplitude and
    phase, as in a sample whose materials differ in absorption and in thickness.
    """
    common, absorbing, refracting = (_random_layer(size, rng) for _ in range(3))
    amplitude = 1 - (1 - darkest) / 2 * (1 - np.tanh(0.8 * common + absorbing))
    phase = 0.95 * np.tanh(0.5 * common + 0.7 * refracting)
    return (amplitude * np.exp(1j * phase)).astype(np.complex64)


def _random_layer(size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A real image of zero mean and unit variance with features of all sizes."""
    parts = (
        (1.0, gaussian_filter(_random_shapes(size, rng), 0.9)),
        (0.5, gaussian_filter(rng.standard_normal((size, size)), 6.0)),
        (0.35, gaussian_filter(rng.standard_normal((size, size)), 1.3)),
        (0.4, gaussian_filter(rng.standard_normal((size, size)), 16.0)),
    )
    layer = sum(weight * (part - part.mean()) / part.std() for weight, part in parts)
    return (layer - np.mean(layer)) / np.std(layer)


def _random_shapes(size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Ellipses, rectangles and gratings of random size, place, angle and height."""
    image = np.zeros((size, size))
    y, x = np.mgrid[:size, :size]
    for _ in range(max(8, size * size // 800)):
        centre_y, centre_x = rng.uniform(0, size, 2)
        angle, radius, aspect = (
            rng.uniform(0, math.pi),
            math.exp(rng.uniform(math.log(4), math.log(40))),
            rng.uniform(0.3, 1),
        )
        u = (y - centre_y) * math.cos(angle) + (x - centre_x) * math.sin(angle)
        v = (x - centre_x) * math.cos(angle) - (y - centre_y) * math.sin(angle)
        box = (np.abs(u) < radius) & (np.abs(v) < radius * aspect)
        ellipse = (u / radius) ** 2 + (v / (radius * aspect)) ** 2 < 1
        grating = box & (np.sin(2 * math.pi * u / rng.uniform(4, 12)) > 0)
        inside = (box, ellipse, grating)[rng.integers(3)]
        image[inside] = rng.uniform(0, 0.6) * image[inside] + rng.uniform(-1, 1)
    return image


def expected_counts(
    truth: NDArray[np.complex64],
    probe: NDArray[np.complex64],
    positions_px: NDArray[np.float64],
    *,
    flux: NDArray[np.float64] | None = None,
    probe_components: NDArray[np.complex64] | None = None,
    probe_weights: NDArray[np.float32] | None = None,
    fresnel_number: tuple[float, float] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Expected photons of every pattern, (N, H, W), and the light on the object, (Y, X).

    Without background; the arguments are those of `Reconstruction` and `Scan`.
    """
    propagator = propagator_of(None if fresnel_number is None else torch.tensor(fresnel_number))
    shape = probe.shape[-2:]
    canvas, modes = torch.from_numpy(truth)[None], torch.from_numpy(probe)
    corners = torch.from_numpy(positions_px - np.asarray(shape) / 2)
    intensity = np.empty((len(positions_px), *shape), dtype=np.float32)
    light = torch.zeros(truth.size)
    for chunk in torch.split(torch.arange(len(positions_px)), CHUNK):
        whole, fraction = split_corners(corners[chunk])
        indices = patch_indices(whole[None], (shape[0], shape[1]), (truth.shape[0], truth.shape[1]))
        beam = modes
        if probe_components is not None and probe_weights is not None:
            weights = torch.from_numpy(probe_weights)[chunk].to(modes.dtype)
            beam = modes + torch.tensordot(weights, torch.from_numpy(probe_components), dims=1)
        shifted = shift_probe(beam, fraction)
        photons = shifted.abs().square().sum(dim=1)
        patches = extract_patches(canvas, indices)[0]
        expected = diffraction_intensity(
            patches, shifted, propagator=propagator, fraction_px=fraction
        )
        if flux is not None:
            relative = torch.from_numpy(flux)[chunk, None, None].float()
            photons, expected = relative * photons, relative * expected
        intensity[chunk] = expected.numpy()
        light.index_add_(0, indices.reshape(-1), photons.reshape(-1))
    return intensity, light.reshape(truth.shape).numpy()

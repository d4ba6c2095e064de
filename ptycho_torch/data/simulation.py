"""Simulated scans of known objects: object, probe, positions, and Poisson counts."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ptycho_torch.data.probe import annular_probe
from ptycho_torch.data.scan import Instrument, Reconstruction, Scan
from ptycho_torch.physics.forward import diffraction_intensity
from ptycho_torch.physics.patches import extract_patches, patch_indices, split_corners
from ptycho_torch.physics.probe_shift import shift_probe

JITTER = 0.2  # of the step; breaks the raster, whose symmetry would show in the image
MARGIN_PX = 2  # of the object beyond the outermost patches
CHUNK = 64  # patterns simulated at once
APERTURE = 0.4  # outer radius of the pupil, as a fraction of the detector's half width
CENTRAL_STOP = 0.4  # inner radius of the pupil, as a fraction of the outer
INSTRUMENT = Instrument(
    energy_ev=8000.0, distance_m=1.0, detector_pixel_m=(75e-6, 75e-6)
)  # of a hard X-ray beamline
BEAM = 0.4  # diameter of the defocused beam, as a fraction of the window
DARKEST = 0.52  # amplitude of the object


@dataclass(frozen=True)
class Simulation:
    """A scan and what it is a scan of.

    Attributes:
        scan: As measured.
        truth: Object, probe and positions, in the frame of the scan.
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
    darkest: float = DARKEST,
) -> Simulation:
    """A raster scan with jitter over a random object.

    Args:
        photons: That the probe carries in an exposure; the object absorbs a part of them.
        n_side: Positions along each side.
        step_px: Distance of neighbouring positions, in object pixels.
        pattern_size: Detector pixels along each side.
        seed: Of object, positions and counting noise.
        probe: Modes of the illumination, (M, H, W), at any scale; by default `annular_probe`.
        darkest: Smallest amplitude of the object, within [0, 1].

    Returns:
        The scan and the truth; both use the same frame.
    """
    rng = np.random.default_rng(seed)
    positions = raster_positions(n_side, step_px, rng) + pattern_size / 2 + MARGIN_PX
    size = math.ceil(positions.max() + pattern_size / 2) + MARGIN_PX
    truth_object = random_object(size, rng, darkest=darkest)
    modes = annular_probe(pattern_size) if probe is None else probe
    probe = modes * np.float32(math.sqrt(photons) / np.linalg.norm(modes))
    intensity, light = expected_counts(truth_object, probe, positions)
    counts = rng.poisson(intensity)
    index = np.arange(len(positions))
    scan = Scan(
        counts=counts.astype(np.uint16 if counts.max() <= np.iinfo(np.uint16).max else np.uint32),
        positions_px=positions,
        probe=probe,
        mask=np.ones((pattern_size, pattern_size), dtype=bool),
        scan_index=index,
        pixel_size_m=INSTRUMENT.object_pixel_m((pattern_size, pattern_size)),
        instrument=INSTRUMENT,
        source="simulation",
    )
    truth = Reconstruction(
        object=truth_object,
        coverage=(light / light.max()).astype(np.float32),
        origin_yx=np.zeros(2),
        probe=probe,
        positions_px=positions,
        scan_index=index,
        pixel_size_m=scan.pixel_size_m,
        instrument=INSTRUMENT,
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
    truth: NDArray[np.complex64], probe: NDArray[np.complex64], positions_px: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Expected photons of every pattern, (N, H, W), and the light on the object, (Y, X)."""
    shape = probe.shape[-2:]
    canvas, modes = torch.from_numpy(truth)[None], torch.from_numpy(probe)
    corners = torch.from_numpy(positions_px - np.asarray(shape) / 2)
    intensity = np.empty((len(positions_px), *shape), dtype=np.float32)
    light = torch.zeros(truth.size)
    for chunk in torch.split(torch.arange(len(positions_px)), CHUNK):
        whole, fraction = split_corners(corners[chunk])
        indices = patch_indices(whole[None], (shape[0], shape[1]), (truth.shape[0], truth.shape[1]))
        shifted = shift_probe(modes, fraction)
        intensity[chunk] = diffraction_intensity(
            extract_patches(canvas, indices)[0], shifted
        ).numpy()
        light.index_add_(0, indices.reshape(-1), shifted.abs().square().sum(dim=1).reshape(-1))
    return intensity, light.reshape(truth.shape).numpy()

"""What goes wrong in a measurement, with known size, for simulated scans.

Each fault has random numbers of its own, so that one more fault changes nothing in the others, and
a scan without faults keeps its bits.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ptycho_torch.data.probe import defocus_curvature, defocused
from ptycho_torch.errors import InputError
from ptycho_torch.physics.probe_shift import shift_probe

HALO_SHARE = 0.6  # of the background; air near the beam scatters it; the rest is flat
HALO_WIDTH = 1 / 6  # standard deviation of the halo, as a fraction of the detector
WANDER_PX = 18.0  # diameter of the circle of a wandering probe, for a drift of 1: 1.8 px at 0.1
LARGEST_SPREAD = 0.25  # of the window; a copy of the probe that lies further out leaves it
DRIFT_SAMPLES = 65  # probes over a scan that span the others; the defocus drifts smoothly
LOST_POWER = 1e-7  # of the probe, by leaving out weak components; below any counting noise
CHUNK = 64  # probes computed at once


@dataclass(frozen=True)
class MeasurementFaults:
    """What a simulated measurement does wrong; the defaults are a measurement without faults.

    Attributes:
        position_error_px: Error of the positions in the file: standard deviation of each axis,
            normally distributed, in object pixels.
        position_scale: Size of the true scan relative to the one in the file.
        position_rotation_deg: Angle by which the true scan is turned against the one in the file,
            counterclockwise in a picture, in degrees.
        flux_spread: Standard deviation of the photons of a shot, relative to their mean.
        background: Share of the counted photons that are background, within [0, 1): 3/5 of it a
            smooth halo around the middle of the detector, 2/5 flat.
        source_size_px: Standard deviation of the source's image on the sample, along each axis, in
            object pixels. The beam is the incoherent sum of five displaced copies of the probe.
        motion_px: Way of the sample in x while the shutter is open, in object pixels.
        probe_drift: Change of the defocus relative to its value in the middle of the scan: from
            minus this at the first pattern to plus this at the last. The probe also wanders, once
            around a circle with a diameter of `WANDER_PX` times this.

    Raises:
        InputError: If a number is out of range.
    """

    position_error_px: float = 0.0
    position_scale: float = 1.0
    position_rotation_deg: float = 0.0
    flux_spread: float = 0.0
    background: float = 0.0
    source_size_px: float = 0.0
    motion_px: float = 0.0
    probe_drift: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "position_rotation_deg" and not 0 <= value < math.inf:
                raise InputError(f"{name} is {value}; it must be a finite number of at least 0")
        if self.position_scale == 0:
            raise InputError("position_scale is 0; it must be greater than 0")
        if self.background >= 1:
            raise InputError(f"background is {self.background}; it is a share, and less than 1")


def rng_of(seed: int, fault: str) -> np.random.Generator:
    """The random numbers of one fault of a scan."""
    return np.random.default_rng([seed, *fault.encode()])


def positions_in_file(
    true_px: NDArray[np.float64], faults: MeasurementFaults, seed: int
) -> NDArray[np.float64]:
    """Positions as the file of a faulty measurement gives them, (N, 2).

    With R the rotation, s the scale and c the mean of the true positions::

        true = c + s R (file - error - c)

    Args:
        true_px: Where the beam hit the sample, ``(y, x)``, (N, 2).
        faults: Error, scale and rotation.
        seed: Of the scan.
    """
    given = true_px
    if faults.position_scale != 1 or faults.position_rotation_deg != 0:
        centre = true_px.mean(axis=0)
        # (true - c) @ R is R^-1 (true - c) for each row
        given = centre + (true_px - centre) @ rotation(faults.position_rotation_deg) / (
            faults.position_scale
        )
    if faults.position_error_px > 0:
        error = rng_of(seed, "positions").normal(0, faults.position_error_px, true_px.shape)
        given = given + error
    return given


def rotation(angle_deg: float) -> NDArray[np.float64]:
    """Matrix for ``(y, x)``, y downwards, that turns counterclockwise in a picture, (2, 2)."""
    cosine, sine = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    return np.array([[cosine, -sine], [sine, cosine]])


def wander(count: int, faults: MeasurementFaults) -> NDArray[np.float64]:
    """Displacement ``(y, x)`` of a drifting probe at each pattern, in pixels, (count, 2)."""
    angle = math.pi * scan_time(count)
    return WANDER_PX / 2 * faults.probe_drift * np.stack([np.sin(angle), np.cos(angle)], axis=-1)


def scan_time(count: int) -> NDArray[np.float64]:
    """Time of each pattern, from -1 at the first to 1 at the last, (count,)."""
    return np.linspace(-1.0, 1.0, count)


def draw_flux(count: int, faults: MeasurementFaults, seed: int) -> NDArray[np.float64] | None:
    """Photons of each shot relative to their mean, (count,); None where they do not vary.

    They have a gamma distribution, as the pulses of a source with several independent modes [1]_:
    it has the asked spread, and is never negative.

    References:
        .. [1] E. L. Saldin, E. A. Schneidmiller and M. V. Yurkov, "Statistical properties of
           radiation from VUV and X-ray free electron laser", Opt. Commun. 148, 383 (1998),
           doi:10.1016/S0030-4018(97)00670-6.
    """
    if faults.flux_spread == 0:
        return None
    variance = faults.flux_spread**2
    flux = rng_of(seed, "flux").gamma(1 / variance, variance, count)
    return flux / flux.mean()


def background_of(
    faults: MeasurementFaults, mean_photons: float, shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Photons of the background on each pixel of every pattern, (H, W).

    Args:
        faults: Share of the background.
        mean_photons: Of a pattern, without background.
        shape: ``(H, W)``.
    """
    y, x = (np.arange(size) - size // 2 for size in shape)
    width = HALO_WIDTH * min(shape)
    halo = np.exp(-(y[:, None] ** 2 + x**2) / (2 * width**2))
    shape_of_one = HALO_SHARE * halo / halo.sum() + (1 - HALO_SHARE) / halo.size
    photons = mean_photons * faults.background / (1 - faults.background)
    return (photons * shape_of_one).astype(np.float32)


def displacements(faults: MeasurementFaults) -> NDArray[np.float64]:
    """Shifts ``(y, x)`` of the copies of the probe that a pattern is the incoherent sum of, (K, 2).

    The far-field pattern of a moving sample is that of a probe that moves the other way.
    """
    shifts = np.zeros((1, 2))
    if faults.source_size_px > 0:
        # five equal copies with this distance have the asked variance, 2/5 of its square
        reach = math.sqrt(5 / 2) * faults.source_size_px
        shifts = reach * np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]], dtype=np.float64)
    if faults.motion_px > 0:
        exposures = max(3, math.ceil(faults.motion_px) + 1)
        way = np.linspace(-0.5, 0.5, exposures) * faults.motion_px
        moved = np.stack([np.zeros(exposures), way], axis=-1)
        shifts = (shifts[:, None] + moved[None]).reshape(-1, 2)
    return shifts


def check_displacements(faults: MeasurementFaults, shape: tuple[int, int]) -> None:
    """Raise `InputError` for copies of the probe that leave their window ``(H, W)``."""
    furthest = float(np.abs(displacements(faults)).max())
    limit = LARGEST_SPREAD * min(shape)
    if furthest > limit:
        raise InputError(
            f"source size and motion displace the probe by {furthest:.3g} px; in a window of "
            f"{shape[0]}x{shape[1]} pixels it may be {limit:.3g} px at most"
        )


def displaced_copies(
    waves: NDArray[np.complex64], shifts: NDArray[np.float64]
) -> NDArray[np.complex64]:
    """Modes of the incoherent sum of displaced copies, of the same power.

    Args:
        waves: Modes, complex, (..., M, H, W).
        shifts: ``(y, x)`` of each copy, in pixels, (K, 2).

    Returns:
        Complex, (..., K M, H, W).
    """
    if len(shifts) == 1 and not shifts.any():
        return waves
    copies = shift_probe(torch.from_numpy(waves)[..., None, :, :, :], torch.from_numpy(shifts))
    *leading, _, _, height, width = copies.shape
    joined = copies.reshape(*leading, -1, height, width).numpy() / math.sqrt(len(shifts))
    return joined.astype(np.complex64)


def drifting_probe(
    probe: NDArray[np.complex64], times: NDArray[np.float64], drift: float
) -> tuple[NDArray[np.complex64], NDArray[np.float32]]:
    """Components and weights of a probe whose defocus changes over the scan.

    The probe of pattern n is ``probe + sum_k weights[n, k] components[k]``, as in orthogonal probe
    relaxation [1]_. The components are orthonormal times the root of the photons, and as many as
    leave out at most `LOST_POWER`.

    Args:
        probe: In the middle of the scan, complex, (M, H, W).
        times: Of the patterns, within [-1, 1], (N,).
        drift: Relative change of the defocus at time 1.

    Returns:
        Components, complex, (K, M, H, W), and weights, (N, K).

    References:
        .. [1] M. Odstrcil et al., "Ptychographic coherent diffractive imaging with orthogonal
           probe relaxation", Opt. Express 24, 8360 (2016), doi:10.1364/OE.24.008360.
    """
    change = drift * defocus_curvature(probe)
    norm = float(np.linalg.norm(probe))

    def changes(some: NDArray[np.float64]) -> NDArray[np.float32]:
        moved = np.stack([defocused(probe, change * time) - probe for time in some])
        return (moved / norm).reshape(len(some), -1).view(np.float32)

    samples = changes(np.linspace(-1.0, 1.0, DRIFT_SAMPLES))
    _, strength, basis = np.linalg.svd(samples, full_matrices=False)
    left_out = np.append(np.cumsum(strength[::-1] ** 2)[::-1], 0) / DRIFT_SAMPLES
    kept = basis[: int(np.argmax(left_out <= LOST_POWER))]
    parts = [times[start : start + CHUNK] for start in range(0, len(times), CHUNK)]
    weights = np.concatenate([changes(part) @ kept.T for part in parts])
    components = (norm * kept).view(np.complex64).reshape(-1, *probe.shape)
    return components, weights.astype(np.float32)


def in_words(faults: MeasurementFaults) -> list[str]:
    """One phrase for each fault, for a message."""
    phrases = {
        "position_error_px": "positions off by {0:g} px rms on each axis",
        "position_scale": "the true scan {0:g} times as large as the one in the file",
        "position_rotation_deg": "the true scan turned by {0:g} degrees against it",
        "flux_spread": "photons of a shot that vary by {1:.3g} %",
        "background": "{1:.3g} % of the light from the background",
        "source_size_px": "a source of {0:g} px rms",
        "motion_px": "a sample that moves by {0:g} px in x during a shot",
        "probe_drift": "a defocus that drifts by +-{1:.3g} %",
    }
    blameless = vars(MeasurementFaults())
    return [
        phrases[name].format(value, 100 * value)
        for name, value in vars(faults).items()
        if value != blameless[name]
    ]

"""The three nouns: a measured `Scan`, a `Group` of its points, and a `Reconstruction`.

Inside the package there is one unit for each quantity; readers convert at the door. Counts are
photons with zero frequency at ``[H // 2, W // 2]``; positions are the ``(y, x)`` centres of the
patches in object pixels, so that the patch of position p is
``object[p_y - H/2 : p_y + H/2, p_x - W/2 : p_x + W/2]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptycho_torch.data.lazy_patterns import PatternArray, blocks, select
from ptycho_torch.data.wavelength import Radiation, wavelength_of
from ptycho_torch.errors import InputError

if TYPE_CHECKING:  # for the annotations of Group alone: a Scan is read and checked without torch
    from matplotlib.figure import Figure
    from torch import Tensor

NOTEBOOK = "ptycho_torch.evaluation.notebook"  # draws; imported when something is to be seen

LARGE_CANVAS_PX = 2**24  # 128 MiB of complex numbers; smaller canvases are never refused
FARTHEST_PX = 1e12  # from zero; double precision has a thousandth of a pixel up to there
DARK_CANVAS = 50.0  # pixels per lit pixel; a single diagonal line of 100 patches has fewer


@dataclass(frozen=True)
class Instrument:
    """Known facts about the experiment; None where a fact is not known.

    Attributes:
        energy_ev: Of a photon, or kinetic energy of an electron.
        distance_m: From the sample to the detector.
        detector_pixel_m: ``(y, x)``, of the patterns as they are, binned ones included.
        radiation: What was diffracted; it decides the wavelength of an energy.
    """

    energy_ev: float | None = None
    distance_m: float | None = None
    detector_pixel_m: tuple[float, float] | None = None
    radiation: Radiation = "photons"

    @property
    def wavelength_m(self) -> float | None:
        """Wavelength of the radiation, in metres."""
        return None if self.energy_ev is None else wavelength_of(self.energy_ev, self.radiation)

    @property
    def reach_m2(self) -> float | None:
        """Wavelength times distance, in square metres."""
        if self.wavelength_m is None or self.distance_m is None:
            return None
        return self.wavelength_m * self.distance_m

    def object_pixel_m(self, pattern_shape: tuple[int, int]) -> tuple[float, float] | None:
        """Object pixel ``(y, x)`` of far-field patterns of that shape, in metres.

        It is wavelength * distance / detector size.
        """
        reach = self.reach_m2
        if reach is None or self.detector_pixel_m is None:
            return None
        (rows, columns), (height, width) = pattern_shape, self.detector_pixel_m
        return reach / (rows * height), reach / (columns * width)


@dataclass(frozen=True)
class Scan:
    """What was measured.

    Attributes:
        counts: Photons per detector pixel, real, (N, H, W), read by index.
        positions_px: Patch centres ``(y, x)`` in object pixels, float64, (N, 2).
        probe: Illumination modes in sqrt(photons), complex64, (M, H, W); None if it is not known.
            Its squared sum *is* the photons per exposure, the one scale of the scan.
        mask: Detector pixels to trust, bool, (H, W), True = good.
        scan_index: Identifier of each exposure, int64, (N,).
        pixel_size_m: Object pixel ``(y, x)``, in metres, where known.
        instrument: Known facts about the experiment.
        source: Where it came from, for messages.
        decisions: Conclusions about the file, one sentence each.
        fresnel_number: Of an object pixel, ``(y, x)``, pixel^2 / (wavelength * distance), where the
            patterns were recorded in the near field; None in the far field.
        flux: Photons of each exposure relative to those of the probe, float64, (N,); None is 1.
        background: Photons of each pixel that come past the sample, float32, (H, W); None is 0.
        probe_components: How the probe changes over the scan, complex64, (K, M, H, W).
        probe_weights: Of the components in each exposure, float32, (N, K); the probe of exposure n
            is ``probe + sum_k probe_weights[n, k] * probe_components[k]``.

    Raises:
        InputError: If the shapes contradict each other.
    """

    counts: PatternArray
    positions_px: NDArray[np.float64]
    probe: NDArray[np.complex64] | None
    mask: NDArray[np.bool_]
    scan_index: NDArray[np.int64]
    pixel_size_m: tuple[float, float] | None = None
    instrument: Instrument = Instrument()
    source: str = "scan"
    decisions: tuple[str, ...] = ()
    fresnel_number: tuple[float, float] | None = None
    flux: NDArray[np.float64] | None = None
    background: NDArray[np.float32] | None = None
    probe_components: NDArray[np.complex64] | None = None
    probe_weights: NDArray[np.float32] | None = None

    @property
    def is_far_field(self) -> bool:
        """Whether the patterns are far-field ones."""
        return self.fresnel_number is None

    def __post_init__(self) -> None:
        if len(self.counts.shape) != 3 or self.counts.shape[0] == 0:
            raise InputError(
                f"{self.source}: patterns have shape {self.counts.shape}; expected (n, H, W) with "
                "n > 0"
            )
        n, *pattern = self.counts.shape
        probe_shape = (0, *pattern) if self.probe is None else self.probe.shape
        for name, found, expected in (
            ("positions", self.positions_px.shape, (n, 2)),
            ("scan_index", self.scan_index.shape, (n,)),
            ("mask", self.mask.shape, tuple(pattern)),
            ("probe", probe_shape, (*probe_shape[:1], *pattern)),
        ):
            if found != expected:
                raise InputError(
                    f"{self.source}: {name} has shape {found}; expected {expected} for "
                    f"{n} patterns of {pattern[0]}x{pattern[1]} pixels"
                )

    def __len__(self) -> int:
        return self.counts.shape[0]

    @property
    def pattern_shape(self) -> tuple[int, int]:
        """``(H, W)``."""
        _, height, width = self.counts.shape
        return height, width

    def need_probe(self) -> NDArray[np.complex64]:
        """The probe.

        Raises:
            InputError: If it is not known.
        """
        if self.probe is None:
            raise InputError(f"{self.source}: there is no probe; give one with --probe FILE")
        return self.probe

    @property
    def photons(self) -> float:
        """Photons per exposure, those of the probe."""
        return float(np.sum(np.abs(self.need_probe().astype(np.complex128)) ** 2))

    def probes_of(self, points: NDArray[np.intp]) -> NDArray[np.complex64]:
        """The probe of some exposures, at the photons of each, complex64, (n, M, H, W)."""
        probes = np.repeat(self.need_probe()[None], len(points), axis=0)
        if self.probe_components is not None and self.probe_weights is not None:
            probes += np.tensordot(self.probe_weights[points], self.probe_components, axes=1)
        if self.flux is not None:
            probes *= np.sqrt(self.flux[points]).astype(np.float32)[:, None, None, None]
        return probes

    @property
    def has_own_probes(self) -> bool:
        """Whether the probe or its photons differ between exposures."""
        return self.flux is not None or self.probe_components is not None

    def corners_px(self) -> NDArray[np.float64]:
        """Minimum corners ``(y, x)`` of the patches, in the frame of the positions, (N, 2)."""
        return self.positions_px - np.asarray(self.pattern_shape) / 2

    def canvas(self) -> tuple[NDArray[np.float64], tuple[int, int]]:
        """Position ``(y, x)`` of the first pixel, and shape, of a canvas that holds all patches.

        Raises:
            InputError: See `extent_fault`.
        """
        if fault := self.extent_fault():
            raise InputError(f"{self.source}: {fault}; see ptycho-torch doctor")
        corners = self.corners_px()
        origin = np.floor(corners.min(axis=0))
        rows, columns = np.rint(corners - origin).max(axis=0).astype(int) + self.pattern_shape + 1
        return origin, (int(rows), int(columns))

    def extent_fault(self) -> str:
        """The fault of the extent of the positions, as a sentence; empty if it has none.

        They lie so far from zero that their fractions of a pixel are lost, or a canvas of them
        would be large and nearly all of it dark.
        """
        farthest = float(np.abs(self.positions_px).max())
        if farthest > FARTHEST_PX:
            return (
                f"positions lie {farthest:.4g} px from zero, where their numbers are not exact to "
                "a thousandth of a pixel; subtract their mean"
            )
        corners = self.corners_px()
        size = np.asarray(self.pattern_shape)
        extent = np.ptp(corners, axis=0) + size
        cells = len(np.unique(np.floor((corners - corners.min(axis=0)) / size), axis=0))
        lit = 4.0 * cells * size.prod()  # px; a patch touches four cells of its size at most
        if extent.prod() > max(LARGE_CANVAS_PX, DARK_CANVAS * lit):
            return (
                f"positions span {extent[0]:.4g} x {extent[1]:.4g} px, of which the patterns light "
                f"{100 * lit / extent.prod():.2g} % at most; are some of the positions, or their "
                "unit, wrong?"
            )
        return ""

    def pattern_totals(self) -> NDArray[np.float64]:
        """Photons of each pattern on good pixels, (N,); reads all patterns once, in blocks."""
        totals = np.empty(len(self))
        for window, block in blocks(self.counts):
            totals[window] = (block * self.mask).sum(axis=(1, 2), dtype=np.float64)
        return totals

    def plot(self) -> Figure:
        """A figure of the mean pattern, the positions in their order, and the probe."""
        return _notebook("figure_of_scan", self)

    def _repr_html_(self) -> str:
        """The scan in a notebook: picture and facts."""
        return _notebook("html_of_scan", self)

    def subset(self, indices: Sequence[int] | NDArray[np.integer]) -> Scan:
        """The same scan with some of its patterns, in ascending order; the scale stays the same."""
        chosen = np.sort(np.asarray(indices))
        return replace(
            self,
            counts=select(self.counts, chosen),
            positions_px=self.positions_px[chosen],
            scan_index=self.scan_index[chosen],
            flux=None if self.flux is None else self.flux[chosen],
            probe_weights=None if self.probe_weights is None else self.probe_weights[chosen],
        )

    def central_subset(self, count: int | None) -> Scan:
        """The scan with the positions nearest to its middle.

        The middle is the centre of the bounding box, so that a dense corner does not shift it.

        Args:
            count: Number of positions; None, or more than there are, keeps all.
        """
        if count is None or count >= len(self):
            return self
        middle = (self.positions_px.min(axis=0) + self.positions_px.max(axis=0)) / 2
        distance = np.square(self.positions_px - middle).sum(axis=1)
        return self.subset(np.argsort(distance, kind="stable")[:count])


class Group(NamedTuple):
    """Neighbouring scan points that the network sees together.

    The canvas of a group is the piece of object that its patches cover; its element [0, 0] lies
    at the whole-pixel ``origin_px`` in the frame of the scan's positions.

    Attributes:
        counts: Photons, float32, (B, C, H, W), as on the detector.
        corners_px: Minimum corners ``(y, x)`` of the patches on the canvas, float32, (B, C, 2).
        probe: Illumination modes in sqrt(photons), complex64, (B, M, H, W), or (B, C, M, H, W)
            where each pattern has its own.
        mask: Good detector pixels, bool, (B, H, W).
        origin_px: Position of the canvas, int64, (B, 2).
        background: Photons that come past the sample, float32, (B, H, W); None is 0.
        fresnel_number: Of a pixel, ``(y, x)``, float32, (B, 2); None in the far field.
    """

    counts: Tensor
    corners_px: Tensor
    probe: Tensor
    mask: Tensor
    origin_px: Tensor
    background: Tensor | None = None
    fresnel_number: Tensor | None = None

    def mean_probe(self) -> Tensor:
        """Illumination modes, the mean over the patterns of each group, (B, M, H, W)."""
        return self.probe if self.probe.ndim == 4 else self.probe.mean(dim=1)

    def canvas_shape(self) -> tuple[int, int]:
        """``(Y, X)`` that holds every patch of the batch."""
        height, width = self.counts.shape[-2:]
        rows, columns = self.corners_px.amax(dim=(0, 1)).round().long().tolist()
        return rows + height, columns + width


@dataclass(frozen=True)
class Reconstruction:
    """What was made.

    Attributes:
        object: Transmission, complex64, (Y, X); the global phase is arbitrary.
        coverage: Photons that fell on each pixel, summed over the scan, as a fraction of the
            largest; float32, (Y, X), zero where nothing was measured.
        origin_yx: Coordinates of element [0, 0] in the frame of the scan's positions, in object
            pixels, (2,).
        probe: As used, complex64, (M, H, W), in sqrt(photons).
        positions_px: Patch centres as used, float64, (N, 2).
        scan_index: Identifiers of the exposures used, int64, (N,).
        pixel_size_m: Object pixel ``(y, x)``, in metres, where known.
        instrument: Known facts about the experiment.
        flux: Photons of each shot relative to their mean, float64, (N,), mean 1; None where the
            shots are equal.
        background: Expected photons of each pixel of every pattern that did not come through the
            object, float32, (H, W), not negative; None where there are none.
        probe_components: What a probe that changes over the scan may differ by, complex64,
            (K, M, H, W), in sqrt(photons). The probe of pattern n is
            ``probe + sum_k probe_weights[n, k] probe_components[k]``; None where it does not
            change.
        probe_weights: Of the components in each pattern, float32, (N, K); None without components.
        is_far_field: Whether the patterns are far-field ones.
    """

    object: NDArray[np.complex64]
    coverage: NDArray[np.float32]
    origin_yx: NDArray[np.float64]
    probe: NDArray[np.complex64]
    positions_px: NDArray[np.float64]
    scan_index: NDArray[np.int64]
    pixel_size_m: tuple[float, float] | None = None
    instrument: Instrument = Instrument()
    flux: NDArray[np.float64] | None = None
    background: NDArray[np.float32] | None = None
    probe_components: NDArray[np.complex64] | None = None
    probe_weights: NDArray[np.float32] | None = None
    is_far_field: bool = True

    def plot(self) -> Figure:
        """A figure of amplitude and phase of the object, and of the probe."""
        return _notebook("figure_of_reconstruction", self)

    def _repr_html_(self) -> str:
        """The reconstruction in a notebook: picture and facts."""
        return _notebook("html_of_reconstruction", self)


def relative_photons(used: Scan | Reconstruction) -> NDArray[np.float64]:
    """Photons of the beam in each exposure, relative to their mean, (N,).

    They are the flux times the photons of the probe of that exposure, which are more than those of
    the mean probe where components are added to it.

    Raises:
        ValueError: If there is no probe.
    """
    if used.probe is None:
        raise ValueError("without a probe the photons of the beam are not known")
    weights, waves = np.ones((len(used.positions_px), 1)), used.probe[None]
    if used.probe_components is not None and used.probe_weights is not None:
        weights = np.concatenate([weights, used.probe_weights], axis=1)
        waves = np.concatenate([waves, used.probe_components])
    flat = waves.reshape(len(waves), -1).astype(np.complex128)
    photons = np.einsum("nk,kl,nl->n", weights, (flat.conj() @ flat.T).real, weights)
    if used.flux is not None:
        photons = photons * used.flux
    relative: NDArray[np.float64] = photons / photons.mean()
    return relative


def _notebook(name: str, shown: Scan | Reconstruction) -> Any:
    """What a function of `NOTEBOOK` makes of a noun; pictures need more than the data does."""
    return getattr(import_module(NOTEBOOK), name)(shown)

"""The Fourier ring correlation of two images, and the threshold curves of resolution."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ptycho_torch.evaluation.metrics.alignment import ComplexImage

Pair = Literal["half", "full", "truth"]

CRITERIA = {  # name -> signal-to-noise ratio of an image that is made from all of the data
    "one_bit": 1.0,  # log2(1 + ratio) = 1 bit of information in a sample of the spectrum
    "half_bit": np.sqrt(2) - 1,  # half a bit
    "one_seventh": 1
    / 3,  # the image correlates by 0.5 with the truth; between halves of the data, 1/7
}
FIXED = {"one_seventh"}  # drawn without regard to the number of samples

# Samples of a spectrum that a Hann window mixes, on each side; the rest is below 1e-4.
WINDOW_REACH = 2


def fourier_ring_correlation(a: ComplexImage, b: ComplexImage) -> NDArray[np.float64]:
    """Correlation of two images in rings of spatial frequency.

    ::

        FRC(r) = Re sum A conj(B) / sqrt(sum |A|^2 sum |B|^2)

    A Hann window takes the border of the images out. Rings are one frequency sample wide. The
    mean of the images is left in, and its light reaches ring 1.

    Args:
        a: Complex, (Y, X).
        b: Complex, (Y, X).

    Returns:
        From zero frequency to Nyquist, (min(Y, X) // 2,); 0 in a ring where an image has nothing.

    References:
        M. van Heel and M. Schatz, "Fourier shell correlation threshold criteria", J. Struct.
        Biol. 151, 250 (2005), doi:10.1016/j.jsb.2005.05.009.
    """
    window = _window(a.shape)
    spectrum_a, spectrum_b = np.fft.fft2(a * window), np.fft.fft2(b * window)
    cross = _sum_rings((spectrum_a * spectrum_b.conj()).real)
    power = _sum_rings(np.abs(spectrum_a) ** 2) * _sum_rings(np.abs(spectrum_b) ** 2)
    return np.divide(cross, np.sqrt(power), out=np.zeros_like(cross), where=power > 0)


def ring_samples(shape: tuple[int, int]) -> NDArray[np.float64]:
    """Independent complex samples in each ring of `fourier_ring_correlation`.

    A ring of m samples has fewer independent ones, because the window mixes neighbours::

        n = m^2 / sum_kl |rho(k - l)|^2,    rho = FFT(window^2) / sum window^2

    over all pairs k, l of the ring. The spectrum of a complex image has no symmetry, so none of
    the samples is the conjugate of another; of a real image (an amplitude alone) half of n counts.

    Args:
        shape: Of the images, ``(Y, X)``.

    Returns:
        (min(Y, X) // 2,), at least about 1.
    """
    ring = _rings(shape)
    overlap = np.fft.fft2(_window(shape) ** 2)
    rho = np.abs(overlap / overlap[0, 0]) ** 2
    pairs = np.zeros(min(shape) // 2)
    for dy in range(-WINDOW_REACH, WINDOW_REACH + 1):
        for dx in range(-WINDOW_REACH, WINDOW_REACH + 1):
            together = ring == np.roll(ring, (dy, dx), axis=(0, 1))
            pairs += rho[dy, dx] * _sum_rings(together.astype(np.float64))
    return _sum_rings(np.ones(shape)) ** 2 / pairs


def threshold_curve(
    samples: NDArray[np.float64], criterion: str, *, pair: Pair
) -> NDArray[np.float64]:
    """The ring correlation below which a ring carries less than the criterion asks for.

    With s the signal-to-noise ratio of each of the two images, and n independent samples,
    van Heel and Schatz [1]_ expect ::

        T = (s + 2 sqrt(s / n) + 1 / sqrt(n)) / (s + 1 + 2 sqrt(s / n))

    A criterion is a ratio S of the image from *all* data: 1 for one bit, sqrt(2) - 1 for half a
    bit. What s is depends on what the images were made from, which is where curves go wrong:

    - ``half``: from the two halves of the data. s = S / 2; the published curves,
      (0.5 + 2.4142 / sqrt(n)) / (1.5 + 1.4142 / sqrt(n)) for one bit and
      (0.2071 + 1.9102 / sqrt(n)) / (1.2071 + 0.9102 / sqrt(n)) for half a bit.
    - ``full``: each from a full set of data of its own. s = S.
    - ``truth``: the second is known, without noise. The same reasoning with the noise of one
      image gives T = (s + sqrt(s / n)) / sqrt(s (s + 1 + 2 sqrt(s / n))), with s = S.

    The 1/7 criterion [2]_ is a fixed number, S / (S + 2) = 1/7 for halves; the same quality is
    1/4 between full sets and 1/2 against a truth.

    Args:
        samples: n of each ring, from `ring_samples`.
        criterion: "one_bit", "half_bit" or "one_seventh".
        pair: What the two images are to each other.

    Returns:
        As ``samples``.

    References:
        .. [1] M. van Heel and M. Schatz, "Fourier shell correlation threshold criteria",
           J. Struct. Biol. 151, 250 (2005), doi:10.1016/j.jsb.2005.05.009, equations 14 and 17.
        .. [2] P. B. Rosenthal and R. Henderson, "Optimal determination of particle orientation,
           absolute hand, and contrast loss in single-particle electron cryomicroscopy", J. Mol.
           Biol. 333, 721 (2003), doi:10.1016/j.jmb.2003.07.013.
    """
    ratio = CRITERIA[criterion] / (2 if pair == "half" else 1)
    chance = np.zeros_like(samples) if criterion in FIXED else 1 / np.sqrt(samples)
    cross = np.sqrt(ratio) * chance  # of the signal with one noise
    if pair == "truth":
        return (ratio + cross) / np.sqrt(ratio * (ratio + 1 + 2 * cross))
    return (ratio + 2 * cross + chance) / (ratio + 1 + 2 * cross)


def resolution(
    correlation: NDArray[np.float64], threshold: float | NDArray[np.float64] = 0.5
) -> float:
    """The spatial frequency at which a ring correlation first falls below a threshold.

    Args:
        correlation: From `fourier_ring_correlation`, (R,).
        threshold: A number, or a curve, (R,).

    Returns:
        As a fraction of Nyquist, whose inverse is the resolved half period in pixels; 1 where
        the correlation stays above. The ring of zero frequency is not asked.
    """
    below = np.flatnonzero((correlation < threshold)[1:])
    return 1.0 if len(below) == 0 else float((below[0] + 0.5) / len(correlation))


@dataclass(frozen=True)
class RingCurves:
    """The ring correlation of two images, and what it is held against.

    Attributes:
        correlation: From `fourier_ring_correlation`, (R,).
        thresholds: From `threshold_curve`, (R,) for each name of `CRITERIA`.
        pair: What the two images are to each other.
    """

    correlation: NDArray[np.float64]
    thresholds: dict[str, NDArray[np.float64]]
    pair: Pair

    @property
    def frequency(self) -> NDArray[np.float64]:
        """Of each ring, as a fraction of Nyquist, (R,)."""
        return np.arange(len(self.correlation)) / len(self.correlation)

    def resolutions(self) -> dict[str, float]:
        """Where the correlation first falls below each curve, as a fraction of Nyquist."""
        return {
            name: resolution(self.correlation, curve) for name, curve in self.thresholds.items()
        }

    def to_dict(self) -> dict[str, object]:
        """Frequency, correlation and curves as lists, and the resolutions."""
        curves = {name: curve.tolist() for name, curve in self.thresholds.items()}
        return {
            "pair": self.pair,
            "resolution_of_nyquist": self.resolutions(),
            "frequency_of_nyquist": self.frequency.tolist(),
            "correlation": self.correlation.tolist(),
            "thresholds": curves,
        }


def curves_from_dict(content: Mapping[str, Any]) -> RingCurves:
    """The curves that `RingCurves.to_dict` made plain."""
    thresholds = {name: np.array(curve) for name, curve in content["thresholds"].items()}
    return RingCurves(np.array(content["correlation"]), thresholds, content["pair"])


def ring_curves(a: ComplexImage, b: ComplexImage, *, pair: Pair) -> RingCurves:
    """Ring correlation of two aligned images, (Y, X) each, with all threshold curves."""
    samples = ring_samples((a.shape[0], a.shape[1]))
    curves = {name: threshold_curve(samples, name, pair=pair) for name in CRITERIA}
    return RingCurves(fourier_ring_correlation(a, b), curves, pair)


def _window(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """A Hann window, (Y, X)."""
    return np.hanning(shape[0])[:, None] * np.hanning(shape[1])


def _rings(shape: tuple[int, ...]) -> NDArray[np.int64]:
    """The number of the ring of every sample of a spectrum, (Y, X)."""
    radius = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1]))
    return np.rint(radius * min(shape)).astype(np.int64)


def _sum_rings(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums over the rings up to Nyquist, (min(Y, X) // 2,)."""
    sums = np.bincount(_rings(values.shape).ravel(), values.ravel())
    return sums[: min(values.shape) // 2].astype(np.float64)

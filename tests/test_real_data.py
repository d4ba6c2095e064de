"""A measured scan, a Siemens star; not part of the project, and skipped with a reason where it is
absent.
"""

import json

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from ptycho_torch.config import InferenceConfig, TrainingConfig
from ptycho_torch.inference import reconstruct
from ptycho_torch.io.readers import read_scan
from ptycho_torch.io.readers.reconstruction import read_reconstruction
from ptycho_torch.train import train

pytestmark = pytest.mark.real_data

SPOKES = 30
CENTRE_YX = (230.0, 211.0)  # where the spokes meet, in object pixels, read off the picture
RADII_PX = np.arange(90, 150, 2)  # between two breaks of the spokes


def test_counts_are_told_from_amplitudes_and_the_probe_is_scaled(measured_scan_file):
    scan = read_scan(measured_scan_file)
    assert (len(scan), scan.pattern_shape) == (464, (128, 128))
    assert scan.photons == pytest.approx(4.6e5, rel=0.01)
    assert "patterns are whole numbers: read as photon counts" in scan.decisions


def test_a_short_training_shows_the_spokes(measured_scan_file, tmp_path):
    """The phase on circles around the centre repeats once a spoke.

    Its share of the variance is 0.8 in a good image; positions mirrored in x or y leave 0.1, noise
    less.
    """
    run = train(
        TrainingConfig(
            train_data_file=[measured_scan_file],
            output_dir=tmp_path / "run",
            n_images=100,
            max_epochs=2,
            accelerator="cpu",
            quiet=True,
        )
    )
    image = reconstruct(
        InferenceConfig(
            model_path=run.path,
            test_data=measured_scan_file,
            output_dir=tmp_path / "image",
            accelerator="cpu",
            quiet=True,
        )
    )
    assert spoke_share(read_reconstruction(image.reconstruction)) > 0.5
    metrics = json.loads(image.metrics.read_text())
    assert metrics["r_factor"] < 0.7 * metrics["r_factor_empty"]


def spoke_share(result) -> float:
    """Share of the variance of the phase on circles that has the period of the spokes."""
    angle = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    y = CENTRE_YX[0] - result.origin_yx[0] + RADII_PX[:, None] * np.sin(angle)
    x = CENTRE_YX[1] - result.origin_yx[1] + RADII_PX[:, None] * np.cos(angle)
    seen = result.object[result.coverage > 0.1]
    phase = np.angle(result.object * np.exp(-1j * np.angle(seen.mean())))
    profile = map_coordinates(phase, [y, x], order=1).mean(axis=0)
    power = np.abs(np.fft.rfft(profile - profile.mean())) ** 2
    return float(power[SPOKES] / power[2:].sum())  # without tilt and astigmatism of the background

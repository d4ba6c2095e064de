"""No text of a picture is cut off."""

from itertools import product

import numpy as np
import pytest

from ptycho_torch.data.scan import Reconstruction
from ptycho_torch.evaluation.plots import panels, plot_amplitude, plot_phase

SHAPES, SCALES = ((40, 400), (400, 40), (200, 200)), (1e-4, 1.0, 1e4)


@pytest.mark.parametrize(("shape", "scale"), list(product(SHAPES, SCALES)))
@pytest.mark.parametrize("plot", [plot_amplitude, plot_phase])
def test_no_label_is_cut_off(plot, shape, scale):
    """Long and high pictures, far from the origin, whose values have few or many digits."""
    noise = 0.02 * np.random.default_rng(0).standard_normal((2, *shape))
    result = Reconstruction(
        object=(scale * (1 + noise[0] + 1j * noise[1])).astype(np.complex64),
        coverage=np.ones(shape, dtype=np.float32),
        origin_yx=np.array([123456.0, 123456.0]),
        probe=np.ones((1, 8, 8), dtype=np.complex64),
        positions_px=np.zeros((1, 2)),
        scan_index=np.arange(1),
        pixel_size_m=(1e-8, 1e-8),
    )
    figure, (axes,) = panels()
    plot(axes, result)
    left, bottom, right, top = figure.get_tightbbox().extents
    width, height = figure.get_size_inches()
    assert (left >= 0, bottom >= 0, right <= width, top <= height) == (True,) * 4

"""The blur on the device of an image is that of SciPy, an independent program."""

import pytest
import torch
from scipy.ndimage import gaussian_filter

from ptycho_torch.physics.gaussian_blur import gaussian_blur


@pytest.mark.parametrize(("border", "mode"), [("zero", "constant"), ("nearest", "nearest")])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_it_is_the_convolution_with_a_gaussian(border, mode, dtype):
    image = torch.randn(30, 41, dtype=dtype, generator=torch.Generator().manual_seed(0))
    widths = (1.3, 2.2)
    expected = torch.from_numpy(gaussian_filter(image.numpy(), widths, mode=mode))
    torch.testing.assert_close(gaussian_blur(image, widths, border=border), expected)

"""A scan that was stored in another orientation is the same scan when it is turned back.

The stored patterns are made with explicit frequencies: the file's pixel at frequency q from
``[H // 2, W // 2]`` holds the pattern at the frequency that the orientation maps to q.
"""

from itertools import product

import numpy as np
import pytest

from ptycho_torch.config import ReadingOptions
from ptycho_torch.data.detector import Orientation
from ptycho_torch.io.readers.raw_scan import RawScan
from ptycho_torch.io.readers.to_scan import to_scan

ORIENTATIONS = list(product((False, True), repeat=3))


def stored_image(image, transpose, flip_y, flip_x):
    """An image whose pixels a transposed and flipped detector recorded, by their frequencies."""
    height, width = image.shape
    shape = (width, height) if transpose else (height, width)
    stored = np.empty(shape, dtype=image.dtype)
    for row, column in np.ndindex(shape):
        q = np.array([row - shape[0] // 2, column - shape[1] // 2])
        turned = q[::-1] if transpose else q
        turned = turned * np.where([flip_y, flip_x], -1, 1)
        at = (turned + np.array((height, width)) // 2) % (height, width)
        stored[row, column] = image[tuple(at)]
    return stored


@pytest.mark.parametrize("shape", [(8, 8), (9, 9), (8, 9), (9, 8), (8, 12)])
@pytest.mark.parametrize("turn", ORIENTATIONS)
def test_the_scan_is_the_same_in_every_orientation_and_size(turn, shape):
    transpose, flip_y, flip_x = turn
    rng = np.random.default_rng(3)
    patterns = rng.poisson(9.0, (3, *shape)) + 1
    mask = rng.random(shape) > 0.2
    raw = RawScan(
        source="scan",
        patterns=np.stack([stored_image(one, *turn) for one in patterns]),
        patterns_key="patterns",
        values="counts",
        positions=np.arange(6.0).reshape(3, 2),
        positions_unit="px",
        mask=stored_image(mask, *turn),
    )
    options = ReadingOptions(transpose=transpose, flip_y=flip_y, flip_x=flip_x)
    scan = to_scan(raw, options)
    np.testing.assert_array_equal(scan.mask, mask)
    np.testing.assert_array_equal(scan.counts, np.where(mask, patterns, 0))
    np.testing.assert_array_equal(Orientation(*turn).turn(raw.mask), mask)
    stated = f"{raw.patterns.shape[1] // 2},{raw.patterns.shape[2] // 2}"
    told = to_scan(raw, ReadingOptions(**vars(options) | {"center": stated}))
    np.testing.assert_array_equal(told.counts, scan.counts)

"""Least squares: the answer of NumPy, also where columns depend on each other, and its bits."""

import numpy as np
import pytest
import torch

from ptycho_torch.physics.least_squares import least_squares


@pytest.mark.parametrize("on_a_line", [False, True])
def test_it_is_the_answer_of_numpy(on_a_line):
    rng = np.random.default_rng(0)
    design = np.c_[rng.standard_normal((50, 2)), np.ones(50)]
    if on_a_line:
        design[:, 0] = 2 * design[:, 1]
    values = rng.standard_normal((50, 2))
    expected, *_ = np.linalg.lstsq(design, values, rcond=None)
    found = least_squares(torch.from_numpy(design), torch.from_numpy(values))
    np.testing.assert_allclose(found, expected, atol=1e-13)  # round-off of numbers of size 1


def test_it_has_the_same_bits_each_time():
    """Whatever lies in memory beside it: within 500 calls, pivots gave several answers."""
    rng = torch.Generator().manual_seed(0)
    design, values = torch.randn(64, 3, generator=rng), torch.randn(64, 2, generator=rng)
    answers = set()
    for size in range(500):
        beside = torch.zeros(size % 37)
        answers.add(least_squares(design.clone(), values.clone()).numpy().tobytes())
        del beside
    assert len(answers) == 1

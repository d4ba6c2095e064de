"""Least squares that give the same bits each time."""

import torch
from torch import Tensor


def least_squares(design: Tensor, values: Tensor) -> Tensor:
    """The x of smallest norm that minimises ``|design x - values|``.

    It goes by the singular values, on every device. `torch.linalg.lstsq` uses a QR decomposition
    with pivots on the CPU, whose last bits differ from call to call, and none that can do with
    columns that depend on each other (positions along a line) on other devices.

    Args:
        design: Real, (N, K), K small.
        values: (N,) or (N, M).

    Returns:
        (K,) or (K, M).
    """
    return torch.linalg.pinv(design) @ values

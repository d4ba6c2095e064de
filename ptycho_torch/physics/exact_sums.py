"""Sums of values at an index, the same bits each time, on a GPU too.

The many threads of a GPU add in any order, and the last bits of a sum of floating-point numbers
depend on the order. To sort the values first, as torch does where it shall be deterministic, takes
about six times as long as to add them. A sum of whole numbers is exact in any order: so each value
is rounded to a multiple of one small unit, and the multiples are added as 64-bit integers.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

SUM_BITS = 62  # of the largest sum
LARGEST_EXPONENT = 126  # of 1 / unit, which single precision can hold


def sums_at(values: Tensor, index: Tensor, size: int, terms: int) -> Tensor:
    """The sum of the values at each index; differentiable.

    On the CPU one after another. On a GPU each value is rounded to a multiple of
    ``2^-60 terms max|values|``, far below the round-off of single precision in their sum.

    Args:
        values: Real or complex, (P,).
        index: Within [0, size), int64, (P,).
        size: Number of sums.
        terms: Largest number of values at one index.

    Returns:
        Of the dtype of the values, (size,), zero where there is no value.
    """
    if not (values.requires_grad and torch.is_grad_enabled()):
        return _sums(values, index, size, terms)
    result: Tensor = _Sums.apply(values, index, size, terms)
    return result


def values_at(sums: Tensor, index: Tensor, terms: int) -> Tensor:
    """The value at each index: the adjoint of `sums_at`; differentiable.

    Args:
        sums: Real or complex, (size,).
        index: Int64, (P,).
        terms: See `sums_at`.

    Returns:
        Of the dtype of the sums, (P,).
    """
    if not (sums.requires_grad and torch.is_grad_enabled()):
        return sums.gather(0, index)
    result: Tensor = _Values.apply(sums, index, terms)
    return result


def _sums(values: Tensor, index: Tensor, size: int, terms: int) -> Tensor:
    """See `sums_at`, without its derivative."""
    if values.device.type == "cuda":
        return sums_of_multiples(values, index, size, terms)
    return values.new_zeros(size).scatter_add_(0, index, values)


class _Sums(torch.autograd.Function):
    """See `sums_at`."""

    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor, index: Tensor, size: int, terms: int) -> Tensor:
        ctx.save_for_backward(index)
        ctx.terms = terms  # type: ignore[attr-defined]
        return _sums(values, index, size, terms)

    @staticmethod
    def backward(ctx: FunctionCtx, change: Tensor) -> tuple[Tensor, None, None, None]:
        (index,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return values_at(change, index, ctx.terms), None, None, None  # type: ignore[attr-defined]


class _Values(torch.autograd.Function):
    """See `values_at`."""

    @staticmethod
    def forward(ctx: FunctionCtx, sums: Tensor, index: Tensor, terms: int) -> Tensor:
        ctx.save_for_backward(index)
        ctx.size, ctx.terms = len(sums), terms  # type: ignore[attr-defined]
        return sums.gather(0, index)

    @staticmethod
    def backward(ctx: FunctionCtx, change: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors  # type: ignore[attr-defined]
        size, terms = ctx.size, ctx.terms  # type: ignore[attr-defined]
        return sums_at(change, index, size, terms), None, None


def sums_of_multiples(values: Tensor, index: Tensor, size: int, terms: int) -> Tensor:
    """As `sums_at`, by whole multiples of a unit, on any device; NaN if a value is not finite."""
    parts = torch.view_as_real(values) if values.is_complex() else values[:, None]
    largest = torch.linalg.vector_norm(parts, math.inf)
    exponent = SUM_BITS - math.ceil(math.log2(max(terms, 1))) - largest.log2().ceil()
    per_unit = exponent.clamp(max=LARGEST_EXPONENT).exp2()  # a power of two: no digit is lost
    sums = torch.zeros(size, parts.shape[1], dtype=torch.int64, device=values.device)
    with _in_any_order():
        sums.index_add_(0, index, (parts * per_unit).long())
    total = sums.to(parts.dtype) / per_unit
    return torch.view_as_complex(total) if values.is_complex() else total[:, 0]


@contextmanager
def _in_any_order() -> Iterator[None]:
    """A block in which torch does not sort what it adds."""
    mode = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("default")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)

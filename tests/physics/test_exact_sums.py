"""Sums on a device whose threads add in any order: exact, and therefore the same bits each time."""

import pytest
import torch

from ptycho_torch.physics.exact_sums import sums_at, sums_of_multiples, values_at

SIZE, COUNT = 7, 500
ROUND_OFF = 2 * torch.finfo(torch.float32).eps  # of the result alone: the sum itself is exact


def made(dtype, seed=0):
    """Values of very different size at random places, and the largest number at one place."""
    rng = torch.Generator().manual_seed(seed)
    values = torch.randn(COUNT, dtype=dtype, generator=rng)
    values = values * torch.logspace(-6, 3, COUNT)
    index = torch.randint(SIZE, (COUNT,), generator=rng)
    return values, index, int(index.bincount().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_the_order_of_the_values_changes_no_bit(dtype):
    values, index, terms = made(dtype)
    sums = sums_of_multiples(values, index, SIZE, terms)
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(1))
    assert torch.equal(sums, sums_of_multiples(values[order], index[order], SIZE, terms))
    plain = torch.zeros(SIZE, dtype=dtype)
    assert not torch.equal(
        plain.index_add(0, index, values), plain.index_add(0, index[order], values[order])
    ), "the values are too harmless to show anything"


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_they_are_the_sums_but_for_the_rounding_of_the_result(dtype):
    values, index, terms = made(dtype)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    expected = torch.zeros(SIZE, dtype=wide).index_add(0, index, values.to(wide))
    found = sums_of_multiples(values, index, SIZE, terms)
    assert found.dtype == dtype
    torch.testing.assert_close(found.to(wide), expected, rtol=ROUND_OFF, atol=1e-9)
    torch.testing.assert_close(sums_at(values, index, SIZE, terms), found, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-37, 1.0, 1e30])
def test_many_equal_values_neither_overflow_nor_vanish(scale):
    values = torch.full((1000,), scale)
    sums = sums_of_multiples(values, torch.zeros(1000, dtype=torch.int64), 2, 1000)
    assert sums[0].item() == pytest.approx(1000 * scale, rel=1e-6)
    assert sums[1] == 0


def test_values_of_zero_and_no_values_give_zero():
    index = torch.zeros(3, dtype=torch.int64)
    assert not sums_of_multiples(torch.zeros(3), index, 2, 3).any()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_value_that_is_not_finite_is_seen(value):
    """So that a refinement which diverges is noticed."""
    sums = sums_of_multiples(torch.tensor([1.0, value]), torch.tensor([0, 1]), 2, 1)
    assert not sums.isfinite().all()


def test_sums_and_values_are_adjoint_and_each_is_the_derivative_of_the_other():
    values, index, terms = made(torch.complex64)
    sums = torch.randn(SIZE, dtype=torch.complex64, generator=torch.Generator().manual_seed(2))
    values.requires_grad_()
    sums.requires_grad_()
    left = torch.vdot(sums_at(values, index, SIZE, terms), sums.detach()).real
    right = torch.vdot(values.detach(), values_at(sums, index, terms)).real
    torch.testing.assert_close(left, right, rtol=1e-5, atol=0)
    left.backward()
    right.backward()
    assert torch.equal(values.grad, values_at(sums.detach(), index, terms))
    assert torch.equal(sums.grad, sums_at(values.detach(), index, SIZE, terms))

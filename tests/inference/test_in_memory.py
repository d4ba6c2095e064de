"""A reconstruction on another canvas: every element keeps its place."""

import dataclasses

import numpy as np
import pytest

from ptycho_torch.data.scan import Reconstruction
from ptycho_torch.inference.in_memory import on_canvas


@pytest.fixture
def result():
    """3x4 pixels, of which element [0, 0] lies at (5, -2)."""
    rng = np.random.default_rng(0)
    obj = rng.standard_normal((3, 4)) + 1j * rng.standard_normal((3, 4))
    return Reconstruction(
        object=obj.astype(np.complex64),
        coverage=np.ones((3, 4), dtype=np.float32),
        origin_yx=np.array([5.0, -2.0]),
        probe=np.ones((1, 2, 2), dtype=np.complex64),
        positions_px=np.zeros((1, 2)),
        scan_index=np.arange(1),
    )


def at(result, y, x):
    """The element at a place in the frame of the positions."""
    row, column = np.array([y, x]) - result.origin_yx.astype(int)
    return result.object[row, column], result.coverage[row, column]


@pytest.mark.parametrize(
    ("origin_yx", "shape"),
    [
        ((5, -2), (3, 4)),
        ((0, -10), (20, 20)),
        ((4, -1), (3, 9)),
        ((6, -7), (9, 7)),
        ((6, -1), (1, 2)),
    ],
)
def test_an_element_keeps_its_place(result, origin_yx, shape, caplog):
    moved = on_canvas(result, origin_yx, shape)
    assert moved.object.shape == moved.coverage.shape == shape
    kept = 0
    for y in range(origin_yx[0], origin_yx[0] + shape[0]):
        for x in range(origin_yx[1], origin_yx[1] + shape[1]):
            inside = 5 <= y < 8 and -2 <= x < 2
            kept += inside
            assert at(moved, y, x) == (at(result, y, x) if inside else (1, 0))
    assert ("of the light lies beyond the canvas" in caplog.text) == (kept < 12)


def test_a_canvas_beside_all_patches_is_empty_space(result, caplog):
    for origin_yx in ((50, 50), (-50, -50), (5, 50), (-50, -2)):
        moved = on_canvas(result, origin_yx, (4, 4))
        assert np.array_equal(moved.object, np.ones((4, 4)))
        assert not moved.coverage.any()
    assert "100 % of the light" in caplog.text


def test_everything_else_stays(result):
    moved = on_canvas(result, (0, 0), (9, 9))
    for one in dataclasses.fields(result):
        if one.name not in ("object", "coverage", "origin_yx"):
            assert getattr(moved, one.name) is getattr(result, one.name)

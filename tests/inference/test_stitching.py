"""Every pixel lies where it belongs: against placement by hand, not against the code itself."""

import numpy as np
import pytest
import torch

from ptycho_torch.data.scan import Scan
from ptycho_torch.generators.base import Generator
from ptycho_torch.inference.stitching import Mosaic
from ptycho_torch.inference.tiling import reconstruct_scan


def test_a_delta_lands_at_its_coordinates():
    mosaic = Mosaic(np.array([10.0, 20.0]), (30, 40))
    canvas = torch.ones(5, 7, dtype=torch.complex64)
    canvas[2, 3] = 9
    mosaic.add(canvas, torch.ones(5, 7), np.array([15.0, 31.0]))
    image, _ = mosaic.finish()
    assert np.argwhere(image.abs().numpy() > 5).tolist() == [[15 + 2 - 10, 31 + 3 - 20]]


def test_overlap_is_the_weighted_mean_by_hand():
    mosaic = Mosaic(np.zeros(2), (1, 3))
    mosaic.add(torch.tensor([[2.0 + 0j, 2.0]]), torch.tensor([[1.0, 3.0]]), np.array([0, 0]))
    mosaic.add(torch.tensor([[4.0 + 0j, 4.0]]), torch.tensor([[1.0, 1.0]]), np.array([0, 1]))
    image, weight = mosaic.finish()
    assert torch.allclose(image, torch.tensor([[2.0 + 0j, (3 * 2 + 1 * 4) / 4, 4.0]]))
    assert torch.equal(weight, torch.tensor([[1.0, 4.0, 1.0]]))


def test_a_canvas_is_turned_to_the_phase_of_those_before_it():
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
    truth = torch.polar(1 + 0.01 * y, 0.03 * x - 0.02 * y)
    mosaic = Mosaic(np.zeros(2), (20, 30))
    mosaic.add(truth[:, :18], torch.ones(20, 18), np.array([0, 0]))
    mosaic.add(truth[:, 12:] * np.exp(2.1j), torch.ones(20, 18), np.array([0, 12]))
    image, _ = mosaic.finish()
    assert torch.allclose(image, truth, atol=1e-5)


def test_what_was_not_measured_is_empty_space():
    image, weight = Mosaic(np.zeros(2), (4, 4)).finish()
    assert torch.equal(image, torch.ones(4, 4, dtype=torch.complex64))
    assert not weight.any()


class Surveyor(Generator):
    """A generator that knows a function of the position on the sample, and draws it."""

    variable_group_size = True

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.unused = torch.nn.Parameter(torch.zeros(()))

    def forward(self, group, canvas_shape):
        rows, columns = canvas_shape
        y = group.origin_px[:, 0, None] + torch.arange(rows)
        x = group.origin_px[:, 1, None] + torch.arange(columns)
        return self.function(y[:, :, None].double(), x[:, None, :].double()).to(torch.complex64)


def scan_at(positions, size=16):
    y = np.arange(size) - size / 2
    probe = np.exp(-(y[:, None] ** 2 + y**2) / 8)[None].astype(np.complex64)
    return Scan(
        counts=np.ones((len(positions), size, size), dtype=np.uint8),
        positions_px=positions,
        probe=probe,
        mask=np.ones((size, size), dtype=bool),
        scan_index=np.arange(len(positions)),
    )


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_ramp_over_the_sample_comes_back_as_that_ramp_from_many_tiles(batch_size):
    """Positions at random, sub-pixel, negative ones too; the object is a known function of (y,
    x).
    """
    positions = np.random.default_rng(0).uniform([-40, 25], [30, 70], (150, 2))

    def ramp(y, x):
        return torch.polar(1 + 0.01 * (y + 2 * x), 0.02 * x - 0.05 * y)

    result = reconstruct_scan(
        Surveyor(ramp), scan_at(positions), sizes=(11, 16), batch_size=batch_size
    )
    y, x = (
        np.arange(size) + corner
        for size, corner in zip(result.object.shape, result.origin_yx, strict=True)
    )
    expected = ramp(torch.from_numpy(y)[:, None], torch.from_numpy(x)[None]).numpy()
    turn = np.vdot(result.object[result.coverage > 0], expected[result.coverage > 0])
    turned = result.object * np.exp(1j * np.angle(turn))
    assert np.allclose(
        turned[result.coverage > 0], expected[result.coverage > 0], atol=1e-4
    )  # complex64


def test_coverage_is_where_the_probe_was():
    """The coverage is the sum of Gaussians at the whole pixels nearest to the positions, by
    hand.
    """
    positions = np.random.default_rng(0).uniform(10, 40, (40, 2))
    scan, count = scan_at(positions, size=32), len(positions)
    result = reconstruct_scan(
        Surveyor(lambda y, x: 1 + 0j * y * x), scan, sizes=(count, count), batch_size=1
    )
    y, x = (
        np.arange(size) + corner
        for size, corner in zip(result.object.shape, result.origin_yx, strict=True)
    )
    expected = sum(
        np.exp(-((y[:, None] - p[0]) ** 2 + (x - p[1]) ** 2) / 4) for p in positions.round()
    )
    assert np.allclose(
        result.coverage, expected / expected.max(), atol=1e-4
    )  # the Gaussian's tail at the window


def test_light_counts_once_however_the_scan_is_cut():
    """Regions see their neighbours' patterns, whose light is not theirs."""
    positions = np.stack(np.meshgrid(*[np.arange(6) * 4.0 + 20.3] * 2, indexing="ij"), -1).reshape(
        -1, 2
    )
    scan, flat = scan_at(positions, size=32), Surveyor(lambda y, x: 1 + 0j * y * x)
    whole, cut = (
        reconstruct_scan(flat, scan, sizes=sizes, batch_size=1) for sizes in ((36, 36), (6, 11))
    )
    assert np.allclose(cut.coverage, whole.coverage, atol=1e-5)

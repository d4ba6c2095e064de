"""A scan checks its shapes, its canvas holds all patches, and its exposures have their photons."""

from dataclasses import replace

import numpy as np
import pytest

from ptycho_torch.data.scan import Scan, relative_photons
from ptycho_torch.errors import InputError


@pytest.fixture
def scan():
    """Three patterns of 4 x 6 pixels."""
    rng = np.random.default_rng(0)
    return Scan(
        counts=rng.poisson(5.0, (3, 4, 6)).astype(np.uint16),
        positions_px=np.array([[0.0, 0.0], [2.25, 1.0], [-1.5, 3.75]]),
        probe=(rng.standard_normal((2, 4, 6)) + 1j).astype(np.complex64),
        mask=np.ones((4, 6), dtype=bool),
        scan_index=np.arange(3),
    )


def test_the_canvas_is_the_smallest_that_holds_every_patch_and_its_sub_pixel_shift(scan):
    """Corners of the patches lie half a patch before the positions: rows -3.5 to 0.25, columns -3
    to 0.75.
    """
    origin, shape = scan.canvas()
    assert origin.tolist() == [-4.0, -3.0]
    assert shape == (4 + 4 + 1, 4 + 6 + 1)  # rounded corner of the last patch, patch, one pixel


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("patterns", {"counts": np.zeros((4, 6), np.uint16)}),
        ("patterns", {"counts": np.zeros((0, 4, 6), np.uint16)}),
        ("positions", {"positions_px": np.zeros((2, 2))}),
        ("positions", {"positions_px": np.zeros((3, 3))}),
        ("scan_index", {"scan_index": np.arange(4)}),
        ("mask", {"mask": np.ones((6, 4), dtype=bool)}),
        ("probe", {"probe": np.ones((1, 6, 4), np.complex64)}),
    ],
)
def test_a_part_of_a_wrong_shape_is_named(scan, part, value):
    shape = next(iter(value.values())).shape
    with pytest.raises(InputError) as error:
        replace(scan, **value)
    assert f": {part} ha" in str(error.value)
    assert str(shape) in str(error.value)


def test_photons_of_an_exposure_are_those_of_its_own_probe_and_its_flux(scan):
    rng = np.random.default_rng(1)
    components = (rng.standard_normal((2, 2, 4, 6)) + 0.5j).astype(np.complex64)
    weights, flux = rng.standard_normal((3, 2)), np.array([0.5, 1.0, 1.5])
    own = scan.probe + np.einsum("nk,kmyx->nmyx", weights, components)
    photons = (np.abs(own) ** 2).sum(axis=(1, 2, 3)) * flux
    found = replace(scan, probe_components=components, probe_weights=weights, flux=flux)
    assert relative_photons(found) == pytest.approx(photons / photons.mean(), rel=1e-5)  # float32
    assert relative_photons(scan) == pytest.approx([1, 1, 1])
    with pytest.raises(ValueError, match="without a probe"):
        relative_photons(replace(scan, probe=None))


def test_the_canvas_of_a_scan_that_is_long_along_one_axis_is_so_too(scan):
    for axis in (0, 1):
        positions = np.zeros((3, 2))
        positions[:, axis] = 0.0, 40.0, 20.0
        shape = replace(scan, positions_px=positions).canvas()[1]
        assert shape[axis] == 41 + scan.pattern_shape[axis]
        assert shape[1 - axis] == 1 + scan.pattern_shape[1 - axis]


def test_positions_that_cannot_be_are_described(scan):
    assert scan.extent_fault() == ""
    far = replace(scan, positions_px=scan.positions_px + 2e12)
    assert far.extent_fault() == (
        "positions lie 2e+12 px from zero, where their numbers are not exact to a thousandth of a "
        "pixel; subtract their mean"
    )
    wide = replace(scan, positions_px=scan.positions_px * [1e5, 1e6])
    extent = np.ptp(wide.positions_px, axis=0) + np.array([4, 6])
    lit = 4 * 3 * 24  # three patches, of which each may touch four cells
    assert wide.extent_fault() == (
        f"positions span {extent[0]:.4g} x {extent[1]:.4g} px, of which the patterns light "
        f"{100 * lit / extent.prod():.2g} % at most; are some of the positions, or their unit, "
        "wrong?"
    )

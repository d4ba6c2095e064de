"""Which scan points belong together."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ptycho_torch.data.grouping import (
    choose_group_size,
    compact_regions,
    divide,
    group_layout,
    join_groups,
    make_group,
)
from ptycho_torch.data.simulation import expected_counts, simulate_scan
from ptycho_torch.errors import InputError
from ptycho_torch.physics.forward import predict_counts
from ptycho_torch.train.datamodule import ScanDataModule


@pytest.fixture
def positions():
    return np.random.default_rng(0).uniform(0, 100, (203, 2))


@pytest.mark.parametrize("rng", [None, np.random.default_rng(1)])
def test_every_point_is_in_the_core_of_one_neighbourhood(positions, rng):
    parts = divide(positions, n_core=30, n_total=40, rng=rng)
    cores = np.concatenate([part.points[: part.n_core] for part in parts])
    assert np.array_equal(np.sort(cores), np.arange(len(positions)))


def test_neighbourhoods_have_the_size_that_was_asked_for_and_no_member_twice(positions):
    for part in divide(positions, n_core=30, n_total=45):
        assert len(part.points) == len(np.unique(part.points)) == 45
        assert part.n_core <= 30


def test_a_neighbourhood_is_compact(positions):
    """Its core holds a seventh of the points; random ones would lie as far apart as the whole
    scan.
    """
    for part in divide(positions, n_core=29, n_total=29, rng=np.random.default_rng(0)):
        spread = positions[part.points].std(axis=0)
        assert np.all(spread < 0.75 * positions.std(axis=0))
        assert np.prod(spread) < 0.3 * np.prod(positions.std(axis=0))


def test_completing_members_are_the_nearest_outsiders(positions):
    for part in divide(positions, n_core=30, n_total=50):
        core, outer = part.points[: part.n_core], part.points[part.n_core :]
        centre = positions[core].mean(axis=0)
        rest = np.setdiff1d(np.arange(len(positions)), part.points)
        distance = np.linalg.norm(positions - centre, axis=1)
        assert distance[outer].max() <= distance[rest].min()


def test_each_neighbourhood_touches_those_before_it(positions):
    parts = divide(positions, n_core=10, n_total=20)
    seen = set(parts[0].points.tolist())
    for part in parts[1:]:
        assert seen & set(part.points.tolist())
        seen |= set(part.points.tolist())


def test_a_scan_smaller_than_a_group_is_one_group():
    (part,) = divide(np.random.default_rng(0).uniform(0, 9, (5, 2)), n_core=49, n_total=60)
    assert len(part.points) == part.n_core == 5


def test_the_central_subset_is_a_patch_that_overlaps_and_not_the_first_rows(simulation):
    grid = np.stack(np.meshgrid(np.arange(11.0), np.arange(11.0), indexing="ij"), axis=-1).reshape(
        -1, 2
    )
    scan = replace(simulation.scan.subset([0] * 121), positions_px=grid)
    assert sorted(map(tuple, scan.central_subset(9).positions_px)) == [
        (y, x) for y in (4.0, 5.0, 6.0) for x in (4.0, 5.0, 6.0)
    ]


def test_group_keeps_each_pattern_with_its_position(simulation):
    scan = simulation.scan
    members = [17, 3, 40]
    group = make_group(scan, members)
    assert np.array_equal(group.counts[0].numpy(), scan.counts[members].astype(np.float32))
    expected = scan.positions_px[members] - 16 - group.origin_px[0].numpy()
    assert np.allclose(
        group.corners_px[0].numpy(), expected, atol=1e-5
    )  # float32 of numbers below 100


def test_epochs_are_divided_anew_and_each_uses_every_pattern_once(simulation):
    scan = simulation.scan
    data = ScanDataModule(
        [scan], [scan], group_size=16, variable_group_size=True, batch_size=1, num_workers=0, seed=3
    )
    epochs = []
    for loader in (data.train_dataloader(), data.train_dataloader(), data.val_dataloader()):
        sampler = loader.sampler
        for epoch in (0, 1):
            sampler.set_epoch(epoch)
            groups = list(sampler)
            assert sorted(point for _, members in groups for point in members) == list(
                range(len(scan))
            )
            epochs.append({frozenset(members) for _, members in groups})
    first, second, again, again_second, judged, judged_later = epochs
    assert (first, second) == (again, again_second)
    assert first != second
    assert judged == judged_later


def test_batch_shares_the_largest_canvas(simulation):
    groups = [make_group(simulation.scan, [0, 1]), make_group(simulation.scan, [0, 63])]
    shapes = [group.canvas_shape() for group in groups]
    assert join_groups(groups).canvas_shape() == tuple(np.max(shapes, axis=0))


def test_a_long_scan_is_cut_across_its_longer_side():
    positions = np.random.default_rng(0).uniform([0, 0], [10, 200], (80, 2))
    for region in compact_regions(positions, 4):
        assert np.ptp(positions[region, 1]) < 100
        assert np.ptp(positions[region, 0]) > 5


def test_a_group_expects_what_the_simulation_makes_of_flux_components_and_background():
    """The simulation composes the probe of each pattern by itself."""
    made = simulate_scan(photons=1e5, n_side=4, pattern_size=32)
    rng = np.random.default_rng(0)
    known = {
        "flux": rng.uniform(0.5, 1.5, 16),
        "probe_components": (0.1 * rng.standard_normal((2, 1, 1, 1)) * made.scan.probe).astype(
            np.complex64
        ),
        "probe_weights": rng.standard_normal((16, 2)).astype(np.float32),
    }
    background = rng.uniform(0, 5, (32, 32)).astype(np.float32)
    expected, _ = expected_counts(
        made.truth.object, made.scan.probe, made.scan.positions_px, **known
    )
    points = np.array([9, 2, 5])
    scan = replace(made.scan, background=background, **known)
    group = make_group(scan, points)
    corners = torch.from_numpy(scan.corners_px()[points]).float()[None]
    truth = torch.from_numpy(made.truth.object)[None]
    layout = group_layout(group._replace(corners_px=corners), tuple(truth.shape[1:]))
    found = predict_counts(truth, layout)[0].numpy()
    assert np.allclose(found, expected[points] + background, rtol=1e-3, atol=1e-2)  # float32


@pytest.mark.parametrize(
    ("counts", "gridsize", "variable", "expected"),
    [
        ((97, 200), None, True, 97), ((98, 200), None, True, 49), ((60, 200), 7, True, 49),
        ((60, 200), None, False, 49), ((16, 20), 4, False, 16), ((20,), 2, True, 4),
        ((48,), 7, True, None), ((48,), None, False, None), ((48,), None, True, 48),
    ],
)  # fmt: skip
def test_a_group_is_as_large_as_asked_or_all_of_a_small_scan(
    simulation, counts, gridsize, variable, expected
):
    """The generator prefers 7 x 7 patterns; two groups of them need 98."""
    some = np.resize(np.arange(len(simulation.scan)), 200)
    scans = [simulation.scan.subset(some[:count]) for count in counts]

    def chosen():
        return choose_group_size(scans, gridsize, 7, variable_group_size=variable)

    if expected is None:
        with pytest.raises(InputError, match="48 patterns are used but a group needs 49"):
            chosen()
    else:
        assert chosen() == expected


def test_a_batch_of_unlike_groups_expects_what_each_of_them_does(simulation):
    """One has a background and a probe for each pattern, and the other neither."""
    points = np.array([3, 8, 9])
    flux = np.linspace(0.5, 1.5, len(simulation.scan))
    background = np.full(simulation.scan.pattern_shape, 0.5, dtype=np.float32)
    rich = replace(simulation.scan, flux=flux, background=background)
    groups = [make_group(scan, points) for scan in (simulation.scan, rich)]
    for order in (groups, groups[::-1]):
        batch = join_groups(order)
        canvas = torch.ones(2, *batch.canvas_shape(), dtype=torch.complex64)
        found = predict_counts(canvas, group_layout(batch, batch.canvas_shape()))
        for one, expected in zip(found, order, strict=True):
            layout = group_layout(expected, batch.canvas_shape())
            torch.testing.assert_close(one[None], predict_counts(canvas[:1], layout))

"""What every generator must do."""

import numpy as np
import pytest
import torch

from ptycho_torch.config.registry import GENERATORS, load
from ptycho_torch.data.grouping import join_groups, make_group
from ptycho_torch.data.scan import Group
from ptycho_torch.generators import build_generator
from ptycho_torch.generators.unrolled import doubled, doubled_by_convolution
from ptycho_torch.physics.forward import predict_counts, scan_layout
from ptycho_torch.physics.noise import poisson_loss

GROUP_SIZE = 9


def draw(generator, group):
    """The canvas of a group on the smallest canvas that holds it."""
    return generator(group, group.canvas_shape())


@pytest.fixture(params=sorted(GENERATORS))
def generator(request):
    torch.manual_seed(0)
    settings = (
        {} if load(GENERATORS[request.param]).variable_group_size else {"group_size": GROUP_SIZE}
    )
    return build_generator(request.param, settings).eval()


@pytest.fixture(scope="module")
def groups(simulation):
    return [
        make_group(simulation.scan, list(range(start, start + GROUP_SIZE))) for start in (0, 20)
    ]


def test_canvas_has_the_shape_that_the_group_needs(generator, groups):
    batch = join_groups(groups)
    canvas = draw(generator, batch)
    assert canvas.shape == (2, *batch.canvas_shape())
    assert canvas.is_complex()
    assert torch.isfinite(torch.view_as_real(canvas)).all()


def test_a_batch_gives_what_its_groups_give_alone(generator, groups):
    """Nothing leaks from one group to another. Where a canvas is padded, there is no light."""
    together = draw(generator, join_groups(groups))
    for canvas, group in zip(together, groups, strict=True):
        rows, columns = group.canvas_shape()
        alone = draw(generator, group)[0]
        inner = (slice(8, rows - 8), slice(8, columns - 8))
        assert torch.allclose(
            canvas[:rows, :columns][inner], alone[inner], atol=3e-3
        )  # the border reaches a little way in


def test_twenty_steps_on_one_group_lower_the_loss(generator, groups):
    """The gradient reaches the weights and points downhill."""
    group = groups[0]
    geometry = scan_layout(group.corners_px, group.probe, group.canvas_shape())
    optimizer = torch.optim.Adam(generator.parameters(), lr=5e-3)
    losses = []
    for _ in range(20):
        loss = poisson_loss(
            predict_counts(draw(generator, group), geometry), group.counts, group.mask
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(parameter.grad is not None for parameter in generator.parameters())
    assert losses[-1] < 0.9 * losses[0]


def test_the_dose_does_not_change_the_input(generator, groups):
    """A hundred times the counts and the photons give the same object, but for the floor of a tenth
    of a photon.
    """
    group = groups[0]
    brighter = group._replace(counts=100 * group.counts, probe=10 * group.probe)
    difference = (draw(generator, group) - draw(generator, brighter)).abs()
    assert difference.mean() < 5e-3


def test_bad_pixels_change_nothing(generator, groups):
    mask = groups[0].mask.clone()
    mask[:, 10:12, 3:9] = False
    group = groups[0]._replace(mask=mask)
    counts = group.counts.clone()
    counts[..., 10:12, 3:9] = 1e4
    assert torch.allclose(
        draw(generator, group), draw(generator, group._replace(counts=counts)), atol=1e-5
    )


def test_the_order_of_the_patterns_changes_nothing(groups, simulation):
    """For the unrolled generator, whose members are a set; a U-Net's are channels."""
    torch.manual_seed(0)
    unrolled = build_generator("unrolled", {}).eval()
    order = np.random.default_rng(0).permutation(GROUP_SIZE)
    shuffled = make_group(simulation.scan, order.tolist())
    assert torch.allclose(draw(unrolled, groups[0]), draw(unrolled, shuffled), atol=1e-4)


def test_a_global_phase_of_the_probe_turns_up_nowhere_else(groups):
    torch.manual_seed(0)
    unrolled = build_generator("unrolled", {}).eval()
    group = groups[0]
    turned = group._replace(probe=group.probe * complex(np.exp(1.3j)))
    assert torch.allclose(draw(unrolled, group), draw(unrolled, turned), atol=1e-4)


def test_unrolled_takes_any_number_of_patterns(simulation):
    unrolled = build_generator("unrolled", {}).eval()
    for members in ([5], list(range(40))):
        group: Group = make_group(simulation.scan, members)
        assert draw(unrolled, group).shape == (1, *group.canvas_shape())


def test_doubling_by_a_convolution_is_that_of_torch():
    """And so is its derivative, at the borders too."""
    rng = torch.Generator().manual_seed(0)
    image = torch.randn(2, 3, 6, 7, generator=rng, requires_grad=True)
    change = torch.randn(2, 3, 12, 14, generator=rng)
    results = [function(image) for function in (doubled, doubled_by_convolution)]
    slopes = [torch.autograd.grad(result, image, change)[0] for result in results]
    torch.testing.assert_close(*results, rtol=0, atol=1e-6)  # single precision
    torch.testing.assert_close(*slopes, rtol=0, atol=4e-6)  # sums of sixteen

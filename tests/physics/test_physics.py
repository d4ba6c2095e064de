"""Laws of the forward model, on random complex input in double precision."""

import math

import numpy as np
import pytest
import torch

from ptycho_torch.physics.backprojection import backproject_residual
from ptycho_torch.physics.forward import (
    ForwardModel,
    diffraction_intensity,
    illumination,
    illumination_nearest_pixel,
    light_by_convolution,
    object_gradient,
    position_gradient,
    predict_counts,
    quick_illumination,
    scan_layout,
)
from ptycho_torch.physics.noise import DARK, DYNAMIC_RANGE, amplitude_loss, poisson_loss
from ptycho_torch.physics.patches import (
    add_patches,
    extract_patches,
    patch_indices,
    place_patches,
    split_corners,
)
from ptycho_torch.physics.probe_shift import photons_per_exposure, shift_probe
from ptycho_torch.physics.propagation import FarField, NearField

CLOSE = 1e-10  # double precision over sums of a few thousand terms


def random_complex(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.complex128, generator=generator)


def inner(a, b):
    return torch.sum(a.conj() * b)


def compact_probe(size=32, modes=2):
    """A random probe that is dark at the border of its window and has no Nyquist frequency."""
    y = torch.arange(size, dtype=torch.float64) - size / 2
    envelope = torch.exp(-(y[:, None] ** 2 + y**2) / (2 * (size / 14) ** 2))
    smooth = shift_probe(
        envelope.to(torch.complex128)[None], torch.tensor([0.3, -0.2], dtype=torch.float64)
    )
    tilts = torch.exp(1j * torch.outer(torch.arange(1, modes + 1, dtype=torch.float64), y) * 0.3)
    return smooth * tilts[:, :, None]


PROPAGATORS = {
    "far": FarField(),
    "near": NearField(torch.tensor([0.13, 0.2], dtype=torch.float64)),
}
FRACTIONS = torch.tensor([[0.3, -0.2], [0.1, 0.5], [-0.4, 0.0]], dtype=torch.float64)


@pytest.fixture(params=list(PROPAGATORS))
def propagator(request):
    return PROPAGATORS[request.param]


def test_propagation_conserves_energy(propagator):
    waves = random_complex(3, 2, 16, 24)
    assert propagator.forward(waves, FRACTIONS).abs().square().sum() == pytest.approx(
        waves.abs().square().sum().item(), rel=CLOSE
    )


def test_the_adjoint_of_a_propagator_is_its_adjoint_and_inverse(propagator):
    a, b = random_complex(3, 2, 16, 24), random_complex(3, 2, 16, 24, seed=1)
    left = inner(propagator.forward(a, FRACTIONS), b)
    assert torch.allclose(left, inner(a, propagator.adjoint(b, FRACTIONS)), rtol=CLOSE)
    back = propagator.adjoint(propagator.forward(a, FRACTIONS), FRACTIONS)
    assert torch.allclose(back, a, atol=CLOSE)


def test_positions_in_double_precision_leave_waves_in_single_precision(propagator):
    waves = random_complex(3, 2, 16, 24).to(torch.complex64)
    for there in (propagator.forward, propagator.adjoint):
        assert there(waves, FRACTIONS).dtype == torch.complex64


def test_mirrored_waves_give_the_mirrored_pattern(propagator):
    """The pattern of a wave that is mirrored, with the fraction of its position.

    An even window has a Nyquist frequency, which a fraction of a pixel does not move.
    """
    waves = random_complex(3, 1, 16 if isinstance(propagator, FarField) else 17, 15)
    for axis in (-2, -1):
        mirror = FRACTIONS.clone()
        mirror[:, axis] *= -1
        pattern, other = (
            propagator.to_detector(propagator.forward(wave, fraction).abs())
            for wave, fraction in ((waves, FRACTIONS), (waves.flip(axis), mirror))
        )
        assert torch.allclose(other, propagator.mirror(pattern, axis), atol=CLOSE)


def test_a_gaussian_beam_widens_in_the_near_field_as_the_theory_says():
    """A Gaussian of variance s^2 (of its intensity) has s^2 + (1 / (4 pi N s))^2 after z."""
    y = torch.arange(64, dtype=torch.float64) - 32
    width, number = 4.0, 0.02
    beam = torch.exp(-(y[:, None] ** 2 + y**2) / (4 * width**2)).to(torch.complex128)
    near = NearField(torch.tensor([number, number], dtype=torch.float64))
    light = near.forward(beam[None, None], torch.zeros(1, 2).double()).abs().square()[0, 0]
    found = (light.sum(1) * y**2).sum() / light.sum()
    expected = width**2 + (1 / (4 * math.pi * number * width)) ** 2
    assert found.item() == pytest.approx(expected, rel=1e-6)  # the tail beyond the window


def test_a_converging_beam_has_its_focus_where_its_wavefront_says():
    """A phase of -pi N r^2 converges to a point at the distance with the Fresnel number N."""
    y = torch.arange(64, dtype=torch.float64) - 32
    squared, number = y[:, None] ** 2 + y**2, 0.01
    beam = torch.exp(-squared / (4 * 4.0**2)) * torch.exp(-1j * math.pi * number * squared)
    near = NearField(torch.tensor([number, number], dtype=torch.float64))
    light = near.forward(beam[None, None], torch.zeros(1, 2).double()).abs().square()[0, 0]
    found = (light.sum(1) * y**2).sum() / light.sum()
    waist = 1 / (4 * math.pi * number * 4.0)  # of a Gaussian beam of variance 16 px^2
    assert found.item() == pytest.approx(waist**2, rel=1e-6)


def model_of(propagator, count=3, size=(16, 24)):
    """A forward model with all its parts, random patches and probe."""
    flux = torch.tensor([0.7, 1.1, 1.3], dtype=torch.float64)[:count]
    background = torch.linspace(0, 2, size[0] * size[1], dtype=torch.float64).reshape(size)
    model = ForwardModel(propagator, FRACTIONS[:count], flux, background)
    return model, random_complex(count, *size), random_complex(count, 2, *size, seed=1)


def test_expected_counts_are_flux_times_photons_plus_background(propagator):
    model, patches, probe = model_of(propagator)
    total = model.expected_counts(model.detector_waves(patches, probe)).sum((-2, -1))
    photons = (patches[:, None] * probe).abs().square().sum((1, 2, 3))
    assert torch.allclose(total, model.flux * photons + model.background.sum(), rtol=CLOSE)


def test_gradients_of_the_forward_model_agree_with_automatic_differentiation(propagator):
    """Object, probe, flux and background, for a random slope of the expected counts."""
    model, patches, probe = model_of(propagator)
    slope = random_complex(3, 16, 24, seed=2).real
    leaves = [one.clone().requires_grad_() for one in (patches, probe)]
    waves = model.detector_waves(*leaves)
    (model.expected_counts(waves) * slope).sum().backward()
    back = model.exit_wave_gradient(model.detector_waves(patches, probe), slope)
    assert torch.allclose(2 * object_gradient(back, probe), leaves[0].grad, rtol=1e-8)
    assert torch.allclose(2 * back * patches[:, None].conj(), leaves[1].grad, rtol=1e-8)


def test_gradient_of_a_position_agrees_with_finite_differences(propagator):
    """A canvas of low frequencies, so that central differences of its pixels are its slope."""
    spectrum = torch.zeros(96, 96, dtype=torch.complex128)
    spectrum[:2, :2] = random_complex(2, 2) * 96**2
    canvas, probe = torch.fft.ifft2(spectrum)[None], compact_probe()[None]
    slope = random_complex(1, 1, 32, 32, seed=2).real

    def value(corner):
        layout = scan_layout(corner[None, None], probe, (96, 96), propagator=propagator)
        return (propagator.from_detector(predict_counts(canvas, layout)) * slope).sum()

    corner = torch.tensor([20.2, 30.4], dtype=torch.float64)
    step = 1e-4 * torch.eye(2, dtype=torch.float64)
    expected = [(value(corner + one) - value(corner - one)) / 2e-4 for one in step]
    layout = scan_layout(corner[None, None], probe, (96, 96), propagator=propagator)
    patches = extract_patches(canvas, layout.indices)
    waves = layout.model.detector_waves(patches, layout.probe)
    back = layout.model.exit_wave_gradient(waves, slope)
    slopes, _ = position_gradient(back, layout.probe, patches)
    found = 2 * slopes.sum((-2, -1)).flatten()
    scale = max(abs(one) for one in expected)
    assert torch.allclose(found, torch.stack(expected), atol=0.01 * scale)  # central differences


def test_slopes_and_products_of_a_displacement_are_those_of_the_patches_gradient():
    """By NumPy, pixel by pixel, for the patches of a batch."""
    patches, probe = random_complex(3, 7, 5), random_complex(3, 2, 7, 5, seed=1)
    exit_waves = random_complex(3, 2, 7, 5, seed=2)
    slopes, products = position_gradient(exit_waves, probe, patches)
    along = np.gradient(patches.numpy(), axis=(1, 2))
    back = (probe.conj() * exit_waves).sum(1).numpy()
    light = probe.abs().square().sum(1).numpy()
    for axis in (0, 1):
        np.testing.assert_allclose(slopes[axis], (along[axis].conj() * back).real)
    for found, (i, j) in zip(products, ((0, 0), (0, 1), (1, 1)), strict=True):
        np.testing.assert_allclose(found, (along[i].conj() * along[j]).real * light)


def test_a_layout_has_the_background_of_its_patterns(propagator):
    corners, probe = torch.tensor([[[0.2, 1.4], [3.7, 2.0]]]).double(), random_complex(1, 2, 8, 6)
    canvas, background = random_complex(1, 14, 12), torch.arange(48).reshape(8, 6).double()
    without, with_it = (
        predict_counts(canvas, scan_layout(corners, probe, (14, 12), propagator, one))
        for one in (None, propagator.from_detector(background))
    )
    torch.testing.assert_close(with_it, without + background)


def test_the_deviance_has_a_dark_level_of_the_detector_and_of_the_mean_count():
    counts = torch.tensor([0.0, 3e5, 2e5, 0.0]).double().reshape(1, 1, 2, 2)
    intensity = torch.tensor([40.0, 2.9e5, 2.1e5, 3.0]).double().reshape(1, 1, 2, 2)
    dark = DARK + DYNAMIC_RANGE * float(counts.mean())
    n, i = counts.numpy() + dark, intensity.numpy() + dark
    expected = 2 * (i - n + n * np.log(n / i)).mean()
    found = poisson_loss(intensity, counts, torch.ones(1, 2, 2, dtype=torch.bool))
    assert found.tolist() == [pytest.approx(expected)]
    assert dark > 10


def test_placing_patches_is_the_adjoint_of_extracting_them():
    corners = torch.tensor([[[0, 0], [3, 1], [3, 2]], [[5, 7], [1, 4], [0, 0]]])
    indices = patch_indices(corners, (6, 5), (12, 13))
    canvas, patches = random_complex(2, 12, 13), random_complex(2, 3, 6, 5, seed=1)
    left = inner(extract_patches(canvas, indices), patches)
    right = inner(canvas, place_patches(patches, indices, (12, 13)))
    assert torch.allclose(left, right, rtol=CLOSE)


def test_a_patch_is_the_slice_of_its_corner():
    canvas = random_complex(2, 9, 11)
    indices = patch_indices(torch.tensor([[[2, 3]], [[0, 5]]]), (4, 6), (9, 11))
    patches = extract_patches(canvas, indices)
    assert torch.equal(patches[0, 0], canvas[0, 2:6, 3:9])
    assert torch.equal(patches[1, 0], canvas[1, 0:4, 5:11])


@pytest.mark.parametrize("corner", [[-1, 0], [0, -1], [6, 0], [0, 6]])
def test_a_patch_beyond_its_canvas_is_refused(corner):
    with pytest.raises(ValueError, match="beyond the canvas"):
        patch_indices(torch.tensor([[corner]]), (4, 4), (9, 9))
    canvas = torch.zeros(9, 9)
    with pytest.raises(ValueError, match="beyond the canvas"):
        add_patches(canvas, torch.ones(2, 4, 4), torch.tensor([[1, 1], corner]))
    assert not canvas.any()


def test_split_corners_leaves_at_most_half_a_pixel():
    corners = torch.tensor([[1.25, -3.75], [2.5, 0.49]], dtype=torch.float64)
    whole, fraction = split_corners(corners)
    assert torch.equal(whole + fraction, corners)
    assert fraction.abs().max() <= 0.5


def test_shifting_a_probe_by_whole_pixels_rolls_it():
    probe = random_complex(2, 12, 10)
    moved = shift_probe(probe, torch.tensor([2.0, -3.0], dtype=torch.float64))
    assert torch.allclose(moved, probe.roll((2, -3), dims=(-2, -1)), atol=CLOSE)


def test_shifting_a_gaussian_probe_gives_the_gaussian_at_the_new_place():
    y = torch.arange(32, dtype=torch.float64) - 16

    def gaussian(dy, dx):
        return torch.exp(-((y[:, None] - dy) ** 2 + (y - dx) ** 2) / 8).to(torch.complex128)[None]

    moved = shift_probe(gaussian(0, 0), torch.tensor([0.4, -0.3], dtype=torch.float64))
    assert torch.allclose(
        moved, gaussian(0.4, -0.3), atol=1e-7
    )  # the tail that is cut at the window


def test_intensity_conserves_the_photons_that_leave_the_object():
    patches, probe = random_complex(5, 16, 16), random_complex(3, 16, 16, seed=1)
    photons = (patches[:, None] * probe).abs().square().sum(dim=(1, 2, 3))
    assert torch.allclose(
        diffraction_intensity(patches, probe).sum(dim=(-2, -1)), photons, rtol=CLOSE
    )


def test_intensity_of_empty_space_and_a_flat_probe_is_one_spot_at_the_centre():
    intensity = diffraction_intensity(
        torch.ones(1, 8, 6, dtype=torch.complex128), torch.ones(1, 8, 6, dtype=torch.complex128)
    )
    assert intensity[0, 4, 3] == pytest.approx(48.0)
    assert intensity.sum() == pytest.approx(48.0)


def test_a_grating_sends_light_to_its_own_frequency():
    y = torch.arange(16, dtype=torch.float64)
    grating = torch.exp(2j * math.pi * 3 * y / 16)[:, None].expand(16, 16)
    intensity = diffraction_intensity(grating[None], torch.ones(1, 16, 16, dtype=torch.complex128))[
        0
    ]
    assert intensity[8 + 3, 8] == pytest.approx(256.0)


def test_modes_add_incoherently():
    patches, probe = random_complex(2, 8, 8), random_complex(3, 8, 8, seed=1)
    separate = sum(diffraction_intensity(patches, mode[None]) for mode in probe)
    assert torch.allclose(diffraction_intensity(patches, probe), separate, rtol=CLOSE)


def test_a_global_phase_changes_no_count():
    patches, probe = random_complex(2, 8, 8), random_complex(1, 8, 8, seed=1)
    turned = diffraction_intensity(patches * complex(math.cos(1), math.sin(1)), probe)
    assert torch.allclose(turned, diffraction_intensity(patches, probe), rtol=CLOSE)


def test_probe_and_patches_of_different_size_are_refused():
    with pytest.raises(ValueError, match="crop or pad"):
        diffraction_intensity(random_complex(1, 8, 8), random_complex(1, 6, 6))


def test_moving_scan_and_object_together_changes_no_count():
    canvas, probe = random_complex(1, 50, 50), compact_probe()[None]
    corners = torch.tensor([[[2.3, 4.1], [7.8, 6.5]]], dtype=torch.float64)
    counts = predict_counts(canvas, scan_layout(corners, probe, (50, 50)))
    moved = predict_counts(
        canvas.roll((3, 5), dims=(-2, -1)),
        scan_layout(corners + torch.tensor([3.0, 5.0]), probe, (50, 50)),
    )
    assert torch.allclose(counts, moved, rtol=CLOSE)


def test_a_sub_pixel_position_equals_a_sub_pixel_shift_of_the_object():
    """The probe moved over the object by a fraction sees what it sees of the object moved back by
    it.

    The object is a sum of low frequencies, so that it can be moved exactly; the rest is the
    probe's light at the border of the window.
    """
    spectrum = torch.zeros(64, 64, dtype=torch.complex128)
    spectrum[:4, :4] = random_complex(4, 4)
    canvas = torch.fft.ifft2(spectrum)[None]
    offset = torch.tensor([0.37, -0.21], dtype=torch.float64)
    back = shift_probe(canvas, -offset)
    corner = torch.tensor([[[10.0, 12.0]]], dtype=torch.float64)
    probe = compact_probe()[None]
    counts = predict_counts(canvas, scan_layout(corner + offset, probe, (64, 64)))
    expected = predict_counts(back, scan_layout(corner, probe, (64, 64)))
    assert torch.allclose(counts, expected, atol=1e-5 * expected.max().item())


def test_illumination_holds_every_photon_of_every_pattern():
    probe = random_complex(1, 2, 8, 8)
    geometry = scan_layout(
        torch.tensor([[[0.0, 0.0], [3.0, 2.0], [4.0, 4.0]]], dtype=torch.float64), probe, (12, 12)
    )
    assert illumination(geometry).sum() == pytest.approx(
        3 * photons_per_exposure(probe).item(), rel=CLOSE
    )


def test_coverage_is_the_illumination_where_positions_are_whole_pixels():
    """With two canvases, modes, and patches up to the borders."""
    probe, corners = (
        random_complex(2, 2, 8, 8),
        torch.tensor([[[0.0, 0.0], [3.0, 2.0]], [[4.0, 4.0], [1.0, 0.0]]]),
    )
    expected = illumination(scan_layout(corners.double(), probe, (12, 12)))
    assert torch.allclose(
        illumination_nearest_pixel(corners, probe, (12, 12)), expected, rtol=CLOSE
    )
    assert torch.equal(
        illumination_nearest_pixel(corners + 0.4, probe, (12, 12)),
        illumination_nearest_pixel(corners, probe, (12, 12)),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_light_by_transforms_is_the_sum_of_patches(dtype):
    """Also where patches reach the borders of the canvas, and no light where none fell."""
    corners = torch.tensor([[0, 0], [7, 8], [7, 8], [0, 8], [3, 2]])
    power = torch.rand(5, 4, dtype=dtype, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(12, 13, dtype=dtype)
    add_patches(expected, power.expand(len(corners), -1, -1), corners)
    light = light_by_convolution(corners, power, (12, 13))
    assert torch.equal(light == 0, expected == 0)
    torch.testing.assert_close(light, expected, rtol=0, atol=20 * torch.finfo(dtype).eps)


def test_quick_illumination_is_that_of_the_nearest_pixel():
    """On the CPU bit by bit; elsewhere, here where tensors have no values, of the same shape."""
    probe, corners = random_complex(2, 5, 4), torch.tensor([[0, 0], [7, 8], [3, 2]])
    expected = illumination_nearest_pixel(corners[None], probe[None], (12, 13))[0]
    assert torch.equal(quick_illumination(corners, probe, (12, 13)), expected)
    elsewhere = quick_illumination(corners.to("meta"), probe.to("meta"), (12, 13))
    assert (elsewhere.shape, elsewhere.dtype) == (expected.shape, expected.dtype)
    assert elsewhere.device == torch.device("meta")


def test_patches_are_added_where_tensors_have_no_values():
    """As on a GPU: with no wait for a corner."""
    canvas, patches = (random_complex(*shape).to("meta") for shape in ((12, 13), (3, 5, 4)))
    add_patches(canvas, patches, torch.tensor([[0, 0], [7, 8], [3, 2]], device="meta"))


@pytest.mark.parametrize("loss", [poisson_loss, amplitude_loss])
def test_gradient_of_the_loss_agrees_with_finite_differences(loss):
    probe, counts = (
        3 * random_complex(1, 2, 6, 6, seed=1),
        torch.full((1, 2, 6, 6), 5.0, dtype=torch.float64),
    )
    geometry = scan_layout(
        torch.tensor([[[0.2, 0.4], [1.7, 2.0]]], dtype=torch.float64), probe, (9, 9)
    )
    mask = torch.ones(1, 6, 6, dtype=torch.bool)
    mask[0, 2, 3] = False

    def misfit(canvas):
        return loss(predict_counts(canvas, geometry), counts, mask)

    assert torch.autograd.gradcheck(misfit, random_complex(1, 9, 9).requires_grad_())


def back_projection(modes=2):
    """A small back-projection as a function of the canvas, with a bad pixel."""
    probe, counts = (
        random_complex(1, modes, 6, 6, seed=1),
        torch.arange(72, dtype=torch.float64).reshape(1, 2, 6, 6),
    )
    geometry = scan_layout(
        torch.tensor([[[0.2, 0.4], [1.7, 2.0]]], dtype=torch.float64), probe, (9, 11)
    )
    mask = torch.ones(1, 1, 6, 6, dtype=torch.bool)
    mask[0, 0, 2, 3] = False
    softening = torch.full((1, 1, 6, 6), 0.3, dtype=torch.float64)
    return (
        geometry,
        counts,
        mask,
        lambda canvas: backproject_residual(canvas, counts, softening, mask, geometry),
    )


def test_derivative_of_the_back_projection_agrees_with_finite_differences():
    _, _, _, function = back_projection()
    assert torch.autograd.gradcheck(function, random_complex(1, 9, 11).requires_grad_())


def test_back_projection_is_downhill_for_its_energy():
    """With r = (n - I) / (I + s), the energy is the sum of I - (n + s) log(I + s)."""
    geometry, counts, mask, function = back_projection()
    canvas = random_complex(1, 9, 11).requires_grad_()
    shift = torch.fft.ifftshift(predict_counts(canvas, geometry), dim=(-2, -1)) + 0.3
    energy = ((shift - (counts + 0.3) * shift.log()) * mask).sum()
    (gradient,) = torch.autograd.grad(energy, canvas)
    assert torch.allclose(
        function(canvas.detach()), -gradient / 2, rtol=1e-9
    )  # torch's gradient is twice that by conj(O)


def test_back_projection_is_zero_where_the_model_is_right():
    geometry, _, mask, _ = back_projection()
    canvas = random_complex(1, 9, 11)
    counts = torch.fft.ifftshift(predict_counts(canvas, geometry), dim=(-2, -1))
    pull = backproject_residual(canvas, counts, torch.ones_like(counts), mask, geometry)
    assert pull.abs().max() < CLOSE


@pytest.mark.parametrize("loss", [poisson_loss, amplitude_loss])
def test_loss_of_the_truth_is_about_one(loss):
    """Counting noise of many photons: one per pixel, as a deviance has."""
    mean = torch.full((1, 4, 100, 100), 50.0, dtype=torch.float64)
    counts = torch.poisson(mean, generator=torch.Generator().manual_seed(0))
    assert loss(mean, counts, torch.ones(1, 100, 100, dtype=torch.bool)) == pytest.approx(
        1, abs=0.03
    )


@pytest.mark.parametrize("loss", [poisson_loss, amplitude_loss])
def test_loss_is_zero_for_a_perfect_fit_and_blind_to_bad_pixels(loss):
    counts = torch.poisson(
        torch.full((1, 4, 8, 8), 3.0, dtype=torch.float64),
        generator=torch.Generator().manual_seed(0),
    )
    mask = torch.ones(1, 8, 8, dtype=torch.bool)
    mask[0, 0, 0] = False
    intensity = counts.clone()
    intensity[..., 0, 0] += 100
    assert loss(intensity, counts, mask) == pytest.approx(
        0, abs=1e-6
    )  # EPS in the root of zero counts
    assert loss(intensity, counts, torch.ones_like(mask)) > 0.1


@pytest.mark.parametrize("photons", [1e4, 1e6])
@pytest.mark.parametrize("loss", [poisson_loss, amplitude_loss])
def test_loss_prefers_the_truth_to_a_flat_object(loss, photons):
    from ptycho_torch.data.simulation import simulate_scan

    made = simulate_scan(photons=photons, n_side=4, pattern_size=64, seed=3)
    truth = torch.from_numpy(made.truth.object)[None]
    geometry = scan_layout(
        torch.from_numpy(made.scan.corners_px())[None],
        torch.from_numpy(made.scan.probe)[None],
        truth.shape[1:],
    )
    counts, mask = (
        torch.from_numpy(made.scan.counts.astype("float32"))[None],
        torch.from_numpy(made.scan.mask)[None],
    )
    flat = torch.full_like(
        truth, truth.abs().square().mean().sqrt().item()
    )  # transmits as much light
    assert loss(predict_counts(truth, geometry), counts, mask) < loss(
        predict_counts(flat, geometry), counts, mask
    )


@pytest.mark.parametrize("loss", [poisson_loss, amplitude_loss])
def test_loss_of_a_group_does_not_depend_on_its_batch(loss):
    counts = torch.poisson(
        torch.tensor([2.0, 90.0])[:, None, None, None].expand(2, 3, 8, 8),
        generator=torch.Generator(),
    )
    intensity, mask = counts + 1, torch.rand(2, 8, 8, generator=torch.Generator()) > 0.3
    alone = [loss(intensity[i : i + 1], counts[i : i + 1], mask[i : i + 1]) for i in range(2)]
    assert torch.allclose(loss(intensity, counts, mask), torch.cat(alone))


def test_poisson_loss_is_least_at_the_true_mean():
    counts = torch.poisson(
        torch.full((1, 1, 100, 100), 7.0, dtype=torch.float64),
        generator=torch.Generator().manual_seed(0),
    )
    mask = torch.ones(1, 100, 100, dtype=torch.bool)
    mean = counts.mean().item()
    losses = [
        poisson_loss(torch.full_like(counts, mean * factor), counts, mask)
        for factor in (0.98, 1.0, 1.02)
    ]
    assert losses[1] == min(losses)

"""Laws of probe modes, of the noise models, and of the device that a computation stays on."""

import pytest
import torch

from ptycho_torch.physics.noise import (
    AmplitudeNoise,
    PoissonNoise,
    amplitude_misfit,
    deviance,
    thin,
)
from ptycho_torch.physics.patches import patch_indices
from ptycho_torch.physics.probe_modes import (
    LARGEST_MODE_BOOST,
    MODE_SEED,
    add_modes,
    mode_boost,
    orthogonal_mixing,
    orthogonalise,
)
from ptycho_torch.physics.probe_shift import photons_per_exposure, shift_probe

ROUNDING = 1e-10  # float64


def random_probe(modes=1, size=(12, 9)):
    rng = torch.Generator().manual_seed(modes)
    return torch.randn(modes, *size, dtype=torch.complex128, generator=rng)


def light(probe):
    return probe.abs().square().sum(0)


@pytest.mark.parametrize(
    ("given", "orders"), [(1, ((0, 1), (1, 0), (0, 2))), (2, ((1, 0), (0, 2)))]
)
def test_added_modes_are_polynomials_about_the_centre_of_the_beam(given, orders):
    """The light of the mixture is that of its parts, however they are made orthogonal."""
    probe = random_probe(given)
    power = light(probe[:1])
    y, x = (torch.arange(size, dtype=torch.float64) for size in power.shape)
    y = (y - (power.sum(1) * y).sum() / power.sum())[:, None]
    x = (x - (power.sum(0) * x).sum() / power.sum())[None]
    expected = light(probe)
    for i, j in orders:
        part = power * y ** (2 * i) * x ** (2 * j)
        expected = expected + part * MODE_SEED * power.sum() / part.sum()
    expected *= light(probe).sum() / expected.sum()  # the photons stay
    grown = add_modes(probe, given + len(orders))
    torch.testing.assert_close(light(grown), expected, rtol=ROUNDING, atol=ROUNDING)


def test_no_more_modes_are_the_same_modes():
    assert torch.equal(add_modes(random_probe(2), 2), random_probe(2))


def test_orthogonal_modes_are_a_unitary_mixture_of_falling_power():
    probe = random_probe(3)
    modes, mixing = orthogonal_mixing(probe)
    assert torch.equal(orthogonalise(probe), modes)
    identity = torch.eye(3, dtype=probe.dtype)
    torch.testing.assert_close(mixing @ mixing.mH, identity)
    torch.testing.assert_close(torch.einsum("km,mhw->khw", mixing, probe), modes)
    products = modes.reshape(3, -1) @ modes.reshape(3, -1).mH
    power = products.diagonal().real
    torch.testing.assert_close(products, torch.diag(power).to(probe.dtype))
    assert (power.diff() < 0).all()


def test_weak_modes_take_larger_steps_up_to_a_limit():
    probe = random_probe(3)
    probe = probe / photons_per_exposure(probe[:, None])[:, None, None].sqrt()
    scaled = probe * torch.tensor([2.0, 1.0, 0.1])[:, None, None]
    expected = [5.01**0.5 / 2, LARGEST_MODE_BOOST, LARGEST_MODE_BOOST]
    boost = mode_boost(scaled)
    assert boost.shape == (3, 1, 1)
    assert boost.flatten().tolist() == pytest.approx(expected)
    assert mode_boost(3 * probe[:1]).flatten().tolist() == [1.0]


def test_photons_are_summed_over_modes_and_pixels_of_each_probe():
    probes = torch.stack([random_probe(2), 2 * random_probe(2)])
    expected = [float(light(probe).sum()) for probe in probes]
    assert photons_per_exposure(probes).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(("noise", "scale"), [(PoissonNoise(), 1), (AmplitudeNoise(), 4)])
def test_the_descent_is_minus_a_quarter_of_the_derivative_of_the_deviance(noise, scale):
    """For which, at many counts, four times the misfit of amplitudes stands."""
    rng = torch.Generator().manual_seed(0)
    counts = torch.rand(50, dtype=torch.float64, generator=rng) * 20 + 0.5
    intensity = torch.rand(50, dtype=torch.float64, generator=rng) * 20 + 0.5
    measured = noise.prepare(counts.clone())
    expected = intensity.clone().requires_grad_()
    (scale * noise.misfit(expected, measured.clone())).sum().backward()
    slope = noise.descent(intensity.clone(), measured.clone())
    torch.testing.assert_close(slope, -0.25 * expected.grad, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(noise.counts(measured.clone()), counts)
    torch.testing.assert_close(noise.amplitudes(measured.clone()), counts.sqrt())


@pytest.mark.parametrize("misfit", [deviance, amplitude_misfit])
def test_a_misfit_is_zero_for_the_right_model_and_positive_for_others(misfit):
    counts = torch.tensor([0.0, 1.0, 7.0, 300.0], dtype=torch.float64)
    torch.testing.assert_close(misfit(counts, counts), torch.zeros(4, dtype=torch.float64))
    for factor in (0.5, 2.0):
        assert (misfit(factor * counts[1:], counts[1:]) > 0).all()


def test_the_misfits_of_many_counts_agree_with_the_variance_of_poisson():
    """Near the model, deviance and four times the amplitude misfit are (I - n)^2 / n."""
    counts, intensity = torch.tensor([1e6], dtype=torch.float64), torch.tensor([1.001e6])
    expected = pytest.approx(1.0, rel=1e-3)
    assert float(deviance(intensity.double(), counts)) == expected
    assert 4 * float(amplitude_misfit(intensity.double(), counts)) == expected


def test_thinning_takes_the_share_and_depends_on_the_generator_alone():
    counts = torch.full((10_000,), 20.5)

    def drawn(seed):
        return thin(counts, 0.3, torch.Generator().manual_seed(seed))

    torch.manual_seed(0)
    first = drawn(1)
    torch.manual_seed(5)
    assert torch.equal(drawn(1), first)
    assert not torch.equal(drawn(2), first)
    # 5 standard errors of a binomial distribution; half a photon is divided in proportion
    assert float(first.mean()) == pytest.approx(0.3 * 20.5, abs=5 * (20 * 0.3 * 0.7 / 1e4) ** 0.5)
    assert float(first.var()) == pytest.approx(20 * 0.3 * 0.7, rel=0.1)
    whole = first - 0.15
    assert (whole - whole.round()).abs().max() < 1e-3
    assert (counts - first).min() >= 0


def test_a_computation_stays_on_the_device_of_its_input():
    """The meta device computes shapes alone, and refuses tensors of another device."""
    corners = torch.zeros(2, 3, 2, dtype=torch.int64)
    probe, shift = torch.ones(2, 8, 6, dtype=torch.complex64), torch.zeros(3, 2)
    assert shift_probe(probe.to("meta"), shift.to("meta")).device.type == "meta"
    assert patch_indices(corners, (8, 6), (8, 6)).shape == (2, 3, 8, 6)


def test_a_shift_by_a_whole_pixel_keeps_double_precision():
    """Frequencies of single precision would leave 1e-8."""
    probe = random_probe(2, (11, 14))
    shifted = shift_probe(probe, torch.tensor([[3.0, -2.0]], dtype=torch.float64))[0]
    torch.testing.assert_close(shifted, probe.roll((3, -2), (-2, -1)), rtol=0, atol=1e-12)

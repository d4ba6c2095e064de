"""A near-field scan is simulated, refined, trained on and reconstructed, with one forward model."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ptycho_torch.data.grouping import group_layout, join_groups, make_group
from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.evaluation.metrics.agreement import compare
from ptycho_torch.evaluation.metrics.residuals import pattern_residuals
from ptycho_torch.generators import build_generator
from ptycho_torch.physics.forward import predict_counts
from ptycho_torch.refinement import RefineOptions
from ptycho_torch.refinement.probe_retrieval import refine_from_uniform

FRESNEL_NUMBER = (0.05, 0.05)  # of a pixel; light spreads over 20 of them


@pytest.fixture(scope="module")
def near():
    """Scan and truth: a beam with structure, dark at the border of its window of 48 pixels."""
    rng = np.random.default_rng(0)
    y = np.arange(48) - 24
    envelope = np.exp(-(y[:, None] ** 2 + y**2) / (2 * 8.0**2))
    spectrum = np.fft.fft2(rng.standard_normal((48, 48)) + 1j * rng.standard_normal((48, 48)))
    frequency = np.fft.fftfreq(48)
    spectrum *= np.exp(-(frequency[:, None] ** 2 + frequency**2) / (2 * 0.06**2))
    speckle = np.fft.ifft2(spectrum)
    probe = (envelope * (1 + 0.7 * speckle / np.abs(speckle).std()))[None].astype(np.complex64)
    made = simulate_scan(photons=1e8, n_side=10, step_px=4.0, pattern_size=48, seed=3, probe=probe)
    scan = replace(made.scan, fresnel_number=FRESNEL_NUMBER)
    group = make_group(scan, np.arange(len(scan)))
    corners = torch.from_numpy(scan.corners_px()).float()[None]
    truth = torch.from_numpy(made.truth.object)[None]
    layout = group_layout(group._replace(corners_px=corners), tuple(truth.shape[1:]))
    counts = rng.poisson(predict_counts(truth, layout)[0].numpy()).astype(np.uint32)
    return replace(scan, counts=counts), made.truth


def test_the_truth_explains_the_patterns_and_far_field_physics_does_not(near):
    scan, truth = near
    assert pattern_residuals(truth, scan).chi2_per_dof == pytest.approx(1, abs=0.02)
    far = replace(scan, fresnel_number=None)
    assert pattern_residuals(truth, far).total_r_factor > 0.1


def test_refinement_finds_the_object_from_nothing(near):
    scan, truth = near
    result = refine_from_uniform(scan, RefineOptions())
    assert result.r_free < 5e-4  # 2e-4 was measured; the far-field model leaves 0.1
    judged = compare(result.reconstruction, truth)
    assert judged.amplitude_ssim > 0.9
    assert judged.frc50 > 0.6


def test_a_generator_takes_near_field_groups_and_their_gradient(near):
    scan, _ = near
    torch.manual_seed(0)
    generator = build_generator("unrolled", {})
    group = make_group(scan, np.arange(36))
    canvas = generator(group, group.canvas_shape())
    layout = group_layout(group, group.canvas_shape())
    misfit = (predict_counts(canvas, layout).sqrt() - group.counts.sqrt()).square().sum()
    empty = predict_counts(torch.ones_like(canvas), layout)
    assert misfit < 0.5 * (empty.sqrt() - group.counts.sqrt()).square().sum()
    misfit.backward()
    assert all(
        parameter.grad is None or parameter.grad.isfinite().all()
        for parameter in generator.parameters()
    )


def test_scans_of_both_kinds_do_not_make_a_batch(near):
    scan, _ = near
    far = replace(scan, fresnel_number=None)
    with pytest.raises(TypeError):
        join_groups([make_group(one, np.arange(4)) for one in (scan, far)])

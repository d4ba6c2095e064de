"""Refinement finds known objects, probes and positions, and is never worse than its start."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from ptycho_torch.config import InferenceConfig
from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.errors import InputError
from ptycho_torch.evaluation.metrics.agreement import compare, correlation
from ptycho_torch.inference import reconstruct
from ptycho_torch.io.readers.reconstruction import read_reconstruction
from ptycho_torch.physics.forward import diffraction_intensity
from ptycho_torch.physics.patches import extract_patches, patch_indices, split_corners
from ptycho_torch.physics.probe_modes import add_modes, orthogonalise
from ptycho_torch.physics.probe_shift import shift_probe
from ptycho_torch.refinement import RefineOptions, draw_held_out, mode_gain, refine, step
from ptycho_torch.refinement.joint_refinement import refine_reconstruction
from ptycho_torch.refinement.loop import TUNING
from ptycho_torch.refinement.prepared_patterns import (
    WAVE_BUDGET,
    predict,
    prepare,
    shift_basis,
)


@pytest.fixture(scope="module")
def bright():
    """196 patterns at 1e8 photons: counting noise plays no part."""
    return simulate_scan(photons=1e8, n_side=14, step_px=3.0, pattern_size=32, seed=4)


@pytest.fixture(scope="module")
def dim():
    """The same at 1e4 photons, where noise must not be fitted."""
    return simulate_scan(photons=1e4, n_side=14, step_px=3.0, pattern_size=32, seed=4)


def prepared(made):
    return prepare(made.scan, torch.zeros(2, dtype=torch.float64), made.truth.object.shape)


def empty(made):
    return np.ones_like(made.truth.object)


def run(made, *, probe=None, mask=None, start=None, held_out=None, network_object=None, **options):
    scan = made.scan if probe is None else replace(made.scan, probe=probe)
    scan = scan if mask is None else replace(scan, mask=mask)
    first = replace(made.truth, object=empty(made) if start is None else start)
    return refine(
        scan,
        first,
        RefineOptions(**options),
        held_out=held_out,
        network_object=network_object,
    )


def test_one_pattern_is_refused_with_a_sentence(dim):
    one = replace(dim, scan=dim.scan.subset([0]))
    with pytest.raises(InputError, match="one pattern cannot be refined"):
        run(one, start=empty(dim), epochs=1)


def agreement(made, result):
    return compare(replace(made.truth, object=result.reconstruction.object), made.truth)


def test_without_noise_the_object_is_found_from_nothing(bright):
    judged = agreement(bright, run(bright))
    assert judged.amplitude_ssim > 0.98
    assert judged.phase_ssim > 0.97
    assert judged.frc50 == 1.0


def test_auto_stops_before_it_fits_noise(dim):
    """Many passes without the prior fit noise; auto keeps what predicts patterns that were kept
    out.
    """
    stopped, stubborn = run(dim), run(dim, epochs=40, smoothness=0.0)
    assert agreement(dim, stopped).amplitude_ssim > agreement(dim, stubborn).amplitude_ssim
    assert stopped.r_free < stubborn.history[-1].r_free


def test_a_right_picture_is_not_refined_longer(bright, dim):
    """Smaller steps fit less noise. Where there is none, they cost time and bring nothing; where
    there is, they are taken.
    """
    right, noisy = (run(made, start=made.truth.object).history[1:] for made in (bright, dim))
    assert (
        len(right) <= 2 * TUNING.patience
    )  # the first rung of steps, and a pass or two that still pay
    assert len(noisy) > TUNING.step_falls * TUNING.patience


def test_the_truth_is_not_made_worse_on_patterns_that_it_has_not_seen(dim):
    free = draw_held_out(196, 0.1, 0).numpy()
    start = dim.truth.object
    result = run(dim, start=start, network_object=start, held_out=free)
    assert result.outcome == "network"
    assert np.array_equal(result.reconstruction.object, start)


def test_two_noisy_pictures_are_averaged(dim):
    """A start as good as what is refined, with noise of its own and a wrong slow phase: the mean
    has less noise.
    """
    free = draw_held_out(196, 0.1, 0).numpy()
    alone = run(dim)
    found = torch.from_numpy(alone.reconstruction.object)
    truth = torch.from_numpy(dim.truth.object)
    lit = torch.from_numpy(dim.truth.coverage > 0.1)
    difference = (found - truth * torch.exp(1j * (found * truth.conj())[lit].sum().angle()))[lit]
    noise = (
        torch.randn(truth.shape, dtype=truth.dtype, generator=torch.Generator().manual_seed(1))
        * difference.abs().square().mean().sqrt()
    )
    slow = torch.polar(
        torch.ones(truth.shape), 1 + 0.6 * torch.sin(torch.arange(truth.shape[0])[:, None] / 12)
    )
    both = run(dim, network_object=((truth + noise) * slow).numpy(), held_out=free)
    assert both.outcome == "mean"
    assert agreement(dim, both).frc50 > agreement(dim, alone).frc50


def test_a_picture_that_one_unseen_pattern_speaks_against_is_not_averaged_with(bright):
    """Of five, it alone makes no difference of two standard errors."""
    wrong = bright.truth.object.copy()
    wrong[:24, :24] *= 0.8  # where the first pattern was taken
    result = run(bright, network_object=wrong, held_out=np.array([0, 80, 100, 120, 190]))
    assert result.outcome == "refined"


def test_an_empty_object_is_not_averaged_with(dim):
    result = run(dim, network_object=empty(dim), held_out=draw_held_out(196, 0.1, 0).numpy())
    assert result.outcome == "refined"


def test_patterns_that_were_kept_out_are_not_fitted(dim):
    """Exchanged among each other, they change how they are predicted and nothing else."""
    free = draw_held_out(196, 0.1, 0).numpy()
    counts = dim.scan.counts[:].copy()
    counts[free] = counts[free[::-1]]
    exchanged = replace(dim, scan=replace(dim.scan, counts=counts))
    as_they_are, other = (
        run(made, epochs=2, smoothness=0.0, held_out=free).history for made in (dim, exchanged)
    )
    assert [entry.r_work for entry in as_they_are] == [entry.r_work for entry in other]
    assert [entry.r_free for entry in as_they_are] != [entry.r_free for entry in other]


def test_equal_seeds_give_equal_bits(dim):
    first, again, other = (run(dim, epochs=2, seed=seed) for seed in (1, 1, 2))
    first, again, other = (result.reconstruction.object for result in (first, again, other))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_prediction_is_that_of_the_forward_model(bright):
    """R by the interpolated probes of the refinement, and by `diffraction_intensity` with exact
    shifts.
    """
    probe = torch.from_numpy(bright.scan.probe)
    image = torch.from_numpy(bright.truth.object)
    patterns = prepared(bright)
    whole, fraction = split_corners(torch.from_numpy(bright.scan.corners_px()))
    patches = extract_patches(
        image[None], patch_indices(whole[None], (32, 32), tuple(image.shape))
    )[0]
    intensity = diffraction_intensity(patches, shift_probe(probe, fraction))
    counts = torch.from_numpy(bright.scan.counts[:].astype(np.float32))
    expected = (intensity.sqrt() - counts.sqrt()).square().sum() / counts.sum()
    basis = shift_basis(patterns, probe, probe.new_zeros(0, *probe.shape))
    assert predict(patterns, image, basis, torch.arange(196)).r == pytest.approx(
        expected.item(), abs=2e-6
    )  # interpolation


def overlap(a, b):
    """Modulus of the normalised inner product, 1 for the same probe."""
    return abs(np.vdot(a, b)) / np.linalg.norm(a) / np.linalg.norm(b)


def test_a_wrong_probe_is_recovered(bright):
    """A fifth more defocus, roughly: a quadratic phase and some noise on the probe."""
    rng = np.random.default_rng(0)
    frequency = np.fft.fftfreq(32)
    defocus = np.exp(30j * (frequency[:, None] ** 2 + frequency**2))
    wrong = np.fft.ifft2(np.fft.fft2(bright.scan.probe) * defocus)
    wrong += (
        0.1
        * np.abs(wrong).mean()
        * (rng.standard_normal(wrong.shape) + 1j * rng.standard_normal(wrong.shape))
    )
    wrong = wrong.astype(np.complex64)
    result = run(bright, probe=wrong, update_probe=True)
    truth = bright.scan.probe[0]
    before, after = (overlap(probe[0], truth) for probe in (wrong, result.reconstruction.probe))
    assert before < 0.97
    assert after > 0.995
    assert np.sum(np.abs(result.reconstruction.probe) ** 2) == pytest.approx(
        np.sum(np.abs(wrong) ** 2), rel=1e-4
    )
    assert (
        agreement(bright, result).correlation
        > agreement(bright, run(bright, probe=wrong)).correlation
    )


def test_a_coherent_beam_needs_one_mode_and_an_incoherent_one_more(bright, dim):
    second = bright.scan.probe * np.linspace(-1, 1, 32)[:, None]
    second *= 0.7 * np.linalg.norm(bright.scan.probe) / np.linalg.norm(second)
    both = np.concatenate([bright.scan.probe, second]).astype(np.complex64)
    whole, fraction = split_corners(torch.from_numpy(bright.scan.corners_px()))
    image = torch.from_numpy(bright.truth.object)
    patches = extract_patches(
        image[None], patch_indices(whole[None], (32, 32), tuple(image.shape))
    )[0]
    counts = diffraction_intensity(patches, shift_probe(torch.from_numpy(both), fraction)).float()
    start = replace(bright.truth, object=empty(bright))
    assert mode_gain(replace(bright.scan, counts=counts.numpy()), start, RefineOptions()) > 0.05
    for made, seed in product((bright, dim), range(3)):
        start = replace(made.truth, object=empty(made))
        assert mode_gain(made.scan, start, RefineOptions(seed=seed)) < 0.05


def test_added_modes_are_orthogonal_and_keep_the_photons(bright):
    probe = torch.from_numpy(bright.scan.probe)
    grown = add_modes(probe, 3).reshape(3, -1)
    products = grown @ grown.mH
    assert products.diagonal().real.sum() == pytest.approx(
        probe.abs().square().sum().item(), rel=1e-4
    )
    assert (products - torch.diag(products.diagonal())).abs().max() < 1e-4 * products.abs().max()


def test_orthogonalising_changes_no_intensity():
    generator = torch.Generator().manual_seed(0)
    probe, patch = (
        torch.randn(n, 8, 8, dtype=torch.complex64, generator=generator) for n in (3, 2)
    )
    before, after = (
        diffraction_intensity(patch, probe),
        diffraction_intensity(patch, orthogonalise(probe)),
    )
    assert torch.allclose(before, after, rtol=1e-3, atol=1e-3)  # float32


def test_batches_use_every_pattern_once_and_spread(bright):
    patterns = prepared(bright)
    work = step.working_set(patterns, torch.arange(196))
    drawn = step.sparse_batches(patterns, work, 1.0, torch.Generator().manual_seed(0))
    batches = [batch.own for batch in drawn]
    assert torch.equal(torch.cat(batches).sort().values, work.host_index)
    spread = [patterns.corners[batch].double().std(dim=0).min() for batch in batches]
    assert min(spread) > 0.5 * patterns.corners.double().std(dim=0).min()


def test_regions_stay_while_about_as_many_are_wanted(bright):
    """To make them takes long beside an epoch on a GPU."""
    work = step.working_set(prepared(bright), torch.arange(100))
    made, sizes = work.regions(40)
    assert sum(sizes) == 100
    assert torch.equal(made[made >= 0].sort().values, work.host_index)
    assert work.regions(39)[0] is work.regions(42)[0] is made
    assert len(work.regions(37)[0]) == 37
    assert len(work.regions(40)[0]) == 40


def test_a_large_scan_converges_as_a_small_one(bright):
    """Batches that leave most of a large object alone would let momentum carry it away."""
    large = simulate_scan(photons=1e8, n_side=80, step_px=3.0, pattern_size=32, seed=4)
    small_course, large_course = (
        [entry.r_free for entry in run(made, epochs=2).history] for made in (bright, large)
    )
    assert all(
        one < other for one, other in zip(large_course, small_course, strict=True)
    )  # more patterns, more steps a pass


def test_a_batch_that_is_worked_off_in_parts_is_the_same_batch(dim, monkeypatch):
    """To rounding; the likelihood of few photons does not magnify it where the model is dark."""
    patterns, probe = prepared(dim), torch.from_numpy(dim.scan.probe)
    index, states = torch.arange(0, 196, 10), []
    for together in (20, 3):
        monkeypatch.setitem(WAVE_BUDGET, "cpu", 2 * together * 32 * 32)
        state = step.State(torch.from_numpy(empty(dim)), add_modes(probe, 2))
        light = step.illumination_of(patterns, state, index)
        settings = step.StepSettings(batches=1.0, step=0.5, prior=0.0, update_probe=True)
        step.step_on_batch(patterns, state, index, light, settings)
        states.append(state)
    torch.testing.assert_close(states[0].obj, states[1].obj)
    torch.testing.assert_close(states[0].probe, states[1].probe)
    assert not torch.equal(states[0].probe, add_modes(probe, 2))


def test_a_lost_state_says_so(bright):
    """Numbers that overflow come back as such; what reads them refuses them."""
    result = run(bright, probe=bright.scan.probe * np.float32(1e30), epochs=1, update_probe=True)
    assert not np.isfinite(result.reconstruction.object).all()


def test_bad_pixels_are_not_fitted(dim):
    mask = np.ones((32, 32), dtype=bool)
    mask[5:9] = False
    wild = dim.scan.counts[:].astype(np.float32)
    wild[:, 5:9] = 1e5
    spoiled = replace(dim, scan=replace(dim.scan, counts=wild))
    clean, other = (run(made, mask=mask, epochs=3).reconstruction.object for made in (dim, spoiled))
    assert np.array_equal(clean, other)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"probe_modes": 2}, "more need update_probe"),
        ({"held_out_fraction": 0.9}, "held_out_fraction"),
        ({"start": np.ones((10, 10), dtype=np.complex64)}, "pad the object"),
        (
            {"network_object": np.ones((10, 10), dtype=np.complex64), "held_out": np.arange(4)},
            "must be on one canvas",
        ),
    ],
)
def test_what_cannot_be_refined_is_said(dim, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        run(dim, **change)


def test_another_picture_needs_patterns_that_it_has_not_seen(dim):
    with pytest.raises(ValueError, match="held_out must name"):
        run(dim, network_object=empty(dim))


def test_polish_says_what_it_did(dim):
    start = replace(dim.truth, object=empty(dim))
    free = draw_held_out(196, 0.05, 0).numpy()
    result, history = refine_reconstruction(
        dim.scan, start, RefineOptions(), held_out=free, network_object=start.object, show=False
    )
    assert history["outcome"] == "refined"
    assert history["r_free"] < history["r_free_start"]
    assert history["held_out_scan_index"] == free.tolist()
    assert correlation(result.object, dim.truth.object) > 0.5


def test_inference_with_refinement_keeps_patterns_out_and_reports(
    trained, scan_file, simulation, tmp_path
):
    common = {
        "model_path": trained.path,
        "test_data": scan_file,
        "accelerator": "cpu",
        "quiet": True,
    }
    network = reconstruct(InferenceConfig(output_dir=tmp_path / "network", **common))
    refined = reconstruct(
        InferenceConfig(output_dir=tmp_path / "refined", refine="auto", refine_probe="on", **common)
    )
    before, after = (
        compare(read_reconstruction(r.reconstruction), simulation.truth) for r in (network, refined)
    )
    assert after.correlation > before.correlation - 0.01
    assert '"r_free"' in refined.metrics.read_text()
    assert '"r_free"' not in network.metrics.read_text()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"refine": "much"}, "expected a number of epochs or auto"),
        ({"refine_probe": "on"}, "add --refine auto"),
        ({"refine": "3", "probe_modes": 3}, "add --refine_probe"),
        ({"probe_components": "2"}, "add --refine auto"),
        ({"refine": "3", "probe_components": "2", "refine_probe": "off"}, "leave one of them out"),
        ({"refine": "3", "probe_components": "many"}, "expected auto, off or a number"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        InferenceConfig(model_path="m", test_data="d", output_dir="o", **options)

"""A probe that the file lacks is made from the patterns, and a rough one is refined."""

from dataclasses import replace

import numpy as np
import pytest

from ptycho_torch.config import InferenceConfig, ReadingOptions, TrainingConfig
from ptycho_torch.data.conditions import conditions_of, training_conditions
from ptycho_torch.data.probe import annular_probe, aperture_radius, defocused
from ptycho_torch.data.simulation import expected_counts, simulate_scan
from ptycho_torch.doctor.open_scan import open_scan
from ptycho_torch.errors import InputError
from ptycho_torch.generators.checkpoint import load_generator
from ptycho_torch.inference import reconstruct
from ptycho_torch.io.measurement_file import apply_measurement, write_measurement
from ptycho_torch.io.readers.reconstruction import read_reconstruction
from ptycho_torch.io.writers import write_scan
from ptycho_torch.refinement.measurement import refine_measurement
from ptycho_torch.refinement.measurement_refiner import MeasurementOptions
from ptycho_torch.refinement.probe_retrieval import ensure_probe, retrieve_probe
from ptycho_torch.train import train


@pytest.fixture(scope="module")
def measured():
    return simulate_scan(photons=1e5, n_side=10, pattern_size=32, seed=4).scan


def bare(scan):
    """The scan as a file without a probe gives it."""
    return replace(scan, probe=None)


def similarity(a, b):
    """Largest correlation over all shifts, which object and probe share."""
    product = np.fft.ifft2(np.fft.fft2(a) * np.conj(np.fft.fft2(b)))
    return np.abs(product).max() / np.linalg.norm(a) / np.linalg.norm(b)


def test_the_probe_is_found_from_the_patterns_alone(measured):
    found = retrieve_probe(bare(measured), seed=0, show=False)
    # the curvature alone reaches 0.9; an aperture without it 0.3
    assert similarity(found.probe[0], measured.probe[0]) > 0.98
    assert found.photons == pytest.approx(measured.counts[:].sum() / len(measured), rel=1e-4)
    assert "defoci" in found.decisions[-1]


def test_the_same_seed_finds_the_same_probe(measured):
    few = measured.subset(range(36))
    assert np.array_equal(*(retrieve_probe(bare(few), seed=3, show=False).probe for _ in range(2)))


def rough(probe, seed=0):
    """A probe as it is often known: its defocus off by a fifth of the beam's, and noise of 15 % of
    its amplitude.
    """
    rng = np.random.default_rng(seed)
    radius = aperture_radius(probe[0])
    beam = (
        0.5 * 32 / 2 / radius
    )  # a curvature that moves the rim to the rim of this beam, which fills half the window
    moved = defocused(probe, 0.2 * beam)
    noise = rng.standard_normal(probe.shape) + 1j * rng.standard_normal(probe.shape)
    noisy = moved + 0.15 * np.abs(moved) * noise / np.sqrt(2)
    return (noisy * np.linalg.norm(probe) / np.linalg.norm(noisy)).astype(np.complex64)


def refined(scan):
    return refine_measurement(scan, MeasurementOptions(probe="on")).scan


def test_a_rough_probe_is_recovered(measured):
    given = rough(measured.probe)
    found = refined(replace(measured, probe=given)).probe
    assert similarity(given[0], measured.probe[0]) < 0.97
    assert similarity(found[0], measured.probe[0]) > 0.99


def test_a_coherent_beam_stays_one_mode_and_a_mixed_one_gets_more(measured):
    assert len(refined(measured).probe) == 1
    other = np.roll(measured.probe, 3, axis=-1) * np.sqrt(0.4)
    mixed = np.concatenate([measured.probe * np.sqrt(0.6), other])
    truth = simulate_scan(photons=1e5, n_side=10, pattern_size=32, seed=4).truth.object
    intensity, _ = expected_counts(truth, mixed.astype(np.complex64), measured.positions_px)
    counts = np.random.default_rng(0).poisson(intensity).astype(np.uint16)
    assert len(refined(replace(measured, counts=counts)).probe) == 3


def test_training_keeps_what_it_found_for_inference(tmp_path, measured, caplog):
    """The same scan takes it by itself, another one is offered the probe."""
    given = replace(measured, probe=rough(measured.probe))
    write_scan(tmp_path / "scan.npz", given)
    write_scan(tmp_path / "other.npz", given.subset(np.arange(60)))
    config = TrainingConfig(
        train_data_file=[tmp_path / "scan.npz"],
        output_dir=tmp_path / "run",
        max_epochs=1,
        refine_measurement=True,
        quiet=True,
        accelerator="cpu",
    )
    run = train(config)
    scan = open_scan(tmp_path / "scan.npz", ReadingOptions(probe=run.probe_file(0)))
    assert similarity(scan.probe[0], measured.probe[0]) > 0.99
    _, about = load_generator(run.best_checkpoint)
    (conditions,) = training_conditions(about)
    assert conditions.photons == pytest.approx(conditions_of(scan).photons, rel=1e-4)
    taken, offered = "measurement_0.npz: what the training found", "--probe "
    for name, probe, said in (
        ("scan", None, (True, False)),
        ("other", None, (False, True)),
        ("scan", run.probe_file(0), (False, False)),
    ):
        options = {
            "probe": probe,
            "output_dir": tmp_path / f"image {name} {said}",
            "quiet": True,
            "accelerator": "cpu",
        }
        caplog.clear()
        with caplog.at_level("INFO"):
            image = reconstruct(
                InferenceConfig(model_path=run.path, test_data=tmp_path / f"{name}.npz", **options)
            )
        assert (taken in caplog.text, offered in caplog.text) == said
        used = read_reconstruction(image.reconstruction).probe
        assert bool(similarity(used[0], measured.probe[0]) > 0.99) is (name == "scan")
    with pytest.raises(InputError, match="already holds"):
        train(config)


def test_a_measurement_file_is_of_one_scan(tmp_path, measured):
    found = replace(measured, positions_px=measured.positions_px + 1, flux=np.ones(len(measured)))
    write_measurement(tmp_path / "measurement_0.npz", found, of=measured)
    again = apply_measurement(tmp_path / "measurement_0.npz", measured)
    assert np.array_equal(again.positions_px, found.positions_px)
    assert np.array_equal(again.flux, found.flux)
    assert again.background is None
    mask = measured.mask.copy()
    mask[0, 0] = False
    assert apply_measurement(tmp_path / "measurement_0.npz", replace(measured, mask=mask)) is None


def test_a_damaged_measurement_file_is_refused(tmp_path, measured):
    path = tmp_path / "measurement_0.npz"
    write_measurement(path, measured, of=measured)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="not a readable NPZ file"):
        apply_measurement(path, measured)
    write_measurement(path, replace(measured, flux=np.ones(3)), of=measured)
    with pytest.raises(InputError, match="'flux' has shape"):
        apply_measurement(path, measured)


def test_patterns_that_no_probe_explains_are_refused(measured):
    order = np.random.default_rng(0).permutation(len(measured))
    shuffled = replace(bare(measured), counts=measured.counts[:][order])
    with pytest.raises(InputError, match="--probe FILE"):
        retrieve_probe(shuffled, seed=0, show=False)


def test_a_file_without_a_probe_is_used(tmp_path, measured):
    np.savez(
        tmp_path / "bare.npz",
        diff3d=measured.counts[:],
        xcoords=measured.positions_px[:, 1],
        ycoords=measured.positions_px[:, 0],
    )
    bare_scan = open_scan(tmp_path / "bare.npz", ReadingOptions())
    assert bare_scan.probe is None
    scan = ensure_probe(bare_scan, seed=0, show=False)
    assert similarity(scan.probe[0], annular_probe(32)[0]) > 0.98

"""What `infer --metrics` finds without ground truth, against what is known of a simulated scan."""

import json
from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest

from ptycho_torch.config import InferenceConfig
from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.errors import InputError
from ptycho_torch.evaluation.metrics.residuals import pattern_residuals
from ptycho_torch.inference import reconstruct
from ptycho_torch.inference.half_data import correlate_halves, half_data_frc, to_dict


@pytest.fixture(scope="module")
def made():
    return simulate_scan(photons=1e5, n_side=10, step_px=5, pattern_size=32, seed=3)


def noisy_truth(truth, sigma):
    """A stand-in for a reconstruction: the truth, with noise of its own for each set of
    patterns.
    """

    def make(part):
        rng = np.random.default_rng(part.scan_index)
        noise = sigma * (
            rng.standard_normal(truth.object.shape) + 1j * rng.standard_normal(truth.object.shape)
        )
        return replace(
            truth,
            object=(truth.object + noise).astype(np.complex64),
            positions_px=part.positions_px,
            scan_index=part.scan_index,
        )

    return make


def test_halves_are_disjoint_complete_random_and_the_same_for_a_seed(made):
    asked = []

    def make(part):
        asked.append(part.scan_index)
        return noisy_truth(made.truth, 0.1)(part)

    first, again, other = (
        correlate_halves(made.scan, make, seed=seed).correlation for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert sorted(np.concatenate(asked[:2])) == list(range(100))
    assert abs(len(asked[0]) - len(asked[1])) <= 1
    assert not np.array_equal(asked[0], asked[4])


def test_noisier_halves_agree_less_far(made):
    found = [
        correlate_halves(made.scan, noisy_truth(made.truth, sigma), seed=0).resolutions()
        for sigma in (0.01, 0.1, 0.5)
    ]
    for criterion in found[0]:
        assert found[0][criterion] > found[1][criterion] > found[2][criterion]


def test_the_truth_has_a_chi_squared_of_one_and_an_error_stands_where_it_is(made):
    assert pattern_residuals(made.truth, made.scan).chi2_per_dof == pytest.approx(1, abs=0.03)
    broken = made.truth.object.copy()
    y, x = np.mgrid[: len(broken), : len(broken)]
    middle = made.scan.positions_px[44]
    broken[np.hypot(y - middle[0], x - middle[1]) < 4] = 1
    found = pattern_residuals(replace(made.truth, object=broken), made.scan)
    worst = made.scan.positions_px[found.r_factor.argsort()[-4:]]
    assert np.linalg.norm(worst - middle, axis=1).max() < 12  # the beam is 13 pixels wide


def test_a_scan_too_small_for_halves_is_still_judged(made, caplog):
    small = made.scan.subset([0, 1, 2, 3])
    halves = half_data_frc(small, noisy_truth(made.truth, 0.1), seed=0)
    assert halves is None
    assert (
        "cannot be compared: the two images have less than 16 x 16 pixels in common" in caplog.text
    )
    assert to_dict(pattern_residuals(made.truth, small), halves, small)["frc_halves"] is None
    with pytest.raises(InputError, match="expected at least 4 for two halves"):
        correlate_halves(made.scan.subset([5, 6, 7]), noisy_truth(made.truth, 0.1), seed=0)


def test_infer_leaves_residuals_and_with_metrics_also_halves(
    trained, scan_file, simulation, tmp_path
):
    stored = []
    for name, metrics, refine in (
        ("with", True, "0"),
        ("again", True, "0"),
        ("without", False, "0"),
        ("refined", True, "3"),
    ):
        image = reconstruct(
            InferenceConfig(
                model_path=trained.path,
                test_data=scan_file,
                output_dir=tmp_path / name,
                metrics=metrics,
                refine=refine,
                accelerator="cpu",
                quiet=True,
            )
        )
        stored.append(json.loads(image.metrics.read_text()))
        picture = matplotlib.image.imread(image.residuals)
        assert picture[..., :3].std() > 0.05
        assert (picture.shape[1] > 2000) == metrics, "the third panel is that of the halves"
    judged, again, plainly, refined = stored
    assert refined["frc_halves"] != judged["frc_halves"], "halves are refined as the whole is"
    assert refined["chi2_per_dof"] < judged["chi2_per_dof"]
    assert judged["positions"] == again["positions"]
    assert judged["frc_halves"] == again["frc_halves"]
    assert plainly["chi2_per_dof"] == judged["chi2_per_dof"]
    assert not {"positions", "frc_halves"} & plainly.keys()
    assert judged["positions"]["scan_index"] == simulation.scan.scan_index.tolist()
    photons = simulation.scan.counts[:].sum(axis=(1, 2))
    assert np.average(judged["positions"]["r_factor"], weights=photons) == pytest.approx(
        judged["r_factor"], rel=1e-4
    )
    assert judged["chi2_per_dof"] > 1

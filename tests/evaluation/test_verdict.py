"""Each rule of the verdict has a case that it speaks of, and the good case that it does not."""

import json

import numpy as np
import pytest
from outline import Outline

from ptycho_torch.cli import main
from ptycho_torch.evaluation.verdict import LEVELS, RULES, verdict_on

GOOD = {
    "r_factor": 0.0011,
    "r_factor_noise": 0.001,
    "r_factor_empty": 0.09,
    "trained": {"steps": 1000},
    "beyond_training": [],
    "frc_halves": {"resolution_of_nyquist": {"half_bit": 0.8}},
    "refinement": {"r_free": 0.0012, "outcome": "mean"},
}
CASES = {
    "no_better_than_empty": {"r_factor": 0.08},
    "unlike_the_probe": {"r_factor": 0.16, "r_factor_empty": 1.6},
    "untrained": {"trained": {"steps": 0}, "refinement": None},
    "halves_disagree": {"frc_halves": {"resolution_of_nyquist": {"half_bit": 0.1}}},
    "above_noise": {"r_factor": 0.05, "refinement": None},
    "fitted_noise": {"refinement": {"r_free": 0.03, "outcome": "refined"}},
    "beyond_training": {"beyond_training": ["11.5 px step"]},
    "frames_missing": {"missing_share": 0.03},
}


def said(**changes):
    """`metrics.json` of a good image, with changes; None takes an entry out."""
    return {name: value for name, value in (GOOD | changes).items() if value is not None}


def test_a_good_image_is_trusted_and_the_reasons_have_numbers():
    verdict = verdict_on(said())
    assert verdict.level == "trust it"
    assert "1.1 times counting noise" in verdict.reasons[0]
    assert "80 % of Nyquist" in verdict.reasons[1]


def test_every_rule_has_a_case():
    assert {rule.__name__ for rules in RULES.values() for rule in rules} == set(CASES)


@pytest.mark.parametrize("level", RULES)
def test_each_rule_gives_its_level(level):
    for rule in RULES[level]:
        changed = said(**CASES[rule.__name__])
        assert rule(said()) == ""
        assert rule(changed)
        assert LEVELS.index(verdict_on(changed).level) >= LEVELS.index(level)
        assert rule(changed) in verdict_on(changed).reasons


def test_a_small_misfit_that_is_a_good_part_of_that_of_an_empty_object_is_no_good_fit():
    """An R-factor of 0.018 is small, but with a weak object it leaves a fifth unexplained."""
    figures = {"r_factor": 0.0178, "r_factor_noise": 0.0013, "r_factor_empty": 0.0825}
    verdict = verdict_on(said(**figures, refinement=None))
    assert verdict.level == "look twice"
    assert "14 times counting noise" in verdict.reasons[0]
    assert "20 % of that of an empty object" in verdict.reasons[0]


def test_an_image_of_positions_that_are_a_pixel_wrong_is_looked_at_twice():
    """Simulated: R five times counting noise, amplitude SSIM 0.79, 1/2 bit at half of Nyquist."""
    figures = {"r_factor": 0.00895, "r_factor_noise": 0.0016, "r_factor_empty": 0.0854}
    assert verdict_on(said(**figures, refinement=None)).level == "look twice"


def test_a_strong_scatterer_that_is_explained_is_trusted():
    """Its light goes elsewhere than that of the probe alone, which is no fault of an image."""
    figures = {"r_factor": 0.02, "r_factor_noise": 0.01, "r_factor_empty": 1.3}
    assert verdict_on(said(**figures, refinement=None)).level == "trust it"


def test_reasons_have_no_powers_of_ten():
    figures = {"r_factor": 0.162, "r_factor_noise": 0.00132, "r_factor_empty": 1.62}
    halves = {"resolution_of_nyquist": {"half_bit": 0.014}}
    verdict = verdict_on(said(**figures, frc_halves=halves, pixel_size_m=[32e-9, 32e-9]))
    assert verdict.level == "do not trust it"
    text = "; ".join(verdict.reasons)
    assert "120 times counting noise" in text
    assert "2.29 µm half period" in text
    assert "e+" not in text


def test_far_above_a_tiny_noise_is_a_good_fit_at_high_dose():
    figures = {"r_factor": 0.003, "r_factor_noise": 1e-6, "r_factor_empty": 0.08}
    verdict = verdict_on(said(**figures, refinement=None))
    assert verdict.level == "trust it"
    assert "all but 3.7 % of the patterns" in verdict.reasons[0]


def test_the_resolution_is_in_nanometres_where_the_pixel_is_known():
    assert (
        "80 % of Nyquist, 40 nm half period"
        in verdict_on(said(pixel_size_m=[30e-9, 32e-9])).reasons[1]
    )


def test_a_refined_image_does_not_need_a_trained_network():
    assert verdict_on(said(trained={"steps": 0})).level == "trust it"


def test_the_most_serious_reason_comes_first():
    reasons = verdict_on(said(r_factor=0.08)).reasons
    assert "hardly better than an empty object" in reasons[0]
    assert "times counting noise" in reasons[1]


def test_the_page_opens_with_the_verdict_and_shows_every_warning(tmp_path, capsys):
    """A network of one epoch, and a scan of another dose and step; then with a wrong probe."""
    common = ["--quiet", "--accelerator", "cpu", "--output_dir"]
    for name, flags in (
        ("good", ["--n_side", "8"]),
        ("poor", ["--n_side", "6", "--photons", "300"]),
    ):
        simulate = ["simulate", "--quiet", "--pattern_size", "32", "--output_dir"]
        assert main([*simulate, str(tmp_path / name), *flags]) == 0
    scans = [str(tmp_path / name / "scan.npz") for name in ("good", "poor")]
    run = str(tmp_path / "run")
    assert main(["train", "--train_data_file", scans[0], "--max_epochs", "1", *common, run]) == 0
    capsys.readouterr()
    image = tmp_path / "image"
    words = ["infer", "--model_path", run, "--test_data", scans[1], "--strict", *common, str(image)]
    assert main(words) == 0
    said = json.loads((image / "metrics.json").read_text())
    assert said["verdict"]["level"] == "look twice"
    page = (image / "report.html").read_text()
    shown = capsys.readouterr().err
    assert said["warnings"]
    for text in (said["verdict"]["level"], *said["warnings"]):
        assert text in Outline(page).text
    assert said["warnings"][0] in shown
    assert page.index(said["verdict"]["level"]) < page.index("<h2")
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2, 32, 32))
    np.save(tmp_path / "wrong.npy", noise[0] + 1j * noise[1])
    other = tmp_path / "wrong"
    wrong = ["--probe", str(tmp_path / "wrong.npy"), "--check", "warn"]
    for flags, status in ((["--strict"], 3), (["--overwrite"], 0)):
        assert main([*words[:5], *wrong, *flags, *common, str(other)]) == status
        said = json.loads((other / "metrics.json").read_text())
        assert said["verdict"]["level"] == "do not trust it"
        assert ("error: do not trust it: " in capsys.readouterr().err) == (status == 3)
        assert (other / "report.html").is_file()

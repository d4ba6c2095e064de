"""A checkpoint knows the scans that it was trained on, and inference says where another one lies
outside of them.
"""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from ptycho_torch.config import InferenceConfig, TrainingConfig
from ptycho_torch.data.conditions import Conditions, conditions_of, training_conditions
from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.evaluation.metrics.residuals import empty_r_factor
from ptycho_torch.inference import reconstruct
from ptycho_torch.inference.training_domain import is_sparse, outside_domain
from ptycho_torch.io.readers import read_scan
from ptycho_torch.io.writers import write_scan
from ptycho_torch.train import train


@pytest.fixture(scope="module")
def scan():
    return simulate_scan(photons=1e4, n_side=8, step_px=4.0, pattern_size=32, seed=1).scan


def test_conditions_are_those_of_the_simulation(scan):
    found = conditions_of(scan)
    assert found.photons == pytest.approx(1e4, rel=1e-5)
    assert 2.0 < found.step_px <= 4.0  # nearest neighbours under jitter
    assert (found.pattern_rows, found.pattern_columns, found.probe_modes) == (32, 32, 1)
    grown = replace(
        scan,
        probe=np.pad(scan.probe, ((0, 0), (16, 16), (16, 16))),
        counts=np.zeros((64, 64, 64)),
        mask=np.ones((64, 64), dtype=bool),
    )
    assert conditions_of(grown).beam_px == pytest.approx(
        found.beam_px, rel=0.02
    )  # of the same pixels, in a wider window
    assert conditions_of(grown).aperture == pytest.approx(
        found.aperture, rel=0.1
    )  # in its finer pixels
    assert training_conditions({"conditions": [asdict(found)]}) == [found]


def test_a_scan_like_those_of_the_training_is_not_mentioned(scan):
    other = simulate_scan(photons=3e4, n_side=6, step_px=3.5, pattern_size=32, seed=2).scan
    assert outside_domain([conditions_of(scan)], other) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"photons": 1e7}, "photons"),
        ({"step_px": 9.0}, "between neighbours"),
        ({"pattern_size": 48}, "rows of a pattern"),
    ],
)
def test_what_lies_beyond_is_named(scan, change, word):
    other = simulate_scan(
        **{"photons": 1e4, "n_side": 6, "step_px": 4.0, "pattern_size": 32, "seed": 2} | change
    ).scan
    said = outside_domain([conditions_of(scan)], other)
    assert any(word in text and "trained with" in text for text in said)


def test_the_range_of_several_scans_counts(scan):
    bright = replace(conditions_of(scan), photons=1e7)
    between = replace(scan, probe=scan.probe * 10)  # 1e6 photons
    assert outside_domain([conditions_of(scan)], between)
    assert not outside_domain([conditions_of(scan), bright], between)


def test_the_poorer_exposures_that_training_makes_count(scan):
    """Of 1000 photons a pixel, training shows a hundredth; within a factor of 30 of that nothing is
    new.
    """
    bright = replace(conditions_of(scan), photons=1e6)
    assert not outside_domain([bright], scan)
    assert outside_domain([bright], replace(scan, probe=scan.probe / 10))  # 100 photons


def scan_with(step_px):
    return simulate_scan(photons=1e4, n_side=6, step_px=step_px, pattern_size=32, seed=2).scan


def test_positions_far_apart_are_told_from_others(scan):
    """Far apart in a beam of 18 px, or beside the 4 px of the training."""
    known, near, middle, far = [conditions_of(scan)], scan_with(2.0), scan_with(6.0), scan_with(9.0)
    assert is_sparse(known, middle)
    assert not is_sparse(known, near)
    assert not is_sparse([*known, conditions_of(middle)], middle)
    assert is_sparse([conditions_of(far)], far)


@pytest.mark.parametrize(
    ("learned_px", "step_px", "from_empty", "has_part"),
    [(4.0, 4.0, False, True), (9.0, 9.0, True, True), (4.0, 9.0, True, False)],
)
def test_where_a_refinement_starts_and_whose_part_the_answer_has(
    learned_px, step_px, from_empty, has_part, tmp_path
):
    """After one pass, the network's picture predicts better: it is the answer or in it, unless the
    scan is outside of the training domain.
    """
    for name, distance in (("learned", learned_px), ("seen", step_px)):
        write_scan(tmp_path / f"{name}.npz", scan_with(distance))
    common = {"accelerator": "cpu", "quiet": True}
    run = train(
        TrainingConfig(
            train_data_file=[tmp_path / "learned.npz"],
            output_dir=tmp_path / "run",
            max_epochs=1,
            **common,
        )
    )
    image = reconstruct(
        InferenceConfig(
            model_path=run.path,
            test_data=tmp_path / "seen.npz",
            output_dir=tmp_path / "image",
            refine="1",
            **common,
        )
    )
    said = json.loads(image.metrics.read_text())["refinement"]
    scan = read_scan(tmp_path / "seen.npz")
    kept_out = scan.subset(np.flatnonzero(np.isin(scan.scan_index, said["held_out_scan_index"])))
    r_free_of_empty = empty_r_factor(scan.probe, kept_out)
    within = 0.002  # the refinement interpolates shifted probes
    assert (said["r_free_start"] == pytest.approx(r_free_of_empty, rel=within)) == from_empty
    assert (said["outcome"] != "refined") == has_part


def test_damaged_conditions_are_noticed():
    with pytest.raises(LookupError):
        training_conditions({})
    with pytest.raises(ValueError, match="could not convert"):
        training_conditions(
            {"conditions": [asdict(Conditions(1, 1, 1, 1, 1, 1, 1)) | {"photons": "many"}]}
        )


def test_inference_says_it_and_keeps_it(scan, tmp_path, caplog):
    write_scan(tmp_path / "dim.npz", scan)
    write_scan(
        tmp_path / "bright.npz",
        simulate_scan(photons=1e7, n_side=8, step_px=4.0, pattern_size=32, seed=2).scan,
    )
    common = {"accelerator": "cpu", "quiet": True}
    run = train(
        TrainingConfig(
            train_data_file=[tmp_path / "dim.npz"],
            output_dir=tmp_path / "run",
            max_epochs=1,
            **common,
        )
    )
    image = reconstruct(
        InferenceConfig(
            model_path=run.path,
            test_data=tmp_path / "bright.npz",
            output_dir=tmp_path / "image",
            **common,
        )
    )
    assert "trained on other scans" in caplog.text
    assert "photons" in json.loads(image.metrics.read_text())["beyond_training"][0]

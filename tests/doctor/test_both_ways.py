"""For a symmetric probe the doctor names both ways: patterns or positions turned over."""

from ptycho_torch.data.detector import Orientation
from ptycho_torch.doctor.findings import ERROR, OK
from ptycho_torch.doctor.orientation import Hypothesis, Trial, orientation_finding

AS_STORED = Hypothesis(Orientation(), False, "none")
FLIPPED = Hypothesis(Orientation(flip_y=True), False, "none")
NEGATED = Hypothesis(Orientation(), False, "y")
BOTH_FLIPPED = Hypothesis(Orientation(flip_y=True, flip_x=True), False, "none")
BOTH_NEGATED = Hypothesis(Orientation(), False, "both")
OTHER = Hypothesis(Orientation(transpose=True), False, "x")


def finding(*fits, stored=0.3):
    trials = [Trial(one, 0.01) for one in fits]
    left = [Trial(OTHER, 0.2)] + ([] if AS_STORED in fits else [Trial(AS_STORED, stored)])
    return orientation_finding([*trials, *left])


def test_a_flip_and_negated_positions_are_both_named():
    for fits in ((FLIPPED, NEGATED), (NEGATED, FLIPPED)):
        found = finding(*fits)
        assert found.verdict == ERROR
        assert "--flip_y" in found.text
        assert "--negate_positions y" in found.text
        assert "with a mirror image" in found.text


def test_two_flips_are_named_beside_one_flag_for_the_positions():
    found = finding(BOTH_NEGATED, BOTH_FLIPPED)
    assert found.flag == "--negate_positions both"
    assert "--flip_y --flip_x fits as well" in found.text


def test_a_probe_without_symmetry_has_one_way():
    found = finding(FLIPPED)
    assert (found.verdict, found.flag) == (ERROR, "--flip_y")
    assert "fits as well" not in found.text


def test_a_scan_that_fits_as_stored_is_no_alarm_though_the_mirror_fits_too():
    mirrored = Hypothesis(Orientation(flip_y=True), False, "y")
    assert finding(AS_STORED, mirrored).verdict == OK

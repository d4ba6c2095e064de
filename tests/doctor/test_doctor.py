"""`ptycho-torch doctor`, and how training and inference refuse a scan with a certain fault."""

import json
import re
from dataclasses import replace
from itertools import pairwise

import h5py
import numpy as np
import pytest
from PIL import Image

from ptycho_torch import cli
from ptycho_torch.config import ReadingOptions
from ptycho_torch.data.detector import Orientation
from ptycho_torch.doctor import examine, take_sample
from ptycho_torch.doctor.findings import Finding
from ptycho_torch.doctor.open_scan import open_scan
from ptycho_torch.doctor.orientation import Hypothesis, Trial, orientation_finding
from ptycho_torch.doctor.picture import draw_examination
from ptycho_torch.errors import InputError
from ptycho_torch.io.writers import write_scan


@pytest.fixture
def spoiled(tmp_path, scan_file):
    with np.load(scan_file) as archive:
        arrays = dict(archive)
    path = tmp_path / "spoiled.npz"
    np.savez(path, **arrays | {"diff3d": np.fft.ifftshift(arrays["diff3d"], axes=(1, 2))})
    return path


def test_a_good_scan_ends_with_status_0_and_a_picture(scan_file, tmp_path, capsys):
    picture = tmp_path / "scan.png"
    assert cli.main(["doctor", str(scan_file), "--picture", str(picture)]) == 0
    printed = capsys.readouterr().out
    for check in (
        *("values", "center", "light", "pixels", "saturation"),
        *("overlap", "order", "probe", "experiment", "orientation"),
    ):
        assert check in printed
    with Image.open(picture) as image:
        assert min(image.size) > 1000


def test_many_long_findings_hide_neither_each_other_nor_a_panel(simulation):
    scan = simulation.scan
    sample = take_sample(scan, all_totals=True)
    long = [Finding("orientation", "warning", "word " * 90) for _ in range(18)]
    figure = draw_examination(scan, sample, long)
    figure.canvas.draw()
    (below,) = [one for one in figure.axes if one.get_title(loc="left") == "Findings"]
    boxes = [text.get_window_extent() for text in below.texts]
    assert len(boxes) > 2 * len(long)
    assert boxes[-1].y0 >= 0
    assert max(box.x1 for box in boxes) <= figure.bbox.x1
    for upper, lower in pairwise(boxes):
        assert upper.y0 >= lower.y1 - 2  # pixels; a box has room for letters that no line has
    lowest = min(one.get_tightbbox().y0 for one in figure.axes if one is not below)
    assert below.get_tightbbox().y1 <= lowest


def test_a_pattern_in_the_middle_is_off_by_no_negative_zero(simulation):
    """Turned by 180°, a small offset changes its sign, and rounds to zero with one."""
    flipped = replace(simulation.scan, counts=np.asarray(simulation.scan.counts)[:, ::-1, ::-1])
    for scan in (simulation.scan, replace(flipped, probe=None)):
        texts = [one.text for one in examine(scan, take_sample(scan, all_totals=True))]
        assert not [text for text in texts if re.search(r"-0(\.0*)?(?![.0-9])", text)]


def test_json_has_the_numbers(scan_file, capsys):
    assert cli.main(["doctor", str(scan_file), "--json"]) == 0
    findings = {one["check"]: one for one in json.loads(capsys.readouterr().out)}
    assert findings["light"]["evidence"]["photons"] > 1e5
    assert findings["overlap"]["evidence"]["step_px"] == pytest.approx(3, abs=1)
    assert {one["verdict"] for one in findings.values()} <= {"ok", "info"}


def test_an_error_ends_with_status_1_after_all_findings_are_printed(spoiled, capsys):
    assert cli.main(["doctor", str(spoiled)]) == 1
    captured = capsys.readouterr()
    assert "corner" in captured.out
    assert "overlap" in captured.out
    assert "certainly wrong: center" in captured.err
    assert cli.main(["doctor", str(spoiled), "--check", "warn"]) == 0


def test_a_scan_without_a_probe_is_examined(tmp_path, scan_file, capsys):
    with np.load(scan_file) as archive:
        arrays = {key: value for key, value in archive.items() if key != "probeGuess"}
    path = tmp_path / "bare.npz"
    np.savez(path, **arrays)
    assert cli.main(["doctor", str(path), "--picture", str(tmp_path / "bare.png")]) == 0
    printed = capsys.readouterr().out
    assert "--probe FILE" in printed
    assert "orientation" not in printed


def test_runs_refuse_a_certain_fault_and_name_the_flag_that_continues(spoiled, caplog):
    with pytest.raises(InputError, match=r"corner.*--check warn"):
        open_scan(spoiled, ReadingOptions())
    scan = open_scan(spoiled, ReadingOptions(check="warn"))
    assert len(scan) == 64
    assert "corner" in caplog.text


def test_the_flag_that_a_finding_names_overrides_it(tmp_path, scan_file):
    with np.load(scan_file) as archive:
        arrays = dict(archive)
    path = tmp_path / "off.npz"
    np.savez(path, **arrays | {"diff3d": np.roll(arrays["diff3d"], (7, 0), axis=(1, 2))})
    with pytest.raises(InputError, match="--center 23,16"):
        open_scan(path, ReadingOptions())
    open_scan(path, ReadingOptions(center="23,16"))


def test_a_given_pixel_size_overrides_the_contradiction(tmp_path, simulation, capsys):
    write_scan(tmp_path / "pair", simulation.scan, format_name="ptychodus")
    with h5py.File(tmp_path / "pair" / "product.h5", "a") as file:
        file.attrs["detector_object_distance_m"] = 5.0
    assert cli.main(["doctor", str(tmp_path / "pair")]) == 1
    assert "0.2 times that of energy, distance and detector" in capsys.readouterr().out
    pixel = str(simulation.scan.pixel_size_m[0])
    assert cli.main(["doctor", str(tmp_path / "pair"), "--pixel_size_m", pixel]) == 0
    assert "overridden with --pixel_size_m" in capsys.readouterr().out


def test_a_wrong_scan_leaves_no_folder(spoiled, tmp_path, capsys):
    output = tmp_path / "run"
    assert cli.main(["train", "--train_data_file", str(spoiled), "--output_dir", str(output)]) == 2
    assert not output.exists()
    assert "corner" in capsys.readouterr().err


def test_all_orientations_that_fit_equally_are_named():
    """With a symmetric beam, mirrored patterns and mirrored positions fit equally well."""

    def trial(residual, *, flip_x=False, negate="none"):
        turned = Orientation(transpose=False, flip_y=False, flip_x=flip_x)
        return Trial(Hypothesis(turned, swap_xy=False, negate=negate), residual)

    found = orientation_finding([trial(0.01, negate="x"), trial(0.0101, flip_x=True), trial(0.2)])
    assert found.flag == "--negate_positions x"
    assert "--flip_x fits as well, with a mirror image" in found.text

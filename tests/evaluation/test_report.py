"""The page of a reconstruction, and making it again."""

import hashlib
import html
import json
import re
import shlex
import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import yaml
from chromium import assert_readable
from outline import Outline, assert_accessible

from ptycho_torch import cli
from ptycho_torch.config import InferenceConfig, TrainingConfig
from ptycho_torch.evaluation.pattern_fit import read_fit, write_fit
from ptycho_torch.evaluation.report import repeat
from ptycho_torch.inference import reconstruct
from ptycho_torch.io.readers.reconstruction import read_reconstruction
from ptycho_torch.io.run_dir import RunDir
from ptycho_torch.train import train

COMMON = {"accelerator": "cpu", "quiet": True}
# Object 2, patterns 3, residuals 2, probe 1, coverage, refinement, training.
PICTURES = 11


@pytest.fixture(scope="module")
def trained(scan_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return train(
        TrainingConfig(
            train_data_file=[scan_file], output_dir=folder, max_epochs=1, gridsize=4, **COMMON
        )
    )


@pytest.fixture(scope="module")
def run(scan_file, trained, tmp_path_factory):
    """A refined reconstruction, from a checkpoint in the folder of its training."""
    folder = tmp_path_factory.mktemp("report")
    model = trained.last_checkpoint
    return reconstruct(
        InferenceConfig(
            model_path=model, test_data=scan_file, output_dir=folder, refine="3", **COMMON
        )
    )


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_browser_draws_the_pictures_and_logs_nothing(run, browser, width, dark):
    opened = browser.open(run.report, width=width, dark=dark)
    (run.path / f"report-{width}-{dark}.png").write_bytes(opened.screenshot)
    assert_readable(opened, PICTURES, dark)


def test_the_page_is_accessible(run):
    assert_accessible(run.report.read_text(), pictures=PICTURES, tables=1)


def test_the_page_goes_from_the_verdict_over_the_pictures_to_the_versions(run):
    text = run.report.read_text()
    assert re.findall(r"<h2[^>]*>([^<]*)<", text) == [
        *("Object", "Measured and expected patterns", "Residuals", "Resolution"),
        *("Probe", "Positions", "Refinement", "Training", "Figures", "How the file was read"),
        *("To repeat it", "Versions"),
    ]
    assert text.index('class="banner') < text.index("<nav") < text.index("<h2")
    metrics = json.loads(run.metrics.read_text())
    verdict = metrics["verdict"]
    assert f"</span> {verdict['level']}</span>" in text
    assert verdict["reasons"][0] in Outline(text).text.replace("The", "the")
    assert all(
        f"{value:.6g}" in text
        for value in (metrics["r_factor"], metrics["chi2_per_dof"], metrics["refinement"]["r_free"])
    )


def test_the_head_has_the_fit_and_says_whether_anything_warned(run, tmp_path):
    metrics = json.loads(run.metrics.read_text())
    head = html.unescape(run.report.read_text().split("<section")[0])
    for value in (
        *(metrics[name] for name in ("r_factor", "r_factor_noise", "r_factor_empty")),
        *(metrics["chi2_per_dof"], metrics["refinement"]["r_free"]),
    ):
        assert f"{value:.3g}" in head
    assert f"{len(metrics['warnings'])}, below" in head if metrics["warnings"] else "none" in head
    warned = RunDir(shutil.copytree(run.path, tmp_path / "warned"))
    for warnings, text in (([], "none, neither"), (["the beam flickers", "b"], "2, below")):
        warned.metrics.write_text(json.dumps(metrics | {"warnings": warnings}))
        assert cli.main(["report", str(warned.path)]) == 0
        page = warned.report.read_text()
        assert text in page.split("<section")[0]
        assert all(one in Outline(page).text for one in warnings)


@pytest.mark.parametrize(("refine", "text"), [("5", "not tested"), ("auto", "nothing to correct")])
def test_a_measurement_that_was_not_tested_is_not_called_right(run, tmp_path, refine, text):
    """A number of epochs refines the image alone."""
    copied = RunDir(shutil.copytree(run.path, tmp_path / "copied"))
    metrics = json.loads(copied.metrics.read_text())
    metrics["refinement"]["findings"] = []
    copied.metrics.write_text(json.dumps(metrics))
    options = yaml.safe_load(copied.config.read_text()) | {"refine": refine}
    copied.config.write_text(yaml.safe_dump(options))
    assert cli.main(["report", str(copied.path)]) == 0
    assert text in copied.report.read_text().split("<section")[0]


def test_the_page_says_what_was_read_with_which_weights_and_when(run, scan_file, trained):
    text, metrics = Outline(run.report.read_text()).text, json.loads(run.metrics.read_text())
    digest = hashlib.sha256(trained.last_checkpoint.read_bytes()).hexdigest()
    assert f"{scan_file}, 64 patterns" in text
    assert f"{trained.last_checkpoint}, trained" in text
    assert digest[:12] in text
    assert metrics["checkpoint_sha256"] == digest
    started = datetime.fromisoformat(metrics["started"])
    assert 0 <= (datetime.now().astimezone() - started).total_seconds() < 3600
    assert metrics["total_s"] > metrics["duration_s"] > 0
    assert "not measured; infer --metrics measures it" in text
    assert "read as photon counts" in text


def test_the_command_of_the_page_makes_the_same_bits_in_another_folder(run, scan_file):
    options = yaml.safe_load(run.config.read_text())
    words = repeat(options)
    assert shlex.join(words) in html.unescape(run.report.read_text())
    assert {word for word in words if word.startswith("--")} == {
        *("--model_path", "--test_data", "--output_dir", "--refine", "--accelerator", "--quiet")
    }, "only what differs from the defaults"
    assert cli.main(["infer", *words[3:]]) == 0
    again = RunDir(Path(f"{run.path}-again"))
    assert yaml.safe_load(again.config.read_text()) == options | {"output_dir": str(again.path)}
    first, second = (read_reconstruction(one.reconstruction) for one in (run, again))
    assert np.array_equal(first.object, second.object)
    assert cli.main(["infer", *words[3:]]) == 2, "and it overwrites nothing"


def test_the_command_replaces_nothing_of_the_first_run():
    options = {"output_dir": "/a/b", "overwrite": True, "movie": "/a/epochs.gif", "seed": 3}
    assert repeat(options)[3:] == ["--output_dir", "/a/b-again", "--seed", "3"]


def test_the_page_is_made_again(run, capsys):
    before = run.report.read_bytes()
    run.report.unlink()
    assert cli.main(["report", str(run.path)]) == 0
    assert capsys.readouterr().out.strip() == str(run.report)
    assert run.report.read_bytes() == before
    whole = run.metrics.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"{}", b"[]", b"null", b"[" * 100_000):
        run.metrics.write_bytes(damaged)
        assert cli.main(["report", str(run.path)]) == 2
        said = capsys.readouterr().err
        assert "is not as inference wrote it" in said
        assert "NoneType" not in said
    run.metrics.write_bytes(whole)
    assert run.report.read_bytes() == before


def test_without_a_refinement_and_without_the_training_folder_the_page_says_so(
    scan_file, trained, tmp_path
):
    model = tmp_path / "model.ckpt"
    model.write_bytes(trained.best_checkpoint.read_bytes())
    run = reconstruct(
        InferenceConfig(
            model_path=model, test_data=scan_file, output_dir=tmp_path / "out", **COMMON
        )
    )
    page = run.report.read_text()
    text = Outline(page).text
    assert "Refinement" not in text
    assert "there is no history.png" in text
    assert "The positions are those of the file; --refine auto tests them." in text
    assert page.count("data:image/png") == PICTURES - 2


def test_the_folder_of_an_older_run_has_a_page(run, tmp_path):
    """It has no `residuals.npz`, and less in `metrics.json`."""
    older = RunDir(shutil.copytree(run.path, tmp_path / "older"))
    older.pattern_fit.unlink()
    metrics = json.loads(older.metrics.read_text())
    for name in ("started", "total_s", "checkpoint", "checkpoint_sha256", "verdict", "warnings"):
        del metrics[name]
    older.metrics.write_text(json.dumps(metrics))
    assert cli.main(["report", str(older.path)]) == 0
    text = older.report.read_text()
    assert "Residuals of each pattern over the scan" in text
    assert text.count("data:image/png") == PICTURES - 4


def test_halves_give_a_resolution_and_its_curve(scan_file, trained, tmp_path):
    run = reconstruct(
        InferenceConfig(
            model_path=trained.path,
            test_data=scan_file,
            output_dir=tmp_path,
            metrics=True,
            **COMMON,
        )
    )
    text = html.unescape(run.report.read_text())
    halves = json.loads(run.metrics.read_text())["frc_halves"]["resolution_of_nyquist"]
    pixel = read_reconstruction(run.reconstruction).pixel_size_m
    half_period = f"{1e9 * max(pixel) / halves['half_bit']:.3g} nm"
    assert f"{half_period} half period, {100 * halves['half_bit']:.0f} % of Nyquist" in text
    assert "Ring correlation of two halves of the data" in text
    assert text.count("data:image/png") == PICTURES


@pytest.mark.parametrize("damage", ["cut", "of another run", "no indices"])
def test_damaged_residuals_get_a_sentence(run, tmp_path, capsys, damage):
    copied = RunDir(shutil.copytree(run.path, tmp_path / "copied"))
    fit = read_fit(copied.pattern_fit, patterns=64)
    if damage == "cut":
        copied.pattern_fit.write_bytes(copied.pattern_fit.read_bytes()[:500])
    elif damage == "of another run":
        write_fit(copied.pattern_fit, replace(fit, r_factor=fit.r_factor[:9]))
    else:
        write_fit(copied.pattern_fit, replace(fit, chosen=fit.chosen + 64))
    assert cli.main(["report", str(copied.path)]) == 2
    assert str(copied.pattern_fit) in capsys.readouterr().err


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "holds neither a reconstruction nor an archive" in capsys.readouterr().err

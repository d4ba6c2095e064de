"""The page of a reconstruction, and making it again."""

import json
import re

import pytest
import yaml
from chromium import assert_readable
from outline import assert_accessible

from ptycho_torch import cli
from ptycho_torch.config import InferenceConfig, TrainingConfig
from ptycho_torch.config.parser import parse, to_yaml
from ptycho_torch.evaluation.report import repeat
from ptycho_torch.inference import reconstruct
from ptycho_torch.train import train

COMMON = {"accelerator": "cpu", "quiet": True}


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
    assert_readable(opened, 7, dark)


def test_the_page_is_accessible(run):
    assert_accessible(run.report.read_text(), pictures=7, tables=2)


def test_the_page_says_how_the_input_was_read_and_how_to_repeat_it(run, scan_file):
    text = run.report.read_text()
    assert "read as photon counts" in text
    assert f"--test_data {scan_file}" in text
    assert re.findall(r"<h2[^>]*>([^<]*)<", text) == [
        *("Object", "Residuals", "Light", "Figures", "Refinement", "Training"),
        *("What was decided about the input", "To repeat it", "Versions"),
    ]
    metrics = json.loads(run.metrics.read_text())
    assert all(
        f"{value:.6g}" in text
        for value in (metrics["r_factor"], metrics["chi2_per_dof"], metrics["refinement"]["r_free"])
    )
    words = repeat(yaml.safe_load(run.config.read_text()))
    assert to_yaml(parse(InferenceConfig, words[3:], prog="again")) == run.config.read_text()


def test_the_page_is_made_again(run, capsys):
    before = run.report.read_bytes()
    run.report.unlink()
    assert cli.main(["report", str(run.path)]) == 0
    assert capsys.readouterr().out.strip() == str(run.report)
    assert run.report.read_bytes() == before
    whole = run.metrics.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"{}", b"[]"):
        run.metrics.write_bytes(damaged)
        assert cli.main(["report", str(run.path)]) == 2
        assert "is not as inference wrote it" in capsys.readouterr().err
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
    text = run.report.read_text()
    assert "Refinement" not in text
    assert "there is no history.png" in text
    assert text.count("data:image/png") == 5


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "holds neither a reconstruction nor an archive" in capsys.readouterr().err

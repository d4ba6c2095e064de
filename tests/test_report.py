"""The page of a reconstruction, and making it again."""

import pytest
import yaml
from chromium import assert_readable

from ptycho_torch import cli
from ptycho_torch.config import InferenceConfig, TrainingConfig, parse, to_yaml
from ptycho_torch.inference import reconstruct
from ptycho_torch.report import repeat
from ptycho_torch.train import train


@pytest.fixture(scope="module")
def run(scan_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    common = {"accelerator": "cpu", "quiet": True}
    trained = train(TrainingConfig(train_data_file=[scan_file], output_dir=folder / "run", max_epochs=1, gridsize=4, **common))
    return reconstruct(InferenceConfig(model_path=trained.path, test_data=scan_file, output_dir=folder / "out", **common))


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_browser_draws_the_pictures_and_logs_nothing(run, browser, width, dark):
    opened = browser.open(run.report, width=width, dark=dark)
    (run.path / f"report-{width}-{dark}.png").write_bytes(opened.screenshot)
    assert_readable(opened, 5, dark)


def test_the_page_says_how_the_input_was_read_and_how_to_repeat_it(run, scan_file):
    text = run.report.read_text()
    assert "read as photon counts" in text
    assert f"--test_data {scan_file}" in text
    assert "r factor" in text
    words = repeat(yaml.safe_load(run.config.read_text()))
    assert to_yaml(parse(InferenceConfig, words[3:], prog="again")) == run.config.read_text()


def test_the_page_is_made_again(run, capsys):
    before = run.report.read_bytes()
    run.report.unlink()
    assert cli.main(["report", str(run.path)]) == 0
    assert capsys.readouterr().out.strip() == str(run.report)
    assert run.report.read_bytes() == before


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "holds neither a reconstruction nor an archive" in capsys.readouterr().err

"""`ptycho-torch simulate` with the faults of a measurement."""

import numpy as np
import pytest

from ptycho_torch import cli
from ptycho_torch.io.readers import read_scan
from ptycho_torch.io.readers.reconstruction import read_reconstruction
from ptycho_torch.io.run_dir import RunDir

SIZE = ["--n_side", "6", "--pattern_size", "32"]


def test_the_scan_holds_the_faults_and_the_truth_what_really_was(tmp_path, caplog):
    faults = [
        "--position_error_px", "0.5", "--position_scale", "1.02", "--position_rotation_deg", "-1",
        "--flux_spread", "0.15", "--background", "0.05", "--source_size_px", "0.5",
        "--motion_px", "2", "--probe_drift", "0.1",
    ]  # fmt: skip
    run = RunDir(tmp_path / "faulty")
    assert cli.main(["simulate", "--output_dir", str(run.path), *SIZE, *faults]) == 0
    for words in ("0.5 px rms", "1.02 times", "turned by -1", "15 %", "5 %", "2 px in x", "10 %"):
        assert words in caplog.text
    scan, truth = read_scan(run.scan), read_reconstruction(run.truth)
    error = scan.positions_px - truth.positions_px
    assert 0.5 < np.sqrt(np.mean(error**2)) < 2
    assert truth.flux.shape == (36,)
    assert truth.background.shape == (32, 32)
    assert truth.probe.shape[0] == 15  # five copies at three places of the sample
    assert len(scan.probe) == 1
    assert truth.probe_weights.shape == (36, len(truth.probe_components))
    for line in ("motion_px: 2.0", "position_rotation_deg: -1.0"):
        assert line in run.config.read_text()


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        (["--background", "1"], "--background is too large"),
        (["--motion_px", "40"], "displace the probe by 20 px"),
        (["--position_scale", "0"], "--position_scale is 0.0"),
    ],
)
def test_faults_that_cannot_be_are_refused_in_one_sentence(faults, words, tmp_path, capsys):
    assert cli.main(["simulate", "--output_dir", str(tmp_path / "s"), *SIZE, *faults]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "s" / "scan.npz").exists()

"""An image of one, two and three patterns, with all that is measured about it, or a sentence."""

import json

import numpy as np
import pytest

from ptycho_torch.cli import main
from ptycho_torch.io.readers.reconstruction import read_reconstruction
from ptycho_torch.io.run_dir import RunDir
from ptycho_torch.io.writers import write_scan


@pytest.fixture(scope="module")
def trained(scan_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    words = ["--train_data_file", scan_file, "--output_dir", folder, "--max_epochs", 1, "--quiet"]
    assert main(["train", *map(str, words)]) == 0
    return folder


WAYS = {
    "the network alone": ["--metrics"],
    "a number of epochs": ["--refine", 2, "--metrics"],
    "all that may be refined": ["--refine", "auto", "--refine_positions", "--refine_flux"],
    "more modes": ["--refine", 2, "--refine_probe", "--probe_modes", 2],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_patterns(count, way, trained, simulation, tmp_path, capsys):
    write_scan(tmp_path / "few.npz", simulation.scan.subset(np.arange(count)))
    folder = RunDir(tmp_path / "image")
    words = ["--model_path", trained, "--test_data", tmp_path / "few.npz", "--check", "warn"]
    words += ["--output_dir", folder.path, "--quiet", *WAYS[way]]
    status = main(["infer", *map(str, words)])
    if count == 1 and way != "the network alone":
        assert status == 2
        assert "one pattern cannot be refined" in capsys.readouterr().err
        assert not folder.reconstruction.exists()
        return
    assert status == 0, capsys.readouterr().err
    assert np.isfinite(read_reconstruction(folder.reconstruction).object).all()
    assert json.loads(folder.metrics.read_text())["patterns"] == count

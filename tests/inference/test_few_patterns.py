"""An image of one, two and three patterns, with all that is measured about it, or a sentence."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ptycho_torch.cli import main
from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.io.readers.reconstruction import read_reconstruction
from ptycho_torch.io.run_dir import RunDir
from ptycho_torch.io.writers import write_scan

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
    words = ["--model_path", trained.path, "--test_data", tmp_path / "few.npz", "--check", "warn"]
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


@pytest.mark.parametrize("share", [0.5, 0.95], ids=["half", "nearly all"])
def test_patterns_without_a_photon_are_refined_and_measured(
    share, trained, tmp_path, capsys, recwarn
):
    """Patterns of a photon or less: some that are held out are empty too."""
    scan = simulate_scan(photons=3.0, n_side=8, pattern_size=32, step_px=3.0, seed=2).scan
    counts = np.asarray(scan.counts).copy()
    counts[: int(share * len(scan))] = 0
    write_scan(tmp_path / "dark.npz", replace(scan, counts=counts))
    folder = RunDir(tmp_path / "image")
    words = ["--model_path", trained.path, "--test_data", tmp_path / "dark.npz", "--check", "warn"]
    words += ["--output_dir", folder.path, "--quiet", "--refine", 2, "--metrics"]
    assert main(["infer", *map(str, words)]) == 0, capsys.readouterr().err
    assert not [one for one in recwarn if one.category is RuntimeWarning]
    figures = json.loads(folder.metrics.read_text())
    dark = int((counts.sum(axis=(1, 2)) == 0).sum())
    assert sum(one is None for one in figures["positions"]["r_factor"]) == dark
    assert np.isfinite(read_reconstruction(folder.reconstruction).object).all()

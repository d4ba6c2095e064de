"""`ptycho-torch convert` and `simulate --format`."""

import h5py
import numpy as np
import pytest

from ptycho_torch import cli
from ptycho_torch.config import ReadingOptions
from ptycho_torch.io.readers import read_scan
from ptycho_torch.io.run_dir import RunDir


@pytest.fixture
def simulated(tmp_path):
    size = ["--n-side", "4", "--pattern-size", "32", "--format", "ptychodus"]
    assert cli.main(["simulate", "--output-dir", f"{tmp_path}/s", *size]) == 0
    return tmp_path / "s"


def test_a_simulated_pair_lies_in_its_folder_and_can_be_made_again(simulated):
    run = RunDir(simulated)
    assert {run.diffraction, run.product, run.truth} <= set(run.files("simulate"))
    assert not run.scan.exists()
    assert len(read_scan(simulated)) == 16
    size = ["--n_side", "4", "--pattern_size", "32", "--format", "cxi"]
    again = ["simulate", "--output_dir", str(simulated), *size]
    assert cli.main(again) == 2
    assert cli.main([*again, "--overwrite"]) == 0
    assert not run.product.exists()
    assert len(read_scan(run.scan_file("cxi"))) == 16


@pytest.mark.parametrize("name", ["npz", "cxi", "ptyd", "ptychodus"])
def test_converting_keeps_the_scan(simulated, tmp_path, name):
    output, probe = tmp_path / "out", tmp_path / "probe.npy"
    assert cli.main(["convert", str(simulated), str(output), "--format", name]) == 0
    before = read_scan(simulated)
    np.save(probe, before.probe)
    after = read_scan(output, options=ReadingOptions(probe=probe))
    assert np.array_equal(after.counts[:], before.counts[:])
    assert np.diff(after.positions_px, axis=0) == pytest.approx(
        np.diff(before.positions_px, axis=0)
    )


@pytest.mark.parametrize(("ending", "start"), [("npz", b"PK"), ("CXI", b"\x89HDF")])
def test_the_ending_of_the_output_tells_the_format(simulated, tmp_path, ending, start, capsys):
    output = tmp_path / f"out.{ending}"
    assert cli.main(["convert", str(simulated), str(output)]) == 0
    assert output.read_bytes().startswith(start)
    assert len(read_scan(output)) == len(read_scan(simulated))
    for other in ("out", "out.h5"):
        assert cli.main(["convert", str(simulated), str(tmp_path / other)]) == 2
        assert f"{other}: its ending names no format; expected --format" in capsys.readouterr().err


def test_converting_crops_and_turns_and_does_not_write_over(simulated, tmp_path, capsys):
    output = tmp_path / "small.npz"
    part = ["--crop", "16", "--transpose", "--n_images", "9"]
    words = ["convert", str(simulated), str(output), "--format", "npz", *part]
    assert cli.main(words) == 0
    assert read_scan(output).counts.shape == (9, 16, 16)
    assert cli.main(words) == 2
    assert "--overwrite" in capsys.readouterr().err
    with np.load(output) as arrays:  # as other programs write it
        known = {"pixel_size_m", "energy_ev", "distance_m", "detector_pixel_m"}
        np.savez(output, **{key: arrays[key] for key in set(arrays) - known})
    to_cxi = ["convert", str(output), str(tmp_path / "a.cxi"), "--format", "cxi"]
    assert cli.main(to_cxi) == 2
    assert "--energy_ev, --distance_m, --detector_pixel_m" in capsys.readouterr().err
    stated = ["--energy_ev", "8000", "--distance_m", "1", "--detector_pixel_m", "75e-6"]
    assert cli.main([*to_cxi, *stated]) == 0
    with h5py.File(tmp_path / "a.cxi") as file:
        assert file["entry_1/data_1/data"].shape == (9, 16, 16)
    nowhere = tmp_path / "no" / "a.cxi"
    assert cli.main(["convert", str(output), str(nowhere), "--format", "npz"]) == 2

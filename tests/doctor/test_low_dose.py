"""Scans of a few photons a pattern, of which some are empty by chance, are no fault."""

import numpy as np
import pytest

from ptycho_torch.config import ReadingOptions
from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.doctor.open_scan import open_scan
from ptycho_torch.errors import InputError
from ptycho_torch.io.readers import read_scan
from ptycho_torch.io.writers import write_scan


@pytest.mark.parametrize("photons", [3.0, 5.0, 12.0])
def test_a_scan_of_a_few_photons_is_read(photons, tmp_path):
    scan = simulate_scan(photons=photons, n_side=16, pattern_size=32, step_px=3.0).scan
    path = tmp_path / "scan.npz"
    write_scan(path, scan)
    opened = open_scan(path, ReadingOptions())
    np.testing.assert_array_equal(opened.pattern_totals(), scan.counts.sum(axis=(1, 2)))
    if photons == 3.0:
        assert not opened.pattern_totals().all()


def test_a_dark_pattern_among_bright_ones_is_still_an_error(scan_file, tmp_path):
    with np.load(scan_file) as archive:
        arrays = dict(archive)
    arrays["diff3d"] = arrays["diff3d"] * (np.arange(len(arrays["diff3d"])) != 4)[:, None, None]
    path = tmp_path / "scan.npz"
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=r"1 patterns have less than 5 %.*number 4"):
        open_scan(path, ReadingOptions())


def test_negative_values_are_refused_with_the_flag_that_clips_them(scan_file, tmp_path):
    with np.load(scan_file) as archive:
        arrays = dict(archive)
    counts = arrays["diff3d"].astype(np.int32)
    gap = np.zeros_like(counts, dtype=bool)
    gap[:, 3] = True
    path = tmp_path / "scan.npz"
    np.savez(path, **arrays | {"diff3d": np.where(gap, -1, counts)})
    with pytest.raises(InputError, match="--clip_negative"):
        read_scan(path)
    read = read_scan(path, options=ReadingOptions(clip_negative=True))
    np.testing.assert_array_equal(read.counts[:], np.where(gap, 0, counts))

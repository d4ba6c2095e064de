"""A file that another program cuts off while it is read is named; it is not read as zeros."""

import subprocess
import sys

import h5py
import numpy as np
import pytest

from ptycho_torch.config import ReadingOptions
from ptycho_torch.data.simulation import setup_of, simulate_scan
from ptycho_torch.errors import InputError
from ptycho_torch.io.readers import read_scan
from ptycho_torch.io.readers.hdf5 import open_hdf5

MAP = "patterns: /data\npositions_px: /positions\n"
STORAGE = {
    "contiguous": {},
    "chunks": {"chunks": (1, 32, 32)},
    "several in a chunk": {"chunks": (4, 32, 32)},
    "compressed": {"chunks": (1, 32, 32), "compression": "gzip"},
}


@pytest.fixture(scope="module")
def made():
    return simulate_scan(
        photons=1e4, n_side=6, step_px=3.0, pattern_size=32, setup=setup_of("electrons", None)
    )


def cut_off_by_another_process(path, share):
    size = int(path.stat().st_size * share)
    words = "import os, sys; os.truncate(sys.argv[1], int(sys.argv[2]))"
    subprocess.run([sys.executable, "-c", words, path, str(size)], check=True)


def mapped(folder, scan, storage, *, virtual=False):
    """A mapped file whose patterns come last, or lie in another file."""
    path = folder / "scan.h5"
    with h5py.File(path, "w") as file:
        file["positions"] = scan.positions_px
        if virtual:
            with h5py.File(folder / "detector.h5", "w") as other:
                other.create_dataset("frames", data=scan.counts, **storage)
            layout = h5py.VirtualLayout(scan.counts.shape, scan.counts.dtype)
            layout[...] = h5py.VirtualSource("detector.h5", "frames", scan.counts.shape)
            file.create_virtual_dataset("data", layout)
        else:
            file.create_dataset("data", data=scan.counts, **storage)
    (folder / "map.yaml").write_text(MAP)
    probe = folder / "probe.npy"
    np.save(probe, scan.probe)
    return path, ReadingOptions(map=folder / "map.yaml", probe=probe)


@pytest.mark.parametrize("storage", STORAGE)
def test_patterns_of_hdf5(storage, made, tmp_path):
    path, options = mapped(tmp_path, made.scan, STORAGE[storage])
    scan = read_scan(path, options=options)
    assert np.array_equal(scan.counts[:4], made.scan.counts[:4])
    cut_off_by_another_process(path, 0.6)
    with pytest.raises(InputError, match=r"scan.h5.* (cut off|cannot be read)"):
        scan.counts[30:]


@pytest.mark.parametrize("opened", [True, False], ids=["after it was opened", "before"])
@pytest.mark.parametrize("removed", [True, False], ids=["removed", "cut off"])
def test_a_file_that_a_virtual_dataset_is_made_of(opened, removed, made, tmp_path):
    path, options = mapped(tmp_path, made.scan, {}, virtual=True)
    scan = read_scan(path, options=options)
    if opened:
        assert np.array_equal(scan.counts[:4], made.scan.counts[:4])
    if removed:
        (tmp_path / "detector.h5").unlink()
    else:
        cut_off_by_another_process(tmp_path / "detector.h5", 0.6)
    with pytest.raises(InputError, match="detector.h5, of.*removed" if removed else "truncated"):
        scan.counts[30:]


def test_a_small_dataset_of_hdf5(made, tmp_path):
    path, _ = mapped(tmp_path, made.scan, {})

    def read():
        with open_hdf5(path) as file:
            cut_off_by_another_process(path, 0.6)
            return np.asarray(file["data"])

    with pytest.raises(InputError, match=r"scan.h5: another program cut off its last \d+ bytes"):
        read()


def test_frames_of_an_empad(tmp_path, made):
    """Where a map of the file would end the process with SIGBUS."""
    path = tmp_path / "scan_x6_y6.raw"
    np.random.default_rng(0).poisson(1, (36, 130, 128)).astype("<f4").tofile(path)
    options = ReadingOptions(raster_step_m=4e-11, energy_ev=300e3, distance_m=0.12)
    scan = read_scan(path, options=options)
    assert scan.counts[3:5].shape == (2, 128, 128)
    cut_off_by_another_process(path, 0.6)
    with pytest.raises(InputError, match="ends before frame 30"):
        scan.counts[30:]


@pytest.mark.parametrize(
    "number", ["9" * 5000, "\N{SUPERSCRIPT TWO}", "-3", "\N{ARABIC-INDIC DIGIT SIX}"]
)
def test_the_raster_of_an_empad_is_no_other_number(number, tmp_path):
    np.zeros((36, 130, 128), "<f4").tofile(tmp_path / "scan.raw")
    (tmp_path / "scan.xml").write_text(
        f'<root><raw_file filename="scan.raw"/><scan_parameters mode="acquire">'
        f"<scan_resolution_x>6</scan_resolution_x><scan_resolution_y>{number}</scan_resolution_y>"
        f"</scan_parameters></root>",
        encoding="utf-8",
    )
    with pytest.raises(InputError, match="expected whole numbers"):
        read_scan(tmp_path / "scan.xml")

"""Every HDF5 format is read as it grows: each frame once, as soon as it and its position are there.

The files are grown as a program does that closes its file between two turns; the live tests write
with SWMR and with flushes, from processes of their own.
"""

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from beamline_files import (
    write_cxi,
    write_nexus,
    write_nsls2,
    write_ptychi,
    write_ptychodus,
    write_ptychonn,
    write_ptyd,
    write_ptylab,
)

from ptycho_torch.config import ReadingOptions
from ptycho_torch.inference.live.growing_file import GrowingFile
from ptycho_torch.io.readers.detect import read_raw_scan
from ptycho_torch.io.run_dir import RunDir
from ptycho_torch.io.writers import write_scan

N, SIDE = 64, 8  # of the simulated scan: frames, and frames in a line of the raster
STAGES = (16, 40, 64)  # frames that are there after each turn
PTYD_STAGES = (22, 43, 64)  # the same, of a file of ptypy in three chunks


def write_flat_nexus(path, measured):
    write_nexus(path, measured, raster=False)


def write_mapped(path, measured):
    with h5py.File(path, "w") as file:
        file["frames"], file["xy"] = measured.counts, measured.positions_m[:, ::-1]
        file["probe"] = measured.probe
    path.with_suffix(".yaml").write_text(
        "patterns: /frames\npositions_m: /xy\npositions_order: xy\nprobe: /probe\n"
        f"pixel_size_m: {measured.pixel_m}\n"
    )


def write_training(path, measured):
    """As Ptychodus writes its training data."""
    with h5py.File(path, "w") as file:
        file["patterns"], file["probe"] = measured.counts, measured.probe
        file["object_pixel_height_m"] = file["object_pixel_width_m"] = measured.pixel_m
        for axis, values in zip("yx", measured.scan.positions_px.T, strict=True):
            file[f"probe_position_{axis}_px"] = values


WRITERS = {
    "cxi": write_cxi,
    "nexus": write_nexus,
    "nexus, one line": write_flat_nexus,
    "ptychodus": write_ptychodus,
    "ptychodus training": write_training,
    "ptychi": write_ptychi,
    "ptyd": write_ptyd,
    "ptylab": write_ptylab,
    "nsls2": write_nsls2,
    "map": write_mapped,
}


def grown_files(whole: Path, growing: Path) -> Iterator[None]:
    """Grow copies of the files of a scan, turn by turn."""
    names = sorted(path.name for path in whole.iterdir() if h5py.is_hdf5(path))
    for turn, count in enumerate(STAGES):
        for name in names:
            with h5py.File(whole / name) as source, h5py.File(growing / name, "a") as target:
                grow(source, target, turn, count)
        yield


def grow(source: h5py.Group, target: h5py.Group, turn: int, count: int) -> None:
    """Bring a group up to a number of frames."""
    target.attrs.update(source.attrs)
    parts = list(source)
    if source.name == "/chunks":  # of ptypy: each turn writes one more of three
        parts = parts[: turn + 1]
    for name in parts:
        link = source.get(name, getlink=True)
        if isinstance(link, h5py.SoftLink):
            if name not in target:
                target[name] = link
        elif isinstance(source[name], h5py.Group):
            grow(source[name], target.require_group(name), turn, count)
        else:
            grow_dataset(source[name], target, name, count)


def grow_dataset(source: h5py.Dataset, target: h5py.Group, name: str, count: int) -> None:
    """Bring a dataset up to a number of frames, if it has an axis of frames or of lines of them."""
    raster = source.shape[:2] == (SIDE, SIDE)
    axis = 0 if raster else source.shape.index(N) if N in source.shape else None
    if axis is None:
        if name not in target:
            target[name] = source[()]
    else:
        size = count // SIDE if raster else count
        if name not in target:
            limits = tuple(None if n == axis else size for n, size in enumerate(source.shape))
            start = tuple(0 if n == axis else size for n, size in enumerate(source.shape))
            target.create_dataset(name, start, source.dtype, maxshape=limits, chunks=True)
        before = target[name].shape[axis]
        target[name].resize(size, axis=axis)
        fresh = (slice(None),) * axis + (slice(before, size),)
        target[name][fresh] = source[fresh]
    target[name].attrs.update(source.attrs)


def polled(source):
    """All that a source hands over now."""
    parts = []
    while (arrivals := source.poll()) is not None:
        parts.append(arrivals.raw)
    return parts


@pytest.fixture(params=WRITERS)
def scan_files(request, measured, tmp_path):
    """Folders of the whole and of the growing files, their names, how they are read, and frames."""
    whole, growing = tmp_path / "whole", tmp_path / "growing"
    whole.mkdir()
    growing.mkdir()
    pair = request.param in ("ptychodus", "ptychi")
    WRITERS[request.param](whole if pair else whole / "scan.h5", measured)
    names = sorted(path.name for path in whole.iterdir() if h5py.is_hdf5(path))
    options = ReadingOptions(map=whole / "scan.yaml" if request.param == "map" else None)
    return whole, growing, names, options, PTYD_STAGES if request.param == "ptyd" else STAGES


def test_every_hdf5_format_is_read_as_it_grows(scan_files, tmp_path):
    whole, growing, names, options, stages = scan_files
    given = Path(",".join(str(growing / name) for name in names))
    source = GrowingFile(given, options, RunDir(tmp_path / "run"))
    assert source.poll() is None  # it is not there yet
    parts, counts = [], []
    for _ in grown_files(whole, growing):
        parts += polled(source)
        counts.append(sum(len(part.positions) for part in parts))
        assert source.trouble == ""
    assert tuple(counts) == stages
    expected = read_raw_scan(",".join(str(whole / name) for name in names), options=options)
    index = np.concatenate([part.scan_index for part in parts])
    order = np.argsort(index)
    assert len(set(index.tolist())) == N
    patterns = np.concatenate([part.patterns for part in parts])[order]
    positions = np.concatenate([part.positions for part in parts])[order]
    np.testing.assert_array_equal(patterns, expected.patterns[:])
    np.testing.assert_allclose(positions, expected.positions, rtol=1e-6)
    data, data_map = source.finished()
    assert (data, data_map) == (given, options.map)


def test_one_file_of_a_pair_alone_is_waited_for(measured, tmp_path):
    whole, growing = tmp_path / "whole", tmp_path / "growing"
    write_ptychodus(whole, measured)
    growing.mkdir()
    names = ("diffraction.h5", "product.h5")
    given = Path(",".join(str(growing / name) for name in names))
    source = GrowingFile(given, ReadingOptions(), RunDir(tmp_path / "run"))
    for name in names:
        assert source.poll() is None
        (growing / name).write_bytes((whole / name).read_bytes())
    assert sum(len(part.positions) for part in polled(source)) == N


@pytest.mark.parametrize("kind", ["npz", "ptychonn"])
def test_a_file_that_cannot_grow_is_waited_for_until_it_is_whole(kind, measured, tmp_path):
    """The table of contents of an NPZ file stands at its end."""
    whole, path = tmp_path / "whole.npz", tmp_path / "scan.npz"
    if kind == "npz":
        write_scan(whole, measured.scan)
    else:
        write_ptychonn(whole, measured)
    source = GrowingFile(path, ReadingOptions(), RunDir(tmp_path / "run"))
    path.write_bytes(whole.read_bytes()[:5000])
    assert source.poll() is None
    assert "is it complete?" in source.trouble
    path.write_bytes(whole.read_bytes())
    assert sum(len(part.positions) for part in polled(source)) == N
    assert source.trouble == ""

"""Small files that declare much, read by a process that may have little memory: a sentence with
file and key.
"""

import io
import os
import resource
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from beamline_files import (
    write_cxi,
    write_nexus,
    write_nsls2,
    write_ptychi,
    write_ptychodus,
    write_ptyd,
    write_ptylab,
)

from ptycho_torch.errors import InputError
from ptycho_torch.generators.checkpoint import load_generator, read_checkpoint
from ptycho_torch.io.readers import read_scan
from ptycho_torch.io.readers.probe_file import read_probe
from ptycho_torch.io.readers.reconstruction import read_reconstruction
from ptycho_torch.io.writers import write_scan

IMAGE = ("object", "coverage", "origin_yx", "probe", "positions_px", "scan_index")
ROOM = 2**25  # bytes that the child may allocate; a scan of these tests needs a tenth
SIDE = 2**12  # pixels; a pattern of them has 64 MiB and more

HDF5 = {  # format -> function that writes it, file of the patterns, their place
    "CXI": (write_cxi, "", "entry_1/instrument_1/detector_1/data"),
    "NeXus": (write_nexus, "", "scan_7/beamline/eiger/data"),
    "NSLS-II": (write_nsls2, "", "diffamp"),
    "PtyLab": (write_ptylab, "", "ptychogram"),
    "ptypy": (lambda path, measured: write_ptyd(path, measured, chunks=1), "", "chunks/0/data"),
    "Ptychodus": (write_ptychodus, "diffraction.h5", "patterns"),
    "Pty-Chi": (write_ptychi, "scan_dp.hdf5", "dp"),
}
MASKS = ("entry_1/instrument_1/detector_1/mask", "bad_pixels")  # of the size of a pattern


def refusal(read, *args) -> str:
    """The sentence with which a function refuses in a child that has little memory."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + ROOM
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        said = "it was read"
        try:
            read(*args)
        except InputError as error:
            said = f"InputError: {error}"
        except BaseException as error:  # noqa: BLE001  # whatever it is, the parent compares it
            said = repr(error)
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


def enlarge(path: Path, place: str, shape: tuple[int, ...]) -> None:
    """Let a dataset declare a shape, of which nothing is stored."""
    with h5py.File(path, "r+") as file:
        dtype = file[place].dtype
        del file[place]
        chunks = tuple(min(64, size) for size in shape)
        file.create_dataset(place, shape, dtype, chunks=chunks, compression="gzip")


@pytest.mark.parametrize("kind", HDF5)
def test_patterns_that_do_not_fit_are_named(kind, measured, tmp_path):
    write, name, place = HDF5[kind]
    path = tmp_path / "scan.h5"
    if name:
        path.mkdir()
    write(path, measured)
    enlarge(path / name, place, (measured.n, SIDE, SIDE))
    with h5py.File(path / name, "r+") as file:
        for mask in MASKS:
            if mask in file:
                del file[mask]
    assert (path / name).stat().st_size < 2**20
    said = refusal(read_scan, path)
    assert said.startswith(f"InputError: {path}")
    assert f"{Path(place).name} needs more memory than there is" in said


def test_another_array_that_does_not_fit_is_named(measured, tmp_path):
    path = tmp_path / "scan.cxi"
    write_cxi(path, measured)
    place = "entry_1/sample_1/geometry_1/translation"
    enlarge(path, place, (2**24, 3))
    said = refusal(read_scan, path)
    assert (
        said == f"InputError: {path}: /entry_1/data_1/translation needs more memory than there is"
    )


def with_zeros(sound: Path, path: Path, key: str, dtype: str, shape: tuple[int, ...]) -> Path:
    """A copy of an NPZ file with zeros under a key, which take little room."""
    head = io.BytesIO()
    descr = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(head, descr)
    size = np.dtype(dtype).itemsize * int(np.prod(shape))
    with (
        zipfile.ZipFile(sound) as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target,
    ):
        for name in source.namelist():
            if name != f"{key}.npy":
                target.writestr(name, source.read(name))
        with target.open(f"{key}.npy", "w") as member:
            member.write(head.getvalue())
            for _ in range(size // 2**22):
                member.write(bytes(2**22))
    return path


@pytest.mark.parametrize(
    ("key", "dtype", "shape"),
    [
        ("diff3d", "<f4", (100, 2**9, 2**9)),
        ("probeGuess", "<c8", (2**12, 2**11)),
        ("ycoords", "<f8", (2**23,)),
    ],
)
def test_arrays_of_an_npz_file_that_do_not_fit_are_named(key, dtype, shape, measured, tmp_path):
    write_scan(tmp_path / "sound.npz", measured.scan)
    path = with_zeros(tmp_path / "sound.npz", tmp_path / "scan.npz", key, dtype, shape)
    assert path.stat().st_size < 2**22
    assert refusal(read_scan, path) == f"InputError: {path}: {key} needs more memory than there is"


def test_an_image_that_does_not_fit_is_named(measured, tmp_path):
    truth = measured.truth
    np.savez(tmp_path / "sound.npz", **{name: getattr(truth, name) for name in IMAGE})
    path = with_zeros(
        tmp_path / "sound.npz", tmp_path / "image.npz", "object", "<c8", (2**12, 2**11)
    )
    said = refusal(read_reconstruction, path)
    assert said == f"InputError: {path}: object needs more memory than there is"


def test_a_probe_that_does_not_fit_is_named(tmp_path):
    path = tmp_path / "probe.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype=np.complex64, shape=(2**12, 2**13))
    said = refusal(read_probe, path)
    assert said == f"InputError: --probe {path}: {path.name} needs more memory than there is"


def test_a_checkpoint_that_does_not_fit_is_named(tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(2**24)}}, path)
    for read in (read_checkpoint, load_generator):
        assert refusal(read, path) == f"InputError: {path} needs more memory than there is"


def test_an_array_that_declares_more_than_the_file_holds_is_refused_before_it_is_read(
    measured, tmp_path
):
    write_scan(tmp_path / "sound.npz", measured.scan)
    with zipfile.ZipFile(tmp_path / "sound.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for key in ("diff3d", "ycoords", "probeGuess"):
        head = io.BytesIO()
        shape = (10**9, 10**6)
        np.lib.format.write_array_header_1_0(
            head, {"descr": "<f8", "fortran_order": False, "shape": shape}
        )
        path = tmp_path / "scan.npz"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, head.getvalue() if name == f"{key}.npy" else content)
        with pytest.raises(InputError, match=rf"{key} declares float64 of shape .*128 bytes"):
            read_scan(path)

"""Every dataset of every HDF5 reader: gone, of a wrong type, empty, or too large on paper."""

import h5py
import numpy as np
import pytest
from beamline_files import write_cxi, write_nexus

from ptycho_torch.config import ReadingOptions
from ptycho_torch.errors import InputError
from ptycho_torch.io.readers import read_scan

WRITERS = {"cxi": write_cxi, "nexus": write_nexus}


def write_mapped(path, measured):
    with h5py.File(path, "w") as file:
        file["d"], file["p"] = measured.counts, measured.positions_m
        file["mask"] = np.ones(measured.shape, dtype=bool)
        file["probe"], file["dark"] = measured.probe, np.zeros(measured.shape)
        file["distance"], file["index"] = measured.distance_m, np.arange(measured.n)
    path.with_suffix(".yaml").write_text(
        "patterns: /d\npositions_m: /p\nmask: /mask\nprobe: /probe\ndark: /dark\nindex: /index\n"
        f"distance_m: /distance\nenergy_ev: {measured.energy_ev}\n"
        f"detector_pixel_m: {measured.detector_pixel_m}\n"
    )


def datasets(path):
    names = []
    with h5py.File(path, "r") as file:
        file.visititems(
            lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
        )
    return names


def gone_source(file, name):
    shape = file[name].shape
    del file[name]
    layout = h5py.VirtualLayout(shape=shape, dtype="f4")
    layout[...] = h5py.VirtualSource("elsewhere.h5", "data", shape=shape)
    file.create_virtual_dataset(name, layout)


def itself(file, name):
    shape = file[name].shape
    del file[name]
    layout = h5py.VirtualLayout(shape=shape, dtype="f4")
    layout[...] = h5py.VirtualSource(".", f"/{name}", shape=shape)
    file.create_virtual_dataset(name, layout)


def replaced(value):
    def change(file, name):
        del file[name]
        file[name] = value

    return change


def huge(file, name):
    shape = file[name].shape
    del file[name]
    file.create_dataset(name, (2**16, 2**14, *shape[1:]), "f8", chunks=(1, 1, *shape[1:]))


DAMAGE = {
    "link to a file that is gone": replaced(h5py.ExternalLink("elsewhere.h5", "/data")),
    "link to a key that is gone": replaced(h5py.SoftLink("/nowhere")),
    "virtual, its source gone": gone_source,
    "virtual, of itself": itself,
    "text": replaced("abc"),
    "texts": replaced(np.full((3,), b"a")),
    "empty": replaced(h5py.Empty("f8")),
    "compound": replaced(np.zeros(3, dtype=[("a", "f8")])),
    "huge": huge,
    "infinite": replaced(np.inf),
    "zero": replaced(0.0),
}
NAMES_THE_FILE = ("link to a file that is gone", "virtual, its source gone")


def refusal(path, options):
    """The sentence of the refusal, empty if the file was read."""
    try:
        read_scan(path, options=options)
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("kind", ["cxi", "nexus", "map"])
def test_a_dataset_that_is_spoiled_is_refused_or_not_needed(kind, damage, measured, tmp_path):
    original = tmp_path / "original.h5"
    WRITERS.get(kind, write_mapped)(original, measured)
    refused = 0
    for name in datasets(original):
        path = tmp_path / f"{name.replace('/', '_')}.h5"
        path.write_bytes(original.read_bytes())
        with h5py.File(path, "r+") as file:
            if h5py.h5d.open(file.id, name.encode()).shape == () and "virtual" in damage:
                continue
            DAMAGE[damage](file, name)
        layout = original.with_suffix(".yaml") if kind == "map" else None
        sentence = refusal(path, ReadingOptions(map=layout, pixel_size_m=measured.pixel_m))
        refused += bool(sentence)
        if sentence and damage in NAMES_THE_FILE:
            assert "elsewhere.h5" in sentence, name
            assert "is not there" in sentence, name
        path.unlink()
    assert refused >= 2

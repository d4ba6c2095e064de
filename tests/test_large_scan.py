"""A scan stays in its file: memory does not grow with it, and what is read is the same."""

import dataclasses
import tracemalloc

import h5py
import numpy as np
import pytest
import torch

from ptycho_torch.config import ReadingOptions
from ptycho_torch.data import lazy_patterns
from ptycho_torch.doctor.examination import refuse_errors
from ptycho_torch.io.readers import read_scan
from ptycho_torch.train.datamodule import GroupDataset, GroupSampler

N, SIZE = 4900, 64
DATA_BYTES = N * SIZE * SIZE * 2


@pytest.fixture(scope="module")
def large_pair(tmp_path_factory):
    """4900 patterns, 40 MB, in chunks of 16, whose values say which pattern they are of."""
    folder = tmp_path_factory.mktemp("large")
    side = int(np.sqrt(N))
    y, x = np.divmod(np.arange(N), side)
    envelope = np.exp(-((np.arange(SIZE) - SIZE / 2) ** 2) / 50)
    shape = 1 + 200 * envelope[:, None] * envelope
    with h5py.File(folder / "diffraction.h5", "w") as file:
        file["indexes"] = np.arange(N)
        stored = file.create_dataset(
            "patterns", (N, SIZE, SIZE), np.uint16, chunks=(16, SIZE, SIZE)
        )
        for start in range(0, N, 490):
            stored[start : start + 490] = shape + np.arange(start, start + 490)[:, None, None] % 97
    with h5py.File(folder / "product.h5", "w") as file:
        file["probe_position_indexes"] = np.arange(N)
        file["probe_position_y_m"], file["probe_position_x_m"] = y * 1e-7, x * 1e-7
        for name in ("probe", "object"):
            item = file.create_dataset(
                name, data=(envelope[:, None] * envelope).astype(complex)[None, None][:, 0]
            )
            item.attrs["pixel_height_m"] = item.attrs["pixel_width_m"] = 2e-8
    return folder


def groups(scan):
    dataset, sampler = (
        GroupDataset([scan]),
        GroupSampler([scan], 49, pad_to=None, seed=0, shuffle=True),
    )
    for index in sampler:
        yield dataset[index]


def test_memory_stays_below_a_part_of_the_file(large_pair, monkeypatch):
    monkeypatch.setattr(lazy_patterns, "BLOCK_BYTES", 2 * 2**20)
    monkeypatch.setattr(
        lazy_patterns.Hdf5Patterns.__init__, "__kwdefaults__", {"cache_bytes": 4 * 2**20}
    )
    tracemalloc.start()
    scan = read_scan(large_pair)
    refuse_errors(scan, ReadingOptions(check="warn"))
    seen = sum(group.counts.shape[1] for group in groups(scan))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seen == N
    assert peak < DATA_BYTES / 2


def test_groups_from_the_file_are_those_from_memory(large_pair):
    scan = read_scan(large_pair)
    whole = dataclasses.replace(scan, counts=scan.counts[:])
    for stored, loaded, _ in zip(groups(scan), groups(whole), range(12), strict=False):
        parts = [pair for pair in zip(stored, loaded, strict=True) if pair != (None, None)]
        assert len(parts) == 5
        assert all(torch.equal(one, other) for one, other in parts)

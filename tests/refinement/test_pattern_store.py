"""Patterns that stay in a file during a refinement: the same bits, little memory, nothing left."""

import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from ptycho_torch.data.lazy_patterns import SelectedPatterns
from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.errors import RunError
from ptycho_torch.refinement import RefineOptions, pattern_store
from ptycho_torch.refinement.joint_refinement import first_state
from ptycho_torch.refinement.loop import EpochSettings, run_epoch
from ptycho_torch.refinement.measurement_refiner import (
    PARAMETERS,
    MeasurementOptions,
    MeasurementRefiner,
)
from ptycho_torch.refinement.pattern_store import (
    TRIM_EVERY,
    fits_in_memory,
    in_file,
    in_memory,
)
from ptycho_torch.refinement.positions import search_lost
from ptycho_torch.refinement.prepared_patterns import WAVE_BUDGET, prepare
from ptycho_torch.refinement.probe_retrieval import refine_from_uniform
from ptycho_torch.refinement.step import working_set


@pytest.fixture(scope="module", params=[1e2, 1e6], ids=["sparse counts", "many counts"])
def scan(request):
    """49 patterns, read by index, with a bad pixel; the two likelihoods keep them differently."""
    made = simulate_scan(photons=request.param, n_side=7, step_px=3.0, pattern_size=16, seed=4)
    mask = np.ones((16, 16), dtype=bool)
    mask[3, 5] = False
    counts = SelectedPatterns(np.asarray(made.scan.counts[:]), np.arange(49))
    return replace(made.scan, counts=counts, mask=mask)


@pytest.fixture
def from_file(monkeypatch):
    monkeypatch.setattr(pattern_store, "IN_MEMORY_BYTES", 0)


def blocks(dtype):
    return torch.arange(7 * 6 * 5, dtype=dtype).reshape(7, 6, 5).split(3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_stores_give_the_patterns_of_any_rows_as_copies(dtype):
    rows = torch.tensor([6, 0, 3, 3])
    made = blocks(dtype)
    for store in (in_memory(made, 7, made[0]), in_file(made, made[0])):
        for one in (store, store.prepared(torch.sqrt)):
            expected = torch.cat(made)[rows]
            expected = expected if one is store else expected.sqrt()
            assert one.read(rows).dtype == dtype
            assert torch.equal(one.read(rows).add_(1), expected + 1)
            assert torch.equal(one.read(rows), expected)


def test_what_was_announced_changes_nothing_but_the_time():
    """Neither where other rows are read between, nor where less is read than was announced."""
    made = blocks(torch.float32)
    store, whole = in_file(made, made[0]), torch.cat(made)
    parts = [torch.tensor(rows) for rows in ([4, 1], [0], [6, 2, 3], [5], [1, 1], [2], [3])]
    store.announce(parts)
    for number, rows in enumerate(parts):
        assert torch.equal(store.read(rows), whole[rows])
        other = torch.tensor([number])
        assert torch.equal(store.read(other), whole[other])
    store.announce(iter(parts))
    assert torch.equal(store.read(parts[0]), whole[parts[0]])
    store.announce([parts[2]])
    for rows in (parts[1], parts[2], parts[2]):
        assert torch.equal(store.read(rows), whole[rows])


def test_an_epoch_reads_what_it_announced(scan, from_file, monkeypatch):
    """Each part was begun before the step asked for it."""
    read_now, inside = [], []
    plain = pattern_store.ReaderAhead._read

    def watched(self, rows, found):
        if threading.current_thread() is threading.main_thread() and inside:
            read_now.append(rows)
        return plain(self, rows, found)

    monkeypatch.setattr(pattern_store.ReaderAhead, "_read", watched)
    monkeypatch.setitem(WAVE_BUDGET, "cpu", 2 * 16 * 16)  # two patterns at once
    obj = torch.ones(60, 60, dtype=torch.complex64)
    patterns = prepare(scan, torch.tensor([-5.0, -5.0]), (60, 60))
    state = first_state(scan, obj, 1, torch.device("cpu"))
    work = working_set(patterns, torch.arange(49))
    settings = EpochSettings(step=0.5, smoothness=1.0)
    inside.append(True)
    with torch.no_grad():
        run_epoch(patterns, state, work, settings, rng=torch.Generator().manual_seed(0))
    assert read_now == []


def test_the_thread_that_computes_asks_for_memory_and_gives_gaps_back(monkeypatch):
    """Both keep the memory of a refinement from a file small."""
    threads, trimmed = set(), []
    empty = pattern_store.ReaderAhead._empty

    def watched(self, rows):
        threads.add(threading.current_thread())
        return empty(self, rows)

    monkeypatch.setattr(pattern_store.ReaderAhead, "_empty", watched)
    monkeypatch.setattr(pattern_store, "trim_malloc", lambda: trimmed.append(True))
    made = blocks(torch.float32)
    store = in_file(made, made[0])
    parts = [torch.tensor([number % 7]) for number in range(2 * TRIM_EVERY + 1)]
    store.announce(parts)
    for rows in parts:
        store.read(rows)
    assert threads == {threading.main_thread()}
    assert len(trimmed) == 2


def test_patterns_stay_in_memory_up_to_a_limit_of_the_host_or_a_share_of_the_device(monkeypatch):
    limit, free = pattern_store.IN_MEMORY_BYTES, 2**30
    assert fits_in_memory(limit, torch.device("cpu"))
    assert not fits_in_memory(limit + 1, torch.device("cpu"))
    asked = []
    monkeypatch.setattr(
        torch.cuda, "mem_get_info", lambda one: asked.append(one) or (free, 4 * free)
    )
    gpu = torch.device("cuda", 1)
    share = int(pattern_store.DEVICE_SHARE * free)
    assert fits_in_memory(share, gpu)
    assert not fits_in_memory(share + 1, gpu)
    assert asked == [gpu, gpu]


def test_an_image_from_the_file_has_the_bits_of_one_from_memory(scan, from_file):
    options = RefineOptions(epochs=3, update_probe=True)
    stored = refine_from_uniform(scan, options)
    loaded = refine_from_uniform(replace(scan, counts=scan.counts[:]), options)
    assert np.array_equal(stored.reconstruction.object, loaded.reconstruction.object)
    assert np.array_equal(stored.reconstruction.probe, loaded.reconstruction.probe)
    assert stored.history == loaded.history


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu_an_image_from_the_file_has_the_bits_of_one_from_memory(scan, monkeypatch):
    """The steps from memory are recorded ones, those from the file are not."""
    options = RefineOptions(epochs=3, update_probe=True, device=torch.device("cuda"))
    loaded = refine_from_uniform(scan, options)
    monkeypatch.setattr(pattern_store, "DEVICE_SHARE", 0)
    stored = refine_from_uniform(scan, options)
    assert np.array_equal(stored.reconstruction.object, loaded.reconstruction.object)
    assert stored.history == loaded.history


def test_a_measurement_from_the_file_is_that_from_memory(scan, from_file):
    found = []
    for one in (scan, replace(scan, counts=scan.counts[:])):
        refiner = MeasurementRefiner(one, MeasurementOptions())
        joint = refiner.start(torch.ones(refiner.shape, dtype=torch.complex64), set(PARAMETERS))
        refiner.run(joint, [0.5, 0.3])
        search_lost(joint.patterns, joint.state, joint.patterns.everything)
        refiner.halves.place(joint.patterns, joint.state, joint.refined)
        patterns = joint.patterns
        numbers = (joint.state.obj, patterns.centres, patterns.flux, patterns.background)
        found.append([*numbers, refiner.scores(joint)])
    assert all(map(torch.equal, *found))


def test_nothing_is_left_beside_the_patterns(scan, from_file, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    refine_from_uniform(scan, RefineOptions(epochs=1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_no_room_for_the_patterns_is_said_with_what_helps(scan, from_file, monkeypatch):
    monkeypatch.setattr("tempfile.TemporaryFile", partial(open, "/dev/full", "w+b", buffering=0))
    with pytest.raises(RunError, match=r"do not fit into .* \(No space left on device.*TMPDIR"):
        refine_from_uniform(scan, RefineOptions(epochs=1))

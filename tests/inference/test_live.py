"""A scan is followed while other processes write it; faults on purpose, all of them real."""

import contextlib
import hashlib
import http.client
import itertools
import json
import os
import shutil
import signal
import tempfile
import threading
import time

import h5py
import numpy as np
import pytest
from child import START_S, context, finish, start
from chromium import assert_readable
from live_sources import Pace, send, write_flushing, write_swmr

from ptycho_torch.config import InferenceConfig
from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.inference import reconstruct
from ptycho_torch.inference.live.live_server import Board
from ptycho_torch.io.readers.reconstruction import read_reconstruction
from ptycho_torch.io.run_dir import RunDir
from ptycho_torch.io.writers import write_scan

SILENT_S = "1.5"  # after which a scan has ended, where its writer cannot say so
LONG_S = "120"  # so long only for a scan whose end was missed


@pytest.fixture(scope="module")
def scan():
    """100 patterns of 32x32, of another object than the network was trained on."""
    return simulate_scan(photons=1e6, n_side=10, step_px=3.0, pattern_size=32, seed=4).scan


def image_of(test_data, trained, folder, **options):
    """What the ordinary inference makes of a finished file."""
    run = reconstruct(
        InferenceConfig(
            model_path=trained.path,
            test_data=test_data,
            output_dir=folder,
            accelerator="cpu",
            quiet=True,
            **options,
        )
    )
    return read_reconstruction(run.reconstruction)


@pytest.fixture(scope="module")
def image(scan, trained, tmp_path_factory):
    """The image of the whole scan, from a file that no live view has seen."""
    folder = tmp_path_factory.mktemp("whole")
    write_scan(folder / "scan.npz", scan)
    return image_of(folder / "scan.npz", trained, folder / "image")


@pytest.fixture
def live(trained, tmp_path):
    """Start the command on a source; a run that a test leaves is ended."""
    running = []

    def begin(source, *more, largest_file=None):
        words = [source, "--model_path", trained.path, "--output_dir", tmp_path / "out"]
        words += ["--save_s", "0.2", "--accelerator", "cpu", "--quiet", *more]
        said = tmp_path / "said"
        process = start("live", [str(w) for w in words], said, largest_file=largest_file)
        running.append(process)
        return Followed(process, RunDir(tmp_path / "out"), said)

    yield begin
    for process in running:
        if process.is_alive():
            process.kill()
            finish(process)


class Followed:
    """A running command, its folder, and what a viewer gets from it."""

    def __init__(self, process, run, said):
        self.process, self.run, self.said = process, run, said

    def until(self, wanted):
        """The first saved state that a test waits for."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            state = self.state()
            if state and wanted(state):
                return state
            assert self.process.is_alive(), self.said.read_text()
            time.sleep(0.02)
        raise AssertionError(f"never happened; the last state is {self.state()}")

    def state(self):
        path = self.run.live_state
        return json.loads(path.read_text()) if path.is_file() else {}

    def finish(self):
        """The last state of a run that has to end well."""
        assert finish(self.process) == 0, self.said.read_text()
        assert self.run.leftovers("live") == []
        return self.state()

    @contextlib.contextmanager
    def viewer(self):
        """An open stream of events."""
        address = self.until(lambda state: True)["page"].split("/")[2]
        connection = http.client.HTTPConnection(address, timeout=START_S)
        connection.request("GET", "/events")
        answer = connection.getresponse()
        assert answer.status == 200
        try:
            yield answer
        finally:
            connection.close()


def writer(function, *args):
    process = context.Process(target=function, args=args)
    process.start()
    return process


def next_state(events):
    """The next state that a viewer hears."""
    while True:
        line = events.readline()
        assert line, "the events ended"
        if line.startswith(b"data: ") and len(line) > 10:
            return json.loads(line[6:])


def assert_same_bits(run, expected):
    """The result is that of the ordinary inference on the finished file."""
    found = read_reconstruction(run.reconstruction)
    for name in ("object", "coverage", "origin_yx", "probe", "positions_px", "scan_index"):
        assert getattr(found, name).tobytes() == getattr(expected, name).tobytes(), name
    return found


def assert_shows(run, expected):
    """The live image is that of the sample: it correlates with the final one where light fell."""
    seen = read_reconstruction(run.live_image)
    top, left = (seen.origin_yx - expected.origin_yx).astype(int)
    rows, columns = seen.object.shape
    wanted = expected.object[top : top + rows, left : left + columns]
    got = seen.object[: wanted.shape[0], : wanted.shape[1]]
    lit = seen.coverage[: wanted.shape[0], : wanted.shape[1]] > 0.2
    got, wanted = got[lit], wanted[lit]
    agreement = abs(np.vdot(got, wanted)) / np.linalg.norm(got) / np.linalg.norm(wanted)
    assert (
        agreement > 0.95
    )  # canvases with neighbours on one side only; noise alone gives below 0.5


def test_a_slow_viewer_gets_the_last_state_before_the_view_ends():
    board, got = Board(), []

    def look():
        with board.viewer():
            for state in board.states():
                time.sleep(0.1)
                got.append(state)

    threading.Thread(target=look, daemon=True).start()
    while not got:
        time.sleep(0.01)
    board.show({"stage": "finished"}, {})
    board.close()
    assert got[-1] == b'{"stage": "finished"}'


def test_a_swmr_file_is_followed_to_its_end(live, scan, trained, tmp_path):
    """Positions come later than frames, the writer takes no lock, and its closing ends the scan."""
    source = tmp_path / "scan.h5"
    seen = live(source, "--timeout_s", LONG_S, "--refine", "2")
    with seen.viewer() as first, seen.viewer() as second:
        writing = writer(write_swmr, source, scan, Pace(pause_s=0.15))
        states = [next_state(second)]
        while not 0 < states[-1]["frames"] < len(scan):
            states.append(next_state(second))
        first.close()  # this viewer goes in the middle
        while states[-1]["stage"] != "finished":
            states.append(next_state(second))
    assert finish(writing) == 0
    final = seen.finish()
    digest = hashlib.sha256(source.read_bytes()).digest()
    frames = [state["frames"] for state in states]
    assert frames == sorted(frames)
    assert states[-1]["frames"] == final["frames"] == len(scan)
    assert final["lost"] == 0
    assert not any(final["faults"].values())
    expected = image_of(source, trained, tmp_path / "image", refine="2")
    result = assert_same_bits(seen.run, expected)
    assert_shows(seen.run, result)
    assert hashlib.sha256(source.read_bytes()).digest() == digest
    for name in ("live_amplitude", "live_phase", "live_coverage"):
        assert getattr(seen.run, name).read_bytes()[:4] == b"\x89PNG"


def test_a_plain_writer_that_flushes_is_followed(live, scan, trained, tmp_path):
    """With room for all frames from the start, of which three come last."""
    source = tmp_path / "scan.h5"
    seen = live(source, "--timeout_s", LONG_S, "--n_frames", len(scan))
    seen.until(lambda state: True)  # else a slow computer sees the finished file only
    writing = writer(write_flushing, source, scan, Pace())
    final = seen.finish()
    assert finish(writing) == 0
    assert (final["frames"], final["lost"], final["faults"]["out_of_order"]) == (100, 0, 3)
    assert_same_bits(seen.run, image_of(source, trained, tmp_path / "image"))


def test_what_a_killed_writer_left_is_reconstructed(live, scan, trained, tmp_path):
    """Its file stays as it is, marked as open; inference reads it as it would a growing one."""
    source = tmp_path / "scan.h5"
    writing = writer(write_swmr, source, scan, Pace(killed_at=64))
    seen = live(source, "--timeout_s", SILENT_S)
    assert finish(writing) == -signal.SIGKILL
    left = source.read_bytes()
    final = seen.finish()
    assert source.read_bytes() == left
    with pytest.raises(OSError, match="open for"):
        h5py.File(source)
    assert 48 <= final["frames"] <= 64
    assert "nothing came for" in seen.said.read_text()
    found = assert_same_bits(seen.run, image_of(source, trained, tmp_path / "image"))
    assert len(found.positions_px) == final["frames"]


def test_files_that_arrive_in_a_folder_are_one_scan(live, scan, image, tmp_path):
    """One file is half copied when it is first seen, one comes twice, and one is no scan."""
    folder = tmp_path / "scans"
    folder.mkdir()
    parts = []
    for number, start_at in enumerate(range(0, 100, 25)):
        parts.append(tmp_path / f"part_{number}.npz")
        write_scan(parts[-1], scan.subset(range(start_at, start_at + 25)))
    seen = live(folder, "--timeout_s", LONG_S, "--n_frames", len(scan))
    shutil.copy(parts[0], folder)
    (folder / "notes.txt").write_text("not a scan")
    seen.until(lambda state: state["frames"] == 25)
    half = folder / parts[1].name
    half.write_bytes(parts[1].read_bytes()[:5000])
    seen.until(lambda state: state["trouble"])
    shutil.copy(parts[0], folder / "part_0_again.npz")
    shutil.copy(parts[1], half)
    seen.until(lambda state: state["frames"] == 50 and state["faults"]["doubled"] == 25)
    for part in parts[2:]:
        shutil.copy(part, folder)
    final = seen.finish()
    assert (final["frames"], final["lost"]) == (100, 0)
    assert_same_bits(seen.run, image)


@pytest.fixture
def address():
    """A ZeroMQ address without a port, so that tests can run side by side."""
    pytest.importorskip("zmq", reason="pyzmq is not installed")
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is too long for a socket
        yield f"ipc://{folder}/frames"


def test_a_stream_with_every_fault_is_followed(live, scan, trained, address, tmp_path):
    """Frames lost, doubled, out of order; every position one frame late; one message is none."""
    seen = live(address, "--timeout_s", LONG_S)
    sending = writer(send, address, scan, "push", True)
    final = seen.finish()
    assert finish(sending) == 0
    assert (final["frames"], final["lost"]) == (98, 2)
    faults = {"doubled": 1, "out_of_order": 1, "damaged": 0, "misplaced": 0, "discarded": 1}
    assert final["faults"] == faults
    run = seen.run
    again = image_of(run.recorded, trained, tmp_path / "image", map=run.recorded_map)
    found = assert_same_bits(run, again)
    order = np.argsort(found.scan_index)
    expected = np.delete(np.arange(100), [10, 11])
    np.testing.assert_array_equal(found.scan_index[order], expected)
    np.testing.assert_array_equal(found.positions_px[order], scan.positions_px[expected])


def test_a_stream_that_is_published_is_followed(live, scan, image, address):
    seen = live(address, "--socket", "sub", "--timeout_s", LONG_S)
    seen.until(lambda state: True)
    sending = writer(send, address, scan, "pub", False)
    final = seen.finish()
    assert finish(sending) == 0
    assert (final["frames"], final["lost"]) == (100, 0)
    assert_same_bits(seen.run, image)


def test_a_full_disk_is_shown_and_does_not_end_the_view(live, scan, tmp_path):
    """State and small pictures are written, and the image is too large for the disk."""
    source = tmp_path / "scan.h5"
    seen = live(source, "--timeout_s", LONG_S, largest_file=4000)
    with seen.viewer() as events:
        writing = writer(write_swmr, source, scan, Pace())  # seen open, else only silence ends it
        state = next_state(events)
        while not (state["disk"] and state["frames"] == len(scan)):
            state = next_state(events)
    assert "is shown and not saved" in state["disk"]
    assert finish(writing) == 0
    assert finish(seen.process) == 1
    assert "Traceback" not in seen.said.read_text()
    assert seen.said.read_text().splitlines()[-1].startswith("error: ")
    assert seen.run.leftovers("live") == []


def test_a_stream_that_cannot_be_recorded_ends_with_a_sentence(live, scan, address):
    """What came before is kept, and stays readable."""
    seen = live(address, "--timeout_s", LONG_S, largest_file=450_000)
    sending = writer(send, address, scan, "push", False)
    assert finish(seen.process) == 1
    sending.kill()
    finish(sending)
    said = seen.said.read_text()
    assert "Traceback" not in said
    assert "recorded.h5: cannot be written" in said.splitlines()[-1]
    with h5py.File(seen.run.recorded) as file:
        kept = file["index"][:]
        assert len(kept) > 0
        np.testing.assert_array_equal(file["patterns"][: len(kept)], scan.counts[kept])


def test_ctrl_c_leaves_whole_files_and_the_source_as_it_is(live, scan, tmp_path):
    source = tmp_path / "scan.h5"
    writing = writer(write_swmr, source, scan, Pace(pause_s=0.3))
    seen = live(source, "--timeout_s", LONG_S)
    seen.until(lambda state: state["version"] > 0 and seen.run.live_image.is_file())
    os.kill(seen.process.pid, signal.SIGINT)
    assert finish(seen.process) == 130
    assert seen.said.read_text().splitlines()[-1].startswith("error: ended by SIGINT")
    assert seen.run.leftovers("live") == []
    assert read_reconstruction(seen.run.live_image).object.ndim == 2
    assert finish(writing) == 0  # the writer noticed nothing
    with h5py.File(source) as file:
        np.testing.assert_array_equal(file["patterns"][:], scan.counts)


def test_a_folder_that_holds_a_run_is_refused_before_the_scan(live, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "reconstruction.npz").write_text("of another run")
    seen = live(tmp_path / "scan.h5")
    assert finish(seen.process) == 2
    assert "already holds a run of 'infer'" in seen.said.read_text()


def test_the_page_reads_well(live, scan, browser, tmp_path):
    """At the width of a phone and of a desktop, light and dark."""
    source = tmp_path / "scan.h5"
    write_swmr(source, scan, Pace(at_once=100, pause_s=0))
    seen = live(source, "--timeout_s", LONG_S)
    page = seen.until(lambda state: state["version"] > 0)["page"]
    drawn = "[...document.images].every(i => i.complete && i.naturalWidth > 0)"
    try:
        for width, dark in itertools.product((390, 1280), (False, True)):
            opened = browser.open(page, width=width, dark=dark, until=drawn)
            assert_readable(opened, pictures=3, dark=dark, origins=(page, "data:"))
    finally:
        browser.open("about:blank", width=390, dark=False)  # else it asks for this run for ever

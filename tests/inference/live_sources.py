"""Writers and senders of a scan, each run in a process of its own, with faults on purpose."""

import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from ptycho_torch.data.scan import Scan

PIXEL_M = 8e-9


@dataclass(frozen=True)
class Pace:
    """How a writer writes: ``at_once`` frames, then ``pause_s``; killed before ``killed_at``."""

    at_once: int = 16
    pause_s: float = 0.1
    killed_at: int | None = None


def write_swmr(path: Path, scan: Scan, pace: Pace) -> None:
    """As a detector with SWMR does; every position comes after the frames of the next turn."""
    with h5py.File(path, "w", libver="latest") as file:
        patterns, positions = create(file, scan, fixed=False)
        file.swmr_mode = True
        for start in range(0, len(scan), pace.at_once):
            kill_if_due(pace, start)
            rows = slice(start, min(start + pace.at_once, len(scan)))
            append(patterns, scan.counts[rows])
            time.sleep(pace.pause_s)
            for axis, dataset in enumerate(positions):
                append(dataset, scan.positions_px[rows, axis])


def write_flushing(path: Path, scan: Scan, pace: Pace) -> None:
    """As a plain program does: room for all frames from the start, filled and flushed; some of the
    frames come only at the end.
    """
    late = {5, 6, 30}
    with h5py.File(path, "w") as file:
        patterns, positions = create(file, scan, fixed=True)
        for start in range(0, len(scan), pace.at_once):
            for row in range(start, min(start + pace.at_once, len(scan))):
                if row not in late:
                    patterns[row] = scan.counts[row]
                for axis, dataset in enumerate(positions):
                    dataset[row] = scan.positions_px[row, axis]
            file.flush()
            time.sleep(pace.pause_s)
        for row in late:
            patterns[row] = scan.counts[row]


def create(file: h5py.File, scan: Scan, *, fixed: bool) -> tuple[h5py.Dataset, list[h5py.Dataset]]:
    """The layout of the training data of Ptychodus, without frames."""
    n, shape = len(scan) if fixed else 0, scan.pattern_shape
    file["probe"] = scan.probe
    file["object_pixel_height_m"] = file["object_pixel_width_m"] = PIXEL_M
    patterns = file.create_dataset(
        "patterns", (n, *shape), "u4", maxshape=(None, *shape), chunks=(4, *shape)
    )
    positions = [
        file.create_dataset(
            f"probe_position_{axis}_px",
            (n,),
            "f8",
            maxshape=(None,),
            chunks=(64,),
            fillvalue=np.nan,
        )
        for axis in "yx"
    ]
    file.flush()
    return patterns, positions


def append(dataset: h5py.Dataset, values: np.ndarray) -> None:
    """Add rows and flush them."""
    before = len(dataset)
    dataset.resize(before + len(values), axis=0)
    dataset[before:] = values
    dataset.flush()


def kill_if_due(pace: Pace, start: int) -> None:
    """End this process as a crash does."""
    if pace.killed_at is not None and start >= pace.killed_at:
        os.kill(os.getpid(), signal.SIGKILL)


def send(address: str, scan: Scan, kind: str, faults: bool) -> None:
    """As a beamline does by ZeroMQ.

    Args:
        address: To bind.
        scan: What to send.
        kind: "push" or "pub".
        faults: Whether frames 10 and 11 are lost, 12 comes twice, 20 and 21 in the wrong order,
            every position one frame late, and one message is no message.
    """
    import zmq

    context = zmq.Context()
    socket = context.socket(zmq.PUSH if kind == "push" else zmq.PUB)
    socket.bind(address)
    for _ in range(20 if kind == "pub" else 1):  # who subscribes late misses what was published
        start(socket, scan)
        time.sleep(0.05)
    order = list(range(len(scan)))
    if faults:
        order = [n for n in order if n not in (10, 11)]
        order.insert(order.index(12), 12)
        first = order.index(20)
        order[first], order[first + 1] = 21, 20
    before: int | None = None
    for turn, n in enumerate(order):
        frame(socket, scan, n, position=not faults)
        if faults and before is not None:
            position(socket, scan, before)
        before = n
        if turn % 8 == 0:
            time.sleep(0.05)
        if faults and turn == 15:
            socket.send(b"no message")
    if faults:
        position(socket, scan, order[-1])
    message(socket, {"type": "end", "n_frames": len(scan)})
    socket.close(linger=20_000)
    context.term()


def start(socket, scan: Scan) -> None:
    """The first message."""
    about = {"type": "start", "positions_unit": "px", "values": "counts", "pixel_size_m": PIXEL_M}
    message(socket, about, probe=scan.probe)


def frame(socket, scan: Scan, n: int, *, position: bool) -> None:
    """A frame, with or without its position."""
    about = {"type": "frame", "index": n, "time": time.time()}
    if position:
        about["position"] = scan.positions_px[n].tolist()
    message(socket, about, pattern=scan.counts[n].astype("<u4"))


def position(socket, scan: Scan, n: int) -> None:
    """The position of a frame."""
    message(socket, {"type": "position", "index": n, "position": scan.positions_px[n].tolist()})


def message(socket, about: dict, **arrays: np.ndarray) -> None:
    """A JSON object and the arrays that it announces."""
    listed = [
        {"name": name, "dtype": values.dtype.str, "shape": values.shape}
        for name, values in arrays.items()
    ]
    parts = [json.dumps(about | {"arrays": listed}).encode()]
    socket.send_multipart([*parts, *(values.tobytes() for values in arrays.values())])

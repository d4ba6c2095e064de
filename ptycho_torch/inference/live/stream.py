"""A scan that comes as a stream of ZeroMQ messages.

A message is a multipart one: a JSON object in UTF-8, then the arrays that it announces, as the
bytes of their elements in C order. ``docs/live.md`` describes all fields. ::

    {"type": "start", "positions_unit": "px" or "m", "values": "counts" or "amplitude",
     "radiation", "energy_ev", "distance_m", "detector_pixel_m", "pixel_size_m", "center_px",
     "arrays": [{"name": "probe" or "mask", "dtype": "<c8", "shape": [M, H, W]}, ...]}
    {"type": "frame", "index": 7, "time": 1.7e9, "position": [y, x],
     "arrays": [{"name": "pattern", "dtype": "<u2", "shape": [H, W]}]}
    {"type": "position", "index": 7, "position": [y, x]}
    {"type": "end", "n_frames": 400}
"""

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_torch.data.scan import Instrument
from ptycho_torch.data.wavelength import RADIATIONS
from ptycho_torch.errors import InputError
from ptycho_torch.inference.live.recording import Recording
from ptycho_torch.inference.live.source import MAX_AT_ONCE, Arrivals, Source
from ptycho_torch.io.readers.probe_file import read_probe
from ptycho_torch.io.readers.raw_scan import RawScan
from ptycho_torch.io.run_dir import RunDir

# Messages that ZeroMQ keeps; then a sender that pushes waits, and one that publishes drops.
QUEUED = 1000
MAX_WAITING = 2000  # frames that wait for their position, and positions that wait for their frame
LONGEST_MESSAGE = 2**30  # bytes
DTYPES = "biufc"  # kinds of numbers that an array may have


class Stream(Source):
    """Messages of a sender that pushes or publishes.

    Args:
        address: Of the sender, which binds it, such as ``tcp://host:5555``.
        kind: "pull" or "sub".
        run: Where the frames are recorded.
        probe: File of the probe, which replaces that of the stream.

    Raises:
        InputError: If pyzmq is not installed, or the address cannot be used.
    """

    def __init__(self, address: str, kind: str, run: RunDir, probe: Path | None = None) -> None:
        super().__init__(name=address)
        try:
            import zmq
        except ImportError as error:
            raise InputError(
                "a ZeroMQ stream needs pyzmq; install it with: pip install 'ptycho_torch[live]'"
            ) from error
        self._again = zmq.Again
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PULL if kind == "pull" else zmq.SUB)
        self._socket.set(zmq.RCVHWM, QUEUED)
        self._socket.set(zmq.MAXMSGSIZE, LONGEST_MESSAGE)
        self._socket.set(zmq.LINGER, 0)
        if kind == "sub":
            self._socket.subscribe(b"")
        try:
            self._socket.connect(address)
        except zmq.ZMQError as error:
            self.close()
            raise InputError(
                f"{address}: is no address of a ZeroMQ sender ({error}); expected one such as "
                "tcp://host:5555"
            ) from error
        self._recording = Recording(run)
        self._probe = None if probe is None else read_probe(probe)
        self._start: RawScan | None = None
        self._frames: dict[int, tuple[NDArray, float]] = {}
        self._positions: dict[int, tuple[float, float]] = {}
        self._taken: set[int] = set()
        self._complete: list[int] = []

    def poll(self) -> Arrivals | None:
        """See `Source.poll`."""
        received = 0
        while received < MAX_AT_ONCE and len(self._complete) < MAX_AT_ONCE and not self.ended:
            try:
                parts = self._socket.recv_multipart(flags=1)  # zmq.NOBLOCK
            except self._again:
                break
            received += 1
            try:
                self._receive(parts)
            except (ValueError, KeyError, TypeError) as error:
                self.faults.discarded += 1
                self.trouble = f"a message could not be understood ({' '.join(str(error).split())})"
        self.waiting = len(self._frames) - len(self._complete)
        return self._hand_over()

    def finished(self) -> tuple[Path, Path | None]:
        """The recorded frames."""
        return self._recording.finish()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close(linger=0)
        self._context.destroy(linger=0)

    def _receive(self, parts: list[bytes]) -> None:
        """Take one message.

        Raises:
            ValueError, KeyError, TypeError: If it is not as described.
        """
        try:
            header = json.loads(parts[0])
            kind = header["type"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError("its first part is no JSON object with a type") from error
        if kind == "start":
            start = start_of(self.name, header, arrays_of(header, parts[1:]))
            if self._probe is not None:
                start = replace(start, probe=self._probe[0], probe_key=self._probe[1])
            self._start = start
        elif kind == "frame":
            pattern = arrays_of(header, parts[1:])["pattern"]
            if pattern.ndim != 2 or pattern.dtype.kind not in "biuf":
                raise ValueError(f"a pattern is {pattern.dtype} of shape {pattern.shape}")
            self._take_frame(int(header["index"]), pattern, float(header.get("time", time.time())))
            if "position" in header:
                self._take_position(int(header["index"]), header["position"])
        elif kind == "position":
            self._take_position(int(header["index"]), header["position"])
        elif kind == "end":
            self.expected = int(header["n_frames"]) if "n_frames" in header else None
            self.ended = True
        else:
            raise ValueError(f"its type is {kind}")

    def _take_frame(self, index: int, pattern: NDArray, sent_s: float) -> None:
        """Keep a frame, and hand it over if its position is there."""
        if index in self._taken or index in self._frames:
            self.faults.doubled += 1
            return
        self._frames[index] = (pattern, sent_s)
        if index in self._positions:
            self._complete.append(index)
        elif len(self._frames) - len(self._complete) > MAX_WAITING:
            oldest = next(one for one in self._frames if one not in self._positions)
            del self._frames[oldest]
            self.faults.discarded += 1

    def _take_position(self, index: int, position: Any) -> None:
        """Keep a position, and hand its frame over if it is there."""
        y, x = (float(value) for value in position)
        if not math.isfinite(y + x):
            raise ValueError("a position is not finite")
        if index in self._taken or index in self._positions:
            return
        self._positions[index] = (y, x)
        if index in self._frames:
            self._complete.append(index)
        elif len(self._positions) - len(self._complete) > MAX_WAITING:
            oldest = next(one for one in self._positions if one not in self._frames)
            del self._positions[oldest]

    def _hand_over(self) -> Arrivals | None:
        """The complete frames, once the start of the scan is known."""
        if not self._complete or self._start is None:
            return None
        frames = [self._frames.pop(index) for index in self._complete]
        same = [pattern.shape == frames[0][0].shape for pattern, _ in frames]
        self.faults.damaged += len(same) - sum(same)
        chosen = [n for n, fits in enumerate(same) if fits]
        index = np.array(self._complete)[chosen]
        positions = np.array([self._positions.pop(one) for one in self._complete])[chosen]
        self._taken.update(self._complete)
        self._complete = []
        raw = RawScan(
            **vars(self._start)
            | {
                "patterns": np.stack([frames[n][0] for n in chosen]),
                "positions": positions,
                "scan_index": index,
            }
        )
        self._recording.add(raw)
        return Arrivals(raw, np.array([frames[n][1] for n in chosen]))


def arrays_of(header: dict[str, Any], parts: list[bytes]) -> dict[str, NDArray]:
    """The arrays of a message by name.

    Raises:
        ValueError: If their number or their sizes are not what the header announces.
    """
    announced = header.get("arrays", [])
    if len(announced) != len(parts):
        raise ValueError(f"it announces {len(announced)} arrays and has {len(parts)}")
    arrays = {}
    for about, data in zip(announced, parts, strict=True):
        dtype = np.dtype(about["dtype"])
        if dtype.kind not in DTYPES:
            raise ValueError(f"an array is {dtype}")
        arrays[about["name"]] = np.frombuffer(data, dtype=dtype).reshape(about["shape"])
    return arrays


def start_of(name: str, header: dict[str, Any], arrays: dict[str, NDArray]) -> RawScan:
    """What the first message says of the scan; it has no frames.

    Raises:
        ValueError: If a word is none of those expected.
    """
    unit, values = header.get("positions_unit", "px"), header.get("values", "counts")
    if unit not in ("px", "m") or values not in ("counts", "amplitude"):
        raise ValueError(f"positions_unit is {unit} and values is {values}")
    radiation = header.get("radiation", "photons")
    if radiation not in RADIATIONS:
        raise ValueError(f"radiation is {radiation}")

    def pair(key: str) -> tuple[float, float] | None:
        given = header.get(key)
        if given is None:
            return None
        y, x = given if isinstance(given, list) else (given, given)
        return float(y), float(x)

    mask = arrays.get("mask")
    return RawScan(
        source=name,
        patterns=np.zeros((0, 0, 0)),
        patterns_key="stream",
        values=values,
        positions=np.zeros((0, 2)),
        positions_unit=unit,
        probe=arrays.get("probe"),
        probe_key="probe",
        mask=None if mask is None else mask.astype(bool),
        center=pair("center_px"),
        instrument=Instrument(
            header.get("energy_ev"),
            header.get("distance_m"),
            pair("detector_pixel_m"),
            radiation,
        ),
        object_pixel_m=pair("pixel_size_m"),
    )

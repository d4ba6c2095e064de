"""Measure how well the live view keeps up: `python benchmarks/live.py`, which writes `live.md`.

A process writes a scan with SWMR at a steady rate, the command follows it on one core, and a viewer
notes every state of the page. The scan is 64 x 64 pixels a frame.
"""

import argparse
import http.client
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import h5py
import numpy as np

from ptycho_torch.data.simulation import simulate_scan

ONE_CORE = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
PIXELS = 64
STEP_PX = 5.0
Watched = tuple[list[dict], list[float], list[float]]
TURN_S = 0.02  # between two flushes of the writer
PROMISE_S = 1.0  # from a frame to a picture that shows it
BYTES = 4  # of a pixel, as float32


def write(path: str, n_side: int, rate: float, ready: Event) -> None:
    """Write frames and positions at a rate, as a detector does."""
    scan = simulate_scan(
        photons=1e6, n_side=n_side, step_px=STEP_PX, pattern_size=PIXELS, seed=7
    ).scan
    counts = np.asarray(scan.counts).astype("<u2")
    with h5py.File(path, "w", libver="latest") as file:
        file["probe"] = scan.probe
        patterns = file.create_dataset(
            "patterns",
            (0, PIXELS, PIXELS),
            "<u2",
            maxshape=(None, PIXELS, PIXELS),
            chunks=(1, PIXELS, PIXELS),
        )
        positions = [
            file.create_dataset(
                f"probe_position_{axis}_px", (0,), "f8", maxshape=(None,), chunks=(4096,)
            )
            for axis in "yx"
        ]
        file.flush()
        file.swmr_mode = True
        ready.wait()
        started, done = time.monotonic(), 0
        while done < len(scan):
            stop = min(len(scan), int((time.monotonic() - started) * rate))
            if stop > done:
                for axis, dataset in enumerate(positions):
                    extend(dataset, scan.positions_px[done:stop, axis])
                extend(patterns, counts[done:stop])
                done = stop
            time.sleep(TURN_S)


def extend(dataset: h5py.Dataset, values: np.ndarray) -> None:
    """Add rows and flush them."""
    before = len(dataset)
    dataset.resize(before + len(values), axis=0)
    dataset[before:] = values
    dataset.flush()


def train(folder: Path) -> Path:
    """A network of a short training on another object."""
    for words in (
        ["simulate", "--output_dir", folder / "learned", "--step_px", STEP_PX],
        ["train", "--train_data_file", folder / "learned/scan.npz", "--output_dir", folder / "run"],
    ):
        command = [sys.executable, "-m", "ptycho_torch", *map(str, words), "--quiet"]
        subprocess.run(command, env=os.environ | ONE_CORE, check=True)
    return folder / "run"


def watch(state_file: Path, process: subprocess.Popen, ready: Event) -> Watched:
    """The states that a viewer hears, with memory in MB and computing time in s at each."""
    while not state_file.is_file():
        time.sleep(0.05)
    address = json.loads(state_file.read_text())["page"].split("/")[2]
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request("GET", "/events")
    events = connection.getresponse()
    ready.set()
    states, memory, busy = [], [], []
    for line in events:
        if line.startswith(b'data: {"stage"'):
            states.append(json.loads(line[6:]))
            memory.append(resident_mb(process.pid))
            busy.append(cpu_s(process.pid))
            if states[-1]["stage"] not in ("waiting for frames", "measuring"):
                break
    connection.close()
    return states, memory, busy


def cpu_s(pid: int) -> float:
    """Computing time of a process, in s."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    """Memory of a process, in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(model: Path, folder: Path, n_side: int, rate: float) -> dict[str, float]:
    """Follow one scan, and return what was found."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    writer = context.Process(target=write, args=(str(folder / "scan.h5"), n_side, rate, ready))
    writer.start()
    command = [sys.executable, "-m", "ptycho_torch", "live", folder / "scan.h5"]
    command += ["--model_path", model, "--output_dir", folder / "live", "--accelerator", "cpu"]
    command += ["--timeout_s", 60, "--quiet"]
    while not (folder / "scan.h5").is_file():
        time.sleep(0.05)
    time.sleep(1)  # the datasets are there
    with subprocess.Popen(list(map(str, command)), env=os.environ | ONE_CORE) as process:
        states, memory, busy = watch(folder / "live" / "live.json", process, ready)
        writer.join()
        load = os.getloadavg()[0]
    measuring = [one for one in states if one["stage"] == "measuring"]
    lags = np.array([one["lag_s"] for one in measuring])
    last = measuring[-1]
    first = next(n for n, one in enumerate(states) if one["frames"] > 0)
    computing = busy[states.index(last)] - busy[first]
    n_timed = last["frames"] - states[first]["frames"]
    return {
        "frames": last["frames"],
        "frames per second": last["mean_rate"],
        "lag, median / s": float(np.median(lags)),
        "lag, 95 of 100 states / s": float(np.percentile(lags, 95)),
        "lag, largest / s": last["largest_lag_s"],
        "memory after a tenth of the scan / MB": memory[len(memory) // 10],
        "memory, largest / MB": max(memory),
        "regions": last["regions"],
        "share of the time in the network": last["network_s"] * last["mean_rate"] / last["frames"],
        "ms in the network for a region": 1e3 * last["network_s"] / last["regions"],
        "computing time for 1000 frames / s": 1e3 * computing / n_timed,
        "processes that wanted one of the cores": load,
        "cores": os.cpu_count() or 0,
    }


def needed(found: dict[str, float], rate: float, *, first: bool) -> str:
    """The share of a core that the command took, beside what it could get."""
    share = found["computing time for 1000 frames / s"] * rate / 1000
    rights = (
        "which came after it (--first)"
        if first
        else "with the same rights; with more processes than cores, the lag is longer than on a "
        "core of its own"
    )
    return (
        f"The command took {100 * share:.0f} % of a core for {rate:.0f} frames per second: what is "
        "free goes into smaller regions, which are shown sooner. Meanwhile "
        f"{found['processes that wanted one of the cores']:.1f} processes shared "
        f"{found['cores']:.0f} cores, {rights}."
    )


def come_first() -> None:
    """Let this process and its children come before the other programs of the machine (Linux)."""
    os.setsid()
    Path("/proc/self/autogroup").write_text("-15")


def asked_of_a_gpu(found: dict[str, float]) -> str:
    """What a GPU would have to do to take the place of the core."""
    frames = found["frames"] / found["regions"]
    per_s = found["frames per second"] / frames
    megabytes = 1.5 * found["frames per second"] * PIXELS**2 * BYTES / 2**20
    return (
        f"A GPU would be asked for {per_s:.1f} regions a second of {1.5 * frames:.0f} patterns "
        f"each, in less than {1e3 / per_s:.0f} ms a region (this core took "
        f"{found['ms in the network for a region']:.0f} ms), and {megabytes:.0f} MB/s of patterns "
        "would go to it."
    )


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model_path", type=Path, help="trained network; default: train one")
    parser.add_argument("--n_side", type=int, default=100, help="positions along each side")
    parser.add_argument("--rate", type=float, default=300.0, help="frames per second")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    parser.add_argument(
        "--first",
        action="store_true",
        help="come before the other programs of a busy machine, as on a core of its own (root)",
    )
    words = parser.parse_args()
    if words.first:
        if os.fork():  # only a child can leave the session of its shell
            sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
        come_first()
    with tempfile.TemporaryDirectory() as name:
        model = words.model_path or train(Path(name))
        found = measure(model, Path(name), words.n_side, words.rate)
    kept = found["lag, 95 of 100 states / s"] <= PROMISE_S
    rows = [f"| {name} | {value:.4g} |" for name, value in found.items()]
    lines = [
        "# Live view: frames in, picture out",
        "",
        f"`python benchmarks/live.py{' --first' if words.first else ''}` on one core: {PIXELS} x "
        f"{PIXELS} pixels, written with SWMR "
        f"at {words.rate:.0f} frames per second. The lag is the time for which the oldest frame "
        "has waited that no picture shows yet, at each state that a viewer got. At 95 of 100 "
        f"states it was {'within' if kept else 'above'} {PROMISE_S:.0f} s.",
        "",
        "| | |",
        "| --- | --- |",
        *rows,
        "",
        needed(found, words.rate, first=words.first),
        "",
        asked_of_a_gpu(found),
        "",
    ]
    words.output.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

"""A sample of the sweep over hostile inputs, and what the sweep calls a fault."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from limited_command import TRACEBACK, Ending, fault

SWEEP = Path(__file__).with_name("sweep.py")
READERS = Path(__file__).parents[1] / "io" / "readers"
KINDS, SEED = 11, 0


def test_a_sample_of_every_kind_is_read_or_refused():
    done = subprocess.run(
        [
            sys.executable,
            SWEEP,
            "--inputs",
            str(4 * KINDS),
            "--seed",
            str(SEED),
            "--processes",
            "2",
        ],
        env=os.environ | {"PYTHONPATH": str(READERS), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) == KINDS + 3, done.stdout  # head, its line, and the sum
    assert rows[-1].startswith(f"| all | {4 * KINDS} |")
    _, _, tried, read, refused, faults, _ = rows[-1].split("|")
    assert int(read) > 5  # damage to what is not needed
    assert int(refused) > 20
    assert int(faults) == 0
    assert int(read) + int(refused) == int(tried)


REFUSAL = "error: /in/scan.npz: key 'x' is missing\n"


@pytest.mark.parametrize(
    ("status", "said", "events", "word"),
    [
        (0, "", (), ""),
        (2, REFUSAL, (), ""),
        (2, "error: --seed is -1; expected 0 or more\n", (), ""),
        (2, "error: it went wrong\n", (), "neither a file nor a flag"),
        (2, REFUSAL * 2, (), "2 sentences"),
        (2, "", (), "0 sentences"),
        (2, "error: /in/scan.npz: KeyError: 'x'\n", (), "KeyError"),
        (2, f"error: /in/scan.npz: {'x' * 1000}\n", (), "characters"),
        (0, "/lib/a.py:3: RuntimeWarning: invalid value\n", (), "warning of a library"),
        (0, "", ("open /elsewhere/notes",), "beyond its folders"),
        (1, REFUSAL, (), "exit status 1"),
        (TRACEBACK, "Traceback\nValueError: x\n", (), "traceback"),
        (-signal.SIGSEGV, "", (), "SIGSEGV"),
        (-signal.SIGXCPU, "", (), "CPU time"),
        (None, "", (), "hung"),
    ],
)
def test_what_is_a_fault(status, said, events, word):
    found = fault(["convert"], Ending(status, said, events, 0, 1.0), ["/in", "scan.npz"])
    assert bool(found) == bool(word)
    assert word in found

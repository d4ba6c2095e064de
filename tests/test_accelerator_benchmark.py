"""`benchmarks/accelerator.py` measures what it says, with the smallest scans."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
CPU = torch.device("cpu")


@pytest.fixture
def speed(monkeypatch):
    pytest.importorskip("tabulate")
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("accelerator_speed")
    monkeypatch.setattr("large_scan.PERIOD_PX", 64)  # a larger object takes seconds to draw
    return module


@pytest.fixture
def command(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("accelerator")


def run(command, monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["accelerator.py", *words])
    return command.main()


def test_one_command_prints_both_tables(speed, command, monkeypatch, capsys):
    """A CPU agrees with itself to the last bit, and nothing is faster than its transforms."""
    tiny = replace(
        speed.SMALL, n_sides={32: 5}, steps=1, turns=1, refined=64, refined_size=32, epochs=2
    )
    monkeypatch.setattr(speed, "SMALL", tiny)
    monkeypatch.setattr(speed, "AGREED_PATTERNS", 36)
    monkeypatch.setattr(speed, "lsqml_s", lambda *_: None)
    assert run(command, monkeypatch, "--small", "--accelerator", "cpu") == 0
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("|") and "--" not in line
    ]
    assert [row[0] for row in rows] == [
        "what",
        "training step, 25 patterns of 32²",
        "inference, 25 patterns of 32², file to files",
        "refinement, an epoch of 64 patterns of 32², 1 mode",
        "refinement, an epoch of 64 patterns of 32², 3 modes",
        "object",
        "network",
        "refined, 4 epochs",
    ]
    assert all(float(row[3]) >= 1 for row in rows[1:5])
    assert [float(row[1]) for row in rows[6:]] == [0, 0]


def test_transforms_are_counted_forward_and_back(speed):
    """Two transforms, and the adjoint of each."""
    waves = torch.randn(3, 8, 8, dtype=torch.complex64, requires_grad=True)
    counter = speed.counted(
        lambda: torch.fft.ifft2(2 * torch.fft.fft2(waves)).abs().sum().backward()
    )
    assert counter.calls == {((3, 8, 8), (1, 2), torch.complex64): 4}
    assert counter.seconds(CPU, 1) > 0


def test_the_scan_of_the_refinement_has_its_number_of_patterns(speed):
    """Enough photons for the likelihood of the larger scan, and a canvas that holds all of it."""
    load = replace(speed.SMALL, refined=30, refined_size=128)
    scan = speed.patterns_in_memory(load)
    assert scan.counts.shape == (30, 128, 128)
    assert scan.counts.mean() > 10
    assert speed.refinement(scan, 1, CPU, replace(load, epochs=2)).seconds > 0


def test_a_device_that_differs_from_the_cpu_is_refused(speed):
    ones = np.ones((4, 4), dtype=np.complex64)
    assert speed.relative_rms(1.02 * ones, ones) == pytest.approx(0.02)
    assert speed.status([("network", 1e-4, 1e-3), ("refined", 0.02, 1e-2)]) == 1
    assert speed.status([("network", 1e-4, 1e-3), ("refined", float("nan"), 1e-2)]) == 1
    assert speed.status([("network", 1e-4, 1e-3), ("refined", 1e-3, 1e-2)]) == 0


def test_packages_that_are_not_there_are_named_before_anything_starts(command, monkeypatch, capsys):
    find = importlib.util.find_spec
    hidden = ("skimage", "lightning")
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name in hidden else find(name)
    )
    assert run(command, monkeypatch) == 2
    said = capsys.readouterr()
    assert "lightning>=" in said.err
    assert "scikit-image>=" in said.err
    assert not said.out


@pytest.mark.skipif(
    torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is a GPU"
)
def test_a_device_that_is_not_there_is_refused(speed, command, monkeypatch, capsys):
    assert run(command, monkeypatch, "--accelerator", "gpu", "--small") == 2
    assert "finds no such device" in capsys.readouterr().err

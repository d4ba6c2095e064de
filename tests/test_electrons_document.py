"""Every command of docs/electrons.md runs as it stands there, on smaller scans."""

import re
from pathlib import Path

import numpy as np
import pytest

from ptycho_torch import cli, inference, train
from ptycho_torch.data.simulation import setup_of, simulate_scan
from ptycho_torch.io.readers.reconstruction import read_reconstruction

DOCUMENT = (Path(__file__).parent.parent / "docs" / "electrons.md").read_text(encoding="utf-8")
SMALL = {
    "ptycho-torch simulate": ["--n_side", "8", "--pattern_size", "32"],
    "python -m ptycho_torch.train": ["--max_epochs", "1"],
}
PROGRAMS = {
    "ptycho-torch simulate": lambda words: cli.main(["simulate", *words]),
    "ptycho-torch doctor": lambda words: cli.main(["doctor", *words]),
    "python -m ptycho_torch.train": train.main,
    "python -m ptycho_torch.inference": inference.main,
}
WAVELENGTH = "wavelength 1.969e-12 m of electrons"  # of 300 keV, by the table of the document


def run(command: str) -> int:
    name = next(name for name in PROGRAMS if command.startswith(name))
    return PROGRAMS[name]([*command.removeprefix(name).split(), *SMALL.get(name, [])])


def test_the_worked_example_runs_and_keeps_the_electrons(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"^```\n(.*?)^```", DOCUMENT, flags=re.MULTILINE | re.DOTALL)
    commands = block.splitlines()
    assert len(commands) == 4
    for command in commands:
        assert run(command) == 0
        if command.startswith("ptycho-torch doctor"):
            assert WAVELENGTH in capsys.readouterr().out
    image = read_reconstruction(tmp_path / "stem_image" / "reconstruction.npz")
    assert image.instrument.radiation == "electrons"
    # 0.2 angstrom with patterns of 64 pixels, as the document says, and so twice that with 32
    assert image.pixel_size_m == pytest.approx((0.41e-10, 0.41e-10), rel=0.01)
    page = (tmp_path / "stem_image" / "report.html").read_text(encoding="utf-8")
    assert "electrons of 300000 eV" in page


def test_the_command_for_an_empad_file_reads_its_raster(tmp_path, monkeypatch, capsys):
    """A file of 64 frames instead of 65536, each with its two rows beside the pattern."""
    monkeypatch.chdir(tmp_path)
    (found,) = re.findall(r"^    (ptycho-torch doctor .*\\\n.*)$", DOCUMENT, flags=re.MULTILINE)
    command = found.replace("\\\n", " ").replace("x256_y256", "x8_y8")
    made = simulate_scan(
        photons=1e5,
        n_side=8,
        step_px=3.25,  # 40 pm, in pixels of 12.3 pm at 0.12 m
        pattern_size=128,
        setup=setup_of("electrons", None),
    )
    frames = np.zeros((64, 130, 128), dtype=np.float32)
    frames[:, :128] = made.scan.counts
    frames.tofile(tmp_path / "scan_x8_y8.raw")
    np.save(tmp_path / "probe.npy", made.scan.probe)
    run(command)  # its status is that of the findings, and the rotation is not that of this scan
    said = capsys.readouterr().out
    assert WAVELENGTH in said
    assert "object pixel 1.23e-11 m" in said
    assert "64 patterns" in said

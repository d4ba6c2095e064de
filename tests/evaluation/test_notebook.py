"""What a notebook shows of a scan and of a reconstruction: one piece of HTML without links."""

import base64
import io
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from ptycho_torch.data.scan import Instrument


class Shown(HTMLParser):
    """The pictures, the table and the open tags of a piece of HTML."""

    def __init__(self, html):
        super().__init__()
        self.pictures, self.facts, self.open, self.seen, self._cell = [], {}, [], set(), ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        if tag == "img":
            source = dict(attrs)["src"]
            assert source.startswith("data:image/png;base64,")
            self.pictures.append(base64.b64decode(source.partition(",")[2], validate=True))
        else:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["th"]:
            self._cell = data
        elif self.open[-1:] == ["td"]:
            self.facts.setdefault(self._cell, data)


def shown(noun):
    html = noun._repr_html_()
    found = Shown(html)
    assert found.open == []
    assert not {"script", "link", "a"} & found.seen
    assert "http" not in html
    assert len(html) < 300_000  # a notebook keeps it in its file
    (picture,) = found.pictures
    image = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    assert image.std() > 10
    return found.facts


def test_a_scan_says_what_was_measured(simulation):
    known = replace(
        simulation.scan,
        pixel_size_m=(8e-9, 8e-9),
        instrument=Instrument(energy_ev=8000.0, distance_m=1.5),
        decisions=("read as counts",),
    )
    y, x = np.ptp(known.positions_px, axis=0)
    facts = shown(known)
    assert facts["patterns"] == "64 of 32 x 32 detector pixels"
    assert facts["scanned"].startswith(f"{8 * y:.3g} nm x {8 * x:.3g} nm (")
    assert facts["object pixel"] == "8 nm"
    assert facts["energy"] == "8000 eV, photons"
    assert facts["photons per pattern"] == f"{known.photons:.3g}"
    assert facts["concluded"] == "read as counts"


def test_a_scan_without_probe_and_pixel_size_says_so(simulation):
    facts = shown(replace(simulation.scan, probe=None, pixel_size_m=None))
    assert (facts["probe"], facts["object pixel"]) == ("not known", "not known")


def test_names_of_files_are_text_and_no_html(simulation):
    facts = shown(
        replace(simulation.scan, source="<script>alert('a')</script>", decisions=("<b>",))
    )
    assert facts["concluded"] == "<b>"


def test_a_reconstruction_says_what_was_made(simulation):
    facts = shown(
        replace(
            simulation.truth,
            flux=np.linspace(0.9, 1.1, 64),
            background=np.ones((32, 32), dtype=np.float32),
        )
    )
    rows, columns = simulation.truth.object.shape
    assert facts["object"] == f"{rows} x {columns} pixels"
    assert facts["probe"] == f"{len(simulation.truth.probe)} mode"
    assert facts["flux of the shots"] == "varies by 5.9 %"
    assert facts["background"] == "1.02e+03 photons per pattern"


def test_plot_gives_a_figure_that_a_notebook_shows(simulation, tmp_path):
    for noun, panels in ((simulation.scan, 3), (simulation.truth, 3)):
        figure = noun.plot()
        titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
        assert len(titles) == panels
        assert figure._repr_png_()[:4] == b"\x89PNG"
        figure.savefig(tmp_path / "figure.png")


class Counted:
    """Patterns that note how many were read."""

    def __init__(self, patterns):
        self.patterns, self.shape, self.dtype, self.read = patterns, patterns.shape, float, 0

    def __getitem__(self, index):
        chosen = self.patterns[index]
        self.read += len(chosen)
        return chosen


def test_only_some_patterns_of_a_large_scan_are_read(simulation):
    counted = Counted(np.asarray(simulation.scan.counts))
    shown(replace(simulation.scan, counts=counted))
    assert counted.read <= 32


@pytest.mark.parametrize("call", ["_repr_html_()", "plot()"])
def test_a_scan_is_shown_without_torch(call, scan_file):
    """A child process, because this one has imported torch already."""
    code = (
        "import sys; from ptycho_torch import read_scan; "
        f"read_scan({str(scan_file)!r}).{call}; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]

"""The doctor finds each certain fault in spoiled scans, and finds none in good ones."""

from dataclasses import dataclass

import h5py
import numpy as np
import pytest

from ptycho_torch.config import ReadingOptions
from ptycho_torch.data.probe import annular_probe
from ptycho_torch.data.scan import Scan
from ptycho_torch.data.simulation import (
    XRAYS,
    expected_counts,
    random_object,
    raster_positions,
)
from ptycho_torch.doctor import examine, take_sample
from ptycho_torch.doctor.findings import ERROR, WARNING
from ptycho_torch.errors import InputError
from ptycho_torch.io.readers import read_scan
from ptycho_torch.io.writers import write_scan

SIZE = 32
ALARMS = (ERROR, WARNING)


def make_probe(kind, rng):
    """Beams of different kinds, of unit power, (M, SIZE, SIZE)."""
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    envelope = np.exp(-(x**2 + y**2) / (2 * rng.uniform(3.5, 5) ** 2))
    if kind == "annular":
        probe = annular_probe(SIZE)
    elif kind == "round":
        probe = (envelope * np.exp(1j * rng.uniform(0.02, 0.05) * (x**2 + y**2)))[None]
    elif kind == "skewed":
        skew = 1 + 0.5 * np.tanh(x / 4) + 0.3 * np.tanh(y / 3)
        probe = (envelope * skew * np.exp(1j * (0.04 * (x - 3) ** 2 + 0.02 * x * y)))[None]
    elif kind == "tilted":
        probe = (envelope * np.exp(0.25j * y + 0.04j * (x**2 + 0.7 * y**2)))[None]
    else:  # two modes
        probe = np.stack([envelope, 0.4 * envelope * x / 4]) * np.exp(0.04j * (x**2 + y**2))
    return (probe / np.linalg.norm(probe)).astype(np.complex64)


def make_scan(kind, photons, step, seed, n_side=5):
    rng = np.random.default_rng(seed)
    positions = raster_positions(n_side, step, rng) + SIZE / 2 + 1
    size = int(np.ceil(positions.max() + SIZE / 2)) + 2
    probe = make_probe(kind, rng) * np.float32(np.sqrt(photons))
    intensity, _ = expected_counts(random_object(size, rng), probe, positions)
    return Scan(
        counts=rng.poisson(intensity).astype(np.uint32),
        positions_px=positions,
        probe=probe,
        mask=np.ones((SIZE, SIZE), dtype=bool),
        scan_index=np.arange(len(positions)),
        pixel_size_m=XRAYS.object_pixel_m((SIZE, SIZE)),
        instrument=XRAYS,
    )


KINDS = ("annular", "round", "skewed", "tilted", "modes")
GOOD = [
    (kind, photons, step)
    for kind in KINDS
    for photons in (1e4, 1e5, 1e6, 1e8)
    for step in (2.0, 3.5)
]


def findings_of(path):
    """Checks that raise an alarm, with their flags; "reader" for a file that is not read at all."""
    options = ReadingOptions()
    try:
        scan = read_scan(path, options=options)
    except InputError:
        return {"reader": ""}
    return {
        one.check: one.flag
        for one in examine(scan, take_sample(scan, all_totals=True))
        if one.verdict in ALARMS
    }


def test_good_scans_raise_no_alarm(tmp_path):
    alarms = {}
    for number, (kind, photons, step) in enumerate(GOOD):
        write_scan(
            tmp_path / "good", make_scan(kind, photons, step, number), format_name="ptychodus"
        )
        found = findings_of(tmp_path / "good")
        if found:
            alarms[kind, photons, step] = found
    assert len(GOOD) == 40
    assert not alarms


@dataclass(frozen=True)
class Spoiled:
    """A change that spoils a good scan, and the check that must find it."""

    change: object
    check: str
    flag: str | None = None


def counts(function):
    return lambda a, rng: a.update(diff3d=np.ascontiguousarray(function(a["diff3d"])))


def with_values(function):
    """A change of the patterns in place, as float32."""

    def change(arrays, rng):
        patterns = arrays["diff3d"].astype(np.float32)
        function(patterns, rng)
        arrays["diff3d"] = patterns

    return change


def set_to(where, value):
    return with_values(lambda patterns, rng: patterns.__setitem__(where, value))


def places(function):
    def change(arrays, rng):
        arrays["ycoords"], arrays["xcoords"] = function(arrays["ycoords"], arrays["xcoords"])

    return change


def faint(patterns, rng):
    patterns[[3, 9]] = rng.poisson(patterns[[3, 9]] * 0.01) + (np.arange(SIZE) == 16)


SPOILED_NPZ = {
    "shifted to the corner": Spoiled(counts(lambda p: np.fft.ifftshift(p, axes=(1, 2))), "center"),
    "6 px off": Spoiled(
        counts(lambda p: np.roll(p, (6, -6), axis=(1, 2))), "center", "--center 22,10"
    ),
    "7 px off along x": Spoiled(
        counts(lambda p: np.roll(p, 7, axis=2)), "center", "--center 16,23"
    ),
    "transposed": Spoiled(counts(lambda p: np.swapaxes(p, 1, 2)), "orientation", "--transpose"),
    "upside down": Spoiled(
        counts(lambda p: np.roll(p[:, ::-1], 1, axis=1)), "orientation", "--flip_y"
    ),
    "left to right": Spoiled(
        counts(lambda p: np.roll(p[..., ::-1], 1, axis=2)), "orientation", "--flip_x"
    ),
    "turned round": Spoiled(
        counts(lambda p: np.roll(p[:, ::-1, ::-1], (1, 1), axis=(1, 2))),
        "orientation",
        "--flip_y --flip_x",
    ),
    "x and y swapped": Spoiled(places(lambda y, x: (x, y)), "orientation", "--swap_xy"),
    "positions reversed": Spoiled(
        places(lambda y, x: (-y, -x)), "orientation", "--negate_positions both"
    ),
    "x reversed": Spoiled(places(lambda y, x: (y, -x)), "orientation", "--negate_positions x"),
    "y reversed": Spoiled(places(lambda y, x: (-y, x)), "orientation", "--negate_positions y"),
    "metres for pixels": Spoiled(places(lambda y, x: (y * 3e-8, x * 3e-8)), "overlap"),
    "nanometres for pixels": Spoiled(places(lambda y, x: (y * 30, x * 30)), "overlap"),
    "no overlap": Spoiled(places(lambda y, x: (y * 8, x * 8)), "overlap"),
    "stage stood still": Spoiled(places(lambda y, x: (0 * y + 30, 0 * x + 30)), "overlap"),
    "half of the positions twice": Spoiled(
        places(lambda y, x: (np.repeat(y[::3], 3), np.repeat(x[::3], 3))), "order"
    ),
    "neither counts nor amplitude": Spoiled(
        counts(lambda p: p * np.float32(1.3) + np.float32(0.37)), "reader"
    ),
    "not a number": Spoiled(set_to((3, 4, 5), np.nan), "reader"),
    "negative": Spoiled(set_to((3, 4, 5), -2), "reader"),
    "an empty pattern": Spoiled(set_to(5, 0), "light"),
    "axes in the wrong order": Spoiled(counts(lambda p: np.moveaxis(p, 0, 2)), "reader"),
    "a position too few": Spoiled(places(lambda y, x: (y[:-1], x[:-1])), "reader"),
    "beam lost": Spoiled(with_values(faint), "light"),
    "hot pixel": Spoiled(set_to((slice(None), 2, 3), 20000), "pixels"),
    "dead pixel": Spoiled(set_to((slice(None), 15, 18), 0), "pixels"),
    "dead block": Spoiled(set_to((slice(None), slice(14, 16), slice(18, 20)), 0), "pixels"),
    "gap between modules": Spoiled(set_to((slice(None), slice(17, 19)), 0), "pixels"),
    "saturated": Spoiled(counts(lambda p: np.minimum(p, int(0.3 * p.max()))), "saturation"),
    "frames repeated": Spoiled(counts(lambda p: p[np.repeat(np.arange(0, len(p), 2), 2)]), "order"),
    "probe in the corner": Spoiled(
        lambda a, rng: a.update(probeGuess=np.fft.ifftshift(a["probeGuess"], axes=(-2, -1))),
        "probe",
    ),
    "no probe": Spoiled(lambda a, rng: a.update(probeGuess=np.zeros((SIZE, SIZE))), "reader"),
    "probe of another size": Spoiled(
        lambda a, rng: a.update(probeGuess=a["probeGuess"][..., :-2, :-2]), "reader"
    ),
}


def attribute(name, value):
    def change(folder):
        with h5py.File(folder / "product.h5", "a") as file:
            file.attrs[name] = value

    return change


def scaled(key, factor):
    def change(folder):
        with h5py.File(folder / "product.h5", "a") as file:
            for axis in "xy":
                file[f"probe_position_{axis}_m"][...] *= factor
            for item in (file["object"], file["probe"]) if key == "pixel" else ():
                for side in ("width", "height"):
                    item.attrs[f"pixel_{side}_m"] *= factor

    return change


SPOILED_PAIR = {
    "energy in keV": Spoiled(attribute("photon_energy_eV", 8.0), "experiment"),
    "distance in mm": Spoiled(attribute("detector_object_distance_m", 1000.0), "experiment"),
    "positions in micrometres": Spoiled(scaled("positions", 1e6), "overlap"),
    "positions in kilometres": Spoiled(scaled("positions", 1e-3), "overlap"),
    "object pixel of another scan": Spoiled(scaled("pixel", 1.5), "experiment"),
    "near field": Spoiled(attribute("far_field", False), "reader"),
}
BASES = {"skewed": ("skewed", 1e6, 3.0, 100, 6), "tilted": ("tilted", 1e5, 2.5, 101, 6)}


@pytest.mark.parametrize("base", BASES)
def test_every_certain_fault_is_found(tmp_path, base):
    def unmirrored(flags):
        """The tilted probe is even in x: there both flags fit alike, up to round-off."""
        return flags.replace("--negate_positions x", "--flip_x") if base == "tilted" else flags

    missed = {}
    scan = make_scan(*BASES[base])
    write_scan(tmp_path / "good.npz", scan)
    with np.load(tmp_path / "good.npz") as archive:
        good = dict(archive)
    for name, spoiled in SPOILED_NPZ.items():
        arrays = dict(good)
        spoiled.change(arrays, np.random.default_rng(0))
        np.savez(tmp_path / "bad.npz", **arrays)
        found = findings_of(tmp_path / "bad.npz")
        flags = found.get(spoiled.check)
        if flags is None or (spoiled.flag and unmirrored(flags) != unmirrored(spoiled.flag)):
            missed[name] = found
    for name, spoiled in SPOILED_PAIR.items():
        folder = tmp_path / "pair"
        write_scan(folder, scan, format_name="ptychodus")
        spoiled.change(folder)
        found = findings_of(folder)
        if spoiled.check not in found:
            missed[name] = found
    assert not missed

"""HDF5 files of every format that is read, each dataset and each attribute damaged in turn."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import h5py
import numpy as np
from beamline_files import (
    write_cxi,
    write_nexus,
    write_nsls2,
    write_ptychi,
    write_ptychodus,
    write_ptyd,
    write_ptylab,
)
from hostile_cases import Case, Commands, Material, of_bytes, reading

from ptycho_torch.io.readers import read_scan
from ptycho_torch.io.writers import write_scan

Change = Callable[[h5py.File, str], None]  # of what a file holds under a name


@dataclass(frozen=True)
class Sound:
    """A sound HDF5 scan.

    Attributes:
        source: Format, for the table.
        folder: Holds its files.
        file: The one that is damaged.
        words: What the command line says to read it, with IN for the folder.
        probe: Whether it needs a probe from elsewhere.
    """

    source: str
    folder: Path
    file: str
    words: tuple[str, ...]
    probe: bool = True

    def commands(self, room: Path, material: Material, number: int) -> Commands:
        """That read the copy of the files in a room."""
        words = [word.replace("IN", str(room / "in")) for word in self.words]
        return reading(room, material, words, number=number, probe=self.probe)


def sound_files(material: Material) -> list[Sound]:
    """One scan in every format."""
    made, measured = [], material.measured

    def folder(name: str) -> Path:
        path = material.folder / name
        path.mkdir()
        return path

    def single(source: str, name: str, write: Callable, *flags: str, probe: bool = True) -> None:
        where = folder(name.replace(".", "_"))
        write(where / name)
        made.append(Sound(source, where, name, (f"IN/{name}", *flags), probe))

    single("CXI", "scan.cxi", lambda path: _full_cxi(path, measured))
    single("CXI of this package", "own.cxi", partial(_own, material, "cxi"), probe=False)
    single("NeXus", "scan.nxs", lambda path: _full_nexus(path, measured))
    single("ptypy", "scan.ptyd", lambda path: _full_ptyd(path, measured))
    single("PtyLab", "ptylab.h5", lambda path: write_ptylab(path, measured))
    single("NSLS-II", "nsls2.h5", lambda path: write_nsls2(path, measured))
    single("Ptychodus training", "training.h5", lambda path: _training(path, measured), probe=False)
    single(
        "HDF5 with a map", "own.h5", lambda path: _mapped(path, measured), "--map", "IN/own.yaml",
        probe=False,
    )  # fmt: skip
    pair = write_ptychodus(folder("ptychodus"), measured)
    with h5py.File(pair / "product.h5", "r+") as file:
        file.attrs["radiation"] = "photons"
        file["opr_weights"] = np.ones((measured.n, 1))
    for name in ("diffraction.h5", "product.h5"):
        words = ("IN/diffraction.h5,IN/product.h5",)
        made.append(Sound("Ptychodus", pair, name, words, probe=False))
    pair = write_ptychi(folder("ptychi"), measured)
    for name in ("scan_dp.hdf5", "scan_para.hdf5"):
        made.append(Sound("Pty-Chi", pair, name, ("IN",), probe=False))
    return made


def _own(material: Material, form: str, path: Path) -> None:
    write_scan(path, read_scan(material.scan), format_name=form)


def _full_cxi(path: Path, measured) -> None:
    write_cxi(path, measured)
    height, width = measured.shape
    pixel = measured.detector_pixel_m
    with h5py.File(path, "r+") as file:
        detector = file["entry_1/instrument_1/detector_1"]
        detector["corner_position"] = [width // 2 * pixel, height // 2 * pixel, measured.distance_m]
        detector["data_dark"] = np.zeros((2, height, width))
        file["entry_1/instrument_1/source_1/probe"] = "x-ray"
        file["entry_1/image_1/data"] = measured.probe.astype(np.complex64)
        for name in ("distance", "corner_position"):
            detector[name].attrs["units"] = "m"


def _full_nexus(path: Path, measured) -> None:
    write_nexus(path, measured)
    with h5py.File(path, "r+") as file:
        detector = file["scan_7/beamline/eiger"]
        for axis, size in zip("yx", measured.shape, strict=True):
            detector[f"beam_center_{axis}"] = size / 2
        detector["pixel_mask"] = np.zeros(measured.shape, dtype=np.uint32)
        file["scan_7/beamline/ring/probe"] = "x-ray"


def _full_ptyd(path: Path, measured) -> None:
    write_ptyd(path, measured, chunks=2)
    with h5py.File(path, "r+") as file:
        file["meta"].attrs["radiation"] = "photons"
        file["meta/weight2d"] = np.ones(measured.shape)
        for chunk in file["chunks"].values():
            del chunk["weights"]
            chunk["weights"] = np.ones(chunk["data"].shape, dtype=np.float32)


def _training(path: Path, measured) -> None:
    scan = measured.scan
    with h5py.File(path, "w") as file:
        file["patterns"] = measured.counts
        file["probe_position_y_px"], file["probe_position_x_px"] = (scan.positions_px - 0.5).T
        file["probe"] = scan.probe[None]
        file["bad_pixels"] = np.zeros(measured.shape, dtype=bool)
        file["object_pixel_height_m"] = file["object_pixel_width_m"] = measured.pixel_m
        file["detector_object_distance_m"] = measured.distance_m
        file["photon_energy_eV"] = measured.energy_ev


MAP = """\
patterns: /raw/frames
positions_m: /raw/xy
mask: /raw/mask
probe: /raw/probe
dark: /raw/dark
index: /raw/index
distance_m: /raw/distance
energy_kev: /raw/energy
detector_pixel_um: /raw/pixel
center_px: /raw/center
"""


def _mapped(path: Path, measured) -> None:
    with h5py.File(path, "w") as file:
        raw = file.create_group("raw")
        raw["frames"], raw["xy"] = measured.counts, measured.positions_m
        raw["mask"], raw["dark"] = np.ones(measured.shape, dtype=bool), np.zeros(measured.shape)
        raw["probe"], raw["index"] = measured.probe, np.arange(measured.n)
        raw["distance"], raw["energy"] = measured.distance_m, measured.energy_ev / 1e3
        raw["pixel"] = np.full(2, measured.detector_pixel_m * 1e6)
        raw["center"] = np.array(measured.shape) / 2
        raw["energy"].attrs["units"] = "keV"
    path.with_suffix(".yaml").write_text(MAP)


# -- values in the place of a number ---------------------------------------------------------------


def _put(make: Callable[[np.ndarray], object]) -> Change:
    """A change to what a function makes of the sound content."""

    def change(file: h5py.File, name: str) -> None:
        sound = file[name][()]
        del file[name]
        file[name] = make(np.asarray(sound))

    return change


def _typed(dtype: object, value: object = None) -> Change:
    """A change to an array of the same shape and of another type."""

    def change(file: h5py.File, name: str) -> None:
        shape = file[name].shape
        del file[name]
        made = file.create_dataset(name, shape, dtype)
        if value is not None and 0 not in shape:
            made[...] = value

    return change


def _reference(file: h5py.File, name: str) -> None:
    shape = file[name].shape
    del file[name]
    made = file.create_dataset(name, shape, h5py.ref_dtype)
    made[...] = file.ref


def _region(file: h5py.File, name: str) -> None:
    place = file[name]
    region = place.regionref[...] if place.shape else None
    if region is None:
        _reference(file, name)
        return
    other = f"{name}_moved"
    file.move(name, other)
    made = file.create_dataset(name, (), h5py.regionref_dtype)
    made[()] = region


def _group(file: h5py.File, name: str) -> None:
    del file[name]
    file.create_group(name).create_group("inner")


def _named_type(file: h5py.File, name: str) -> None:
    del file[name]
    file[name] = np.dtype("f8")


def _lists(file: h5py.File, name: str) -> None:
    shape = file[name].shape
    del file[name]
    made = file.create_dataset(name, shape, h5py.vlen_dtype(np.float64))
    if shape and 0 not in shape and len(shape) == 1:
        for at in range(shape[0]):
            made[at] = np.arange(at % 3, dtype=np.float64)


def _opaque(file: h5py.File, name: str) -> None:
    shape = file[name].shape
    del file[name]
    file[name] = np.zeros(shape, dtype="V8")


ENUM = h5py.enum_dtype({"LOW": 0, "HIGH": 2}, basetype="i")
TYPES: dict[str, Change] = {
    "text": _put(lambda sound: "abc"),
    "text of a number": _put(lambda sound: "1.5"),
    "text 'None'": _put(lambda sound: "None"),
    "bytes that are no text": _put(lambda sound: np.bytes_(b"\xff\xfe\xe9")),
    "long text": _put(lambda sound: "x" * 10**6),
    "texts": _put(lambda sound: np.full(sound.shape, b"abc")),
    "texts of any length": _typed(h5py.string_dtype(), "abc"),
    "null": _put(lambda sound: h5py.Empty("f8")),
    "null text": _put(lambda sound: h5py.Empty(h5py.string_dtype())),
    "truth values": _put(lambda sound: np.ones(sound.shape, dtype=bool)),
    "complex": _put(lambda sound: np.full(sound.shape, 1 + 2j)),
    "compound": _put(lambda sound: np.ones(sound.shape, dtype=[("a", "f8"), ("b", "S3")])),
    "nested arrays": _put(lambda sound: np.ones(sound.shape[:1], dtype=[("a", "f4", (2, 2))])),
    "references": _reference,
    "region": _region,
    "enumeration": _typed(ENUM, 2),
    "lists": _lists,
    "opaque": _opaque,
    "group": _group,
    "named type": _named_type,
    "half precision": _typed("f2"),
    "quadruple precision": _typed(np.longdouble),
    "bytes in the other order": _typed(">i2"),
}


def _huge(shape: Callable[[tuple[int, ...]], tuple[int, ...]]) -> Change:
    """A dataset that declares much and stores nothing."""

    def change(file: h5py.File, name: str) -> None:
        dtype, wanted = file[name].dtype, shape(file[name].shape)
        del file[name]
        chunks = tuple(min(16, max(1, size)) for size in wanted)
        file.create_dataset(name, wanted, dtype, chunks=chunks, compression="gzip")

    return change


SHAPES_OF_ARRAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "one number": lambda sound: np.float64(1.0),
    "no numbers": lambda sound: np.zeros((0,)),
    "no numbers in two axes": lambda sound: np.zeros((0, 2)),
    "axis more": lambda sound: sound[None],
    "axis less": lambda sound: sound.ravel(),
    "turned": lambda sound: sound.T,
    "one more": lambda sound: np.concatenate([np.atleast_1d(sound), np.atleast_1d(sound)[:1]]),
    "half": lambda sound: np.atleast_1d(sound)[: max(1, len(np.atleast_1d(sound)) // 2)],
    "many axes": lambda sound: sound.reshape((1,) * 20 + sound.shape),
    "one pixel": lambda sound: sound[..., :1, :1] if sound.ndim > 1 else sound,
}
SHAPES: dict[str, Change] = {
    **{name: _put(change) for name, change in SHAPES_OF_ARRAYS.items()},
    "numbers of 8 GiB": _huge(lambda shape: (2**30, *shape[1:])),
    "numbers of 2 EiB": _huge(lambda shape: (2**58, *(1 for _ in shape[1:]))),
    "last axis of 2**40": _huge(lambda shape: (*shape[:-1], 2**40)),
    "as many patterns as stars": _huge(lambda shape: (2**44, *shape[1:])),
}


def _filled(value: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda sound: np.full(sound.shape, value, dtype=np.float64)


def _first(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def make(sound: np.ndarray) -> np.ndarray:
        changed = sound.astype(np.complex128 if sound.dtype.kind == "c" else np.float64)
        changed.reshape(-1)[:1] = value
        return changed

    return make


def _scaled(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    def make(sound: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):
            return sound * factor

    return make


NUMBERS_OF_ARRAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    **{f"all {value:g}": _filled(value) for value in
       (np.nan, np.inf, -np.inf, 0.0, -1.0, 1e-300, 1e300, 1e30, 5e-324, 2.0**63)},
    **{f"first {value:g}": _first(value) for value in (np.nan, np.inf, -1.0, 1e300, 1e30, 1e9)},
    "largest whole number": lambda sound: np.full(sound.shape, 2**64 - 1, dtype=np.uint64),
    "smallest whole number": lambda sound: np.full(sound.shape, -(2**63), dtype=np.int64),
    "scaled by 1e-300": _scaled(1e-300),
    "scaled by 1e250": _scaled(1e250),
}  # fmt: skip
NUMBERS: dict[str, Change] = {name: _put(make) for name, make in NUMBERS_OF_ARRAYS.items()}


# -- links -----------------------------------------------------------------------------------------


def _linked(link: object) -> Change:
    def change(file: h5py.File, name: str) -> None:
        del file[name]
        file[name] = link

    return change


def _to_itself(file: h5py.File, name: str) -> None:
    del file[name]
    file[name] = h5py.SoftLink(f"/{name}")


def _to_itself_from_outside(file: h5py.File, name: str) -> None:
    del file[name]
    file[name] = h5py.ExternalLink(Path(file.filename).name, f"/{name}")


def _virtual(source: str, key: str = "data") -> Change:
    def change(file: h5py.File, name: str) -> None:
        shape = file[name].shape or (1,)
        del file[name]
        layout = h5py.VirtualLayout(shape=shape, dtype="f4")
        layout[...] = h5py.VirtualSource(source, f"/{name}" if key == "SAME" else key, shape=shape)
        file.create_virtual_dataset(name, layout)

    return change


def _virtual_circle(file: h5py.File, name: str) -> None:
    """Two virtual datasets of each other, in two files."""
    shape = file[name].shape or (1,)
    _virtual("circle.h5")(file, name)
    with h5py.File(Path(file.filename).with_name("circle.h5"), "w") as other:
        layout = h5py.VirtualLayout(shape=shape, dtype="f4")
        layout[...] = h5py.VirtualSource(Path(file.filename).name, f"/{name}", shape=shape)
        other.create_virtual_dataset("data", layout)


def _virtual_of_text(file: h5py.File, name: str) -> None:
    Path(file.filename).with_name("text.h5").write_text("no HDF5")
    _virtual("text.h5")(file, name)


def _raw_elsewhere(file: h5py.File, name: str) -> None:
    """Numbers in a raw file that is not there."""
    shape = file[name].shape or (1,)
    del file[name]
    size = int(np.prod(shape)) * 8
    file.create_dataset(name, shape, "f8", external=[("gone.raw", 0, size)])


def _group_of_itself(file: h5py.File, name: str) -> None:
    del file[name]
    file[name] = file["/"]


LINKS: dict[str, Change] = {
    "missing": lambda file, name: file.__delitem__(name),
    "link to nothing": _linked(h5py.SoftLink("/nowhere")),
    "link to itself": _to_itself,
    "link to a file that is gone": _linked(h5py.ExternalLink("gone.h5", "/data")),
    "link to a folder": _linked(h5py.ExternalLink(".", "/data")),
    "link to itself through its file": _to_itself_from_outside,
    "link to the root": _group_of_itself,
    "virtual, source gone": _virtual("gone.h5"),
    "virtual, of itself": _virtual(".", "SAME"),
    "virtual, key gone": _virtual(".", "/nowhere"),
    "virtual, in a circle of two files": _virtual_circle,
    "virtual, of a text file": _virtual_of_text,
    "raw numbers in a file that is gone": _raw_elsewhere,
}


def _some_numbers(file: h5py.File, name: str) -> np.ndarray:
    """The sound content; one number where there is none, since a chunk holds some."""
    sound = np.atleast_1d(file[name][()])
    return sound if sound.size else np.ones(1)


def _garbage_chunk(file: h5py.File, name: str) -> None:
    """A compressed dataset whose bytes are not compressed numbers."""
    sound = _some_numbers(file, name)
    del file[name]
    made = file.create_dataset(
        name, sound.shape, sound.dtype, chunks=sound.shape, compression="gzip"
    )
    made.id.write_direct_chunk((0,) * sound.ndim, b"garbage" * 9)


def _endless_chunk(file: h5py.File, name: str) -> None:
    """A checksum that is wrong."""
    sound = _some_numbers(file, name)
    del file[name]
    made = file.create_dataset(name, sound.shape, sound.dtype, chunks=sound.shape, fletcher32=True)
    made.id.write_direct_chunk((0,) * sound.ndim, bytes(sound.nbytes + 3) + b"\1")


BYTES: dict[str, Change] = {"compressed bytes": _garbage_chunk, "checksum": _endless_chunk}

DATASETS = {
    "wrong type": TYPES,
    "wrong shape": SHAPES,
    "impossible number": NUMBERS,
    "missing or a broken link": LINKS,
    "other bytes": BYTES,
}


# -- attributes ------------------------------------------------------------------------------------

ATTRIBUTES: dict[str, dict[str, object]] = {
    "wrong type": {
        "text": "abc",
        "text of a number": "12",
        "bytes that are no text": np.bytes_(b"\xff\xfe\xe9"),
        "long text": "x" * 60000,
        "texts": np.array([b"a", b"b"]),
        "null": h5py.Empty("f8"),
        "null text": h5py.Empty(h5py.string_dtype()),
        "truth value": True,
        "complex": 1 + 2j,
        "compound": np.ones(2, dtype=[("a", "f8")])[0],
        "compounds": np.ones(2, dtype=[("a", "f8")]),
        "opaque": np.void(b"12345678"),
    },
    "wrong shape": {
        "numbers": np.arange(3.0),
        "numbers in a square": np.ones((2, 2)),
        "no numbers": np.zeros(0),
        "no texts": np.zeros(0, dtype="S3"),
        "one in a list": np.ones(1),
    },
    "impossible number": {
        f"{value:g}": value for value in (np.nan, np.inf, 0.0, -1.0, 1e-300, 1e300)
    },
}
ADDED = ("units",)  # attributes that a sound file need not have, and that are read


def _attribute(value: object) -> Callable[[h5py.HLObject, str], None]:
    def change(item: h5py.HLObject, key: str) -> None:
        item.attrs[key] = value

    return change


def _attribute_reference(item: h5py.HLObject, key: str) -> None:
    item.attrs.create(key, item.file.ref, dtype=h5py.ref_dtype)


def _attribute_enumeration(item: h5py.HLObject, key: str) -> None:
    item.attrs.create(key, 2, dtype=ENUM)


def _attribute_lists(item: h5py.HLObject, key: str) -> None:
    values = np.empty(1, dtype=object)
    values[0] = np.arange(2.0)
    item.attrs.create(key, values, dtype=h5py.vlen_dtype(np.float64))


def _attribute_gone(item: h5py.HLObject, key: str) -> None:
    if key in item.attrs:
        del item.attrs[key]


def attribute_changes() -> Iterator[tuple[str, str, Callable[[h5py.HLObject, str], None]]]:
    """Kind, name and change of all damages of an attribute."""
    for kind, values in ATTRIBUTES.items():
        for name, value in values.items():
            yield kind, name, _attribute(value)
    yield "wrong type", "reference", _attribute_reference
    yield "wrong type", "enumeration", _attribute_enumeration
    yield "wrong type", "lists", _attribute_lists
    yield "missing or a broken link", "missing", _attribute_gone


# -- cases -----------------------------------------------------------------------------------------


def names_in(path: Path) -> tuple[dict[str, bool], list[tuple[str, str]]]:
    """The datasets of a file, with whether they hold numbers, and its attributes."""
    datasets: dict[str, bool] = {}
    attributes: list[tuple[str, str]] = []
    with h5py.File(path, "r") as file:
        attributes += [("/", key) for key in file.attrs]

        def note(name: str, item: h5py.HLObject) -> None:
            keys = set(item.attrs)
            if isinstance(item, h5py.Dataset):
                datasets[name] = item.dtype.kind in "biufc"
                if item.dtype.kind in "iuf":
                    keys |= set(ADDED)
            attributes.extend((name, key) for key in sorted(keys))

        file.visititems(note)
    return datasets, attributes


def hdf5_cases(material: Material) -> Iterator[Case]:
    """Every damage of every dataset and attribute of every format: some ten thousand."""
    numbers = count()
    for sound in sound_files(material):
        yield from cases_of(sound, material, numbers)


def cases_of(sound: Sound, material: Material, numbers: Iterator[int]) -> Iterator[Case]:
    """The cases of one file: its datasets, its attributes, its bytes."""

    def case(kind: str, name: str, change: Callable[[h5py.File], None]) -> Case:
        return Case(
            sound.source, kind, name, partial(_make, sound, material, change, next(numbers))
        )

    datasets, attributes = names_in(sound.folder / sound.file)
    for place, is_number in datasets.items():
        for kind, changes in DATASETS.items():
            if not is_number and kind != "wrong type":
                continue
            for name, change in changes.items():
                yield case(kind, f"{place}: {name}", partial(_change_dataset, change, place))
    for place, key in attributes:
        for kind, name, change in attribute_changes():
            label = f"{place}@{key}: {name}"
            yield case(kind, label, partial(_change_attribute, change, place, key))

    def read_copy(room: Path, path: Path, number: int) -> Commands:
        for other in sound.folder.iterdir():
            if other.name != path.name:
                shutil.copy(other, room / "in")
        return sound.commands(room, material, number)

    yield from of_bytes(f"{sound.source}, {sound.file}", sound.folder / sound.file, read_copy)


def _make(
    sound: Sound, material: Material, change: Callable[[h5py.File], None], number: int, room: Path
) -> Commands:
    """Write the damaged copy."""
    for path in sound.folder.iterdir():
        shutil.copy(path, room / "in")
    with h5py.File(room / "in" / sound.file, "r+") as file:
        change(file)
    return sound.commands(room, material, number)


def _change_dataset(change: Change, place: str, file: h5py.File) -> None:
    change(file, place)


def _change_attribute(
    change: Callable[[h5py.HLObject, str], None], place: str, key: str, file: h5py.File
) -> None:
    change(file[place], key)

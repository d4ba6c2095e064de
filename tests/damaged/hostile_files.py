"""NPZ files, maps, configurations, checkpoints, run folders and images that are damaged."""

import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import torch
from hostile_cases import Case, Commands, Material, of_bytes, reading
from hostile_hdf5 import MAP, NUMBERS_OF_ARRAYS, SHAPES_OF_ARRAYS

QUIET = ["--quiet", "--accelerator", "cpu"]


class Trap:
    """An object that writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return open, (str(self.path), "w")


def zipped(path: Path, members: dict[str, bytes]) -> None:
    """Write a sound ZIP file, so that only its content is wrong."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def members_of(path: Path) -> dict[str, bytes]:
    """The members of a ZIP file."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def npy(array: np.ndarray, *, objects: bool = False) -> bytes:
    """An array as NPY."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=objects)
    return content.getvalue()


def header(words: str) -> bytes:
    """An NPY file of a header and a few zeros."""
    data = words.encode("latin1")
    return b"\x93NUMPY\x01\x00" + len(data).to_bytes(2, "little") + data + bytes(72)


def declared(dtype: str, shape: str) -> bytes:
    """An NPY file that declares a shape."""
    return header(f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}")


Array = Callable[[np.ndarray, Path], bytes]  # of the sound array and of a file that no code writes
ARRAYS: dict[str, dict[str, Array]] = {
    "wrong type": {
        "text": lambda sound, trap: npy(np.array("abc")),
        "texts": lambda sound, trap: npy(np.full(sound.shape, "abc")),
        "bytes": lambda sound, trap: npy(np.full(sound.shape, b"\xff")),
        "truth values": lambda sound, trap: npy(np.ones(sound.shape, dtype=bool)),
        "complex": lambda sound, trap: npy(np.full(sound.shape, 1 + 2j)),
        "compound": lambda sound, trap: npy(np.ones(sound.shape, dtype=[("a", "f8")])),
        "dates": lambda sound, trap: npy(np.zeros(sound.shape, dtype="M8[s]")),
        "opaque": lambda sound, trap: npy(np.zeros(sound.shape, dtype="V8")),
        "no array": lambda sound, trap: b"abc",
    },
    "wrong shape": {
        "10**15 numbers": lambda sound, trap: declared("<f8", "(10**15,)"),
        "10**12 numbers": lambda sound, trap: declared("<f8", "(1000000000000,)"),
        "2**70 numbers": lambda sound, trap: declared("<f8", "(1180591620717411303424,)"),
        "minus one number": lambda sound, trap: declared("<f8", "(-1,)"),
        "shape of text": lambda sound, trap: declared("<f8", "('9',)"),
        "brackets": lambda sound, trap: header("{" * 4000),
        **{
            name: lambda sound, trap, change=change: npy(change(sound))
            for name, change in SHAPES_OF_ARRAYS.items()
        },
    },
    "impossible number": {
        name: lambda sound, trap, change=change: npy(change(sound))
        for name, change in NUMBERS_OF_ARRAYS.items()
    },
    "code": {
        "pickled object": lambda sound, trap: npy(np.array(Trap(trap), dtype=object), objects=True),
        "code in the header": lambda sound, trap: header("__import__('os').abort()"),
    },
}


def array_cases(
    source: str, file: Path, commands: Callable[[Path, Path, int], Commands], *, every: int
) -> Iterator[Case]:
    """Every array of an NPZ file damaged in every way, one in so many of them."""
    sound, number = members_of(file), count()
    for member in sorted(sound):
        array = np.load(io.BytesIO(sound[member]))
        changes = [(kind, *item) for kind, part in ARRAYS.items() for item in part.items()]
        for kind, name, change in [*changes, ("missing or a broken link", "missing", None)]:
            at = next(number)
            if at % every:
                continue

            def make(
                room: Path, member: str = member, array: np.ndarray = array,
                change: Array | None = change, at: int = at,
            ) -> Commands:  # fmt: skip
                rest = {key: data for key, data in sound.items() if key != member}
                if change is not None:
                    rest[member] = change(array, room / "cwd" / "sprung")
                zipped(room / "in" / file.name, rest)
                return commands(room, room / "in" / file.name, at)

            if not (array.dtype.kind == "U" and kind in ("impossible number", "wrong shape")):
                yield Case(source, kind, f"{member}: {name}", make)
    yield from of_bytes(source, file, commands)


def npz_cases(material: Material) -> Iterator[Case]:
    """NPZ files of a scan, the file of a probe, and images."""

    def scan(room: Path, path: Path, number: int) -> Commands:
        return reading(room, material, [str(path)], number=number, probe=False)

    yield from array_cases("NPZ", material.scan, scan, every=3)

    def raster(room: Path, path: Path, number: int) -> Commands:
        return [["convert", str(path), str(room / "out/scan.npz"), "--format", "npz", "--quiet"]]

    four = material.folder / "four_axes.npz"
    arrays = dict(np.load(material.scan))
    np.savez(four, **arrays | {"diff3d": arrays["diff3d"].reshape(5, 5, 32, 32)})
    yield from array_cases("NPZ of four axes", four, raster, every=17)

    def compare(room: Path, path: Path, number: int) -> Commands:
        words = [str(path), str(material.truth)][:: 1 if number % 2 else -1]
        return [["compare", *words, "--output_dir", str(room / "out/compared"), "--quiet"]]

    yield from array_cases("image", large_image(material), compare, every=5)

    def probe(room: Path, path: Path, number: int) -> Commands:
        words = [str(material.scan), str(room / "out" / "scan.npz"), "--format", "npz", "--quiet"]
        return [["convert", *words, "--probe", str(path)]]

    yield from of_bytes("probe", material.probe, probe)


def large_image(material: Material) -> Path:
    """An image of 64 x 64 pixels; that of the material is too small to be compared."""
    rng = np.random.default_rng(0)
    arrays = dict(np.load(material.truth))
    arrays["object"] = np.exp(1j * rng.normal(size=(64, 64))).astype(np.complex64)
    arrays["coverage"] = np.ones((64, 64), dtype=np.float32)
    path = material.folder / "truth.npz"
    np.savez(path, **arrays)
    return path


VALUES = (
    "abc", "[]", "{}", "[1, 2, 3, 4]", "[[1]]", "0", "-1", ".inf", ".nan", "1e300", "1e-300", "~",
    "true", "2024-01-01", "/raw", "/nowhere", "[a, b]", "9" * 400,
)  # fmt: skip


def text_cases(material: Material) -> Iterator[Case]:
    """Maps and configurations."""
    own = material.folder / "own_h5"
    scan = str(material.scan)

    def mapped(room: Path, path: Path, number: int) -> Commands:
        shutil.copy(own / "own.h5", room / "in")
        words = [str(room / "in/own.h5"), "--map", str(path)]
        return reading(room, material, words, number=number, probe=False)

    yield from of_bytes("map", own / "own.yaml", mapped, flips=16, waits=True)
    entries = dict(line.split(": ") for line in MAP.splitlines())
    texts = {}
    for at, key in enumerate(entries):
        for value in VALUES[at % 2 :: 2]:
            texts[f"{key}: {value[:20]}"] = "".join(
                f"{name}: {value if name == key else entry}\n" for name, entry in entries.items()
            )
    for number, (name, text) in enumerate(texts.items()):
        yield Case("map", "hostile text", name, partial(_text, text, "own.yaml", mapped, number))

    def configured(room: Path, path: Path, number: int) -> Commands:
        command = ("train", "infer", "simulate")[number % 3]
        needed = {
            "train": ["--train_data_file", scan, "--max_epochs", "1"],
            "infer": ["--test_data", scan, "--model_path", str(material.run)],
            "simulate": ["--n_side", "2", "--pattern_size", "16"],
        }[command]
        flags = ["--output_dir", str(room / "out" / "run"), "--quiet"]
        return [[command, "--config", str(path), *needed, *flags]]

    yield from of_bytes(
        "configuration", material.run / "config.yaml", configured, flips=3, waits=True
    )


def _text(
    text: str, name: str, commands: Callable[[Path, Path, int], Commands], number: int, room: Path
) -> Commands:
    """Write a text."""
    path = room / "in" / name
    path.write_text(text)
    return commands(room, path, number)


def checkpoint_cases(material: Material) -> Iterator[Case]:
    """Checkpoints for an inference and to resume from."""
    file = material.run / "checkpoints" / "last.ckpt"

    def commands(room: Path, path: Path, number: int) -> Commands:
        out = str(room / "out" / "run")
        scan = str(material.scan)
        resume = ["train", "--train_data_file", scan, "--resume", str(path), "--max_epochs", "2"]
        infer = ["infer", "--test_data", scan, "--model_path", str(path)]
        return [[*(resume if number % 2 else infer), "--output_dir", out, *QUIET]]

    yield from of_bytes("checkpoint", file, commands, flips=16)
    sound = torch.load(file, weights_only=True)
    for name, number in (("infer", 0), ("resume", 1)):

        def trapped(room: Path, number: int = number) -> Commands:
            path = room / "in" / "last.ckpt"
            torch.save(sound | {"more": Trap(room / "cwd" / "sprung")}, path)
            return commands(room, path, number)

        def pickled(room: Path, number: int = number) -> Commands:
            path = room / "in" / "last.ckpt"
            path.write_bytes(pickle.dumps(Trap(room / "cwd" / "sprung")))
            return commands(room, path, number)

        yield Case("checkpoint", "code", f"{name}: object among the parts", trapped)
        yield Case("checkpoint", "code", f"{name}: pickle", pickled)


def folder_cases(material: Material) -> Iterator[Case]:
    """Run folders: links that lead outside, files that are folders, damaged pages."""
    scan, outside = str(material.scan), "notes.txt"

    def train(run: Path) -> list[str]:
        return [
            "train",
            "--train_data_file",
            scan,
            "--output_dir",
            str(run),
            "--max_epochs",
            "1",
            *QUIET,
        ]

    def infer(run: Path) -> list[str]:
        model = ["--model_path", str(material.run)]
        return ["infer", "--test_data", scan, *model, "--output_dir", str(run), *QUIET]

    def resume(run: Path) -> list[str]:
        return [*train(run), "--resume", "auto"]

    for command, names in (
        (train, ("metrics.csv", "history.png", "config.yaml", ".lock", "train_debug.log")),
        (infer, ("reconstruction.npz", "metrics.json", "report.html", "inference.log", ".lock")),
    ):
        for name in names:
            for how in ("link outside", "link to nothing", "folder"):

                def put(room: Path, name: str = name, how: str = how, command: Callable = command):
                    run = room / "out" / "run"
                    run.mkdir()
                    if how == "folder":
                        (run / name).mkdir()
                    else:
                        target = outside if how == "link outside" else "gone"
                        (run / name).symlink_to(room / "user" / target)
                    return [command(run)]

                yield Case("run folder", "link or folder", f"{command.__name__} {name}: {how}", put)

    def linked(room: Path) -> Commands:
        run = room / "out" / "run"
        run.mkdir()
        (run / "checkpoints").symlink_to(room / "user")
        return [train(run)]

    yield Case("run folder", "link or folder", "checkpoints: link outside", linked)
    for name in ("measurement_0.npz", "metrics.csv", "config.yaml"):
        for label, data in (("empty", b""), ("zeros", bytes(99)), ("ZIP", b"PK\x03\x04garbage")):

            def spoil(room: Path, name: str = name, data: bytes = data) -> Commands:
                run = room / "out" / "run"
                shutil.copytree(material.run, run)
                (run / name).write_bytes(data)
                image = ["--test_data", scan, "--model_path", str(run)]
                image += ["--output_dir", str(room / "out/image")]
                return [[*resume(run), "--refine_measurement"], ["infer", *image, *QUIET]]

            yield Case("run folder", "other bytes", f"resume {name}: {label}", spoil)
    metrics = json.loads((material.image / "metrics.json").read_text())
    pages = {
        "nothing": "", "list": "[]", "text": "abc", "brackets": "[" * 100_000, "null": "null",
        **{f"without {key}": json.dumps({k: v for k, v in metrics.items() if k != key})
           for key in metrics},
        **{f"{key} is text": json.dumps(metrics | {key: "abc"}) for key in metrics},
    }  # fmt: skip
    for name, text in pages.items():

        def page(room: Path, text: str = text) -> Commands:
            image = room / "out" / "image"
            shutil.copytree(material.image, image)
            (image / "metrics.json").write_text(text)
            return [["report", str(image), "--quiet"]]

        yield Case("run folder", "hostile text", f"report, metrics.json: {name}", page)


FRAME = 130 * 128 * 4
XML = '<root><raw_file filename="scan.raw"/>{}</root>'
GRID = (
    '<scan_parameters mode="acquire"><scan_resolution_x>{}</scan_resolution_x>'
    "<scan_resolution_y>{}</scan_resolution_y></scan_parameters>"
)
SIDECARS = {
    "sound": XML.format(GRID.format(3, 3)),
    "rows of 5000 digits": XML.format(GRID.format("9" * 5000, 3)),
    "rows of nothing": XML.format(GRID.format("", "")),
    "rows below zero": XML.format(GRID.format(-3, -3)),
    "no rows": XML.format(GRID.format(0, 9)),
    "encoding that is not known": '<?xml version="1.0" encoding="klingon"?>' + XML.format(""),
    "encoding of several bytes": '<?xml version="1.0" encoding="gbk"?>' + XML.format(""),
    "deep": "<a>" * 100_000,
    "deep and closed": "<a>" * 50_000 + "</a>" * 50_000,
    "entities": '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
    "text": "abc",
    "empty": "",
    "file above": XML.replace("scan.raw", "..").format(""),
    "file of zero bytes": XML.replace("scan.raw", "a&#0;b").format(""),
}


def empad_cases(material: Material) -> Iterator[Case]:
    """Raw files of the EMPAD, and their XML files."""
    rng = np.random.default_rng(0)
    sound = material.folder / "scan.raw"
    frames = rng.poisson(3.0, (9, 130, 128)).astype("<f4")
    frames.tofile(sound)
    options = ["--raster_step_m", "5e-11", "--energy_ev", "300e3", "--distance_m", "0.1"]

    def commands(room: Path, path: Path, number: int) -> Commands:
        words = [str(path), str(room / "out/scan.npz"), "--format", "npz", "--quiet"]
        return [["convert", *words, *options, "--crop", "64", "--check", "warn"]]

    yield from of_bytes("EMPAD", sound, commands)
    for name, text in SIDECARS.items():
        for suffix in ("xml", "raw"):

            def make(room: Path, text: str = text, suffix: str = suffix) -> Commands:
                shutil.copy(sound, room / "in")
                (room / "in" / "scan.xml").write_text(text)
                return commands(room, room / "in" / f"scan.{suffix}", 1)

            yield Case("EMPAD", "hostile text", f"{name}, given .{suffix}", make)
    for name, value in {"NaN": np.nan, "inf": np.inf, "1e38": 1e38, "-1": -1.0, "0": 0.0}.items():

        def filled(room: Path, value: float = value) -> Commands:
            np.full((9, 130, 128), value, "<f4").tofile(room / "in" / "scan.raw")
            return commands(room, room / "in" / "scan.raw", 1)

        yield Case("EMPAD", "impossible number", name, filled)


def other_cases(material: Material) -> Iterator[Case]:
    """All cases of this module."""
    yield from npz_cases(material)
    yield from text_cases(material)
    yield from checkpoint_cases(material)
    yield from folder_cases(material)
    yield from empad_cases(material)

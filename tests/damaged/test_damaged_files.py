"""Damaged and hostile files end in one `InputError`, and none of their content is executed.

About 750 files come from seeded random generators. A file may still be read if the damaged bytes
are not used.
"""

import io
import json
import pickle
import zipfile

import numpy as np
import pytest
import torch
from child import finish
from child import train as start

from ptycho_torch.config import InferenceConfig, TrainingConfig
from ptycho_torch.config.parser import parse, to_yaml
from ptycho_torch.data.simulation import simulate_scan
from ptycho_torch.errors import InputError
from ptycho_torch.generators import build_generator
from ptycho_torch.generators.checkpoint import load_generator, read_checkpoint
from ptycho_torch.io.readers import read_scan
from ptycho_torch.io.writers import write_scan

BATCHES, FILES = 4, 25  # of each kind
PROCESSES = 70  # of each kind


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """The bytes cut, flipped, overwritten, doubled or filled with others."""
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 200))
    match int(rng.integers(7)):
        case 0:
            return data[:at]
        case 1:
            return data[at:]
        case 2:
            return data[:at] + bytes([data[at] ^ (1 << int(rng.integers(8)))]) + data[at + 1 :]
        case 3:
            return data[:at] + bytes(length) + data[at + length :]
        case 4:
            return data[:at] + rng.bytes(length) + data[at:]
        case 5:
            return data[:at] + data[max(0, at - length) :]
        case _:
            end = len(data) - int(rng.integers(1, min(300, len(data))))  # directory of a zip file
            return data[:end] + rng.bytes(int(rng.integers(1, 9))) + data[end + 8 :]


HEADERS = [
    "{'descr': '|O', 'fortran_order': False, 'shape': (9,)}",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (10**15,)}",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}",
    "{'descr': '<U9', 'fortran_order': False, 'shape': (9,)}",
    "{'descr': '<f8', 'fortran_order': 7, 'shape': (9,)}",
    "{'descr': '<f8', 'fortran_order': False, 'shape': ()}",
    "{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (9,)}",
    "{'descr': '<c16', 'fortran_order': True, 'shape': (9,)}",
    "__import__('os').abort()",
    "{" * 4000,
    "",
    "\x00\xff",
    "{'descr': '<f8'}",
    "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (9,)}",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}",
    "{'descr': 'V8', 'fortran_order': False, 'shape': (9,)}",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 3)}",
    "{'descr': '<f8', 'fortran_order': False, 'shape': ('9',)}",
    "{'descr': '<i8', 'fortran_order': False, 'shape': (0,)}",
    "{'descr': '|b1', 'fortran_order': False, 'shape': (9,)}",
]


@pytest.fixture(scope="module")
def scan_bytes(tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "scan.npz"
    made = simulate_scan(photons=1e4, n_side=3, step_px=3.0, pattern_size=16, seed=1)
    write_scan(path, made.scan)
    return path.read_bytes()


@pytest.fixture(scope="module")
def members(scan_bytes):
    with zipfile.ZipFile(io.BytesIO(scan_bytes)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(members: dict[str, bytes]) -> bytes:
    """A sound zip file, so that only its content is wrong."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def refusal(read, *args) -> str:
    """The sentence of an `InputError`, or "" if the file is read; other errors are not caught."""
    try:
        read(*args)
    except InputError as error:
        return str(error)
    return ""


def check(read, path, data):
    """Assert that the file is read, or refused with one line that names it."""
    path.write_bytes(data)
    sentence = refusal(read, path)
    assert not sentence or str(path) in sentence
    assert "\n" not in sentence


def check_scan(path, data):
    check(read_scan, path, data)


@pytest.mark.parametrize("seed", range(BATCHES))
def test_damaged_scans(seed, scan_bytes, tmp_path):
    rng = np.random.default_rng(seed)
    for _ in range(FILES):
        check_scan(tmp_path / "scan.npz", damaged(scan_bytes, rng))


@pytest.mark.parametrize("seed", range(BATCHES))
def test_damaged_arrays_in_a_sound_archive(seed, members, tmp_path):
    rng = np.random.default_rng(seed)
    for _ in range(FILES):
        name = str(rng.choice(sorted(members)))
        check_scan(tmp_path / "scan.npz", packed(members | {name: damaged(members[name], rng)}))


@pytest.mark.parametrize(
    "name", ["diff3d.npy", "xcoords.npy", "ycoords.npy", "probeGuess.npy", "scan_index.npy"]
)
def test_hostile_headers_of_arrays(name, members, tmp_path):
    for header in HEADERS:
        words = header.encode("latin1")
        array = b"\x93NUMPY\x01\x00" + len(words).to_bytes(2, "little") + words + bytes(72)
        check_scan(tmp_path / "scan.npz", packed(members | {name: array}))
    without = {key: data for key, data in members.items() if key != name}
    check_scan(tmp_path / "scan.npz", packed(without))


@pytest.fixture(scope="module")
def checkpoint():
    torch.manual_seed(0)
    generator = build_generator("unrolled", {"width": 4, "levels": 1})
    return {
        "state_dict": {
            f"generator.{name}": value for name, value in generator.state_dict().items()
        },
        "hyper_parameters": {
            "generator": "unrolled",
            "settings": generator.settings,
            "loss": "poisson",
            "about": {"members": 9},
        },
    }


def stored(content) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def check_checkpoint(path, data):
    check(load_generator, path, data)


@pytest.mark.parametrize("seed", range(BATCHES))
def test_damaged_checkpoints(seed, checkpoint, tmp_path):
    rng = np.random.default_rng(seed)
    data = stored(checkpoint)
    for _ in range(FILES):
        check_checkpoint(tmp_path / "model.ckpt", damaged(data, rng))


@pytest.mark.parametrize("seed", range(BATCHES))
def test_damaged_pickles_in_a_sound_checkpoint(seed, checkpoint, tmp_path):
    rng = np.random.default_rng(seed)
    with zipfile.ZipFile(io.BytesIO(stored(checkpoint))) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in parts if name.endswith("data.pkl"))
    for _ in range(FILES):
        check_checkpoint(tmp_path / "model.ckpt", packed(parts | {name: damaged(parts[name], rng)}))


WRONG = [
    None,
    3,
    "x",
    [],
    {},
    {"generator": []},
    {"a": None},
    [1, 2],
    float("nan"),
    torch.zeros(2),
    {"width": -1},
    {"width": "4"},
]


@pytest.mark.parametrize(
    "place", ["all", "state_dict", "hyper_parameters", "generator", "settings", "about"]
)
def test_checkpoints_of_wrong_content(place, checkpoint, tmp_path):
    settings = checkpoint["hyper_parameters"]
    for wrong in WRONG:
        inner = checkpoint | {"hyper_parameters": settings | {place: wrong}}
        outer = checkpoint | {place: wrong} if place in checkpoint else inner
        content = wrong if place == "all" else outer
        check_checkpoint(tmp_path / "model.ckpt", stored(content))
        if place not in ("all", *checkpoint):
            del inner["hyper_parameters"][place]
            check_checkpoint(tmp_path / "model.ckpt", stored(inner))


@pytest.mark.parametrize("seed", range(BATCHES))
@pytest.mark.parametrize("config_type", [TrainingConfig, InferenceConfig])
def test_damaged_configurations(config_type, seed, tmp_path):
    """Each damaged file is read, or refused with one line."""
    rng = np.random.default_rng(seed)
    paths = (
        {"train_data_file": ["a.npz"]}
        if config_type is TrainingConfig
        else {"model_path": "run", "test_data": "a.npz"}
    )
    text = to_yaml(config_type(**paths, output_dir="out")).encode()
    path = tmp_path / "config.yaml"
    for _ in range(FILES):
        path.write_bytes(damaged(text, rng))
        check_config(config_type, path)


TEXTS = [
    "",
    "[]",
    "3",
    "a: b: c",
    "\t",
    "&a [*a]",
    "seed: [1, 2]",
    "seed: {a: 1}",
    "seed: 1e400",
    "seed: .nan",
    "max_epochs: -3",
    "!!python/object/apply:os.system ['touch sprung']",
    "seed: !!python/name:os.system",
    "output_dir: 3",
    "config: config.yaml",
    "[" * 500,
    "{" * 500,
    "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
    "seed: ''",
    "quiet: maybe",
    "'seed",
    "seed: 0x",
    "? seed",
    "nothing_known: 1",
    "train_data_file: {}",
    "train_data_file: [[a]]",
    "seed:\n- 1",
    "\x00",
    "\ufeffseed: 1",
    "seed: 2024-01-01",
]


@pytest.mark.parametrize("config_type", [TrainingConfig, InferenceConfig])
def test_hostile_configurations(config_type, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "config.yaml"
    for text in [*TEXTS, json.dumps({"seed": "one"})]:
        path.write_text(text)
        check_config(config_type, path)
    path.write_bytes(b"\xff\xfe\x00seed")
    check_config(config_type, path)
    assert not (tmp_path / "sprung").exists()


def test_a_bit_of_a_weight_that_is_turned_is_noticed(checkpoint, tmp_path):
    """By the checksum of its part of the archive, which torch leaves alone."""
    path = tmp_path / "last.ckpt"
    path.write_bytes(stored(checkpoint))
    with zipfile.ZipFile(path) as archive:
        part = max(archive.infolist(), key=lambda one: one.file_size)
    turned = bytearray(path.read_bytes())
    turned[part.header_offset + len(part.FileHeader()) + part.file_size // 2] ^= 4
    path.write_bytes(turned)
    with pytest.raises(InputError, match="is damaged"):
        read_checkpoint(path)


def check_config(config_type, path):
    assert "\n" not in refusal(lambda: parse(config_type, ["--config", str(path)], prog="test"))


class Trap:
    """An object that writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_pickle_is_not_executed(members, checkpoint, tmp_path):
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    check_checkpoint(tmp_path / "model.ckpt", trap)
    check_checkpoint(
        tmp_path / "model.ckpt", stored(checkpoint | {"more": Trap(tmp_path / "sprung")})
    )
    array = io.BytesIO()
    np.save(array, np.array(Trap(tmp_path / "sprung"), dtype=object), allow_pickle=True)
    for name in ("diff3d.npy", "_metadata.npy"):
        check_scan(tmp_path / "scan.npz", packed(members | {name: array.getvalue()}))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("kind", ["scan", "checkpoint", "configuration"])
def test_the_command_ends_with_status_2_and_one_sentence(kind, scan_bytes, checkpoint, tmp_path):
    """Each file is read in a child process, which it could crash or block."""
    rng = np.random.default_rng(0)
    scan, said = tmp_path / "scan.npz", tmp_path / "said.txt"
    scan.write_bytes(scan_bytes)
    config = to_yaml(TrainingConfig(train_data_file=[scan], output_dir=tmp_path / "run")).encode()
    sound = {"scan": scan_bytes, "checkpoint": stored(checkpoint), "configuration": config}[kind]
    path = tmp_path / f"damaged {kind}"
    flags = {
        "scan": ["--train_data_file", path],
        "checkpoint": ["--train_data_file", scan, "--resume", path],
        "configuration": ["--train_data_file", scan, "--config", path],
    }[kind]
    for _ in range(PROCESSES):
        path.write_bytes(damaged(sound, rng)[: len(sound) // 2] + b"\x00: [")
        words = [*flags, "--output_dir", tmp_path / "run", "--accelerator", "cpu", "--quiet"]
        assert finish(start([str(word) for word in words], said)) == 2, said.read_text()
        assert len(said.read_text().strip().splitlines()) == 1, said.read_text()
        assert not (tmp_path / "run").exists()

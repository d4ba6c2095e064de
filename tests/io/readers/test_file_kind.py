"""A file in the place of another is refused with what it is, in plain words."""

import pickle
import re

import numpy as np
import pytest
import torch

from ptycho_torch import cli
from ptycho_torch.io.readers.file_kind import kind_of_file
from ptycho_torch.io.writers import write_reconstruction, write_scan

JARGON = re.compile(r"enforce fail|unsafely|allow_pickle|weights_only|Errno|\(\d+\)|\[|b'")


CUT = "an archive whose end is missing, so that it was not written or copied in full"


class Unknown:
    """A Python object, which a file must not bring along."""


@pytest.fixture(scope="module")
def folder(simulation, tmp_path_factory):
    """One file of each kind that users mistake for another."""
    folder = tmp_path_factory.mktemp("kinds")
    write_scan(folder / "scan.npz", simulation.scan)
    write_reconstruction(folder / "truth.npz", simulation.truth)
    (folder / "notes.txt").write_text("first line\nKelvin: 293 K, 12 µm\n", encoding="utf-8")
    (folder / "letter.txt").write_bytes("µ".encode() * 3000)
    (folder / "empty.npz").touch()
    (folder / "noise.bin").write_bytes(np.random.default_rng(0).bytes(999))
    with open(folder / "pickle.npz", "wb") as file:
        pickle.dump({"a": 1}, file)
    np.save(folder / "array.npy", np.zeros(3))
    np.savez(folder / "arrays.npz", brightness=np.zeros(3))
    torch.save({"a": torch.zeros(9)}, folder / "other.ckpt")
    torch.save({"a": Unknown()}, folder / "objects.ckpt")
    (folder / "half.npz").write_bytes((folder / "scan.npz").read_bytes()[:5000])
    return folder


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("scan.npz", "a scan"),
        ("truth.npz", "a reconstruction or a simulated truth"),
        ("notes.txt", "text"),
        ("letter.txt", "text"),
        ("empty.npz", "empty"),
        ("noise.bin", "not of a kind that is known"),
        ("pickle.npz", "a Python pickle, which is never loaded"),
        ("array.npy", "a single array (NPY)"),
        ("arrays.npz", "an NPZ file of arrays (brightness)"),
        ("other.ckpt", "a checkpoint"),
        (
            "half.npz",
            CUT,
        ),
    ],
)
def test_every_kind_has_its_words(name, kind, folder):
    assert kind_of_file(folder / name) == kind


def refused(capsys, *words):
    """The sentence with which a command refuses its input."""
    assert cli.main([str(word) for word in words]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert not JARGON.search(line)
    return line


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("truth.npz", "is a reconstruction or a simulated truth, not a scan"),
        ("pickle.npz", "a Python pickle, which is never loaded"),
        ("notes.txt", "it is text; known: "),
        ("arrays.npz", "key 'ycoords' is missing; found brightness"),
        ("half.npz", "is it complete?"),
    ],
)
def test_what_is_no_scan_is_named(name, reason, folder, tmp_path, capsys):
    words = ["--train_data_file", folder / name, "--output_dir", tmp_path / "run"]
    assert reason in refused(capsys, "train", *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("scan.npz", "it is a scan"),
        ("truth.npz", "it is a reconstruction or a simulated truth"),
        ("notes.txt", "it is text"),
        ("pickle.npz", "a Python pickle, which is never loaded"),
        ("half.npz", "whose end is missing"),
        ("empty.npz", "it is empty"),
        ("objects.ckpt", "it holds Python objects, which are never loaded"),
        ("other.ckpt", "a checkpoint of another program"),
    ],
)
def test_what_is_no_checkpoint_is_named(name, reason, folder, tmp_path, capsys, recwarn):
    words = ["--model_path", folder / name, "--test_data", folder / "scan.npz"]
    assert reason in refused(capsys, "infer", *words, "--output_dir", tmp_path / "image")
    assert not recwarn.list


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("scan.npz", "it is a scan, not a reconstruction.npz"),
        ("pickle.npz", "a Python pickle, which is never loaded"),
        ("notes.txt", "it is text"),
    ],
)
def test_what_is_no_reconstruction_is_named(name, reason, folder, tmp_path, capsys):
    words = [folder / name, folder / "truth.npz", "--output_dir", tmp_path / "out"]
    assert reason in refused(capsys, "compare", *words)


def test_what_is_no_probe_is_named(folder, tmp_path, capsys):
    words = ["--train_data_file", folder / "scan.npz", "--probe", folder / "pickle.npz"]
    line = refused(capsys, "train", *words, "--output_dir", tmp_path / "run")
    assert "a Python pickle, which is never loaded" in line

"""Say in words what a file is, for the message that refuses it in the place of another."""

import zipfile
from pathlib import Path

HEADS = {  # first bytes of a file -> what it is
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a single array (NPY)",
    b"\x89PNG": "a picture (PNG)",
    b"II*\x00": "a picture (TIFF)",
    b"MM\x00*": "a picture (TIFF)",
    b"%PDF": "a PDF document",
    b"\x1f\x8b": "a compressed file (gzip)",
    b"\x80": "a Python pickle, which is never loaded",
}
BYTE_ORDER_MARK = "\ufeff"  # with which some editors begin a text
LONGEST = 4096  # bytes that are read to tell text from numbers


def kind_of_file(path: Path) -> str:
    """What a file is, in words, without loading it: "a checkpoint", "text", "a picture (PNG)".

    Raises:
        OSError: If it cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(LONGEST)
    if not head:
        return "empty"
    if head.startswith(b"PK\x03\x04"):
        return kind_of_archive(path)
    for start, kind in HEADS.items():
        if head.startswith(start):
            return kind
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # a letter may be cut at the end
            return "not of a kind that is known"
        text = head[: error.start].decode("utf-8")
    words = text.removeprefix(BYTE_ORDER_MARK).split()
    return "text" if "".join(words).isprintable() else "not of a kind that is known"


def kind_of_archive(path: Path) -> str:
    """What a ZIP archive is: NumPy's NPZ files and torch's checkpoints are such archives."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return "an archive whose end is missing, so that it was not written or copied in full"
    arrays = {name.removesuffix(".npy") for name in names if name.endswith(".npy")}
    if is_reconstruction(arrays):
        return "a reconstruction or a simulated truth"
    if arrays & {"diff3d", "diffraction", "reciprocal"}:
        return "a scan"
    if arrays:
        return f"an NPZ file of arrays ({', '.join(sorted(arrays)[:6])})"
    if any(name.endswith("/data.pkl") for name in names):
        return "a checkpoint"
    return "a ZIP archive"


def is_reconstruction(names: set[str]) -> bool:
    """Whether an NPZ file with these arrays is a reconstruction or a simulated truth."""
    return {"object", "coverage"} <= names

"""Files that appear whole or not at all."""

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Name of a file while it is written; only a killed process leaves one.
PART = ".{name}.{process}.part"


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends without error.

    Raises:
        OSError: With the name of ``path``, if it cannot be written; what was there is kept.
    """
    temporary = path.with_name(PART.format(name=path.name, process=os.getpid()))
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename not in (None, str(temporary)):
            raise
        if error.errno is None:  # of HDF5
            raise OSError(f"while {path} was written: {error}") from error
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def printable(text: str) -> str:
    """The text with bytes of file names that are not UTF-8 escaped, for pictures and pages."""
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all; bytes of file names that are not UTF-8 are escaped."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_npy(path: Path, array: NDArray) -> None:
    """Write an array as NPY whole or not at all."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content.getvalue())


def write_npz(path: Path, arrays: dict[str, NDArray]) -> None:
    """Write arrays to a compressed NPZ file, whole or not at all."""
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def file_sha256(path: Path) -> str:
    """SHA-256 of the content of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Files of scans into `Scan`, one format a module. The content of a file decides, not its name."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ptycho_torch.errors import InputError
from ptycho_torch.readers.npz import is_npz, read_npz
from ptycho_torch.scan import Scan

Diffraction = Literal["auto", "counts", "amplitude"]

READERS: dict[str, tuple[Callable[[bytes], bool], Callable[[Path, Diffraction], Scan]]] = {
    "NPZ (PtychoPINN, Ptychodus)": (is_npz, read_npz),
}

HEAD_BYTES = 16  # enough for the signature of every format


def read_scan(path: Path | str, *, diffraction: Diffraction = "auto") -> Scan:
    """The scan that a file holds, in the units of the package.

    Args:
        path: File of any supported format.
        diffraction: What stored patterns are, where the format leaves it open.

    Returns:
        The scan; its ``decisions`` say what was concluded about the file.

    Raises:
        InputError: If the file is missing, unreadable, of no supported format, or contradicts itself.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    for recognises, read in READERS.values():
        if recognises(head):
            return read(path, diffraction)
    raise InputError(f"{path}: not a file of a known format (starts with {head[:8]!r}); known: {', '.join(READERS)}")

"""The folder of one run: what is written to it, how much, and what happens where it cannot be."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptycho_torch.testing.manifest import (
    JOURNAL,
    Entry,
    append_to_journal,
    file_entry,
    write_atomically,
    write_manifest,
)

MIB = 2**20
NEWLINE = "\n"


@dataclass(frozen=True)
class Limits:
    """How much evidence is kept; what is left out is listed with its size and SHA-256.

    Attributes:
        stream_bytes: Of one stream of a command; the head and the tail are kept.
        file_bytes: Of one artifact.
        run_bytes: Of all files of a run.
        session_bytes: Of all files of a session, divided among the workers of pytest-xdist.
        keep_passed: Whether the files of runs that passed are kept at the end.
    """

    stream_bytes: int = 2 * MIB
    file_bytes: int = 50 * MIB
    run_bytes: int = 500 * MIB
    session_bytes: int = 5000 * MIB
    keep_passed: bool = True


class Budget:
    """Bytes that may still be kept by this process."""

    def __init__(self, limits: Limits, workers: int = 1) -> None:
        self.limits = limits
        self.left_bytes = limits.session_bytes // max(workers, 1)


class EvidenceFolder:
    """Writes one run's files. What cannot be written is reported, and the test goes on.

    Args:
        folder: Where to write; None writes nothing.
        budget: Of the process.
        report: Gets one sentence for a file that could not be written.
    """

    def __init__(self, folder: Path | None, budget: Budget, report: Callable[[str], None]) -> None:
        self.path = folder
        self.limits = budget.limits
        self._budget = budget
        self._report = report
        self._kept: dict[str, int] = {}  # bytes by name
        self._kept_bytes = 0

    def write_manifest(self, manifest: Entry) -> None:
        """Write the manifest as it stands."""
        if folder := self.path:
            self._try(lambda: write_manifest(folder, manifest))

    def put(self, section: str, at: str | int, entry: Any) -> None:
        """Add to the journal."""
        if folder := self.path:
            self._try(lambda: append_to_journal(folder, section, at, entry))

    def finish(self, manifest: Entry) -> None:
        """Write the whole manifest in place of the journal."""
        if folder := self.path:
            written = self._try(lambda: write_manifest(folder, manifest))
            if written:
                self._try(lambda: (folder / JOURNAL).unlink(missing_ok=True))

    def keep(self, name: str, data: bytes) -> tuple[Entry | None, str]:
        """Write a file; how the manifest refers to it, or why it was not kept."""
        if not (folder := self.path):
            return None, ""
        more = len(data) - self._kept.get(name, 0)
        if self._kept_bytes + more > self.limits.run_bytes:
            return None, f"not kept: the run would keep more than {self.limits.run_bytes} bytes"
        if more > self._budget.left_bytes:
            return None, "not kept: the session has kept as much as it may"
        if not self._try(lambda: write_atomically(folder / name, data)):
            return None, "not kept: it could not be written"
        self._count(name, len(data))
        return file_entry(name, data), ""

    def discard_files(self) -> None:
        """Remove the kept files and the folders that held nothing else."""
        if not self.path:
            return
        for name in list(self._kept):
            with contextlib.suppress(OSError):
                (self.path / name).unlink()
            remove_empty_folders((self.path / name).parent, self.path)
            self._count(name, 0)

    def _count(self, name: str, size: int) -> None:
        """Take a file's size down, and what it leaves of the limits."""
        more = size - self._kept.get(name, 0)
        self._kept[name] = size
        self._kept_bytes += more
        self._budget.left_bytes -= more

    def _try(self, write: Callable[[], None]) -> bool:
        """Whether it could be written; if not, the reason is reported."""
        try:
            write()
        except OSError as error:
            self._report(describe_os_error(error))
            return False
        return True


def describe_os_error(error: OSError) -> str:
    """One sentence: what the file system says, and of which file."""
    return f"{error.strerror or error}: {error.filename or 'a file of the archive'}"


def remove_empty_folders(folder: Path, top: Path) -> None:
    """Remove a folder and those above it, up to `top`, as long as they are empty."""
    while folder != top:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent


def head_and_tail(text: str, limit: int) -> str:
    """The text, or whole lines of its beginning and its end with a note of what is left out.

    A line is not cut, so that a word that must be replaced is not cut either; a single line that
    is too long is left out.
    """
    if len(text) <= limit:
        return text
    head, tail = text[: limit // 2], text[-(limit // 2) :]
    head = head[: head.rfind(NEWLINE) + 1]
    tail = tail[tail.find(NEWLINE) + 1 :] if NEWLINE in tail else ""
    left_out = len(text) - len(head) - len(tail)
    return f"{head}[... {left_out} characters left out ...]{NEWLINE}{tail}"

"""Write, find and read `manifest.json` and the journal beside it; needs the standard library only.

While a run or a session goes on, each event is a line of `journal.jsonl`, written in one piece, so
that a killed process loses nothing and a thousand events take a thousand times as long as one. At
the end all of it is in `manifest.json`, and the journal is removed. `read_manifest` reads both.
"""

import contextlib
import hashlib
import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ptycho_torch.testing.outcomes import Entry as Entry
from ptycho_torch.testing.outcomes import gather_tests

SCHEMA = "urn:ptycho-torch:archive-manifest:2"
MANIFEST = "manifest.json"
JOURNAL = "journal.jsonl"
CHECKSUM = "manifest.sha256"  # of the session's manifest, in the format of sha256sum
VIEWS = ("index.html", "summary.md")
COMPARISON_VIEWS = ("compare.html", "compare.md")
SCHEMA_FILE = Path(__file__).with_name("manifest.schema.json")


def now() -> str:
    """This moment in UTC, as the manifest writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, also when the process ends in between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def file_entry(name: str, data: bytes) -> Entry:
    """How a manifest refers to a file of this content."""
    return {"path": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def encode(manifest: Entry) -> bytes:
    """The bytes of a manifest; a number that JSON lacks must have been spelled out before."""
    return json.dumps(manifest, indent=1, allow_nan=False).encode() + b"\n"


def write_manifest(folder: Path, manifest: Entry) -> None:
    """Write a folder's manifest."""
    write_atomically(folder / MANIFEST, encode(manifest))


def append_to_journal(folder: Path, section: str, at: str | int, entry: Any) -> None:
    """Add an entry to a section, or replace the one of the same place; None removes it."""
    line = json.dumps([section, at, entry], allow_nan=False).encode() + b"\n"
    file = os.open(folder / JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(file, line)
    finally:
        os.close(file)


def replay_journal(folder: Path) -> dict[str, dict[str | int, Any]]:
    """The sections of a journal, each with its entries by their place; damaged lines are left out.

    The last line of a process that was killed while it wrote is such a line.
    """
    sections: dict[str, dict[str | int, Any]] = {}
    try:
        lines = (folder / JOURNAL).read_bytes().splitlines()
    except OSError:
        return sections
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            section, at, entry = json.loads(line)
            part = sections.setdefault(section, {})
            part.pop(at, None) if entry is None else part.update({at: entry})
    return sections


def read_manifest(folder: Path) -> Entry:
    """A folder's manifest, as far as it was written.

    Raises:
        ValueError: If there is none, or it is not one of this schema.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{folder} holds no readable {MANIFEST}: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise ValueError(f"{folder / MANIFEST} is not of schema {SCHEMA}")
    known = json.loads(SCHEMA_FILE.read_text())["$defs"]
    if manifest.get("kind") not in ("run", "session"):
        raise ValueError(f"{folder / MANIFEST} is neither of a run nor of a session")
    missing = sorted(set(known[manifest["kind"]]["required"]) - manifest.keys())
    if missing:
        raise ValueError(f"{folder / MANIFEST} lacks {', '.join(missing)}")
    return add_journal(manifest, folder) if manifest["verdict"] == "running" else manifest


def add_journal(manifest: Entry, folder: Path) -> Entry:
    """An unfinished manifest with what the journal adds to it."""
    sections = replay_journal(folder)
    if manifest["kind"] == "session":
        tests = gather_tests(sections.pop("reports", {}).values())
        sections["tests"] = {test["test"]: test for test in tests}
    for section, entries in sections.items():
        kept = manifest.get(section)
        manifest[section] = kept | entries if isinstance(kept, dict) else list(entries.values())
    return manifest


def run_folders(archive: Path) -> list[Path]:
    """The folders of an archive that hold a run; whatever else lies there is none of its."""
    found = []
    for path in sorted(archive.glob(f"*/{MANIFEST}")):
        if path.parent.is_symlink():
            continue
        with contextlib.suppress(ValueError):
            if read_manifest(path.parent)["kind"] == "run":
                found.append(path.parent)
    return found


def read_runs(archive: Path) -> dict[Path, Entry]:
    """The manifests of the runs in an archive, in the order in which they started."""
    found = {folder: read_manifest(folder) for folder in run_folders(archive)}
    return dict(sorted(found.items(), key=lambda item: (item[1]["started"], item[1]["test"])))


def kept_files(run: Entry) -> list[Entry]:
    """The files that a run keeps beside its manifest."""
    streams = [one[name] for one in run["commands"] for name in ("stdout", "stderr")]
    return [file for file in (*streams, *(one["kept"] for one in run["artifacts"])) if file]


def read_kept(folder: Path, kept: Entry) -> bytes | None:
    """Content of a kept file, or None if it is not what the manifest says it is."""
    path = (folder / kept["path"]).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        return None
    data = path.read_bytes()
    return data if hashlib.sha256(data).hexdigest() == kept["sha256"] else None


def folder_name(test: str) -> str:
    """A portable folder name: the readable end of a test's id, and a hash of the whole."""
    readable = re.sub(r"[^A-Za-z0-9._]+", "-", test)[-80:].strip("-.")
    return f"{readable}-{hashlib.sha256(test.encode(errors='surrogatepass')).hexdigest()[:8]}"

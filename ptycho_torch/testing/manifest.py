"""Write, find and read `manifest.json`; needs the standard library only."""

import contextlib
import hashlib
import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SCHEMA = "urn:ptycho-torch:archive-manifest:1"
MANIFEST = "manifest.json"
SCHEMA_FILE = Path(__file__).with_name("manifest.schema.json")

Entry = dict[str, Any]


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
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def write_manifest(folder: Path, manifest: Entry) -> None:
    """Write a folder's manifest; a number that JSON lacks must have been spelled out before."""
    write_atomically(
        folder / MANIFEST, json.dumps(manifest, indent=1, allow_nan=False).encode() + b"\n"
    )


def read_manifest(folder: Path) -> Entry:
    """A folder's manifest.

    Raises:
        ValueError: If there is none, or it is not one of this schema.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
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
    return manifest


def run_folders(archive: Path) -> list[Path]:
    """The folders of an archive that hold a run; whatever else lies there is none of its."""
    found = []
    for path in sorted(archive.glob(f"*/{MANIFEST}")):
        with contextlib.suppress(ValueError):
            if read_manifest(path.parent)["kind"] == "run":
                found.append(path.parent)
    return found


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

"""Close an archive: its runs and its session get their last manifests, pages and checksum.

A session does so at its end. For one that was killed, the next session in its folder or
`ptycho-torch report` does it, and the verdict is "interrupted".
"""

from pathlib import Path

from ptycho_torch.testing.manifest import (
    CHECKSUM,
    JOURNAL,
    MANIFEST,
    Entry,
    read_manifest,
    read_runs,
    sha256,
    write_atomically,
    write_manifest,
)

ENDED_FROM_OUTSIDE = "the process ended"


def close_runs(archive: Path) -> list[Entry]:
    """Give runs that were cut off their verdict, and list all of them as the session does."""
    listed = []
    for folder, run in read_runs(archive).items():
        if run["verdict"] == "running":
            interrupted = {"verdict": "interrupted", "message": ENDED_FROM_OUTSIDE}
            run |= interrupted
            finish_manifest(folder, run)
        listed.append(
            {"folder": folder.name, "test": run["test"], "attempt": run["attempt"]}
            | {"verdict": run["verdict"], "sha256": sha256(folder / MANIFEST)}
        )
    return listed


def close_session(archive: Path, session: Entry) -> None:
    """Write the session's manifest with the list of its runs, and the checksum of it."""
    session["runs"] = close_runs(archive)
    finish_manifest(archive, session)
    write_atomically(archive / CHECKSUM, f"{digest(archive)}  {MANIFEST}\n".encode())


def close_interrupted(archive: Path) -> bool:
    """Close the archive of a session that was killed; tell whether it was one.

    Raises:
        ValueError: If the folder is no archive.
    """
    manifest = read_manifest(archive)
    if manifest["verdict"] != "running":
        return False
    if manifest["kind"] == "run":
        finish_manifest(
            archive, manifest | {"verdict": "interrupted", "message": ENDED_FROM_OUTSIDE}
        )
    else:
        close_session(archive, manifest | {"verdict": "interrupted"})
    return True


def finish_manifest(folder: Path, manifest: Entry) -> None:
    """Write the whole manifest in place of the journal."""
    write_manifest(folder, manifest)
    (folder / JOURNAL).unlink(missing_ok=True)


def digest(archive: Path) -> str:
    """Stands for the whole archive: the SHA-256 of its manifest, which has those of all runs."""
    return sha256(archive / MANIFEST)

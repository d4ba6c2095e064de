"""Make room for a new archive: take away the files of an earlier one, and no others."""

import contextlib
from datetime import UTC, datetime
from pathlib import Path

from ptycho_torch.testing.closing import close_interrupted
from ptycho_torch.testing.evidence_folder import remove_empty_folders
from ptycho_torch.testing.manifest import (
    CHECKSUM,
    COMPARISON_VIEWS,
    JOURNAL,
    MANIFEST,
    VIEWS,
    kept_files,
    read_kept,
    read_manifest,
    run_folders,
)
from ptycho_torch.testing.views import build_views


def make_room(folder: Path) -> Path | None:
    """Create the folder, or remove an earlier archive from it; other files stay.

    The archive of a session that was killed is closed and moved aside.

    Returns:
        Where such an archive lies now.

    Raises:
        ValueError: If the folder holds something and no archive.
        OSError: If it cannot be created or emptied.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--archive {folder} is a file; give a folder")
    if not folder.is_dir() or not any(folder.iterdir()):
        folder.mkdir(parents=True, exist_ok=True)
        return None
    try:
        earlier = read_manifest(folder)
    except ValueError as error:
        raise ValueError(
            f"--archive {folder} is neither empty nor an archive; give another folder ({error})"
        ) from error
    if earlier["kind"] != "session":
        raise ValueError(f"--archive {folder} is one run of an archive; give another folder")
    if close_interrupted(folder):
        return move_aside(folder)
    remove_archive(folder)
    return None


def move_aside(folder: Path) -> Path:
    """Make the pages of an archive, give it a name with the time, and return where it is."""
    build_views(folder)
    aside = folder.with_name(f"{folder.name}-interrupted-{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}")
    folder.rename(aside)
    folder.mkdir()
    return aside


def remove_archive(folder: Path) -> None:
    """Remove what a session has written, as far as it is still what was written."""
    for run in run_folders(folder):
        for file in kept_files(read_manifest(run)):
            if read_kept(run, file) is not None:
                remove(run / file["path"])
                remove_empty_folders((run / file["path"]).parent, run)
        for name in (*VIEWS, JOURNAL, MANIFEST):
            remove(run / name)
        remove_empty_folders(run, folder)
    for name in (*VIEWS, *COMPARISON_VIEWS, CHECKSUM, JOURNAL, MANIFEST):
        remove(folder / name)


def remove(file: Path) -> None:
    """Remove a file of the archive that may have gone."""
    with contextlib.suppress(FileNotFoundError):
        file.unlink()

"""Verify an archive: whether it is as the session wrote it, whole and consistent.

python -m ptycho_torch.testing.verify DIR [--digest SHA256]

An archive is a tree of hashes: the session's manifest has the SHA-256 of the manifest of each run,
and that one those of its files. Whoever knows the SHA-256 of the session's manifest, which pytest
prints at its end, can tell whether anything was changed; without it, only that all parts agree.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ptycho_torch.testing.closing import digest
from ptycho_torch.testing.integrity import UNFINISHED, comparison_files, find_problems
from ptycho_torch.testing.manifest import read_kept, read_manifest
from ptycho_torch.testing.views import render_views


def verify(archive: Path, expected: str | None = None) -> list[str]:
    """Everything that is not as the session wrote it, one sentence each.

    Args:
        archive: Folder of the archive.
        expected: SHA-256 of the session's manifest as pytest printed it.

    Raises:
        ValueError: If the folder is no archive.
    """
    problems = find_problems(archive)
    if problems != [UNFINISHED]:
        problems += view_problems(archive)
    if expected is not None and digest(archive) != expected.removeprefix("sha256:").strip().lower():
        problems.insert(0, f"the archive has the digest {digest(archive)}, expected was {expected}")
    return problems


def view_problems(archive: Path) -> Iterator[str]:
    """Whether the pages are the ones that the manifests make."""
    for file in comparison_files(read_manifest(archive)):
        if read_kept(archive, file) is None:
            yield f"{file['path']} is altered or missing"
    for path, data in render_views(archive).items():
        if not path.is_file() or path.read_bytes() != data:
            yield (
                f"{path.relative_to(archive)} is not the page that the manifests make; "
                "`ptycho-torch report` makes it again"
            )


def main(argv: Sequence[str] | None = None) -> int:
    """Verify an archive; 0 if it is as it was written, 1 if not, 2 for no archive."""
    parser = argparse.ArgumentParser(
        prog="python -m ptycho_torch.testing.verify", description=main.__doc__
    )
    parser.add_argument("archive", type=Path, help="folder of pytest --archive")
    parser.add_argument("--digest", help="SHA-256 that pytest printed at the end of the session")
    options = parser.parse_args(argv)
    try:
        problems = verify(options.archive, options.digest)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(verification_text(options.archive, problems))
    return 1 if problems else 0


def verification_text(archive: Path, problems: Sequence[str]) -> str:
    """What was found, in lines for a terminal."""
    if problems:
        return "\n".join([*problems, f"{archive} is not as it was written"])
    return f"{archive} is as it was written: sha256 {digest(archive)}"


if __name__ == "__main__":
    sys.exit(main())

"""Whether an archive is as the session wrote it: hashes, completeness, verdicts that follow."""

from collections.abc import Iterator
from pathlib import Path

from ptycho_torch.testing.closing import digest
from ptycho_torch.testing.manifest import (
    CHECKSUM,
    MANIFEST,
    VIEWS,
    Entry,
    kept_files,
    read_kept,
    read_manifest,
    sha256,
)
from ptycho_torch.testing.outcomes import FAILING, verdict_of_attempt

UNFINISHED = (
    "the session has not ended, or was killed; `ptycho-torch report` closes it and makes its pages"
)


def find_problems(archive: Path) -> list[str]:
    """Everything that is not as the session wrote it, one sentence each; the pages are left out.

    Raises:
        ValueError: If the folder is no archive.
    """
    session = read_manifest(archive)
    if session["kind"] != "session":
        raise ValueError(f"{archive} is the folder of one run; give the archive that it lies in")
    if session["verdict"] == "running":
        return [UNFINISHED]
    problems = [*checksum_problems(archive), *session_problems(session)]
    for listed in session["runs"]:
        problems += run_problems(archive, listed)
    problems += unexpected_files(archive, session)
    return problems + list(attempt_problems(session))


def checksum_problems(archive: Path) -> Iterator[str]:
    """Whether the session's manifest is the one of the checksum beside it."""
    try:
        stated = (archive / CHECKSUM).read_text().split()
    except (OSError, UnicodeDecodeError):
        stated = []
    if stated[:1] != [digest(archive)]:
        yield f"{MANIFEST} is not the one of {CHECKSUM}"


def session_problems(session: Entry) -> Iterator[str]:
    """Whether exit status and verdict of the session follow from its tests."""
    failing = [test["test"] for test in session["tests"] if test["verdict"] in FAILING]
    worse = bool(session["comparison"] and session["comparison"]["worse"])
    if session["exit_status"] == 0 and (failing or worse):
        yield f"the exit status is 0, although {', '.join(failing) or 'the comparison'} failed"
    if session["exit_status"] == 1 and not failing and not worse:
        yield "the exit status is 1, although no test failed and nothing became worse"
    expected = {0: "passed", 1: "failed", 2: "interrupted", 5: "passed"}.get(session["exit_status"])
    if expected and session["verdict"] != expected:
        yield f"the verdict is {session['verdict']}, the exit status {session['exit_status']}"
    for test in session["tests"]:
        for attempt in test["attempts"]:
            follows = verdict_of_attempt(attempt["phases"], attempt["subtests"])
            if attempt["verdict"] != follows:
                yield f"{test['test']}: the verdict is {attempt['verdict']}, its phases {follows}"
        if test["attempts"] and test["verdict"] != test["attempts"][-1]["verdict"]:
            yield f"{test['test']}: the verdict is {test['verdict']}, of its last attempt another"
    yield from session["problems"]


def run_problems(archive: Path, listed: Entry) -> Iterator[str]:
    """Whether a run is there, is the one of the session's list, and its files are its own."""
    folder = archive / listed["folder"]
    if folder.is_symlink():
        yield f"{listed['folder']} is a symbolic link"
        return
    try:
        run = read_manifest(folder)
    except ValueError as error:
        yield str(error)
        return
    if sha256(folder / MANIFEST) != listed["sha256"]:
        yield f"{listed['folder']}/{MANIFEST} is not the one that the session listed"
    if run["verdict"] != listed["verdict"]:
        yield f"{listed['folder']}: the verdict is {run['verdict']}, listed {listed['verdict']}"
    broken = any(group["verdict"] in FAILING for group in run["groups"])
    if run["verdict"] == "passed" and broken and run["shared"]:
        yield f"{listed['folder']}: the verdict is passed, but a group of assertions failed"
    for file in kept_files(run):
        if read_kept(folder, file) is None:
            state = "altered" if (folder / file["path"]).is_file() else "missing"
            yield f"{listed['folder']}/{file['path']} is {state}"


def attempt_problems(session: Entry) -> Iterator[str]:
    """Whether the runs have the verdicts of the attempts that made them."""
    listed = {run["folder"]: run for run in session["runs"]}
    for test in session["tests"]:
        for attempt in test["attempts"]:
            run = listed.get(attempt["run"])
            if attempt["run"] and run is None:
                yield f"{test['test']}: its run {attempt['run']} is not in the list of runs"
            elif run and run["verdict"] != attempt["verdict"]:
                yield (
                    f"{run['folder']}: the verdict is {run['verdict']}, of the test "
                    f"{attempt['verdict']}"
                )


def unexpected_files(archive: Path, session: Entry) -> Iterator[str]:
    """Files and links in the archive that the session did not write."""
    known = {archive / name for name in (MANIFEST, CHECKSUM, *VIEWS)}
    known |= {archive / file["path"] for file in comparison_files(session)}
    for listed in session["runs"]:
        folder = archive / listed["folder"]
        known |= {folder / name for name in (MANIFEST, *VIEWS)}
        try:
            known |= {folder / file["path"] for file in kept_files(read_manifest(folder))}
        except ValueError:
            continue
    for path in sorted(archive.rglob("*")):
        if path not in known and (path.is_symlink() or not path.is_dir()):
            yield f"{path.relative_to(archive)} was not written by the session"


def comparison_files(session: Entry) -> list[Entry]:
    """The pages of the comparison that the session made."""
    return session["comparison"]["files"] if session["comparison"] else []

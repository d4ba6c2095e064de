"""Tell the service that runs the tests, by its own means: a summary in Markdown and annotations."""

from collections.abc import Mapping
from pathlib import Path

from ptycho_torch.testing.manifest import VIEWS, Entry
from ptycho_torch.testing.outcomes import FAILING, failing_part, reason

SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"  # a file; GitHub, Gitea and Forgejo show what is added
ANNOTATING_VARIABLE = "GITHUB_ACTIONS"  # "true" where lines such as ::error become annotations
SUMMARY_LIMIT_BYTES = 900_000  # GitHub shows no more than 1 MiB of a step


def write_summary(archive: Path, environment: Mapping[str, str]) -> None:
    """Add the archive's summary to the one of the step, where there is one."""
    target = environment.get(SUMMARY_VARIABLE)
    if target:
        text = (archive / VIEWS[1]).read_bytes()[:SUMMARY_LIMIT_BYTES]
        with Path(target).open("ab") as file:
            file.write(text + b"\n")


def annotations(session: Entry, environment: Mapping[str, str]) -> list[str]:
    """A line for each test that failed, which the service shows beside the code."""
    if environment.get(ANNOTATING_VARIABLE) != "true":
        return []
    return [annotation(test) for test in session["tests"] if test["verdict"] in FAILING]


def annotation(test: Entry) -> str:
    """One failure as a command of the service."""
    part = failing_part(test["attempts"][-1])
    file, _, line = (part["place"] if part else test["test"].partition("::")[0]).rpartition(":")
    where = f"file={escaped(file)},line={line}" if file else f"file={escaped(line)}"
    return f"::error {where},title={escaped(test['test'])}::{escaped(reason(test), in_text=True)}"


def escaped(text: str, *, in_text: bool = False) -> str:
    """Text that cannot end a property or the line of a command."""
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text if in_text else text.replace(":", "%3A").replace(",", "%2C")

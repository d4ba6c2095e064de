"""Which tests a session was asked for.

It is recorded with the session, so that a comparison can tell a test that was not selected from one
that has gone.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from ptycho_torch.testing.manifest import Entry


def describe_selection(config: pytest.Config) -> Entry:
    """What the command line selects; the tests themselves are added when they are collected."""
    named = config.args if config.args_source is pytest.Config.ArgsSource.ARGS else []
    return {
        "named": [relative_id(word, config.rootpath) for word in named],
        "keyword": str(config.option.keyword or ""),
        "marker": str(config.option.markexpr or ""),
        "last_failed": bool(config.getoption("lf", False) or config.getoption("stepwise", False)),
        "collected": [],
        "deselected": [],
    }


def relative_id(word: str, root: Path) -> str:
    """A test, file or folder of the command line as the ids of tests name it: from the root."""
    path, colons, rest = word.partition("::")
    return f"{Path(os.path.relpath(Path(path).absolute(), root)).as_posix()}{colons}{rest}"


class SelectionRecorder:
    """Takes down the tests that were collected, in the process that collects."""

    def __init__(self) -> None:
        self.collected: list[str] = []
        self.deselected: list[str] = []

    def pytest_deselected(self, items: Iterable[pytest.Item]) -> None:
        """Take down what -k, -m or a plugin left out."""
        self.deselected += [item.nodeid for item in items]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Take down what will run."""
        self.collected = [item.nodeid for item in session.items]

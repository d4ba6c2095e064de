"""Remove host name, user name and absolute paths from text."""

import contextlib
import getpass
import os
import re
import socket
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

COMMON_NAMES = {
    "root",
    "localhost",
}  # on every machine, so they tell nothing, and "root mean square" stays readable
# A path is relative after "." or "..", but not after an ellipsis.
NOT_RELATIVE = r"(?<!(?<!\.)\.)(?<!(?<!\.)\.\.)"
EVERYBODYS = "/usr"  # what lies there is not Python's, even where Python does
SHORTEST_NAME_IN_BINARY = 6  # characters; shorter ones occur in random bytes by chance


def machine_names() -> set[str]:
    """Host and user names of this machine."""
    names = {socket.gethostname(), socket.gethostname().partition(".")[0], os.uname().nodename}
    names |= {os.environ.get(key, "") for key in ("USER", "LOGNAME", "HOSTNAME", "SUDO_USER")}
    with contextlib.suppress(
        KeyError, OSError
    ):  # a container's user id without an entry in the password file
        names.add(getpass.getuser())
    return {name for name in names if name and name.lower() not in COMMON_NAMES}


class Redactor:
    """Replaces known folders by names in braces, other paths by `{elsewhere}/last-part`, and names.

    Args:
        folders: (name, folder) pairs; where several match, the longest does.
    """

    def __init__(self, folders: Iterable[tuple[str, Path]]) -> None:
        standard = [("tmp", Path(tempfile.gettempdir())), ("home", Path.home())]
        standard += [
            ("python", Path(prefix))
            for prefix in (sys.prefix, sys.base_prefix)
            if prefix != EVERYBODYS
        ]
        pairs = [
            (str(path), name)
            for name, given in [*folders, *standard]
            for path in (given.absolute(), given.resolve())
        ]
        self._labels = {path: name for path, name in reversed(pairs) if path != path[:1]}
        self._names = machine_names()
        top = "|".join(re.escape(entry.name) for entry in sorted(Path("/").iterdir()))
        known = "|".join(re.escape(path) for path in sorted(self._labels, key=len, reverse=True))
        names = "|".join(re.escape(name) for name in sorted(self._names, key=len, reverse=True))
        self._known = re.compile(rf"(?:{known})(?![\w-]|\.\w)")
        self._other = re.compile(
            rf"(?<![\w}}-]){NOT_RELATIVE}/(?:{top})(?:/[^\s\"'`,:;<>|()\[\]{{}}]*)?(?![\w.-])"
        )
        self._private = re.compile(
            rf"(?<![^\W_])(?<!\{{)(?:{names})(?![^\W_])" if names else r"(?!)", re.IGNORECASE
        )

    def text(self, text: str) -> str:
        """The text without anything private."""
        text = self._known.sub(lambda match: "{" + self._labels[match[0]] + "}", text)
        text = self._other.sub(
            lambda match: "{elsewhere}/" + match[0].rstrip("/").rpartition("/")[2], text
        )
        return self._private.sub("{private}", text)

    def tree(self, value: Any) -> Any:
        """The same JSON-like value with every string in it redacted."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(key): self.tree(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [self.tree(part) for part in value]
        return value

    def is_private(self, data: bytes) -> bool:
        """Whether bytes that are not text hold a known folder or a private name in clear."""
        names = {name for name in self._names if len(name) >= SHORTEST_NAME_IN_BINARY}
        folders = {path for path in self._labels if path.count("/") > 1}
        return any(os.fsencode(word) in data for word in names | folders)

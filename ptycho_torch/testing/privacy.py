"""Remove secrets, host name, user name and absolute paths from text.

What is replaced depends on what the text is for:

- `text`: words for a reader (messages, output, arguments, paths): everything private is replaced.
- `key`: what programs compare (ids of tests, names of metrics): paths, addresses and secrets are
  replaced; a bare word stays, since a user may be called as a metric is.
- `data`: the content of a file that is read by programs: known folders, addresses with a password
  and secrets are replaced; the caller must not give the result the name of the original.

The words of a manifest itself (its keys, verdicts and schema) never come here.
"""

import contextlib
import getpass
import os
import re
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

# Names of service accounts and images, and words that tests are made of: they tell nothing, and
# "root mean square" stays readable.
COMMON_NAMES = frozenset((
    "root", "localhost", "user", "users", "admin", "administrator", "guest", "nobody", "test",
    "tests", "tester", "testing", "pytest", "python", "worker", "runner", "build", "builder",
    "ci", "git", "github", "gitlab", "jenkins", "buildkite", "travis", "docker", "podman",
    "vagrant", "ubuntu", "debian", "fedora", "centos", "linux", "server", "node", "host",
    "data", "home", "tmp", "project",
))  # fmt: skip
# A path is relative after "." or "..", but not after an ellipsis.
NOT_RELATIVE = r"(?<!(?<!\.)\.)(?<!(?<!\.)\.\.)"
EVERYBODYS = "/usr"  # what lies there is not Python's, even where Python does
SHORTEST_NAME_IN_BINARY = 6  # characters; shorter ones occur in random bytes by chance
SHORTEST_SECRET = 6  # characters; a shorter value, such as "1" or "true", is part of ordinary text
SECRET_VARIABLE = re.compile(r"KEY|TOKEN|PASSWORD|PASSWD|SECRET|CREDENTIAL", re.IGNORECASE)
SECRET_OPTION = re.compile(
    r"--?[\w-]*(?:token|passw(?:or)?d|secret|credentials?|(?:api|access|private)[-_]?key)[\w-]*"
    r"|\w*(?:KEY|TOKEN|PASSWORD|SECRET)\w*",
)  # an argument such as --api-token=..., or an assignment such as API_TOKEN=...
REDACTING_OPTION = "--archive-redact"
URL_PASSWORD = re.compile(r"(?<=://)[^/\s@\"']+@")
MAIL_ADDRESS = re.compile(r"(?<![\w.+-])[A-Za-z][\w.+-]*@(?:[\w-]+\.)+[A-Za-z]{2,}(?![\w-])")
QUOTED_PATH = r"(?P<quote>[\"']){path}(?P=quote)"

Replacement = Callable[[re.Match[str]], str]


class Redacted(NamedTuple):
    """Text without private parts, and how often each was replaced, by its name in braces."""

    text: str
    replaced: Counter[str]


def machine_names() -> set[str]:
    """Host and user names of this machine."""
    names = {socket.gethostname(), socket.gethostname().partition(".")[0], os.uname().nodename}
    names |= {os.environ.get(key, "") for key in ("USER", "LOGNAME", "HOSTNAME", "SUDO_USER")}
    with contextlib.suppress(
        KeyError, OSError
    ):  # a container's user id without an entry in the password file
        names.add(getpass.getuser())
    return {name for name in names if name and name.lower() not in COMMON_NAMES}


def secret_values(environment: Mapping[str, str]) -> set[str]:
    """The values of the variables whose names say that they are secrets."""
    return {value for name, value in environment.items() if SECRET_VARIABLE.search(name)}


def secret_arguments(words: Sequence[str]) -> set[str]:
    """The values of arguments whose names say that they are secrets."""
    found = set()
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if SECRET_OPTION.fullmatch(name) or name == REDACTING_OPTION:
            if equals:
                found.add(value)
            elif word.startswith("-") and following and not following.startswith("-"):
                found.add(following)
    return found


class Redactor:
    """Replaces secrets, known folders by names in braces, other paths by `{elsewhere}/last-part`.

    Args:
        folders: (name, folder) pairs; where several match, the longest does.
        patterns: Regular expressions of further secrets.
    """

    def __init__(self, folders: Iterable[tuple[str, Path]], patterns: Iterable[str] = ()) -> None:
        temporary = Path(tempfile.gettempdir())
        self._labels = label_folders([*folders, *standard_folders(temporary)])
        self._names = machine_names()
        self._patterns = [re.compile(pattern) for pattern in patterns]
        self._secrets: set[str] = set()
        self._secret = re.compile(r"(?!)")
        self._known = folder_pattern(self._labels)
        shared = {str(temporary), str(temporary.resolve())}
        private = {path: name for path, name in self._labels.items() if path not in shared}
        self._private_folder = folder_pattern(private)
        self._private_folders = [path for path in private if path.count("/") > 1]
        self._others = other_path_patterns()
        self._name = name_pattern(self._names)
        self.learn(secret_values(os.environ))

    def learn(self, secrets: Iterable[str]) -> None:
        """Replace these words, too, from now on; each line of one that has several."""
        for secret in secrets:
            for line in secret.splitlines():
                if len(line.strip()) >= SHORTEST_SECRET:
                    self._secrets |= {line.strip(), quote(line.strip(), safe="")}
        if self._secrets:
            self._secret = re.compile(alternatives(self._secrets))

    def text(self, text: str) -> Redacted:
        """The words for a reader without anything private."""
        return self._replace(text, bare_names=True, all_paths=True)

    def key(self, text: str) -> Redacted:
        """A name that programs compare, without paths, addresses and secrets."""
        return self._replace(text, bare_names=False, all_paths=True)

    def data(self, text: str) -> Redacted:
        """The content of a file for programs without known folders, passwords and secrets."""
        return self._replace(text, bare_names=False, all_paths=False)

    def arguments(self, words: Sequence[str]) -> list[Redacted]:
        """The words of a command; names of options stay as they are."""
        self.learn(secret_arguments(words))
        hidden = secret_arguments(words)
        found = []
        for word in words:
            option, equals, value = word.partition("=")
            if not (word.startswith("-") or SECRET_OPTION.fullmatch(option)):
                option, equals, value = "", "", word
            option += equals
            if value in hidden or (not equals and word in hidden):
                found.append(Redacted(f"{option}{{secret}}", Counter(["secret"])))
            elif word.startswith("-") and not equals:
                found.append(self.key(word))
            else:
                public = self.text(value)
                found.append(Redacted(option + public.text, public.replaced))
        return found

    def is_private(self, data: bytes) -> bool:
        """Whether bytes that are not text hold a known folder, a name or a secret in clear."""
        names = {name for name in self._names if len(name) >= SHORTEST_NAME_IN_BINARY}
        words = names | set(self._private_folders) | self._secrets
        return any(os.fsencode(word) in data for word in words)

    def mask(self, text: str) -> str:
        """The text without secrets; folders and names stay, as on the user's own terminal."""
        return self._replace_secrets(text, Counter())

    def _replace_secrets(self, text: str, replaced: Counter[str]) -> str:
        """The text with secrets replaced and counted."""
        for pattern in (self._secret, *self._patterns):
            text = substitute(pattern, text, replaced, lambda _: "{secret}")
        return substitute(URL_PASSWORD, text, replaced, lambda _: "{private}@")

    def _replace(self, text: str, *, bare_names: bool, all_paths: bool) -> Redacted:
        """The text with secrets, then folders, then addresses and names replaced."""
        replaced: Counter[str] = Counter()
        text = self._replace_secrets(text, replaced)
        known = self._known if all_paths else self._private_folder
        text = substitute(known, text, replaced, self._label)
        if all_paths:
            for other in self._others:
                text = substitute(other, text, replaced, elsewhere)
            text = substitute(MAIL_ADDRESS, text, replaced, lambda _: "{private}")
        if bare_names:
            text = substitute(self._name, text, replaced, lambda _: "{private}")
        return Redacted(text, replaced)

    def _label(self, match: re.Match[str]) -> str:
        """The name of a known folder in braces."""
        return "{" + self._labels[match[0]] + "}"


def standard_folders(temporary: Path) -> list[tuple[str, Path]]:
    """The folders of this machine that every program has: temporary, home, Python's."""
    with contextlib.suppress(KeyError, OSError):
        return [
            ("tmp", temporary),
            ("tmp", temporary / f"pytest-of-{getpass.getuser()}"),
            ("home", Path.home()),
            *python_folders(),
        ]
    return [("tmp", temporary), ("home", Path.home()), *python_folders()]


def python_folders() -> list[tuple[str, Path]]:
    """Where Python lies, unless everybody's programs lie there."""
    prefixes = (sys.prefix, sys.base_prefix)
    return [("python", Path(prefix)) for prefix in prefixes if prefix != EVERYBODYS]


def label_folders(folders: Iterable[tuple[str, Path]]) -> dict[str, str]:
    """Label by path, as it stands in text and as addresses encode it; the first label wins."""
    pairs = [
        (spelling, name)
        for name, given in folders
        for path in dict.fromkeys((str(given.absolute()), str(given.resolve())))
        for spelling in dict.fromkeys((path, quote(path), quote(path, safe="")))
    ]
    return {path: name for path, name in reversed(pairs) if path not in ("/", "%2F")}


def folder_pattern(labels: Mapping[str, str]) -> re.Pattern[str]:
    """Matches one of the folders, the longest first, not as the beginning of another name."""
    return re.compile(rf"(?:{alternatives(labels)})(?![\w-]|\.\w)" if labels else r"(?!)")


def other_path_patterns() -> tuple[re.Pattern[str], ...]:
    """Match absolute paths of this machine: quoted ones with spaces, plain and encoded ones."""
    top = "|".join(re.escape(entry.name) for entry in sorted(Path("/").iterdir()))
    start = rf"{NOT_RELATIVE}/(?:{top})"
    end = r"(?![\w.-])"
    return (
        re.compile(QUOTED_PATH.format(path=rf"(?P<path>{start}/[^\"'\n]*)")),
        re.compile(rf"(?<![\w}}-])(?P<path>{start}(?:/(?:\\ |[^\s\"'`,:;<>|()\[\]{{}}])*)?){end}"),
        re.compile(rf"(?<![\w}}])(?P<path>%2[Ff](?:{top})(?:%2[Ff](?:[\w.~-]|%\w\w)*)*){end}"),
    )


def name_pattern(names: Iterable[str]) -> re.Pattern[str]:
    """Matches a name as a word of its own; its spaces may be encoded or escaped."""
    spelled = [
        re.escape(name).replace(r"\ ", r"(?:\\?\s|%20|\+)")
        for name in sorted(names, key=len, reverse=True)
    ]
    words = "|".join(spelled)
    return re.compile(
        rf"(?<![^\W_])(?<!\{{)(?:{words})(?![^\W_])" if spelled else r"(?!)", re.IGNORECASE
    )


def alternatives(words: Iterable[str]) -> str:
    """A regular expression that matches one of the words, the longest first."""
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


def elsewhere(match: re.Match[str]) -> str:
    """The last part of a path of which nothing else may be told."""
    path = match["path"]
    separator = "/" if path.startswith("/") else path[:3]
    last = path.rstrip("/").rpartition(separator)[2]
    return match[0].replace(path, f"{{elsewhere}}/{last}")


def substitute(
    pattern: re.Pattern[str], text: str, replaced: Counter[str], replacement: Replacement
) -> str:
    """The text with every match replaced, and the names in braces counted."""

    def count(match: re.Match[str]) -> str:
        words = replacement(match)
        replaced[words[words.index("{") + 1 : words.index("}")]] += 1
        return words

    return pattern.sub(count, text)

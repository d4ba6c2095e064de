"""Write `specs/command_line.md` from the table of commands: `python docs/command_line.py`."""

import dataclasses
import re
import typing
from collections.abc import Iterable, Iterator
from dataclasses import Field
from pathlib import Path
from typing import Any

from ptycho_torch.config.commands import COMMANDS
from ptycho_torch.config.options import KINDS, Options, choices_of, value_type
from ptycho_torch.config.parser import DEPRECATED_FLAGS, DEPRECATED_VALUES, IGNORED_FLAGS
from ptycho_torch.config.registry import load

TARGET = Path(__file__).parent.parent / "specs" / "command_line.md"

OTHER_NAMES = {"train": "python -m ptycho_torch.train", "infer": "python -m ptycho_torch.inference"}

INTRODUCTION = """# Command line

`python docs/command_line.py` writes this document from `ptycho_torch.config`.

```
ptycho-torch help               the list of commands; also --help and -h
ptycho-torch help COMMAND       the options of a command; also ptycho-torch COMMAND --help
ptycho-torch --version          the version; every command has this flag too
python -m ptycho_torch COMMAND  the same as ptycho-torch COMMAND
```

- The words of a flag are joined by `_` or by `-`: `--output_dir` and `--output-dir` are the same.
- A flag is written in full. A wrong or a shortened one is refused with the one that was meant.
- `--config FILE` gives any of the options of a command in YAML or JSON, with the names below as
  keys; flags override the file. The `config.yaml` of a run folder is such a file.
- A switch takes no value; `--no_NAME` switches it off.
- An option in the table of a command takes the place of a shared option of the same name.
- Exit status: 0 success, 1 the run failed, 2 the input cannot be used, 3 the result is not to be
  trusted (`infer --strict`; its files are all there), 130 and 143 ended by Ctrl-C and SIGTERM.
  Every status but 0 comes with one sentence on stderr.
"""


def text() -> str:
    """The whole document."""
    types = {name: load(command.options) for name, command in COMMANDS.items()}
    lines = [INTRODUCTION, "| command | purpose |", "| --- | --- |"]
    lines += [f"| [`{name}`](#{name}) | {command.help} |" for name, command in COMMANDS.items()]
    shared: dict[type[Options], list[str]] = {}
    for name, config_type in types.items():
        lines += ["", *command_section(name, config_type)]
        for owner in shared_types(config_type):
            shared.setdefault(owner, []).append(name)
    lines += ["", "## Options of several commands"]
    for owner, names in shared.items():
        purpose = str(owner.__doc__).partition("\n")[0]
        lines += ["", f"### {title(owner)}", "", f"{purpose} Used by {joined(names)}.", ""]
        lines += table(owner, own_fields(owner))
    return "\n".join([*lines, "", *older_names(), ""])


def command_section(name: str, config_type: type[Options]) -> Iterator[str]:
    """The lines about one command: usage, its own options, and links to the shared ones."""
    own = own_fields(config_type)
    places = [item.name.upper() for item in own if item.metadata["positional"]]
    usage = f"ptycho-torch {name}"
    yield f"## {name}"
    yield ""
    yield from ["```", " ".join([usage, *places, "[options]"])]
    if name in OTHER_NAMES:
        yield f"{OTHER_NAMES[name]} [options]"
    yield from ["```", "", str(config_type.__doc__), ""]
    if own:
        yield from [*table(config_type, own), ""]
    links = [f"[{title(owner)}](#{anchor(owner)})" for owner in shared_types(config_type)]
    yield f"Also: {', '.join(links)}."


def own_fields(config_type: type[Options]) -> list[Field]:
    """The options that a class declares itself, positional ones first."""
    names = vars(config_type).get("__annotations__", {})
    own = [item for item in dataclasses.fields(config_type) if item.name in names]
    return sorted(own, key=lambda item: not item.metadata["positional"])


def shared_types(config_type: type[Options]) -> list[type[Options]]:
    """The classes of shared options that a class of options derives from."""
    owners = [owner for owner in config_type.__mro__[1:] if issubclass(owner, Options)]
    return [owner for owner in owners if own_fields(owner)]


def title(owner: type[Options]) -> str:
    """Heading of a class of shared options."""
    return re.sub(r"(?<!^)([A-Z])", r" \1", owner.__name__).capitalize()


def anchor(owner: type[Options]) -> str:
    """The same as the target of a link."""
    return title(owner).lower().replace(" ", "-")


def joined(names: Iterable[str]) -> str:
    """Names of commands as text."""
    return ", ".join(f"`{name}`" for name in names)


def table(config_type: type[Options], items: list[Field]) -> Iterator[str]:
    """The table of some options."""
    hints = typing.get_type_hints(config_type)
    yield "| option | accepts | meaning | default |"
    yield "| --- | --- | --- | --- |"
    for item in items:
        name = item.name.upper() if item.metadata["positional"] else f"--{item.name}"
        meaning = item.metadata["help"].replace("|", "/")
        accepted = accepts(item, hints[item.name])
        yield f"| `{name}` | {accepted} | {meaning} | {default_of(item)} |"


def accepts(item: Field, annotation: Any) -> str:
    """The words, or the kind of value, that an option accepts."""
    several = typing.get_origin(annotation) is list
    choices = choices_of(item, annotation)
    if choices:
        return ("one or more of " if several else "") + ", ".join(f"`{word}`" for word in choices)
    kind = KINDS[value_type(annotation)]
    if item.metadata["minimum"] is not None:
        kind += f" ≥ {item.metadata['minimum']:g}"
    return f"one {kind} or more" if several else kind


def default_of(item: Field) -> str:
    """The default of an option."""
    if item.default is dataclasses.MISSING:
        return "required"
    return "none" if item.default in (None, ()) else f"`{item.default}`"


def older_names() -> Iterator[str]:
    """Flags and values that are still accepted, with a warning."""
    yield from ["## Older names", ""]
    for name, newer in DEPRECATED_FLAGS.items():
        yield f"- `{name}` is an older name of `{newer}`."
    for (flag, value), newer in DEPRECATED_VALUES.items():
        yield f"- `{flag} {value}` is an older name of `{flag} {newer}`."
    for name, reason in IGNORED_FLAGS.items():
        yield f"- `{name}` is accepted and has no effect: {reason}."


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")

"""From a command line and a YAML file to the options of a command, and back to YAML."""

import argparse
import dataclasses
import logging
import typing
from collections.abc import Sequence
from dataclasses import MISSING, Field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import ActionYesNo, ArgumentError, ArgumentParser

from ptycho_torch import __version__
from ptycho_torch.config.flag_names import check_flags, plain_sentence, similar_names
from ptycho_torch.config.options import (
    SWITCHES,
    Options,
    Switch,
    choices_of,
    is_optional,
    value_type,
)
from ptycho_torch.config.yaml_file import TextLoader, read_yaml
from ptycho_torch.errors import InputError

logger = logging.getLogger(__name__)

Config = TypeVar("Config", bound=Options)

DEPRECATED_FLAGS = {
    "--device": "--accelerator",
    "--torch_loss_mode": "--loss",
    "--probe_trainable": "--refine_measurement",
    "--no_probe_trainable": "--no_refine_measurement",
}
DEPRECATED_VALUES = {
    ("--loss", "mae"): "amplitude",
    **{(f"--{name}", "true"): "on" for name in SWITCHES},
    **{(f"--{name}", "false"): "off" for name in SWITCHES},
}
IGNORED_FLAGS = {"--disable_mlflow": "MLflow is used only with --logger mlflow"}
BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
PLACEHOLDERS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}  # of a value, in the help
MAX_WORD = 4096  # characters of a value; the longest path of Linux
# A byte of a file name that is not UTF-8 is half a character for Python (PEP 383), which the
# parser's YAML refuses. It passes the parser as a character for private use.
TO_PRIVATE = {0xDC00 + byte: 0x10DC00 + byte for byte in range(0x80, 0x100)}
FROM_PRIVATE = {hidden: shown for shown, hidden in TO_PRIVATE.items()}
MAX_SENTENCE = 400  # characters of an error of the parser, which repeats values in full


def build_parser(config_type: type[Options], prog: str) -> ArgumentParser:
    """Parser of the flags of a class of options, with ``--config FILE.yaml``.

    The help lists the command's own options first, then a group for each class that it shares.
    """
    parser = ArgumentParser(
        prog=prog,
        description=config_type.__doc__,
        formatter_class=argparse.HelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version", action="version", version=__version__, help="print the version and exit"
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="YAML or JSON file with any of these options; flags override it",
    )
    hints = typing.get_type_hints(config_type)
    fields = {item.name: item for item in dataclasses.fields(config_type)}
    for owner in config_type.__mro__:
        own = [
            fields.pop(name) for name in vars(owner).get("__annotations__", {}) if name in fields
        ]
        title = (
            config_type.__name__
            if owner is config_type
            else str(owner.__doc__).partition("\n")[0].rstrip(".")
        )
        group = (
            parser.add_argument_group("options" if owner is config_type else title)
            if own
            else parser
        )
        for item in own:
            add_flag(group, item, hints[item.name])
    return parser


def add_flag(group: Any, item: Field, annotation: Any) -> None:
    """Add the flag, or the positional argument, of one field to a parser or a group of it."""
    help_text, choices = help_of(item), choices_of(item, annotation)
    if item.metadata["positional"]:
        several = {"nargs": "+"} if typing.get_origin(annotation) is list else {}
        group.add_argument(
            item.name,
            type=value_type(annotation),
            metavar=item.name.upper(),
            help=help_text,
            **several,
        )
        return
    name = f"--{item.name}"
    if annotation is bool:
        action = ActionYesNo(yes_prefix="", no_prefix="no_")
        group.add_argument(name, action=action, default=item.default, help=help_text)
        return
    settings: dict[str, Any] = {
        "type": annotation,
        "metavar": PLACEHOLDERS[value_type(annotation)],
        "help": help_text,
        "required": item.default is MISSING,
    }
    if item.default is not MISSING:
        settings["default"] = item.default
    if typing.get_origin(annotation) is list:
        settings |= {"type": value_type(annotation), "nargs": "+"}
        if "default" in settings:
            settings["default"] = list(settings["default"])
    elif is_optional(annotation):
        settings["type"] = value_type(annotation)
    if choices == typing.get_args(Switch):
        settings |= {"nargs": "?", "const": "on"}
    if choices:  # the class of options checks them, with a sentence of its own
        settings |= {"type": str, "metavar": "{" + ",".join(choices) + "}"}
    group.add_argument(name, **settings)


def help_of(item: Field) -> str:
    """The help text of a field, with its default, for a formatter that reads ``%`` as a sign."""
    text = str(item.metadata["help"])
    if item.default is MISSING and not item.metadata["positional"]:
        text += " (required)"
    elif isinstance(item.default, bool):
        text += f" (default: {'yes' if item.default else 'no'})"
    elif item.default not in (MISSING, None, ()) and "default:" not in text:
        text += f" (default: {item.default})"
    return text.replace("%", "%%")


def current_names(argv: Sequence[str]) -> list[str]:
    """The command line with ``_`` for ``-`` in flag names, and without deprecated names."""
    result: list[str] = []
    for word in argv:
        if not word.startswith("--"):
            result.append(DEPRECATED_VALUES.get((result[-1] if result else "", word), word))
            continue
        name, equals, value = word.partition("=")
        name = "--" + name[2:].replace("-", "_")
        if name in IGNORED_FLAGS:
            logger.warning("%s has no effect: %s", name, IGNORED_FLAGS[name])
            continue
        if name.startswith("--no_") and name[5:] in SWITCHES:
            name, equals, value = f"--{name[5:]}", "=", "off"
        if name in DEPRECATED_FLAGS:
            logger.warning("%s is an older name; use %s", name, DEPRECATED_FLAGS[name])
            name = DEPRECATED_FLAGS[name]
        result.append(name)
        if equals:
            result.append(DEPRECATED_VALUES.get((name, value), value))
    return result


def take_config_files(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The files of every ``--config FILE``, and the other words."""
    places = [i for i, word in enumerate(words) if word == "--config"]
    if places and places[-1] == len(words) - 1:
        raise InputError("--config: expected the name of a YAML file")
    others = [word for i, word in enumerate(words) if i not in places and i - 1 not in places]
    return [Path(words[i + 1]) for i in places], others


def words_of_file(config_type: type[Options], path: Path) -> list[str]:
    """The options of a YAML file as words of a command line; an option that is null is left out."""
    content = read_yaml(path, loader=TextLoader)
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected lines such as 'seed: 1', an option and its value")
    hints = typing.get_type_hints(config_type)
    fields = {item.name: item for item in dataclasses.fields(config_type)}
    words = []
    for given, value in content.items():
        name = DEPRECATED_FLAGS.get(f"--{given}", f"--{given}")[2:]
        if name not in fields:
            meant = ", ".join(similar_names(name, fields))
            advice = f"is {meant} meant?" if meant else "see --help"
            raise InputError(f"{path}: there is no option '{name}'; {advice}")
        if value is None or (value == [] and fields[name].default is not MISSING):
            continue
        several = typing.get_origin(hints[name]) is list
        values = value if several and isinstance(value, list) else [value]
        if not values or not all(isinstance(one, str) for one in values):
            expected = "a value or a list of values" if several else "one value"
            raise InputError(f"{path}: {name} is {str(value)[:80]}; expected {expected}")
        if hints[name] is bool:
            if value.lower() not in BOOLEANS:
                raise InputError(f"{path}: {name} is {value}; expected true or false")
            words.append(f"--{name}" if BOOLEANS[value.lower()] else f"--no_{name}")
        elif fields[name].metadata["positional"]:
            words += values
        else:
            values = [DEPRECATED_VALUES.get((f"--{name}", one.lower()), one) for one in values]
            words += [f"--{name}", *values] if len(values) > 1 else [f"--{name}={values[0]}"]
    return words


def _check_words(words: Sequence[str]) -> None:
    """Raise `InputError` for values that are empty, or longer than any path."""
    for before, word in zip(("", *words), words, strict=False):
        name, value = (
            word.split("=", 1) if word.startswith("--") and "=" in word else (before, word)
        )
        if not value:
            raise InputError(
                f"{name} is followed by an empty value; is a variable of the shell unset?"
            )
        if len(value) > MAX_WORD:
            raise InputError(f"{name} has more than {MAX_WORD} characters")


def parse(config_type: type[Config], argv: Sequence[str], *, prog: str) -> Config:
    """The options that a command line asks for.

    Args:
        config_type: A class of options.
        argv: Words after the program's name.
        prog: Name for the usage line.

    Returns:
        The options; ``--help`` and ``--version`` print and leave with status 0.

    Raises:
        InputError: For a word that is not understood, or a value out of range.
    """
    parser = build_parser(config_type, prog)
    files, flags = take_config_files(current_names(argv))
    check_flags(config_type, flags, prog=prog)
    words = [word for file in files for word in words_of_file(config_type, file)] + flags
    _check_words(words)
    try:
        values = parser.parse_args([word.translate(TO_PRIVATE) for word in words]).as_dict()
    except (ArgumentError, RecursionError) as error:  # it reads values as YAML, however nested
        sentence = plain_sentence(config_type, " ".join(str(error).split()))[:MAX_SENTENCE]
        raise InputError(f"{sentence}; see {prog} --help") from error
    del values["config"]
    config = config_type(**{name: _with_bytes(value) for name, value in values.items()})
    if getattr(config, "overwrite", False):
        _check_not_replaced(files, values.get("output_dir"))
    return config


def _with_bytes(value: Any) -> Any:
    """A parsed value with the bytes of file names that were hidden from the parser."""
    if isinstance(value, list | tuple):
        return type(value)(_with_bytes(item) for item in value)
    return (
        type(value)(str(value).translate(FROM_PRIVATE)) if isinstance(value, str | Path) else value
    )


def _check_not_replaced(files: Sequence[Path], output_dir: Path | None) -> None:
    """Raise `InputError` if a configuration that is read lies where ``--overwrite`` writes one."""
    for file in files:
        if output_dir is not None and file.resolve().parent == output_dir.resolve():
            raise InputError(f"--config {file} lies in --output_dir; copy it elsewhere first")


def to_yaml(config: Options) -> str:
    """The options as YAML that ``--config`` reads back in any folder.

    Paths are absolute; an option that is not set is left out.
    """
    values = dataclasses.asdict(config)
    if values.get("resume") not in (None, "auto"):
        values["resume"] = Path(values["resume"])
    content = {
        name: _plain_value(_absolute(value)) for name, value in values.items() if value is not None
    }
    return yaml.safe_dump(content, sort_keys=False)


def _absolute(value: Any) -> Any:
    """A path as an absolute one, a list of paths as a list of such, anything else as it is."""
    if isinstance(value, list | tuple):
        return [_absolute(item) for item in value]
    return value.absolute() if isinstance(value, Path) else value


def to_dict(config: Options) -> dict[str, Any]:
    """The options as plain numbers, strings and lists."""
    return {name: _plain_value(value) for name, value in dataclasses.asdict(config).items()}


def _plain_value(value: Any) -> Any:
    """A path as a string, a list of paths as a list of strings, anything else as it is."""
    if isinstance(value, list | tuple):
        return [_plain_value(item) for item in value]
    return str(value) if isinstance(value, Path) else value

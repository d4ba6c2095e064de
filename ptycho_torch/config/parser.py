"""From a command line and a YAML file to the options of a command, and back to YAML."""

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
from ptycho_torch.config.options import Options, choices_of, is_optional
from ptycho_torch.errors import InputError

logger = logging.getLogger(__name__)

Config = TypeVar("Config", bound=Options)

DEPRECATED_FLAGS = {"--device": "--accelerator", "--torch_loss_mode": "--loss"}
DEPRECATED_VALUES = {("--loss", "mae"): "amplitude"}
IGNORED_FLAGS = {"--disable_mlflow": "MLflow is used only with --logger mlflow"}


def build_parser(config_type: type[Options], prog: str) -> ArgumentParser:
    """Parser of the flags of a class of options, with ``--config FILE.yaml``.

    The help lists the command's own options first, then a group for each class that it shares.
    """
    parser = ArgumentParser(prog=prog, description=config_type.__doc__, exit_on_error=False)
    parser.add_argument(
        "--version", action="version", version=__version__, help="print the version and exit"
    )
    parser.add_argument(
        "--config",
        action="config",
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
    help_text, choices = item.metadata["help"], choices_of(item, annotation)
    if item.metadata["positional"]:
        group.add_argument(item.name, type=annotation, help=help_text)
        return
    name = f"--{item.name}"
    if annotation is bool:
        action = ActionYesNo(yes_prefix="", no_prefix="no_")
        group.add_argument(name, action=action, default=item.default, help=help_text)
        return
    settings: dict[str, Any] = {
        "type": annotation,
        "help": help_text,
        "required": item.default is MISSING,
    }
    if item.default is not MISSING:
        settings["default"] = item.default
    if typing.get_origin(annotation) is list:
        settings |= {"type": typing.get_args(annotation)[0], "nargs": "+"}
        if "default" in settings:
            settings["default"] = list(settings["default"])
    elif is_optional(annotation):
        settings["type"] = typing.get_args(annotation)[0]
    if choices:  # the class of options checks them, with a sentence of its own
        settings |= {"type": str, "metavar": "{" + ",".join(choices) + "}"}
    group.add_argument(name, **settings)


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
        if name in DEPRECATED_FLAGS:
            logger.warning("%s is an older name; use %s", name, DEPRECATED_FLAGS[name])
            name = DEPRECATED_FLAGS[name]
        result.append(name)
        if equals:
            result.append(DEPRECATED_VALUES.get((name, value), value))
    return _file_first(result)


def _file_first(words: list[str]) -> list[str]:
    """The words with ``--config FILE`` before all others, which then override it."""
    places = [i for i, word in enumerate(words) if word == "--config"]
    files = [word for i in places for word in words[i : i + 2]]
    return files + [word for i, word in enumerate(words) if i not in places and i - 1 not in places]


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
    try:
        values = parser.parse_args(current_names(argv)).as_dict()
    except (ArgumentError, UnicodeDecodeError) as error:  # the latter for a file that is no text
        raise InputError(f"{' '.join(str(error).split())}; see {prog} --help") from error
    files = [Path(str(file)) for file in values.pop("config") or []]
    config = config_type(**values)
    if getattr(config, "overwrite", False):
        _check_not_replaced(files, values.get("output_dir"))
    return config


def _check_not_replaced(files: Sequence[Path], output_dir: Path | None) -> None:
    """Raise `InputError` if a configuration that is read lies where ``--overwrite`` writes one."""
    for file in files:
        if output_dir is not None and file.resolve().parent == output_dir.resolve():
            raise InputError(f"--config {file} lies in --output_dir; copy it elsewhere first")


def to_yaml(config: Options) -> str:
    """The options as YAML that ``--config`` reads back; an option that is not set is left out."""
    return yaml.safe_dump(
        {key: value for key, value in to_dict(config).items() if value is not None}, sort_keys=False
    )


def to_dict(config: Options) -> dict[str, Any]:
    """The options as plain numbers, strings and lists."""
    return {name: _plain_value(value) for name, value in dataclasses.asdict(config).items()}


def _plain_value(value: Any) -> Any:
    """A path as a string, a list of paths as a list of strings, anything else as it is."""
    if isinstance(value, list | tuple):
        return [_plain_value(item) for item in value]
    return str(value) if isinstance(value, Path) else value

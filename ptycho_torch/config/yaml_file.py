"""Read YAML files within limits, so that no file can hang the program or fill the memory."""

from pathlib import Path
from typing import Any

import yaml

from ptycho_torch.errors import InputError

MAX_BYTES = 1_000_000  # bytes of a file; thousands of paths fit in
MAX_DEPTH = 8  # lists and mappings in one another; no file of this package has more than three


class TextLoader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """Values as they were typed: neither 10:10:10:10 nor yes is converted; only null is None."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # yaml's own way to set them
        first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith(":null")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """The content of a mapping, in which each key stands once."""
        names = [str(key.value) for key, _ in node.value]
        for key, _ in node.value:
            if names.count(str(key.value)) > 1:
                problem = f"'{key.value}' stands there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path, *, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """The content of a YAML file, which may hold no aliases and no tags.

    Raises:
        InputError: If it cannot be read, is not YAML, or exceeds a limit.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise InputError(f"{path}: larger than {MAX_BYTES} bytes; is it the right file?")
        text = data.decode("utf-8")
        _check_events(path, text)
        return yaml.load(text, Loader=loader)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{path}: line {line} is not YAML ({error.problem})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a YAML file of text") from error
    except (ValueError, OverflowError) as error:  # a date or a number that cannot be
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: holds an impossible value ({error})") from error


def _check_events(path: Path, text: str) -> None:
    """Raise `InputError` for aliases, tags and deep nesting, before anything is built."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise InputError(f"{path}: line {line} holds an alias (*); write the value out")
        if getattr(event, "tag", None) is not None:
            raise InputError(f"{path}: line {line} holds a tag (!); write the plain value")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise InputError(f"{path}: line {line} nests lists or mappings too deeply")

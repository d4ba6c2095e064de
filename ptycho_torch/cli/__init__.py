"""`ptycho-torch COMMAND`: all commands of `COMMANDS` under one name."""

import sys
from collections.abc import Sequence

from ptycho_torch import __version__
from ptycho_torch.config.commands import COMMANDS
from ptycho_torch.config.runner import UNUSABLE_INPUT, run


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first word names, and return its exit status."""
    name, *words = (sys.argv[1:] if argv is None else list(argv)) or [""]
    if name == "--version":
        print(__version__)
        return 0
    if name in ("help", "-h", "--help") and words[:1] and words[0] in COMMANDS:
        return run(words[0], ["--help"])
    if name in ("", "help", "-h", "--help"):
        print(usage())
        return 0 if name else UNUSABLE_INPUT
    if name not in COMMANDS:
        print(f"error: no command '{name}'; expected one of {', '.join(COMMANDS)}", file=sys.stderr)
        return UNUSABLE_INPUT
    return run(name, words)


def usage() -> str:
    """The list of commands."""
    lines = [f"  {name:10} {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: ptycho-torch COMMAND [options]",
            "",
            *lines,
            "",
            "ptycho-torch help COMMAND lists the options.",
        ]
    )

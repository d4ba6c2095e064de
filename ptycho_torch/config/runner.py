"""Run a command: parse, log to the console, turn expected failures into a sentence and a status."""

import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType

from ptycho_torch.config.commands import COMMANDS, Command
from ptycho_torch.config.parser import parse
from ptycho_torch.config.registry import load
from ptycho_torch.errors import InputError, RunError, Stopped

FAILED, UNUSABLE_INPUT = 1, 2  # exit statuses

package_logger = logging.getLogger("ptycho_torch")


def run(name: str, argv: Sequence[str] | None = None, *, prog: str = "") -> int:
    """Run a command of `COMMANDS`; see `run_command`."""
    return run_command(COMMANDS[name], argv, prog=prog or f"ptycho-torch {name}")


def run_command(command: Command, argv: Sequence[str] | None, *, prog: str) -> int:
    """Parse a command line, call the function of the command, and return the exit status.

    Args:
        command: What to run.
        argv: Words after the program's name; by default those of this process.
        prog: Name for the usage line.

    Returns:
        0; 1 if the run failed or the machine did, 2 if the input cannot be used, 130 and 143 if it
        was ended by Ctrl-C and SIGTERM. All of them come with one sentence on stderr, and the first
        two with ``--debug`` with the traceback.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    debug = "--debug" in words
    with _console(), _stoppable():
        try:
            config = parse(load(command.options), words, prog=prog)
            if getattr(config, "quiet", False):
                package_logger.handlers[-1].setLevel(logging.WARNING)
            load(command.function)(config)
        except InputError as error:
            return _fail(error, UNUSABLE_INPUT, debug)
        except (RunError, OSError, MemoryError) as error:
            return _fail(error, FAILED, debug)
        except Stopped as stopped:
            print(
                f"error: ended by {stopped.name}; what was finished before is kept", file=sys.stderr
            )
            return int(str(stopped.code))
    return 0


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Ctrl-C and SIGTERM raise `Stopped` in the block; locks and half-written files are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, _frame: FrameType | None) -> None:
    """Raise `Stopped`; a second signal of the same kind is ignored meanwhile."""
    signal.signal(number, signal.SIG_IGN)
    raise Stopped(number)


def _fail(error: Exception, status: int, debug: bool) -> int:
    """Print what went wrong on stderr, or raise it with ``--debug``."""
    if debug:
        raise error
    print(f"error: {error or type(error).__name__}", file=sys.stderr)
    return status


@contextlib.contextmanager
def _console() -> Iterator[None]:
    """Messages of the package on stderr until the block ends."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.INFO)
    handler.setFormatter(_WarningFormatter())
    package_logger.setLevel(logging.DEBUG)
    package_logger.addHandler(handler)
    try:
        yield
    finally:
        package_logger.removeHandler(handler)


class _WarningFormatter(logging.Formatter):
    """The message alone, with its level where that is a warning or worse."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        return (
            message
            if record.levelno < logging.WARNING
            else f"{record.levelname.lower()}: {message}"
        )

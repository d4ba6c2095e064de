"""Run a command: parse, log to the console, turn expected failures into a sentence and a status."""

import contextlib
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType

from ptycho_torch.config.commands import COMMANDS, Command
from ptycho_torch.config.parser import parse
from ptycho_torch.config.registry import load
from ptycho_torch.errors import InputError, NotTrustedError, RunError, Stopped, is_lack_of_memory

FAILED, UNUSABLE_INPUT, NOT_TRUSTED = 1, 2, 3  # exit statuses
REPEAT_S = 1.0  # seconds after which a signal that ended nothing is raised again

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
        0; 1 if the run failed or the machine did, 2 if the input cannot be used or does not fit
        into memory, 3 if ``--strict`` was given and the result is not to be trusted, 130 and 143 if
        it was ended by Ctrl-C and SIGTERM. All but 0 come with one sentence on stderr; ``--debug``
        shows the traceback of the first two.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    debug = "--debug" in words
    with _console(), _stoppable(argv is None), _without_display(), _quiet_threads():
        try:
            config = parse(load(command.options), words, prog=prog)
            if getattr(config, "quiet", False):
                package_logger.handlers[-1].setLevel(logging.WARNING)
            load(command.function)(config)
        except InputError as error:
            return _fail(error, UNUSABLE_INPUT, debug)
        except (MemoryError, RuntimeError, ValueError) as error:
            if isinstance(error, NotTrustedError):
                return _fail(error, NOT_TRUSTED, debug)
            if isinstance(error, RunError):
                return _fail(error, FAILED, debug)
            if not is_lack_of_memory(error):
                raise
            reason = (str(error).splitlines() or ["out of memory"])[0]
            sentence = f"this needs more memory than there is ({reason})"
            return _fail(error if debug else InputError(sentence), UNUSABLE_INPUT, debug)
        except OSError as error:
            return _fail(error, FAILED, debug)
        except Stopped as stopped:
            print(
                f"error: ended by {stopped.name}; what was finished before is kept", file=sys.stderr
            )
            return int(str(stopped.code))
    return 0


@contextlib.contextmanager
def _stoppable(own_process: bool) -> Iterator[None]:
    """Ctrl-C and SIGTERM raise `Stopped` in the block; locks and half-written files are removed.

    An exception that a signal raises can be lost in the middle of a library. It is raised again
    until it has ended the block. A further signal is ignored meanwhile.

    Args:
        own_process: Whether the process ends with the block; a further signal then ends it at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    timers: list[threading.Timer] = []
    ended = False

    def stop(number: int, _frame: FrameType | None) -> None:
        if ended:
            return
        timers.append(threading.Timer(REPEAT_S, _signal_main_thread, [number]))
        timers[-1].daemon = True
        timers[-1].start()
        if not _stopping():
            raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        ended = True
        for timer in timers:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if timers and own_process else handler)


def _signal_main_thread(number: int) -> None:
    """Send a signal to the main thread, where that is possible so that it wakes up."""
    main = threading.main_thread().ident
    if main is not None and hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main, number)
    else:
        signal.raise_signal(number)


def _stopping() -> bool:
    """Whether a `Stopped` is on its way, so that what runs now is cleaning up."""
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, Stopped):
        error = error.__context__
    return error is not None


@contextlib.contextmanager
def _without_display() -> Iterator[None]:
    """Without the backend of matplotlib that a notebook sets for itself; pictures are files."""
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        yield
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend


@contextlib.contextmanager
def _quiet_threads() -> Iterator[None]:
    """Errors of threads go to the log; what they lack ends the main thread with a sentence."""
    before = threading.excepthook
    threading.excepthook = lambda args: package_logger.debug(
        "a thread ended with: %s", args.exc_value
    )
    try:
        yield
    finally:
        threading.excepthook = before


def _fail(error: Exception, status: int, debug: bool) -> int:
    """Print what went wrong on stderr, or raise it with ``--debug``."""
    if debug:
        raise error
    sentence = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.filename is not None:
        sentence = f"{error.filename}: {error.strerror}"
    print(f"error: {sentence}", file=sys.stderr)
    return status


@contextlib.contextmanager
def _console() -> Iterator[None]:
    """Messages of the package on stderr until the block ends, with any file name in them."""
    before = []
    for stream, errors in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            before.append((stream, stream.errors))
            stream.reconfigure(errors=errors)  # names that are not UTF-8: byte for byte, or escaped
    handler = logging.StreamHandler()
    handler.setLevel(logging.INFO)
    handler.setFormatter(_WarningFormatter())
    package_logger.setLevel(logging.DEBUG)
    package_logger.addHandler(handler)
    try:
        yield
    finally:
        package_logger.removeHandler(handler)
        for changed, former in before:
            changed.reconfigure(errors=former)


class _WarningFormatter(logging.Formatter):
    """The message alone, with its level where that is a warning or worse."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        return (
            message
            if record.levelno < logging.WARNING
            else f"{record.levelname.lower()}: {message}"
        )

"""The errors that a command reports as a sentence instead of a traceback."""

import signal


class InputError(ValueError):
    """The input cannot be used; exit status 2. The message names what is wrong, and where."""


class RunError(RuntimeError):
    """The input is right and the result is not; nothing is written. Exit status 1."""


class Stopped(SystemExit):
    """A signal ended the run; exit status 128 plus the signal's number, as in a shell.

    It is not `KeyboardInterrupt`, to which Lightning gives an exit status of its own.

    Args:
        number: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.name = signal.Signals(number).name


class NotTrustedError(RunError):
    """The run is complete, and its verdict is "do not trust it"; exit status 3 with --strict."""

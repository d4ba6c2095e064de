"""The ways in which a command ends with a sentence instead of a traceback."""

import signal


class InputError(ValueError):
    """What the user gave cannot be used. The message says what it is, where, and what would do; exit status 2."""


class RunError(RuntimeError):
    """The input was fine and the result is not; nothing is delivered. Exit status 1."""


class Stopped(SystemExit):
    """Somebody ended the run by a signal. Exit status 128 and the signal's number, as shells have it.

    No `KeyboardInterrupt`: Lightning answers that one with an exit status of its own.

    Args:
        number: Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.name = signal.Signals(number).name

"""The two ways in which a command fails with a sentence instead of a traceback."""


class InputError(ValueError):
    """What the user gave cannot be used. The message says what it is, where, and what would do; exit status 2."""


class RunError(RuntimeError):
    """The input was fine and the result is not; nothing is delivered. Exit status 1."""

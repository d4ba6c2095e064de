"""The errors that a command reports as a sentence instead of a traceback."""

import contextlib
import signal
from collections.abc import Iterator

# In the plain errors of torch, NumPy and HDF5; the last two are of arrays beyond any memory.
OUT_OF_MEMORY = (
    "can't allocate memory",
    "out of memory",
    "memory allocation failed",
    "array is too big",
    "Maximum allowed dimension exceeded",
)


class InputError(ValueError):
    """The input cannot be used; exit status 2. The message names what is wrong, and where."""


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether a library had not enough memory, whatever class its error is of."""
    if isinstance(error, InputError | RunError):
        return False
    return isinstance(error, MemoryError) or (
        isinstance(error, OSError | RuntimeError | ValueError)
        and any(words in str(error) for words in OUT_OF_MEMORY)
    )


@contextlib.contextmanager
def memory_for(what: str) -> Iterator[None]:
    """Too little memory in the block is an `InputError` that names what needed it.

    Args:
        what: File and key, such as "scan.npz: diff3d".
    """
    try:
        yield
    except (MemoryError, OSError, RuntimeError, ValueError) as error:
        if not is_lack_of_memory(error):
            raise
        raise too_little_memory(what) from error


def too_little_memory(what: str) -> InputError:
    """The error for a file and key whose content does not fit into memory."""
    return InputError(f"{what} needs more memory than there is")


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

"""The log file of a run."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

package_logger = logging.getLogger("ptycho_torch")


class LogFile(logging.FileHandler):
    """A log file whose missing lines end no run: on a full disk the results raise the error."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # a name of logging
        """Leave the message out."""


@contextlib.contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Write every message of the package, and the error that ends the block, into a file."""
    handler = LogFile(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    package_logger.setLevel(logging.DEBUG)
    package_logger.addHandler(handler)
    try:
        yield
    finally:
        error = sys.exc_info()[1]
        if error is not None:
            package_logger.debug("the run ended with: %s", error, exc_info=True)
        package_logger.removeHandler(handler)
        with contextlib.suppress(OSError):  # lines that a full disk did not take
            handler.close()


class _Collector(logging.Handler):
    """Keeps the text of warnings and errors, once each."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        text = record.getMessage()
        if text not in self.texts:
            self.texts.append(text)


@contextlib.contextmanager
def collecting_warnings() -> Iterator[list[str]]:
    """The list of the warnings of the package in the block, in order; it grows with them."""
    handler = _Collector()
    package_logger.addHandler(handler)
    try:
        yield handler.texts
    finally:
        package_logger.removeHandler(handler)

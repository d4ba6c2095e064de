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

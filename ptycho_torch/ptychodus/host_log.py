"""The messages of the package in Ptychodus's window.

Ptychodus forwards every message of its child process to its own log. In the window of its
processing it shows the messages of one logger.
"""

import contextlib
import logging
from collections.abc import Iterator

WINDOW_LOGGER = "ptychopinn-torch"  # name that Ptychodus gives to the log of this back end

package_logger = logging.getLogger("ptycho_torch")


class _ToWindow(logging.Handler):
    """Repeats a message under the name of the logger that the window shows."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log the message, if its level is logged at all."""
        logging.getLogger(WINDOW_LOGGER).log(record.levelno, "%s", record.getMessage())


@contextlib.contextmanager
def messages_in_window() -> Iterator[None]:
    """Let the messages of the package go to the window, and from there to Ptychodus's log."""
    handler = _ToWindow()
    before = package_logger.propagate
    package_logger.addHandler(handler)
    package_logger.propagate = False  # each message is in Ptychodus's log once
    try:
        yield
    finally:
        package_logger.propagate = before
        package_logger.removeHandler(handler)

"""The page of a live view: one static page, two pictures and server-sent events on 127.0.0.1.

The server only reads: it answers GET, to names of this machine alone, and never waits for a viewer.
A viewer that is slow gets the newest state and misses those between.
"""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ptycho_torch.errors import InputError
from ptycho_torch.html import page as html_page

HOST = "127.0.0.1"
NAMES = ("127.0.0.1", "localhost")
FOLDER = Path(__file__).parent
POLICY = (
    "default-src 'none'; connect-src 'self'; img-src 'self' data:; script-src 'self'; "
    "style-src 'self'"
)
LAST_STATE_S = 2.0  # that viewers have at the end to get the last state
BEAT_S = 5.0  # after which a viewer hears that nothing has changed
STUCK_S = 20.0  # for which a viewer may take nothing, until it is left
MAX_VIEWERS = 64
STATIC = {
    "/": ("text/html; charset=utf-8", FOLDER / "live.html"),
    "/page.css": ("text/css", html_page.STYLE),
    "/live.css": ("text/css", FOLDER / "live.css"),
    "/live.js": ("text/javascript", FOLDER / "live.js"),
}


class Board:
    """The newest state and pictures, which the main thread sets and viewers read."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._state = b"{}"
        self._pictures: dict[str, bytes] = {}
        self._version = 0
        self._closed = False
        self.viewers = 0

    def show(self, state: dict[str, Any], pictures: dict[str, bytes]) -> None:
        """Set the state, and the pictures that are new."""
        with self._changed:
            self._state = json.dumps(state, allow_nan=False).encode()
            self._pictures |= pictures
            self._version += 1
            self._changed.notify_all()

    def close(self) -> None:
        """End what viewers wait for, once they have the last state, or are too slow for it."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.viewers == 0, LAST_STATE_S)

    def picture(self, name: str) -> bytes | None:
        """A picture as PNG; None before there is one."""
        with self._changed:
            return self._pictures.get(name)

    def states(self) -> Iterator[bytes]:
        """The state, whenever it has changed; empty if it has not for `BEAT_S`."""
        version = -1
        while True:
            with self._changed:
                if version == self._version and not self._closed:
                    self._changed.wait(BEAT_S)
                new = self._version != version
                if self._closed and not new:
                    return
                version, state = self._version, self._state
            yield state if new else b""

    @contextlib.contextmanager
    def viewer(self) -> Iterator[bool]:
        """Count a viewer; False if there are too many."""
        with self._changed:
            self.viewers += 1
        try:
            yield self.viewers <= MAX_VIEWERS
        finally:
            with self._changed:
                self.viewers -= 1
                self._changed.notify_all()


class Handler(BaseHTTPRequestHandler):
    """Answers one viewer."""

    server: "Server"
    timeout = STUCK_S
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Send the page, a picture, or the events."""
        name, _, port = self.headers.get("Host", "").partition(":")
        if name not in NAMES or port != str(self.server.server_port):
            self.send_error(403, "this page is for this machine alone")
            return
        path = self.path.partition("?")[0]
        with contextlib.suppress(ConnectionError, TimeoutError):  # the viewer has gone
            if path in STATIC:
                kind, file = STATIC[path]
                self._send(kind, file.read_bytes())
            elif path == "/events":
                self._send_events()
            else:
                self._send_picture(path)

    def _send_picture(self, path: str) -> None:
        """Send a picture, if there is one."""
        png = self.server.board.picture(path.strip("/"))
        if png is None:
            self.send_error(404)
        else:
            self._send("image/png", png)

    def _send_events(self) -> None:
        """Send the state whenever it changes, until the viewer goes or the run ends."""
        board = self.server.board
        with board.viewer() as welcome:
            if not welcome:
                self.send_error(503, "too many viewers")
                return
            self.close_connection = True
            self._head("text/event-stream", None)
            for state in board.states():
                line = b"data: " + state + b"\n\n" if state else b": nothing new\n\n"
                self.wfile.write(line)
                self.wfile.flush()

    def _send(self, kind: str, content: bytes) -> None:
        """Send a whole answer."""
        self._head(kind, len(content))
        self.wfile.write(content)

    def _head(self, kind: str, length: int | None) -> None:
        """Send the head of an answer."""
        self.send_response(200)
        self.send_header("Content-Type", kind)
        if length is None:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(length))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  its name in http.server
        """Say nothing: stderr belongs to the run."""


class Server(ThreadingHTTPServer):
    """The server of a board; it never keeps the process alive."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, board: Board, port: int) -> None:
        self.board = board
        super().__init__((HOST, port), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a viewer that breaks off is no event of the run."""


@contextlib.contextmanager
def serve(board: Board, port: int) -> Iterator[str]:
    """Serve a board until the block ends, and give its address.

    Raises:
        InputError: If the port is taken.
    """
    try:
        server = Server(board, port)
    except OSError as error:
        raise InputError(
            f"--port {port}: cannot be used ({error.strerror}); choose another, or 0 for any"
        ) from error
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}/"
    finally:
        board.close()
        server.shutdown()
        server.server_close()

"""Open pages in a headless Chromium by its DevTools protocol over a pipe.

It needs the standard library only, and neither a driver nor a port.
"""

import base64
import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe"),
]
ANSWER_S = 60.0

# The browser reads commands from descriptor 3 and writes answers to 4.
LAUNCH = """
import fcntl, os, sys
high = [fcntl.fcntl(int(word), fcntl.F_DUPFD, 10) for word in sys.argv[1:3]]
os.dup2(high[0], 3), os.dup2(high[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
LOGGED = (
    "Log.entryAdded",
    "Runtime.consoleAPICalled",
    "Runtime.exceptionThrown",
    "Network.loadingFailed",
)

# Measurements of a page by the browser. WIDTH is the width that was asked for: a phone's browser
# makes its own view wider where a page does not fit.
MEASURE = """(() => {
  const images = [...document.images].map(i => ({
    drawn: i.complete && i.naturalWidth > 0 && i.clientWidth > 1,
    width: i.naturalWidth, alt: i.alt}));
  const luminance = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b; };
  const ground = e => { const c = getComputedStyle(e).backgroundColor;
    return c.startsWith('rgba(0, 0, 0, 0') && e.parentElement ? ground(e.parentElement) : c; };
  const contrast = [...document.querySelectorAll('body *')].filter(e => e.checkVisibility() &&
      [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())).map(e => {
    const [a, b] = [luminance(getComputedStyle(e).color), luminance(ground(e))]
      .sort((x, y) => x - y);
    return (b + .05) / (a + .05); });
  const wide = [...document.querySelectorAll('body *')].filter(e => e.checkVisibility()
    && !e.closest('.scroll *, .skip')
    && e.getBoundingClientRect().right > WIDTH + 1).map(e => e.tagName + '.' + e.className);
  return {images, wide, contrast: Math.min(...contrast),
    overflow: Math.max(document.documentElement.scrollWidth, innerWidth) - WIDTH,
    paper: getComputedStyle(document.body).backgroundColor,
    title: document.title, height: document.body.scrollHeight};
})()"""


@dataclass(frozen=True)
class Opened:
    """A page in the browser: measurements, log entries, fetched addresses, and a screenshot."""

    measured: dict[str, Any]
    logged: list[dict[str, Any]]
    fetched: list[str]
    screenshot: bytes


class Chromium:
    """A running browser; use it in a `with` block."""

    def __init__(self, program: str, profile: Path) -> None:
        commands, self._write = os.pipe()
        self._read, answers = os.pipe()
        words = [
            sys.executable,
            "-c",
            LAUNCH,
            str(commands),
            str(answers),
            program,
            *FLAGS,
            f"--user-data-dir={profile}",
        ]
        with (profile / "chromium.log").open("wb") as log:
            streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            self._process = subprocess.Popen(
                words, pass_fds=(commands, answers), start_new_session=True, **streams
            )
        os.close(commands)
        os.close(answers)
        self._number, self._rest = 0, b""
        self._events: list[dict[str, Any]] = []
        target = self._ask("Target.createTarget", session="", url="about:blank")["targetId"]
        self._session = self._ask(
            "Target.attachToTarget", session="", targetId=target, flatten=True
        )["sessionId"]
        for domain in ("Page", "Log", "Runtime", "Network"):
            self._ask(f"{domain}.enable")

    def open(self, page: Path | str, *, width: int, dark: bool, until: str = "true") -> Opened:
        """Open a page at a width in CSS pixels, light or dark, and measure it once it is loaded.

        Args:
            page: A file, or an address.
            width: Of the window.
            dark: Whether the reader's setting is dark.
            until: Expression that has to become true in the page before it is measured.
        """
        self._events.clear()
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self._ask("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[scheme])
        self._ask("Page.navigate", url=page.as_uri() if isinstance(page, Path) else page)
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._events.append(self._receive())
        deadline = time.monotonic() + ANSWER_S
        while not self.evaluate(until):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{until} did not become true in the page")
            time.sleep(0.05)
        measured = self.evaluate(MEASURE.replace("WIDTH", str(width)))
        shot = self._ask(
            "Page.captureScreenshot",
            captureBeyondViewport=True,
            clip=self._whole(width, measured["height"]),
        )
        fetched = [
            e["params"]["request"]["url"]
            for e in self._events
            if e["method"] == "Network.requestWillBeSent"
        ]
        logged = [event for event in self._events if event["method"] in LOGGED]
        return Opened(measured, logged, fetched, base64.b64decode(shot["data"]))

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        answer = self._ask("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"the page could not be measured: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def press_tab(self) -> str:
        """Press the tab key, and return the element that has the focus then."""
        for kind in ("keyDown", "keyUp"):
            self._ask(
                "Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9
            )
        return str(
            self.evaluate("document.activeElement.tagName + '.' + document.activeElement.className")
        )

    def accessibility_tree(self) -> list[tuple[str, str]]:
        """(role, name) of every element that a screen reader can reach."""
        self._ask("Accessibility.enable")
        nodes = self._ask("Accessibility.getFullAXTree")["nodes"]
        shown = [node for node in nodes if not node["ignored"]]
        return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in shown]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._write)
        os.close(self._read)

    @staticmethod
    def _whole(width: int, height: int) -> dict[str, float]:
        return {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}

    def _ask(self, method: str, *, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send a request and return its result; events that come before it are kept."""
        self._number += 1
        request = {"id": self._number, "method": method, "params": params}
        session = self._session if session is None else session
        os.write(
            self._write,
            json.dumps(request | ({"sessionId": session} if session else {})).encode() + b"\0",
        )
        while True:
            message = self._receive()
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return dict(message["result"])
            self._events.append(message)

    def _receive(self) -> dict[str, Any]:
        """The next message of the browser."""
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], ANSWER_S)
            data = os.read(self._read, 2**20) if ready else b""
            if not data:
                raise RuntimeError(f"the browser {'ended' if ready else 'did not answer'}")
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))


def assert_readable(
    opened: Opened, pictures: int, dark: bool, origins: tuple[str, ...] = ("file:", "data:")
) -> None:
    """Check the rules of every page of the package, as a browser measures them."""
    assert opened.logged == []
    assert [url for url in opened.fetched if not url.startswith(origins)] == []
    assert [image["drawn"] for image in opened.measured["images"]] == [True] * pictures
    assert (opened.measured["overflow"], opened.measured["wide"]) == (0, [])
    assert opened.measured["contrast"] >= 4.5  # WCAG 2.2, 1.4.3, for text of normal size
    brightness = sum(map(int, re.findall(r"\d+", opened.measured["paper"])[:3])) / 3
    assert brightness < 64 if dark else brightness > 192

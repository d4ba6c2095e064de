"""Fixtures of the tests of pages: a PNG and a browser."""

import shutil
import struct
import sys
import zlib
from collections.abc import Callable, Iterator

import pytest

pytest.register_assert_rewrite("chromium")

from chromium import Chromium  # noqa: E402

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")


def encode_png(width: int, height: int, colour: tuple[int, int, int]) -> bytes:
    """A PNG of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = (b"\0" + bytes(colour) * width) * height
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.fixture(scope="session")
def png() -> Callable[..., bytes]:
    """A function that makes a PNG of one colour: `png(width, height, (red, green, blue))`."""
    return encode_png


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """A headless Chromium."""
    program = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if program is None or sys.platform == "win32":
        pytest.skip(
            f"none of {', '.join(CHROMIUM_NAMES)} is installed; Debian has it as `chromium`"
        )
    with Chromium(program, tmp_path_factory.mktemp("chromium")) as running:
        yield running

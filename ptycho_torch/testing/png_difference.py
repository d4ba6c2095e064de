"""The difference of two PNG images, with the standard library only.

Read are images of 8 bits per channel without interlacing, grey or in colour, with or without
transparency: what Matplotlib and most programs write. Transparency is laid over white.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {
    0: 1,
    2: 3,
    4: 2,
    6: 4,
}  # by colour type: grey, colour, grey and alpha, colour and alpha
LARGEST_PIXELS = 4_000_000  # a larger image takes longer than a reader waits
WHITE = 255


class Image(NamedTuple):
    """An image of red, green and blue bytes, row by row from the top."""

    width: int
    height: int
    rgb: bytes


class Difference(NamedTuple):
    """How two images differ.

    Attributes:
        rms: Root mean square of the difference of the colour values as a part of the full scale;
            None where it cannot be taken.
        png: The absolute difference as an image, white where they agree; empty without `rms`.
        problem: Why it cannot be taken.
    """

    rms: float | None
    png: bytes
    problem: str = ""


def compare_png(before: bytes, now: bytes) -> Difference:
    """The difference of two PNG files."""
    try:
        old, new = decode_png(before), decode_png(now)
    except ValueError as error:
        return Difference(None, b"", f"no difference can be taken: {error}")
    if old[:2] != new[:2]:
        sizes = f"{old.width}x{old.height}", f"{new.width}x{new.height}"
        return Difference(
            None, b"", f"no difference can be taken: {sizes[0]} is now {sizes[1]} pixels"
        )
    gaps = bytes(abs(one - other) for one, other in zip(old.rgb, new.rgb, strict=True))
    rms = (sum(gap * gap for gap in gaps) / max(len(gaps), 1)) ** 0.5 / WHITE
    shown = bytes(WHITE - gap for gap in gaps)
    return Difference(rms, encode_png(Image(old.width, old.height, shown)))


def decode_png(data: bytes) -> Image:
    """The pixels of a PNG.

    Raises:
        ValueError: If it is damaged, too large or of a kind that is not read.
    """
    try:
        parts = list(chunks(data))
        header = next(body for kind, body in parts if kind == b"IHDR")
        width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", header)
        if depth != 8 or colour not in CHANNELS or interlace:
            raise ValueError(f"PNG of {depth} bits, colour type {colour}, interlacing {interlace}")
        if width * height > LARGEST_PIXELS:
            raise ValueError(f"PNG of {width}x{height} pixels is larger than {LARGEST_PIXELS}")
        channels = CHANNELS[colour]
        size = (width * channels + 1) * height
        packed = b"".join(body for kind, body in parts if kind == b"IDAT")
        raw = zlib.decompressobj().decompress(packed, size)
    except (zlib.error, struct.error, StopIteration) as error:
        raise ValueError(f"damaged PNG ({error})") from error
    if len(raw) != size:
        raise ValueError("damaged PNG (it ends early)")
    rows = unfiltered_rows(raw, width * channels, channels)
    return Image(width, height, b"".join(as_rgb(row, channels) for row in rows))


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, body) of the parts of a PNG file."""
    if not data.startswith(SIGNATURE):
        raise ValueError("not a PNG")
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        yield kind, data[at + 8 : at + 8 + length]
        at += 12 + length


def unfiltered_rows(raw: bytes, row_bytes: int, step: int) -> Iterator[bytes]:
    """The rows of pixels without the filter that each row states in its first byte."""
    above = bytearray(row_bytes)
    for at in range(0, len(raw), row_bytes + 1):
        row = unfilter(raw[at], bytearray(raw[at + 1 : at + 1 + row_bytes]), above, step)
        yield bytes(row)
        above = row


def unfilter(kind: int, row: bytearray, above: bytearray, step: int) -> bytearray:
    """A row of pixels from its differences; the kinds are those of the PNG specification, 9.2."""
    if kind == 1:
        for at in range(step, len(row)):
            row[at] = (row[at] + row[at - step]) & 0xFF
    elif kind == 2:
        row = bytearray((one + up) & 0xFF for one, up in zip(row, above, strict=True))
    elif kind == 3:
        for at in range(len(row)):
            left = row[at - step] if at >= step else 0
            row[at] = (row[at] + (left + above[at]) // 2) & 0xFF
    elif kind == 4:
        for at in range(len(row)):
            left, corner = (row[at - step], above[at - step]) if at >= step else (0, 0)
            row[at] = (row[at] + paeth(left, above[at], corner)) & 0xFF
    elif kind != 0:
        raise ValueError(f"damaged PNG (filter {kind})")
    return row


def paeth(left: int, up: int, corner: int) -> int:
    """The neighbour that is nearest to `left + up - corner`."""
    guess = left + up - corner
    return min((left, up, corner), key=lambda one: abs(guess - one))


def as_rgb(row: bytes, channels: int) -> bytes:
    """A row of pixels as red, green and blue, transparency laid over white."""
    if channels == 3:
        return row
    colours = [row[at::channels] for at in range(channels)]
    if channels in (2, 4):
        alpha = colours.pop()
        colours = [over_white(colour, alpha) for colour in colours]
    if len(colours) == 1:
        colours *= 3
    mixed = bytearray(3 * len(colours[0]))
    for at, colour in enumerate(colours):
        mixed[at::3] = colour
    return bytes(mixed)


def over_white(colour: bytes, alpha: bytes) -> bytes:
    """A channel laid over white."""
    if alpha.count(WHITE) == len(alpha):
        return colour
    return bytes(
        (one * a + WHITE * (WHITE - a)) // WHITE for one, a in zip(colour, alpha, strict=True)
    )


def encode_png(image: Image) -> bytes:
    """An image as a PNG file."""
    row_bytes = 3 * image.width
    rows = b"".join(
        b"\0" + image.rgb[at : at + row_bytes] for at in range(0, len(image.rgb), row_bytes)
    )
    header = struct.pack(">IIBBBBB", image.width, image.height, 8, 2, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )

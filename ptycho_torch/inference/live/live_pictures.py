"""Pictures of the image so far, drawn in milliseconds: for the page, and with a legend as files.

Colours and the treatment of the phase are those of the pictures of a finished image.
"""

import io
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ptycho_torch.data.scan import Reconstruction
from ptycho_torch.evaluation.displayed_phase import phase_range, without_ramp
from ptycho_torch.evaluation.plots import phase_colours, round_down
from ptycho_torch.evaluation.quantity_text import length_text

LIT = 0.05  # of the largest light; what is darker is noise and not drawn
CONTRAST = (1, 99)  # percentiles of the drawn values between which the colours lie
LONGEST_BAR = 0.25  # of the width of a picture
BLANK = 0  # the index of the pixels that are not lit; an index takes a quarter of four channels
LEVELS = 255  # colours of a map
NAMES = {  # of the legends, with units
    "amplitude": "Amplitude [1]",
    "phase": "Phase without its ramp [rad]",
    "coverage": "Light [of the most]",
}
LEAST_WIDTH = 480  # pixels of a file; smaller images are enlarged
LETTER = 1 / 30  # height of the letters of a legend, of its width


class ScaleBar(NamedTuple):
    """A round length, and its share of the width of a picture."""

    text: str
    share: float


@dataclass(frozen=True)
class Picture:
    """An image in colours.

    Attributes:
        png: File, one pixel of the object a pixel, transparent where little light fell.
        span: Values at the two ends of the colours.
        colours: Name of the map.
    """

    png: bytes
    span: tuple[float, float]
    colours: str


@dataclass(frozen=True)
class Pictures:
    """Amplitude, phase and light by name, and the scale of all of them, where it is known."""

    by_name: dict[str, Picture]
    bar: ScaleBar | None


def draw(result: Reconstruction) -> Pictures:
    """Amplitude, phase without its ramp, and light, where light fell."""
    lit = result.coverage > LIT
    window = np.ix_(lit.any(axis=1), lit.any(axis=0))
    lit, image, light = lit[window], result.object[window], result.coverage[window]
    amplitude = np.abs(image)
    flat, _ = without_ramp(image, lit)
    angle = np.angle(flat)
    turn = phase_range(angle[lit])
    pixel = result.pixel_size_m
    return Pictures(
        {
            "amplitude": encode(amplitude, lit, span(amplitude[lit]), "viridis"),
            "phase": encode(turn.on_branch(angle), lit, (turn.low, turn.high), phase_colours(turn)),
            "coverage": encode(light, lit, (0.0, 1.0), "gray"),
        },
        bar=None if pixel is None else scale_bar(lit.shape[1] * pixel[1]),
    )


def span(values: NDArray) -> tuple[float, float]:
    """Lowest and highest value of the colours."""
    low, high = np.percentile(values[:: max(1, len(values) // 50_000)], CONTRAST)
    return float(low), float(max(high, low + 1e-6))


def scale_bar(width_m: float) -> ScaleBar:
    """The scale bar of a picture of that width."""
    length_m = round_down(LONGEST_BAR * width_m)
    return ScaleBar(length_text(length_m), length_m / width_m)


def encode(
    values: NDArray, lit: NDArray[np.bool_], limits: tuple[float, float], colours: str
) -> Picture:
    """A picture of some values, transparent where nothing is lit."""
    low, high = limits
    levels = np.clip((values - low) / (high - low), 0, 1) * (LEVELS - 1)
    indexed = Image.fromarray(np.where(lit, levels + 1, BLANK).astype(np.uint8))
    blank_first = np.concatenate([np.zeros((1, 3), np.uint8), colour_table(colours)])
    indexed.putpalette(blank_first.tobytes())
    return Picture(as_png(indexed, transparency=BLANK), limits, colours)


def colour_table(colours: str) -> NDArray[np.uint8]:
    """The colours of a map from its lowest to its highest, red, green and blue, (LEVELS, 3)."""
    return (colormaps[colours](np.linspace(0, 1, LEVELS))[:, :3] * 255).astype(np.uint8)


def as_png(image: Image.Image, **options: int) -> bytes:
    """An image as a file, packed quickly."""
    file = io.BytesIO()
    image.save(file, "png", compress_level=1, **options)
    return file.getvalue()


def with_legend(name: str, picture: Picture, bar: ScaleBar | None) -> bytes:
    """A picture as PNG with its name, unit, colours and scale below it, on white."""
    drawn = Image.open(io.BytesIO(picture.png)).convert("RGBA")
    times = -(-LEAST_WIDTH // drawn.width)
    image = drawn.resize((times * drawn.width, times * drawn.height), Image.Resampling.NEAREST)
    letter = round(LETTER * image.width)
    sheet = Image.new("RGB", (image.width, image.height + 4 * letter), "white")
    sheet.paste(image, (0, 0), image)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(letter)
    edge, middle = letter // 2, image.height + round(2.8 * letter)
    pen.text((edge, image.height + 1.2 * letter), NAMES[name], "black", font, anchor="lm")
    low, high = (f"{value:.2f}" for value in picture.span)
    pen.text((edge, middle), low, "black", font, anchor="lm")
    left = edge + round(pen.textlength(low, font)) + edge
    colours = Image.fromarray(colour_table(picture.colours)[None])
    sheet.paste(colours.resize((8 * letter, letter)), (left, middle - letter // 2))
    pen.text((left + 8 * letter + edge, middle), high, "black", font, anchor="lm")
    if bar is not None:
        right, length = image.width - edge, round(bar.share * image.width)
        first = right - length
        pen.text((right, middle), bar.text, "black", font, anchor="rm")
        level = image.height + round(1.2 * letter)
        pen.rectangle((first, level, right - 1, level + max(1, letter // 4)), "black")
    return as_png(sheet)

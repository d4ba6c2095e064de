"""Draw a line over numbers as SVG, without a library: for pages that must not need one."""

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 640, 200
LEFT, RIGHT, TOP, BOTTOM = 76, 14, 12, 34  # margins, which hold the numbers of the axes
LARGEST = 2000  # points; more of them would not be told apart


def draw_line(
    x: Sequence[float], y: Sequence[float], *, x_label: str = "", y_label: str = ""
) -> str:
    """A line through the points, with marks where they are few, as SVG.

    Numbers that are not finite are gaps.

    Args:
        x: Where each value was taken.
        y: The values.
        x_label: Below the horizontal axis.
        y_label: Of the values, above the vertical axis.
    """
    step = max(1, math.ceil(len(x) / LARGEST))
    points = list(zip(x, y, strict=True))[::step]
    finite = [(at, value) for at, value in points if math.isfinite(at) and math.isfinite(value)]
    if not finite:
        return ""
    columns, rows = limits([at for at, _ in finite]), limits([value for _, value in finite])
    places = [
        (horizontal(at, columns), vertical(value, rows)) if math.isfinite(value) else None
        for at, value in points
    ]
    marks = [place for place in places if place] if len(places) <= 60 else []
    return "".join(
        [
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" font-size="12" fill="currentColor">',
            *axis(columns, rows, x_label, y_label),
            *(polyline(part) for part in unbroken(places)),
            *(f'<circle cx="{left:.1f}" cy="{top:.1f}" r="2.5"/>' for left, top in marks),
            "</svg>",
        ]
    )


def limits(values: Sequence[float]) -> tuple[float, float]:
    """The range of the values, widened where they are all one."""
    low, high = min(values), max(values)
    if low == high:
        gap = abs(low) * 0.1 or 1.0
        return low - gap, high + gap
    return low, high


def horizontal(value: float, shown: tuple[float, float]) -> float:
    """Distance from the left edge."""
    return LEFT + (value - shown[0]) / (shown[1] - shown[0]) * (WIDTH - LEFT - RIGHT)


def vertical(value: float, shown: tuple[float, float]) -> float:
    """Distance from the upper edge."""
    return HEIGHT - BOTTOM - (value - shown[0]) / (shown[1] - shown[0]) * (HEIGHT - TOP - BOTTOM)


def axis(
    columns: tuple[float, float], rows: tuple[float, float], x_label: str, y_label: str
) -> list[str]:
    """A frame with the smallest and the largest number at each axis."""
    base = HEIGHT - BOTTOM
    words = [
        (LEFT - 6, TOP + 10, "end", f"{rows[1]:.4g}"),
        (LEFT - 6, base, "end", f"{rows[0]:.4g}"),
        (LEFT, base + 15, "start", f"{columns[0]:.4g}"),
        (WIDTH - RIGHT, base + 15, "end", f"{columns[1]:.4g}"),
        ((LEFT + WIDTH - RIGHT) / 2, base + 28, "middle", x_label),
        (LEFT - 6, (TOP + base) / 2 + 5, "end", y_label),
    ]
    frame = (
        f'<path d="M{LEFT} {TOP}V{base}H{WIDTH - RIGHT}" fill="none" stroke="currentColor" '
        'stroke-opacity=".5"/>'
    )
    return [frame] + [
        f'<text x="{left}" y="{top}" text-anchor="{anchor}">{escape(text)}</text>'
        for left, top, anchor, text in words
        if text
    ]


def unbroken(
    places: Sequence[tuple[float, float] | None],
) -> list[list[tuple[float, float]]]:
    """The parts of a line between its gaps."""
    parts: list[list[tuple[float, float]]] = [[]]
    for place in places:
        if place:
            parts[-1].append(place)
        elif parts[-1]:
            parts.append([])
    return [part for part in parts if len(part) > 1]


def polyline(part: Sequence[tuple[float, float]]) -> str:
    """One part of the line."""
    words = " ".join(f"{left:.1f},{top:.1f}" for left, top in part)
    return f'<polyline points="{words}" fill="none" stroke="currentColor" stroke-width="1.5"/>'

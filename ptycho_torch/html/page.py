"""Make one self-contained page, in HTML or Markdown, of pictures, tables, facts and text.

The page needs no network and runs no script (its own security policy forbids both), follows the
reader's light or dark setting, and reads from phone to desktop width, by keyboard and by screen
reader.
"""

import base64
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
ANSI_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
# A flag of a command, with the brackets and marks around it.
FLAG = re.compile(r"([^\w\s-]*(?<![\w-])--?[A-Za-z][\w-]*[^\w\s/-]*)")
# Where a path, a name or the id of a test may break. A fraction such as 1/2 stays whole.
JOINT = re.compile(r"(?<=\w/)(?=[^/])(?!(?<=\d/)\d)|(?<=_)(?=[^/_])|(?<=::)|(?<=\w\[)")
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
STYLE = Path(__file__).with_name("page.css")
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
NUMBER = ' class="number"'
GOOD = ("passed", "better", "no worse", "as written", "trust it")
BAD = ("failed", "error", "worse", "interrupted", "missing", "altered", "do not trust it")
DOUBTFUL = ("look twice",)
MARKS = dict.fromkeys(GOOD, "✓") | dict.fromkeys(BAD, "✗") | dict.fromkeys(DOUBTFUL, "?")


@dataclass(frozen=True)
class Picture:
    """A PNG image; `alt` says what a reader who cannot see it needs to know."""

    png: bytes
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Link:
    """A relative link to a file beside the page."""

    text: str
    path: str


@dataclass(frozen=True)
class Verdict:
    """A word of judgement, shown with a mark as well as a colour."""

    word: str


Cell = str | float | Link | Verdict


@dataclass(frozen=True)
class Table:
    """A table with a caption and column headings; the first cell of a row is its heading."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Facts:
    """Names with their values."""

    items: Sequence[tuple[str, Cell]]


@dataclass(frozen=True)
class Command:
    """A command line to repeat; one click selects all of it."""

    args: Sequence[str]


@dataclass(frozen=True)
class Note:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Output:
    """Text as a program printed it, folded away unless `is_open`."""

    title: str
    text: str
    is_open: bool = False


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side where the width allows it, as thumbnails if they are `small`."""

    pictures: Sequence[Picture]
    small: bool = False


@dataclass(frozen=True)
class Drawing:
    """A drawing as SVG, made by this program; `alt` says what a reader who cannot see it needs."""

    svg: str
    alt: str
    caption: str = ""


Block = Gallery | Drawing | Table | Facts | Command | Note | Output


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading of its own."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A page: `lead` stands before the first section, `verdict` is a word beside the title.

    `reason` says under the title why the verdict is what it is.
    """

    title: str
    sections: Sequence[Section]
    lead: Sequence[Block] = ()
    verdict: str = ""
    reason: str = ""


def render_html(page: Page) -> str:
    """The page as one HTML file.

    Raises:
        ValueError: If a picture is not a PNG.
    """
    links = "".join(
        f'<li><a href="#s{at}">{text(part.title)}</a></li>' for at, part in enumerate(page.sections)
    )
    contents = (
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>' if len(page.sections) > 1 else ""
    )
    badge = f" {cell(Verdict(page.verdict))}" if page.verdict else ""
    kind = class_of(page.verdict)
    why = running_text(page.reason)
    reason = f'<p class="banner {kind}"><span>{why}</span></p>' if why else ""
    sections = "".join(
        f'<section aria-labelledby="s{at}"><h2 id="s{at}">{text(part.title)}</h2>\n'
        f"{blocks(part.blocks)}</section>\n"
        for at, part in enumerate(page.sections)
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{text(page.title)}{f": {text(page.verdict)}" if page.verdict else ""}</title>
<style>
{STYLE.read_text()}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header><h1>{running_text(page.title)}{badge}</h1>{reason}{contents}</header>
<main id="main" tabindex="-1">
{blocks(page.lead)}{sections}</main>
</body>
</html>
"""


def render_markdown(page: Page) -> str:
    """The page as Markdown, without pictures and folded text."""
    parts = [
        f"# {literal(page.title)}{f': {literal(page.verdict)}' if page.verdict else ''}",
        literal(page.reason),
        *map(markdown, page.lead),
    ]
    for section in page.sections:
        parts += [f"## {literal(section.title)}", *map(markdown, section.blocks)]
    return printable("\n\n".join(part for part in parts if part)) + "\n"


def blocks(parts: Sequence[Block]) -> str:
    """The HTML of some blocks, each on a line of its own."""
    return "".join(f"{block(part)}\n" for part in parts)


def text(value: str) -> str:
    """The text escaped for HTML, without terminal colours and unprintable characters."""
    return escape(printable(value))


def running_text(value: str) -> str:
    """The text escaped for HTML; flags stay whole, and names break at their joints.

    The characters stay the same, also when they are copied. A piece that is longer than a line
    breaks anywhere.
    """
    parts = FLAG.split(printable(value))  # flags at odd places
    return "".join(
        f'<span class="flag">{escape(part)}</span>'
        if at % 2
        else "".join(map(_breakable, re.split(r"(\s+)", part)))
        for at, part in enumerate(parts)
    )


def _breakable(word: str) -> str:
    """A word with its joints; in the case of a test a hyphen is none."""
    is_id = "::" in word or "[" in word
    return "<wbr>".join(
        f'<span class="case">{escape(piece)}</span>' if is_id and "-" in piece else escape(piece)
        for piece in JOINT.split(word)
    )


def printable(value: str) -> str:
    """The text without terminal colours and unprintable characters."""
    return UNPRINTABLE.sub(
        "\N{REPLACEMENT CHARACTER}", ANSI_ESCAPE.sub("", value.replace("\r\n", "\n"))
    )


def plain(value: Cell) -> str:
    """A value as text; whole numbers in full."""
    if isinstance(value, Link):
        return value.text
    if isinstance(value, Verdict):
        return value.word
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def cell(value: Cell) -> str:
    """A value inside a table or a list of facts."""
    if isinstance(value, Link):
        return anchor(value.path, running_text(value.text))
    if isinstance(value, Verdict):
        kind, mark = class_of(value.word), MARKS.get(value.word, "•")
        shown = f'<span aria-hidden="true">{mark}</span> {text(value.word)}'
        return f'<span class="verdict {kind}">{shown}</span>'
    return running_text(plain(value))


def anchor(path: str, shown: str) -> str:
    """A link to a file beside the page."""
    return f'<a href="{quote(path, errors="replace")}">{shown}</a>'


def class_of(verdict: str) -> str:
    """The class of the style that has the colour of a verdict."""
    return re.sub(r"[^a-z]", "-", verdict)


def block(part: Block) -> str:
    """The HTML of one block."""
    match part:
        case Gallery(pictures, small):
            kind = "gallery thumbnails" if small else "gallery"
            return f'<div class="{kind}">{"".join(map(picture, pictures))}</div>'
        case Drawing(svg, alt, caption):
            label = f'role="img" aria-label="{text(alt)}"'
            below = f"<figcaption>{running_text(caption)}</figcaption>" if caption else ""
            return f'<figure class="drawing"><div {label}>{svg}</div>{below}</figure>'
        case Table():
            return table(part)
        case Facts(items):
            rows = "".join(
                f"<div><dt>{running_text(name)}</dt><dd>{cell(value)}</dd></div>"
                for name, value in items
            )
            return f"<dl>{rows}</dl>"
        case Command(args):
            line = f"<code>{text(shlex.join(args))}</code>"
            return f'<pre class="command" tabindex="0" aria-label="Command">{line}</pre>'
        case Note(words):
            return f"<p>{running_text(words)}</p>"
        case Output(title, words, is_open):
            shown = (
                f'<pre tabindex="0" aria-label="{text(title)}">{text(words)}</pre>'
                if words.strip()
                else "<p>nothing</p>"
            )
            state = " open" if is_open else ""
            return f"<details{state}><summary>{running_text(title)}</summary>{shown}</details>"


def markdown(part: Block) -> str:
    """One block in Markdown; empty for what Markdown leaves out."""
    match part:
        case Table(_, columns, rows):
            lines = [columns, ["---"] * len(columns), *(map(literal, row) for row in rows)]
            return "\n".join(f"| {' | '.join(line)} |" for line in lines)
        case Facts(items):
            return "\n".join(f"- {literal(name)}: {literal(value)}" for name, value in items)
        case Gallery(pictures):
            return "\n".join(f"- {literal(one.caption or one.alt)}" for one in pictures)
        case Drawing(_, alt, caption):
            return f"- {literal(caption or alt)}"
        case Command(args):
            return fenced(shlex.join(args))
        case Note(words):
            return literal(words)
        case Output(title, words, True):
            return f"{literal(title)}:\n\n{fenced(words)}"
    return ""


def fenced(words: str) -> str:
    """Text as a Markdown code block that it cannot end."""
    longest = max((len(run) for run in re.findall(r"`+", words)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{ANSI_ESCAPE.sub('', words)}\n{fence}"


def literal(value: Cell) -> str:
    """A value on one line of Markdown, its punctuation taken literally."""
    if isinstance(value, Link):
        return f"[{literal(plain(value))}]({quote(value.path, errors='replace')})"
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(printable(plain(value)).split()))


def picture(part: Picture) -> str:
    """A figure that holds its image and reserves the room for it."""
    if part.png[:8] != PNG_SIGNATURE or len(part.png) < 24:
        raise ValueError(f"the picture {part.alt!r} is not a PNG")
    width, height = (int.from_bytes(part.png[at : at + 4], "big") for at in (16, 20))
    data = base64.b64encode(part.png).decode()
    size = f'width="{width}" height="{height}"'
    image = f'<img alt="{text(part.alt)}" {size} src="data:image/png;base64,{data}">'
    caption = f"<figcaption>{running_text(part.caption)}</figcaption>" if part.caption else ""
    return f"<figure>{image}{caption}</figure>"


def table(part: Table) -> str:
    """A table in a region that scrolls by itself where the page is narrow."""
    kinds = [
        NUMBER if any(is_number(row[at]) for row in part.rows) else ""
        for at in range(len(part.columns))
    ]
    head = "".join(
        f'<th scope="col"{kind}>{running_text(name)}</th>'
        for kind, name in zip(kinds, part.columns, strict=True)
    )
    rows = ""
    for first, *others in part.rows:
        cells = "".join(
            f"<td{kind}>{cell(value)}</td>" for kind, value in zip(kinds[1:], others, strict=True)
        )
        rows += f'<tr><th scope="row">{cell(first)}</th>{cells}</tr>'
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{text(part.caption)}"><table>'
        f"<caption>{running_text(part.caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def is_number(value: Cell) -> bool:
    """Whether a cell aligns as a number."""
    return isinstance(value, int | float)

"""The page maker shows its content as text, fetches nothing, and makes accessible pages."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chromium import Chromium, assert_readable
from outline import Outline, assert_accessible

from ptycho_torch.html.page import (
    Command,
    Drawing,
    Facts,
    Gallery,
    Link,
    Note,
    Output,
    Page,
    Picture,
    Section,
    Table,
    Verdict,
    printable,
    render_html,
    render_markdown,
    running_text,
)

BLUE, BROWN = (40, 90, 160), (160, 90, 40)
HOSTILE = "<script>alert('x')</script> & \"quotes\" \x1b[31mred\x1b[0m \x00 | `tick` é"


@pytest.fixture(scope="session")
def page(png: Callable[..., bytes]) -> Page:
    pictures = [
        Picture(png(640, 480, BLUE), alt="amplitude of the object", caption="Amplitude, √photons"),
        Picture(png(300, 300, BROWN), alt="phase of the object"),
    ]
    verdicts = (
        *("passed", "failed", "error", "skipped", "interrupted"),
        *("worse", "better", "missing", "changed"),
    )
    rows = [
        (f"metric | {word}", 0.123456789, Verdict(word), Link("file", "a b/é.txt"), "x" * 64)
        for word in verdicts
    ]
    return Page(
        f"A page {HOSTILE}",
        [
            Section("Pictures", [Gallery(pictures)]),
            Section(
                "Numbers",
                [Table("All metrics", ("Name", "Value", "Verdict", "File", "SHA-256"), rows)],
            ),
            Section(
                "Text",
                [Note(HOSTILE), Output("folded", HOSTILE), Output("open", "line\n" * 80, True)],
            ),
        ],
        lead=[
            Facts([("Photons", "10⁴"), ("Long", "y" * 200)]),
            Command(["run", "--out", "a b", "z" * 150]),
        ],
        verdict="passed",
    )


def test_text_is_shown_and_never_becomes_markup(page: Page) -> None:
    outline = Outline(render_html(page))
    shown = "<script>alert('x')</script> & \"quotes\" red \N{REPLACEMENT CHARACTER}"
    assert outline.text.count(shown) == 4
    assert not {"script", "iframe", "object", "link"} & {tag for tag, _ in outline.tags}
    assert "\x1b" not in render_html(page)
    assert "\x00" not in render_html(page)


def test_page_refers_to_nothing_outside_itself(page: Page) -> None:
    outline = Outline(render_html(page))
    sources = [attributes["src"] or "" for _, attributes in outline.tags if "src" in attributes]
    assert len(sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "http://" not in render_html(page)
    assert "https://" not in render_html(page)
    assert not re.search(r"url\(|@import", render_html(page))


def test_every_picture_has_words_and_every_table_headings(page: Page) -> None:
    html = render_html(page)
    assert_accessible(html, pictures=2, tables=1)
    assert [attributes["alt"] for tag, attributes in Outline(html).tags if tag == "img"] == [
        "amplitude of the object",
        "phase of the object",
    ]


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('alt="phase of the object"', 'alt=""'),
        ('alt="phase of the object"', 'alt="amplitude of the object"'),
        ('<html lang="en">', "<html>"),
        ('<th scope="col"', "<th"),
        ("<caption>All metrics</caption>", ""),
        ('tabindex="0" aria-label="All metrics"', ""),
        ('<pre tabindex="0" aria-label="open">', "<pre>"),
        ('href="#main"', 'href="#content"'),
        ('id="s1"', 'id="s0"'),
        ("<h2 ", "<h3 "),
    ],
)
def test_the_check_of_accessibility_finds_each_fault(page: Page, right: str, wrong: str) -> None:
    """A control of the check: each change makes the page less accessible."""
    html = render_html(page)
    assert right in html
    broken = html.replace(right, wrong, 1).replace("</h2>", "</h3>", 1 if wrong == "<h3 " else 0)
    with pytest.raises(AssertionError):
        assert_accessible(broken, pictures=2, tables=1)


ID = "tests/a_room/test_it.py::test_reconstructions_law[near-field-1/2]"
PIECES = [
    "tests/",
    "a_",
    "room/",
    "test_",
    "it.py::",
    "test_",
    "reconstructions_",
    "law[",
    "near-field-1/2]",
]
ADVICE = "not tested; infer (--refine auto, -k=x-y or --refine_positions) tests it: 1/2 </b>"


def everywhere(words: str, picture: bytes) -> Page:
    """A page with the same words wherever running text can stand."""
    parts = [
        Facts([(words, words)]),
        Note(words),
        Output(words, "nothing else"),
        Table(words, (words, words), [(Link(words, "a.html"), words)]),
        Gallery([Picture(picture, alt="thumbnail", caption=words)], small=True),
        Drawing("<svg></svg>", alt="drawing", caption=words),
    ]
    return Page(words, [Section("s", parts)], verdict="failed", reason=words)


PLACES = 13  # title, reason, name and value of a fact, note, summary, 5 of a table, 2 captions


def test_the_id_of_a_test_breaks_at_its_joints_in_all_running_text(
    png: Callable[..., bytes],
) -> None:
    html = render_html(everywhere(ID, png(64, 64, BLUE)))
    shown = "<wbr>".join([*PIECES[:-1], f'<span class="case">{PIECES[-1]}</span>'])
    assert html.count(shown) == PLACES
    assert html.count("<wbr>") == PLACES * (len(PIECES) - 1)


def test_flags_are_whole_and_all_else_is_escaped(png: Callable[..., bytes]) -> None:
    html = render_html(everywhere(ADVICE, png(64, 64, BLUE)))
    flags = re.findall(r'<span class="flag">(.*?)</span>', html)
    assert flags == ["(--refine", "-k=", "--refine_positions)"] * PLACES
    assert "<wbr>" not in html
    assert html.count("</span> tests it: 1/2 &lt;/b&gt;") == PLACES


@pytest.mark.parametrize("words", [ID, ADVICE, HOSTILE, "a  b\u00a0--c/d_e[f]::g\n-1 -inf"])
def test_running_text_keeps_its_characters(words: str) -> None:
    assert Outline(running_text(words)).text == printable(words)


# The rectangles of a part of a text node are the lines that it stands on.
LINES = """(() => {
  const lines = [];
  for (const word of WORDS) for (const box of document.querySelectorAll(
      'h1, .banner > span, dt, dd, main p, summary, caption, th, td, figcaption')) {
    const nodes = [], walker = document.createTreeWalker(box, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) nodes.push(walker.currentNode);
    const start = nodes.map(n => n.data).join('').indexOf(word);
    if (start < 0) continue;
    const range = document.createRange();
    let at = 0;
    for (const n of nodes) {
      const [first, last] = [start - at, start + word.length - at];
      if (first >= 0 && first < n.length) range.setStart(n, first);
      if (last > 0 && last <= n.length) range.setEnd(n, last);
      at += n.length; }
    const tops = [...range.getClientRects()].filter(r => r.width > 1).map(r => Math.round(r.top));
    lines.push([word, box.tagName, new Set(tops).size]); }
  return lines;
})()"""


@pytest.mark.parametrize("width", [320, 390])
@pytest.mark.parametrize(
    ("text", "words"),
    [(ID, PIECES), (ADVICE, ["--refine ", "--refine_positions"])],
    ids=["id", "flags"],
)
def test_a_phone_breaks_neither_a_flag_nor_a_piece_of_an_id(
    browser: Chromium,
    png: Callable[..., bytes],
    tmp_path: Path,
    text: str,
    words: list[str],
    width: int,
) -> None:
    """A longer text before it shifts where the lines end; some end within each word."""
    for shift in range(0, 40, 3):
        path = tmp_path / f"{shift}.html"
        path.write_text(render_html(everywhere(f"{'x' * shift} {text}", png(64, 64, BLUE))))
        opened = browser.open(path, width=width, dark=False)
        assert (opened.measured["overflow"], opened.measured["wide"]) == (0, [])
        found = browser.evaluate(LINES.replace("WORDS", json.dumps(words)))
        assert len(found) == len(words) * PLACES
        may_break = {(PIECES[-1], tag) for tag in ("TH", "TD", "CAPTION")}  # at hyphens, in tables
        assert [one for one in found if one[2] > 1 and tuple(one[:2]) not in may_break] == []


def test_what_is_longer_than_a_line_breaks_rather_than_widens_the_page(
    browser: Chromium, png: Callable[..., bytes], tmp_path: Path
) -> None:
    words = f"--{'z' * 80} tests/{'y' * 80}::test[{'x' * 50}-{'w' * 50}]"
    path = tmp_path / "long.html"
    path.write_text(render_html(everywhere(words, png(64, 64, BLUE))))
    opened = browser.open(path, width=360, dark=False)
    assert (opened.measured["overflow"], opened.measured["wide"]) == (0, [])


def test_a_browser_copies_the_characters_of_a_page(
    browser: Chromium, png: Callable[..., bytes], tmp_path: Path
) -> None:
    path = tmp_path / "copied.html"
    path.write_text(render_html(everywhere(f"{ID} {ADVICE}", png(64, 64, BLUE))))
    browser.open(path, width=390, dark=False)
    browser.evaluate("getSelection().selectAllChildren(document.querySelector('main p'))")
    assert browser.evaluate("getSelection().toString().trim()") == f"{ID} {ADVICE}"


def test_picture_that_is_no_png_is_refused() -> None:
    with pytest.raises(ValueError, match="'a photo' is not a PNG"):
        render_html(Page("t", [Section("s", [Gallery([Picture(b"JFIF", alt="a photo")])])]))


def test_the_reason_of_a_verdict_stands_between_title_and_contents():
    parts = [Section("one", [Note("a")]), Section("two", [Note("b")])]
    shown = Page("t", parts, verdict="do not trust it", reason="R < 1 & <b>bad</b>")
    text = render_html(shown)
    reason = text.index("R &lt; 1 &amp; &lt;b&gt;bad&lt;/b&gt;")
    assert text.index("</h1>") < reason < text.index("<nav")
    assert text.rindex('<p class="banner do-not-trust-it">', 0, reason) > 0
    assert "R \\< 1 & \\<b\\>bad" in render_markdown(shown)
    assert 'class="banner' not in render_html(Page("t", parts, verdict="passed"))


def test_markdown_keeps_text_literal_and_tables_whole(page: Page) -> None:
    lines = render_markdown(page).splitlines()
    rows = [line for line in lines if line.startswith("| metric ")]
    assert len(rows) == 9
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 6 for row in rows)
    assert r"\<script\>" in render_markdown(page)
    assert "<script>" not in render_markdown(page)
    assert "run --out 'a b'" in render_markdown(page)


def test_markdown_code_block_cannot_be_ended_by_its_text() -> None:
    output = Output("o", "before\n````\nafter", True)
    markdown = render_markdown(Page("t", [Section("s", [output])]))
    assert markdown.count("`````") == 2


SIZES = [pytest.param(360, id="phone"), pytest.param(1280, id="desktop")]
SCHEMES = [pytest.param(False, id="light"), pytest.param(True, id="dark")]


@pytest.fixture(scope="session")
def file(page: Page, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(render_html(page), encoding="utf-8")
    return path


@pytest.fixture(scope="session", params=SIZES)
def width(request: pytest.FixtureRequest) -> Iterator[int]:
    return request.param


@pytest.fixture(scope="session", params=SCHEMES)
def dark(request: pytest.FixtureRequest) -> Iterator[bool]:
    return request.param


def test_browser_draws_the_pictures_and_logs_nothing(
    browser: Chromium, file: Path, width: int, dark: bool
) -> None:
    opened = browser.open(file, width=width, dark=dark)
    (file.parent / f"page-{width}-{'dark' if dark else 'light'}.png").write_bytes(opened.screenshot)
    assert_readable(opened, 2, dark)


def test_browser_notices_a_broken_picture_a_script_and_a_fetch(
    browser: Chromium, file: Path
) -> None:
    """A control of the check: this page has three faults."""
    wrong = file.with_name("wrong.html")
    html = file.read_text().replace("iVBORw0KGgo", "iVBORw0KGgx", 1)
    added = '<script>1</script><img src="https://example.org/x.png" alt="">'
    wrong.write_text(html.replace("</main>", f"{added}</main>"))
    opened = browser.open(wrong, width=1280, dark=False)
    assert [image["drawn"] for image in opened.measured["images"]] == [False, True, False]
    assert len(opened.logged) >= 2  # the security policy refuses the script and the picture


def test_keyboard_reaches_everything_that_can_be_used(browser: Chromium, file: Path) -> None:
    browser.open(file, width=1280, dark=False)
    reached = [browser.press_tab() for _ in range(20)]
    assert reached[:4] == ["A.skip", "A.", "A.", "A."]
    assert {"PRE.command", "DIV.scroll", "SUMMARY.", "PRE."} <= set(reached)


def test_screen_reader_reaches_headings_regions_and_pictures(browser: Chromium, file: Path) -> None:
    browser.open(file, width=1280, dark=False)
    tree = browser.accessibility_tree()
    assert ("image", "amplitude of the object") in tree
    assert ("navigation", "Sections") in tree
    assert ("heading", "Numbers") in tree
    assert ("region", "All metrics") in tree
    assert {"main", "banner", "table", "columnheader", "rowheader"} <= {role for role, _ in tree}
    assert not any(role == "image" and not name for role, name in tree)

"""The page maker shows its content as text, fetches nothing, and makes accessible pages."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chromium import Chromium, assert_readable
from outline import Outline, assert_accessible

from ptycho_torch.html.page import (
    Command,
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
    render_html,
    render_markdown,
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


def test_long_names_in_tables_break_at_their_joints_and_are_copied_whole() -> None:
    name = "tests/room/test_of_it.py::test_a_law"
    html = render_html(Page("t", [Section("s", [Table("T", ("Test",), [(name,)])])]))
    pieces = "tests/ room/ test_ of_ it.py:: test_ a_ law".replace(" ", "<wbr>")
    assert f'<th scope="row">{pieces}</th>' in html
    assert name in Outline(html).text


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

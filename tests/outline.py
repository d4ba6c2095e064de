"""Rules of a page's HTML for readers who use a screen reader or a keyboard."""

import itertools
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "wbr", "link"}
SCROLLS = {"pre"}  # and what has the class "scroll"; the keyboard must reach it


class Outline(HTMLParser):
    """Checks that tags nest and collects them with their attributes and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def assert_accessible(html: str, *, pictures: int, tables: int) -> None:
    """Check the rules of accessible HTML.

    Language, title, order of headings, words for each picture, headings of tables, and keyboard
    focus for everything that scrolls.
    """
    outline = Outline(html)
    tags = outline.tags
    assert dict(tags)["html"].get("lang") == "en"
    assert "<title></title>" not in html
    levels = [int(tag[1]) for tag, _ in tags if tag in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels)), (
        "no level is left out"
    )
    names = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(names) == len(set(names))
    inside = [
        attributes["href"] or ""
        for tag, attributes in tags
        if tag == "a" and (attributes["href"] or "")[:1] == "#"
    ]
    assert inside[0] == "#main", "the first link skips to the content"
    assert {name[1:] for name in inside} <= set(names)
    words = [attributes.get("alt") for tag, attributes in tags if tag == "img"]
    assert len(words) == pictures
    assert all(words)
    assert len(set(words)) == pictures, "two pictures have the same words"
    assert (
        [tag for tag, _ in tags].count("table")
        == [tag for tag, _ in tags].count("caption")
        == tables
    )
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in tags if tag == "th")
    for tag, attributes in tags:
        if tag in SCROLLS or attributes.get("class") == "scroll":
            assert attributes.get("tabindex") == "0"
            assert attributes.get("aria-label")
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in names

"""The page of two archives side by side."""

from pathlib import Path

from ptycho_torch.html.page import (
    Block,
    Facts,
    Gallery,
    Note,
    Page,
    Section,
    Table,
    render_html,
    render_markdown,
)
from ptycho_torch.testing.archive_comparison import Comparison
from ptycho_torch.testing.manifest import COMPARISON_VIEWS, write_atomically


def comparison_page(found: Comparison) -> Page:
    """The comparison as a page: what became worse first."""
    tables = (
        (
            "Metrics",
            "Metrics side by side",
            ("Test", "Metric", "Before", "Now", "Tolerance", "Verdict"),
            found.metrics,
        ),
        (
            "Verdicts",
            "Verdict of each test",
            ("Test", "Before", "Now", "Remark"),
            found.verdicts,
        ),
        (
            "Artifacts",
            "Produced files and assertion groups",
            ("Test", "Name", "Before", "Now", "Tolerance", "Change"),
            found.artifacts,
        ),
        (
            "Times",
            "What the commands took",
            ("Test", "Command", "Quantity", "Before", "Now", "Ratio"),
            found.times,
        ),
    )
    sections = [sentences("Worse or missing", found.worse)] if found.worse else []
    if found.not_compared:
        sections.append(sentences("Not compared", found.not_compared))
    sections += [
        Section(title, [Table(caption, columns, rows) if rows else Note("Nothing to compare.")])
        for title, caption, columns, rows in tables
    ]
    sections.append(Section("Changed pictures", pictures(found)))
    lead = Facts(
        [
            ("Tests compared", f"{found.compared}"),
            ("Worse or missing", f"{len(found.worse)}"),
            ("Not compared", f"{len(found.not_compared)}"),
            ("Pictures changed", f"{len(found.pictures)}"),
        ]
    )
    return Page("Two archives side by side", sections, lead=[lead], verdict=found.verdict)


def sentences(title: str, words: list[str]) -> Section:
    """A section of one paragraph for each sentence."""
    return Section(title, [Note(sentence) for sentence in words])


def pictures(found: Comparison) -> list[Block]:
    """Before, now and the difference of each picture that changed."""
    shown: list[Block] = [
        Gallery([one for one in (change.before, change.now, change.difference) if one])
        for change in found.pictures
    ]
    return shown or [Note("No picture changed.")]


def comparison_text(found: Comparison) -> str:
    """The comparison in Markdown."""
    return render_markdown(comparison_page(found))


def write_comparison(found: Comparison, folder: Path) -> dict[str, bytes]:
    """Write `compare.html` and `compare.md` into a folder, and return their content by name."""
    contents = render_html(comparison_page(found)), comparison_text(found)
    files = {name: text.encode() for name, text in zip(COMPARISON_VIEWS, contents, strict=True)}
    for name, data in files.items():
        write_atomically(folder / name, data)
    return files

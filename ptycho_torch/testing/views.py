"""Build the two views of a manifest, `index.html` and `summary.md`."""

from collections.abc import Callable
from pathlib import Path

from ptycho_torch.html.page import Page, render_html, render_markdown
from ptycho_torch.testing.closing import close_interrupted
from ptycho_torch.testing.front_page import session_page
from ptycho_torch.testing.integrity import find_problems
from ptycho_torch.testing.manifest import VIEWS, read_manifest, read_runs, write_atomically
from ptycho_torch.testing.run_page import run_page

RENDERERS: tuple[Callable[[Page], str], ...] = (render_html, render_markdown)  # of VIEWS


def build_views(folder: Path) -> Path:
    """Write page and summary of an archive, or of one run in it, and return the page's path.

    An archive of a session that was killed is closed first.

    Raises:
        ValueError: If the folder holds no manifest of this schema.
    """
    close_interrupted(folder)
    for path, data in render_views(folder).items():
        write_atomically(path, data)
    return folder / VIEWS[0]


def render_views(folder: Path) -> dict[Path, bytes]:
    """Content of the pages and summaries of an archive, or of one run in it, by path.

    Raises:
        ValueError: If the folder holds no manifest of this schema.
    """
    manifest = read_manifest(folder)
    if manifest["kind"] == "run":
        return render(folder, run_page(folder, manifest))
    runs = read_runs(folder)
    views: dict[Path, bytes] = {}
    for path, run in runs.items():
        views |= render(path, run_page(path, run))
    return views | render(folder, session_page(folder, manifest, runs, find_problems(folder)))


def render(folder: Path, page: Page) -> dict[Path, bytes]:
    """The page as HTML and Markdown, by path."""
    return {
        folder / name: renderer(page).encode()
        for name, renderer in zip(VIEWS, RENDERERS, strict=True)
    }

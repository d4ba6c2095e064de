"""Links and file names in the documents exist, and generated documents are up to date."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    [
        ROOT / "README.md",
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("specs/*.md"),
        *ROOT.glob("plans/**/*.md"),
    ]
)


def test_the_command_line_document_is_the_one_that_is_generated():
    spec = importlib.util.spec_from_file_location("command_line", ROOT / "docs" / "command_line.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.TARGET.read_text(encoding="utf-8") == module.text(), (
        "run: python docs/command_line.py"
    )


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path):
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_is_named_exists(path):
    """Words in backquotes that look like files of the project."""
    for name in re.findall(
        r"`((?:ptycho_torch|tests|docs|specs|plans|benchmarks)/[\w./-]+)`",
        path.read_text(encoding="utf-8"),
    ):
        assert (ROOT / name).exists(), name

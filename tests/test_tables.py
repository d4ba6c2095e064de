"""Tables in documents are as the code has them, and the README names every room."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SPEC = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
tables = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tables)


@pytest.mark.parametrize("name", tables.TABLES)
def test_a_table_is_the_one_that_is_generated(name):
    document, _ = tables.TABLES[name]
    assert document.read_text(encoding="utf-8") == tables.text(name), "run: python docs/tables.py"


def test_the_readme_names_every_room_of_the_package_and_no_other():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (tree,) = re.findall(r"^ptycho_torch/\n((?:  \S.*\n)+)", readme, re.MULTILINE)
    named = [line.split()[0] for line in tree.splitlines()]
    rooms = [path.parent.name + "/" for path in (ROOT / "ptycho_torch").glob("*/__init__.py")]
    modules = [path.name for path in (ROOT / "ptycho_torch").glob("[!_]*.py")]
    assert sorted(named) == sorted([*rooms, *modules])


@pytest.mark.parametrize("path", sorted(ROOT.glob("benchmarks/*.md")), ids=lambda path: path.name)
def test_every_link_of_a_study_leads_somewhere(path):
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def test_the_functions_that_the_architecture_names_are_where_it_says():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`([a-z_]+/[\w/]+\.py)`((?:,? `\w+`)*)", text)
    assert len(named) > 20
    for module, names in named:
        is_room = (ROOT / "ptycho_torch" / module.partition("/")[0]).is_dir()
        if "NAME" in module or not is_room:
            continue
        code = (ROOT / "ptycho_torch" / module).read_text(encoding="utf-8")
        for name in re.findall(r"\w+", names):
            assert re.search(rf"\b{name}\b", code), (module, name)

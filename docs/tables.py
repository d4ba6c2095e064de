"""Write the tables in the documents that the code decides: `python docs/tables.py`."""

import ast
from collections.abc import Callable, Iterable
from pathlib import Path

from ptycho_torch.io.run_dir import FILES

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ptycho_torch"


def files() -> str:
    """The files of a run folder, and the commands that own them."""
    rows = ((f"`{file.name}`", _joined(file.commands), file.meaning) for file in FILES.values())
    return _table(("file", "owned by", "content"), rows)


def arrows() -> str:
    """The rooms that each room of the package imports."""
    rooms: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.glob("*/**/*.py")):
        room = path.relative_to(PACKAGE).parts[0]
        rooms.setdefault(room, set()).update(imported_rooms(path) - {room})
    rows = ((f"`{room}`", _joined(sorted(others)) or "none") for room, others in rooms.items())
    return _table(("room", "imports"), rows)


def imported_rooms(path: Path) -> set[str]:
    """The rooms that a module imports from, anywhere in it."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    names = [str(node.module).split(".") for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name[1] for name in names if name[0] == "ptycho_torch" and len(name) > 1}


def _joined(names: Iterable[str]) -> str:
    """Names as text."""
    return ", ".join(f"`{name}`" for name in names)


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


TABLES: dict[str, tuple[Path, Callable[[], str]]] = {
    "files": (ROOT / "specs" / "run_folder.md", files),
    "arrows": (ROOT / "docs" / "architecture.md", arrows),
}


def text(name: str) -> str:
    """A document with its table between the marks as it should be."""
    document, make = TABLES[name]
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, _, rest = document.read_text(encoding="utf-8").partition(begin)
    return f"{before}{begin}\n{make()}\n\n{end}{rest.partition(end)[2]}"


if __name__ == "__main__":
    for table, (target, _) in TABLES.items():
        target.write_text(text(table), encoding="utf-8")

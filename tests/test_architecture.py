"""Imports go one way: no module imports from a layer above its own."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ptycho_torch"

LAYERS = [
    {"errors", "testing"},
    {"config", "scan", "patterns"},
    {"physics", "run_dir", "command", "accelerator", "sharing"},
    {"readers", "writers", "grouping", "metrics", "plots", "generators", "stitching", "refinement"},
    {
        "simulate",
        "data",
        "augmentation",
        "module",
        "selection",
        "checkpoint",
        "comparison",
        "assessment",
        "doctor",
        "report",
        "illumination",
        "conditions",
    },
    {"polishing"},
    {"processes"},
    {"training", "reconstruction", "conversion"},
    {"train", "inference"},
    {"demo"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
LIGHTNING = {"data", "module", "training", "processes"}  # the only modules that know it


def modules():
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Full names of the modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            from_root = node.module == "ptycho_torch"
            names |= {f"{node.module}.{alias.name}" if from_root else str(node.module) for alias in node.names}
    return names


def own_parts(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imported(path) if name.startswith("ptycho_torch.")} - {"__version__"}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_its_layer_and_below(path):
    for other in own_parts(path):
        assert LEVEL[other] <= LEVEL[part(path)], f"{part(path)} imports {other}, which is above it"


def test_no_two_parts_import_each_other():
    needs: dict[str, set[str]] = {}
    for path in modules():
        needs.setdefault(part(path), set()).update(own_parts(path) - {part(path)})
    order: list[str] = []
    while needs:
        free = sorted(name for name, others in needs.items() if not others - set(order))
        assert free, f"a circle among {sorted(needs)}"
        order += free
        needs = {name: others for name, others in needs.items() if name not in order}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_trainer_side_knows_lightning(path):
    uses = any(name.split(".")[0] in ("lightning", "pytorch_lightning") for name in imported(path))
    assert not uses or part(path) in LIGHTNING


def test_the_plugin_stands_apart():
    """It serves other projects: pytest and the standard library are all that it needs."""
    for path in (PACKAGE / "testing").glob("*.py"):
        assert own_parts(path) <= {"testing"}
        others = {name.split(".")[0] for name in imported(path)} - {"ptycho_torch", "pytest"}
        assert others <= sys.stdlib_module_names, path


def test_no_file_is_read_with_pickle():
    for path in modules():
        text = path.read_text()
        assert "allow_pickle=True" not in text
        assert "weights_only=False" not in text

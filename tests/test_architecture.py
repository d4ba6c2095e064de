"""The rooms of the package: which may import which, and what every module keeps to."""

import ast
import subprocess
import sys
from collections.abc import Collection
from functools import cache
from pathlib import Path

import pytest

from ptycho_torch.config import registry
from ptycho_torch.config.commands import COMMANDS
from ptycho_torch.config.options import Options

PACKAGE = Path(__file__).parent.parent / "ptycho_torch"

BELOW = "errors config physics data io generators refinement evaluation doctor"

ROOMS = {  # room -> rooms that it may import
    "__init__": "",
    "errors": "",
    "html": "",
    "testing": "html",
    "config": "errors",
    "physics": "errors",
    "data": "errors physics",
    "io": "errors config data",
    "distributed": "errors",
    "generators": "errors config physics data io",
    "refinement": "errors physics data distributed",
    "evaluation": "errors config physics data io html",
    "doctor": "errors config physics data io evaluation",
    "train": f"{BELOW} distributed",
    "inference": f"{BELOW} distributed html",
    "cli": f"{BELOW} train inference testing",
    "ptychodus": f"{BELOW} distributed train inference",
    "config_params": "ptychodus",
    "model": "ptychodus",
    "lightning_utils": "ptychodus",
    "api": "ptychodus",
    "__main__": "cli",
}
LIGHTNING = {"train", "distributed/fabric.py"}  # the only places that import it
TORCH_FREE = ("config", "train", "inference", "cli", "io.run_dir", "testing.views")
CONTRACT_NAMES = {"api", "config_params", "lightning_utils", "model"}  # Ptychodus imports them
MAX_ARGUMENTS, MAX_COLUMNS, MAX_ENTRIES = 8, 100, 18

MODULES = sorted(PACKAGE.rglob("*.py"))
EACH = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def imported(path: Path) -> set[str]:
    """Full names of the modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def module_name(path: Path) -> str:
    """The dotted name under which a file is imported."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def holder(name: str, modules: Collection[str]) -> str:
    """The module of an imported name; a name of another package is returned as it is."""
    place = name
    while place and place not in modules:
        place = place.rpartition(".")[0]
    return place or name


def own_rooms(path: Path) -> set[str]:
    names = {name.split(".")[1] for name in imported(path) if name.startswith("ptycho_torch.")}
    return names - {"__version__", room(path)}


@EACH
def test_a_module_imports_only_what_its_room_may(path):
    assert own_rooms(path) <= set(ROOMS[room(path)].split())


def test_the_rooms_lie_in_one_order():
    """Each room imports only rooms of the lines above its own, so that there is no circle."""
    above: set[str] = set()
    for name, others in ROOMS.items():
        assert set(others.split()) <= above, name
        above.add(name)


def test_no_two_modules_import_each_other():
    names = {module_name(path): path for path in MODULES}
    needs = {
        name: {holder(one, names) for one in imported(path)} & names.keys()
        for name, path in names.items()
    }
    while needs:
        free = [name for name, others in needs.items() if not others & needs.keys()]
        assert free, f"a circle among {sorted(needs)}"
        needs = {name: others for name, others in needs.items() if name not in free}


@EACH
def test_only_the_trainer_side_imports_lightning(path):
    names = {name.split(".")[0] for name in imported(path)}
    place = path.relative_to(PACKAGE).as_posix()
    if not {place, room(path)} & LIGHTNING:
        assert not names & {"lightning", "pytorch_lightning"}


def test_the_plugin_stands_apart():
    """Other projects use it with pytest, the page maker and the standard library alone."""
    for path in [*(PACKAGE / "testing").glob("*.py"), *(PACKAGE / "html").glob("*.py")]:
        others = {name.split(".")[0] for name in imported(path)}
        others -= {"ptycho_torch", "pytest", "_pytest"}
        assert others <= sys.stdlib_module_names, path


@pytest.mark.parametrize("module", ["", *(f".{name}" for name in TORCH_FREE)])
def test_what_is_imported_at_once_needs_neither_torch_nor_pytest(module):
    """A child process, in which pytest cannot be imported."""
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        f"import ptycho_torch{module}\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_an_inference_starts_without_the_compiler_of_torch():
    """Nothing is compiled, and importing the compiler takes as long as importing torch.

    Some functions of torch import it by the way, such as a logarithm on the meta device.
    """
    code = (
        "import sys, torch, ptycho_torch.inference.workflow\n"
        "from ptycho_torch.distributed.device import require_determinism\n"
        "from ptycho_torch.generators import build_generator\n"
        "require_determinism(True)\n"
        "assert torch.are_deterministic_algorithms_enabled()\n"
        "with torch.device('meta'):\n"
        "    build_generator('unrolled', {})\n"
        "    build_generator('unet', {'group_size': 4})\n"
        "print('torch._dynamo' in sys.modules, 'lightning' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"


def test_the_root_has_few_entries_beside_the_names_that_ptychodus_imports():
    entries = {path.name for path in PACKAGE.iterdir()} - {"__pycache__"}
    entries -= {"api", *(f"{name}.py" for name in CONTRACT_NAMES)}
    assert len(entries) <= MAX_ENTRIES, sorted(entries)


def test_no_two_modules_share_a_name():
    names = [path.name for path in MODULES if not path.name.startswith("__")]
    assert len(names) == len(set(names))


@EACH
def test_every_line_fits(path):
    lines = path.read_text().splitlines()
    assert not [number for number, line in enumerate(lines, 1) if len(line) > MAX_COLUMNS]


@EACH
def test_every_function_takes_few_arguments(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            names = [one.arg for one in given if one.arg not in ("self", "cls")]
            assert len(names) <= MAX_ARGUMENTS, f"{node.name}({', '.join(names)})"


@EACH
def test_no_error_is_caught_without_its_name(path):
    """Broad handlers end with a bare `raise`, so that the error goes on."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            named = [] if node.type is None else ast.walk(node.type)
            caught = {one.id for one in named if isinstance(one, ast.Name)}
            last = node.body[-1]
            goes_on = isinstance(last, ast.Raise) and last.exc is None
            narrow = caught and not caught & {"Exception", "BaseException"}
            assert goes_on or narrow, f"line {node.lineno}"


@EACH
def test_no_file_is_read_with_pickle(path):
    text = path.read_text()
    assert "allow_pickle=True" not in text
    assert "weights_only=False" not in text


ENTRIES = {
    **registry.GENERATORS,
    **registry.LOSSES,
    **{f"reader {i}": entry for i, entry in enumerate(registry.READERS)},
    **{f"writer of scans, {name}": entry for name, entry in registry.SCAN_WRITERS.items()},
    **{f"writer of results, {name}": entry for name, entry in registry.RESULT_WRITERS.items()},
}


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_of_the_registry_is_there(name):
    assert registry.load(ENTRIES[name]) is not None


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_options_and_a_function(name):
    command = COMMANDS[name]
    assert issubclass(registry.load(command.options), Options)
    assert callable(registry.load(command.function))

"""The worked example of docs/testing.md, run as it stands there."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ptycho_torch.testing.manifest import read_manifest

pytest_plugins = "pytester"

DOCS = Path(__file__).parents[2] / "docs/testing.md"
BLOCKS = dict(re.findall(r"^```\w+ title=(\S+)\n(.*?)^```$", DOCS.read_text(), re.M | re.S))


@pytest.fixture
def example(pytester: pytest.Pytester) -> Path:
    for name in ("train.py", "infer.py", "test_pipeline.py"):
        (pytester.path / name).write_text(BLOCKS[name])
    return pytester.path


def test_example_passes_and_leaves_the_files_it_says(
    example: Path, inner_pytest: Callable[..., pytest.RunResult]
) -> None:
    inner_pytest("--archive", "evidence").assert_outcomes(passed=3)
    listed, folder = set(), ""
    for line in BLOCKS["evidence"].splitlines()[1:]:
        words = line.split("  the ")[0].split()
        folder = words[0] if words[0].endswith("/") else folder if line.startswith("    ") else ""
        listed |= {folder + word for word in words if not word.endswith("/")}
    found = {
        str(path.relative_to(example / "evidence"))
        for path in (example / "evidence").rglob("*")
        if path.is_file()
    }
    assert {re.sub(r"-[0-9a-f]{8}/", "-…/", name) for name in found} == listed


def test_example_compares_as_worse_when_the_model_is(
    example: Path, inner_pytest: Callable[..., pytest.RunResult]
) -> None:
    assert inner_pytest("--archive", "evidence").ret == 0
    assert inner_pytest("--archive", "new", "--archive-compare", "evidence").ret == 0
    script = example / "train.py"
    script.write_text(script.read_text().replace("out = ", "slope += 0.03\nout = "))
    result = inner_pytest("--archive", "new", "--archive-compare", "evidence")
    result.assert_outcomes(passed=3)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["workflow: slope error was * (tolerance 0.01): worse"])


def test_example_of_a_failing_script_is_kept(
    example: Path, inner_pytest: Callable[..., pytest.RunResult]
) -> None:
    (example / "train.py").write_text(BLOCKS["train.py"] + "raise SystemExit('out of beam')\n")
    inner_pytest("--archive", "evidence").assert_outcomes(passed=1, errors=2)
    (folder,) = (example / "evidence").glob("workflow-*")
    run = read_manifest(folder)
    assert (run["verdict"], run["commands"][0]["exit_status"]) == ("error", 1)
    assert "out of beam" in run["message"]
    assert (folder / "artifacts/model/model.json").is_file()


def test_page_of_the_docs_can_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, png: Callable[..., bytes]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS["page.py"], "page.py", "exec"), {"png": png(8, 8, (9, 9, 9))})
    assert "R-free" in (tmp_path / "report.html").read_text()

"""`make evidence` on a small project, with a test that passes and with one that fails."""

import evidence
import pytest

TEST = """
import sys
import pathlib

def test_way(run_archive, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "train_debug.log").write_text(f"trained in {tmp_path}")
    run_archive.artifact(tmp_path / "out")
    run_archive.metric("correlation", 0.99)
    run_archive.run_command([sys.executable, "-c", "print('trained')"])
    assert pathlib.Path(__file__).is_file() is GOOD
"""
LEDGER = "# Ledger\n\n| attempt | result |\n| --- | --- |\n| #6 | GREEN |\n"


@pytest.mark.parametrize(("good", "status", "colour"), [(True, 0, "green"), (False, 1, "red")])
def test_one_run_leaves_summary_log_manifest_and_ledger_entry(
    good, status, colour, tmp_path, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", str(evidence.ROOT))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "fix_plan.md").write_text(LEDGER)
    (tmp_path / "test_way.py").write_text(TEST.replace("GOOD", str(good)))
    assert evidence.main("phase_x", tmp_path, "test_way.py::test_way") == status
    (folder,) = (tmp_path / evidence.INITIATIVE / "reports").glob("*/phase_x")
    assert sorted(path.name for path in folder.iterdir()) == [
        "manifest.json",
        f"pytest_{colour}.log",
        "summary.md",
        "train_debug.log",
    ]
    assert all(str(tmp_path) not in path.read_text() for path in folder.iterdir())
    assert "correlation" in (folder / "summary.md").read_text()
    ledger = (tmp_path / "docs" / "fix_plan.md").read_text()
    assert ledger.startswith(LEDGER)
    assert f"| #7 | {colour.upper()}, " in ledger
    assert f"../{folder.relative_to(tmp_path)})" in ledger

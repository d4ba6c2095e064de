"""Run the integration test once and write its evidence (`make evidence`).

The evidence is a summary, a log, a manifest, and a line in the ledger.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from ptycho_torch.testing.manifest import read_manifest
from ptycho_torch.testing.privacy import Redactor

ROOT = Path(__file__).parent.parent
INITIATIVE = "plans/active/TEST-PYTORCH-001"
LEDGER = "docs/fix_plan.md"
SELECTOR = "tests/torch/test_integration_workflow_torch.py::test_run_pytorch_train_save_load_infer"


def main(phase: str, root: Path = ROOT, selector: str = SELECTOR) -> int:
    """Write the evidence of one run under the plans of ``root``; return pytest's exit status."""
    moment = datetime.now(UTC)
    place = f"{INITIATIVE}/reports/{moment:%Y-%m-%dT%H%M%SZ}/{phase}"
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "archive"
        words = [
            "-m",
            "pytest",
            "-p",
            "ptycho_torch.testing.plugin",
            selector,
            "-vv",
            "--archive",
            str(archive),
        ]
        env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        done = subprocess.run(
            [sys.executable, *words], cwd=root, env=env, text=True, check=False, **streams
        )
        print(done.stdout)
        target = root / place
        target.mkdir(parents=True)
        colour = "red" if done.returncode else "green"
        redactor = Redactor([("archive", archive), ("project", root)])
        heading = (
            f'# {moment:%Y-%m-%dT%H:%M:%SZ}\n# CUDA_VISIBLE_DEVICES="" pytest {selector} -vv\n'
        )
        (target / f"pytest_{colour}.log").write_text(heading + redactor.text(done.stdout).text)
        keep(archive, target)
    add_to_ledger(root / LEDGER, colour.upper(), place, moment)
    print(f"evidence: {place}")
    return done.returncode


def keep(archive: Path, target: Path) -> None:
    """Copy the summary, the manifest and the training log of the one run in an archive."""
    for run in (read_manifest(archive)["runs"] if archive.is_dir() else [])[:1]:
        folder = archive / run["folder"]
        shutil.copy(folder / "manifest.json", target)
        summary = (folder / "summary.md").read_text()
        without_links = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", summary)  # to files not copied
        (target / "summary.md").write_text(without_links)
        for log in sorted((folder / "artifacts").rglob("train_debug*.log"))[:1]:
            shutil.copy(log, target / "train_debug.log")


def add_to_ledger(ledger: Path, colour: str, place: str, moment: datetime) -> None:
    """Append a line to the table of attempts, which ends the ledger."""
    text = ledger.read_text().rstrip("\n")
    number = max(map(int, re.findall(r"#(\d+)", text))) + 1
    link = f"[{place.removeprefix('plans/active/')}](../{place})"
    ledger.write_text(f"{text}\n| #{number} | {colour}, {moment:%Y-%m-%d %H:%M} UTC: {link} |\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

"""The harness on a project of two scripts that is not ptychography, by real sessions of pytest."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from lean_sessions import LEAN, plugins_of
from outline import Outline

from ptycho_torch import cli
from ptycho_torch.testing.compare import main as compare_main
from ptycho_torch.testing.manifest import SCHEMA_FILE, read_manifest
from ptycho_torch.testing.png_difference import Image, compare_png, decode_png, encode_png
from ptycho_torch.testing.session import NOT_WRITTEN
from ptycho_torch.testing.verify import main as verify_main
from ptycho_torch.testing.verify import verify
from ptycho_torch.testing.views import build_views

FOREIGN = Path(__file__).parent / "foreign"
ROOT = Path(__file__).parents[2]
SCHEMA = json.loads(SCHEMA_FILE.read_text())


class Project:
    """A copy of the foreign project; `run` starts pytest in it as a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("train.py", "infer.py"):
            shutil.copy(FOREIGN / name, folder)
        shutil.copy(FOREIGN / "project.py", folder / "test_project.py")
        (folder / "pytest.ini").write_text("[pytest]\n")

    def change(self, before: str, after: str, name: str = "test_project.py") -> None:
        text = (self.folder / name).read_text()
        assert before in text
        (self.folder / name).write_text(text.replace(before, after))

    def start(self, *words: str, **env: str) -> subprocess.Popen[str]:
        plugin = ["-p", "ptycho_torch.testing.plugin", "-p", "no:cacheprovider"]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", *plugin, *plugins_of(words), *words],
            cwd=self.folder,
            env={**clean, **LEAN, "PYTHONPATH": str(ROOT), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *words: str, **env: str) -> tuple[int, str]:
        process = self.start(*words, **env)
        said, _ = process.communicate(timeout=120)
        return process.returncode, said

    def session(self, archive: str = "out") -> dict[str, Any]:
        manifest = read_manifest(self.folder / archive)
        jsonschema.validate(manifest, SCHEMA)
        for path in (self.folder / archive).glob("*/manifest.json"):
            jsonschema.validate(read_manifest(path.parent), SCHEMA)
        return manifest

    def verdicts(self, archive: str = "out") -> dict[str, str]:
        tests = self.session(archive)["tests"]
        return {one["test"].rpartition("::test_")[2]: one["verdict"] for one in tests}

    def page(self, archive: str = "out") -> str:
        return (self.folder / archive / "summary.md").read_text()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "project").mkdir()
    return Project(tmp_path / "project")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project with the archive `out` of a green session; tests copy it to change it."""
    project = Project(tmp_path_factory.mktemp("foreign"))
    status, said = project.run("--archive", "out")
    assert status == 0, said
    return project


@pytest.fixture
def archive(made: Project, tmp_path: Path) -> Path:
    """A copy of the archive of a green session."""
    return shutil.copytree(made.folder / "out", tmp_path / "out")


# 1. Redaction


@pytest.mark.parametrize("user", ["worker", "test", "git", "passed", "urn", "slope", "model"])
def test_a_user_called_as_a_word_of_the_manifest_breaks_nothing(project, user) -> None:
    status, said = project.run("--archive", "out", USER=user, LOGNAME=user)
    assert status == 0, said
    assert set(project.verdicts().values()) == {"passed"}
    (model,) = (project.folder / "out").glob("workflow-*/artifacts/model/model.json")
    assert model.read_bytes() == b'{"slope": 3.0}'
    (workflow,) = (project.folder / "out").glob("workflow-*")
    assert [one["name"] for one in read_manifest(workflow)["metrics"]] == ["slope", "prediction"]


def test_what_was_replaced_is_stated_with_its_place(made) -> None:
    (workflow,) = (made.folder / "out").glob("workflow-*")
    replaced = {one["where"]: one["replaced"] for one in read_manifest(workflow)["redactions"]}
    assert replaced["commands/01-stdout.txt"] == {"tmp": 1}
    assert "commands/01-stdout.txt" in (workflow / "summary.md").read_text()


ADDRESSES = """
print("by Jane Doe and jane%20doe", file=sys.stderr)
print("bob@beam.example.org https://user:password@beam.example.org/scan", file=sys.stderr)
from urllib.parse import quote
print(f"file://{quote(str(pathlib.Path(__file__).parent))}/train.py", file=sys.stderr)
"""


def test_names_of_two_words_addresses_and_encoded_paths_are_replaced(tmp_path) -> None:
    (tmp_path / "a project").mkdir()
    project = Project(tmp_path / "a project")
    train = project.folder / "train.py"
    train.write_text(train.read_text() + ADDRESSES)
    status, said = project.run("--archive", "out", "-k", "slope", USER="Jane Doe")
    assert status == 0, said
    (workflow,) = (project.folder / "out").glob("workflow-*")
    assert (workflow / "commands/01-stderr.txt").read_text().splitlines() == [
        "by {private} and {private}",
        "{private} https://{private}@beam.example.org/scan",
        "file://{project}/train.py",
    ]


PARTS = ("reason", "message")


def test_words_replaced_in_a_message_are_stated_by_test_and_phase(project) -> None:
    project.change('assert os.environ.get("FOREIGN", "green") == "green"', "assert not str(HERE)")
    assert project.run("--archive", "out", "-k", "environment")[0] == 1
    parts = [one["where"] for one in project.session()["redactions"]]
    assert parts == [f"test_project.py::test_environment, call: {part}" for part in PARTS]


# 2. Comparison


def test_same_tests_are_no_worse_also_in_parallel(made, tmp_path) -> None:
    for words in ((), ("-n", "2")):
        status, said = made.run("--archive", f"{tmp_path}/new", "--archive-compare", "out", *words)
        assert status == 0, said
        assert "5 tests compared, 0 worse or missing" in said


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("def test_parts", "def test_pieces", "test_project.py::test_parts: was passed, has gone"),
        ("def test_parts", "@pytest.mark.skip\ndef test_parts", "was passed, is skipped"),
        ('archive.metric("slope"', 'archive.metric("other"', "slope was 0, is not recorded"),
        (
            "the prediction is right",
            "another group",
            "'the prediction is right' was passed, is not",
        ),
        ('/ "model", caption', '/ "nothing", caption', "model/model.json was 14 bytes, is not"),
        ("SLOPE_ERROR = 0.0", "SLOPE_ERROR = 0.1", "(tolerance 0.01): worse"),
    ],
    ids=["renamed", "skipped", "metric", "group", "artifact", "worse"],
)
def test_what_has_gone_or_is_worse_is_a_failure_and_named(
    made, tmp_path, before, after, said
) -> None:
    (tmp_path / "project").mkdir()
    project = Project(tmp_path / "project")
    project.change(before, after)
    words = ("--archive", "new", "--archive-compare", str(made.folder / "out"))
    status, output = project.run(*words)
    assert status == 1, output
    assert said in output
    new = project.folder / "new"
    assert compare_main([str(made.folder / "out"), str(new)]) == 1
    assert said in " ".join(read_manifest(new)["comparison"]["worse"])
    if "worse" not in said:
        assert project.run(*words, "--archive-allow-missing")[0] == 0


def test_failing_test_that_passed_is_worse_without_pytest(made, tmp_path) -> None:
    status, _ = made.run("--archive", f"{tmp_path}/new", FOREIGN="red")
    assert status == 1
    assert compare_main([str(made.folder / "out"), str(tmp_path / "new")]) == 1


def test_renamed_test_is_compared_under_its_new_name(made, tmp_path) -> None:
    (tmp_path / "project").mkdir()
    project = Project(tmp_path / "project")
    project.change("def test_parts", "def test_pieces")
    names = project.folder / "names.json"
    names.write_text(json.dumps({"test_project.py::test_parts": "test_project.py::test_pieces"}))
    words = ("--archive", "new", "--archive-compare", str(made.folder / "out"))
    assert project.run(*words, "--archive-renamed", "names.json")[0] == 0
    names.write_text(json.dumps({"test_project.py::test_nothing": "test_project.py::test_pieces"}))
    status, said = project.run(*words, "--archive-renamed", "names.json")
    assert status == 1
    assert "the reference has no such test" in said


@pytest.mark.parametrize(
    "words",
    [
        ("-k", "prediction"),
        ("test_project.py::test_prediction",),
        ("test_project.py::test_prediction", "test_project.py::test_parts", "-n", "2"),
    ],
    ids=["k", "named", "xdist"],
)
def test_partial_selection_says_what_it_did_not_compare(made, tmp_path, words) -> None:
    status, said = made.run("--archive", f"{tmp_path}/new", "--archive-compare", "out", *words)
    assert status == 0, said
    assert "not compared: test_project.py::test_slope" in said
    assert "not compared: workflow: slope (its test was not selected)" in said


def test_deselecting_by_a_setting_is_no_partial_selection(made, tmp_path) -> None:
    words = ("--deselect", "test_project.py::test_parts")
    status, said = made.run("--archive", f"{tmp_path}/new", "--archive-compare", "out", *words)
    assert status == 1
    assert "test_parts: was passed, has gone" in said


def test_reference_without_a_test_is_no_reference(project) -> None:
    project.run("--archive", "empty", "-k", "nothing_at_all")
    status, said = project.run("--archive", "new", "--archive-compare", "empty")
    assert status == 1
    assert "nothing to compare" in said


def test_ids_do_not_depend_on_whether_the_archive_exists(project) -> None:
    (project.folder / "pytest.ini").unlink()
    (project.folder / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    for _ in range(2):
        assert project.run("--archive", "../evidence")[0] == 0
        assert "test_project.py::test_slope" in {
            one["test"] for one in project.session("../evidence")["tests"]
        }


def test_a_pytest_that_finds_its_root_by_other_means_says_how_to_name_the_archive(project) -> None:
    """The plugin is loaded in every session of an environment, and must end none."""
    (project.folder / "unknown.py").write_text(
        "import _pytest.config.findpaths as found\ndel found.determine_setup\n"
    )
    words = ("-p", "unknown", "--archive", "out", "-k", "slope")
    for warned in (False, True):  # in the second session the folder exists
        status, said = project.run(*words, PYTHONPATH=f"{ROOT}:{project.folder}")
        assert status == 0, said
        assert ("write --archive=out" in said) == warned
    assert project.run("-p", "unknown", PYTHONPATH=f"{ROOT}:{project.folder}")[0] == 0


PICTURE = """
def test_picture(run_archive, tmp_path):
    from ptycho_torch.testing.png_difference import Image, encode_png
    picture = encode_png(Image(8, 8, bytes([LEVEL]) * 192))
    run_archive.artifact(tmp_path / "a.png", tolerance=0.02).write_bytes(picture)
"""


def test_picture_that_changed_is_shown_with_the_difference_and_can_fail(project) -> None:
    (project.folder / "test_project.py").write_text(PICTURE.replace("LEVEL", "100"))
    assert project.run("--archive", "old")[0] == 0
    for level, status in ((104, 0), (110, 1)):
        (project.folder / "test_project.py").write_text(PICTURE.replace("LEVEL", str(level)))
        words = ("--archive", "new", "--archive-compare", "old")
        assert project.run(*words)[0] == status
        said = (project.folder / "new/compare.md").read_text()
        assert f"rms {(level - 100) / 255:.3g} of full scale, tolerance 0.02" in said
        assert f"rms difference {(level - 100) / 255:.3g} |" in said
        assert (project.folder / "new/compare.html").read_text().count("data:image/png") == 3


def test_png_of_another_program_is_read_in_full(tmp_path) -> None:
    """Pillow chooses a filter for each row, so that all kinds are read."""
    from PIL import Image as Pillow

    for mode in ("L", "RGB", "RGBA", "LA"):
        size = len(mode) * 32 * 32
        noise = bytes((at * at // 7) % 256 for at in range(size))
        Pillow.frombytes(mode, (32, 32), noise).save(tmp_path / "a.png")
        white = Pillow.new("RGBA", (32, 32), "white")
        image = Pillow.open(tmp_path / "a.png").convert("RGBA")
        expected = Pillow.alpha_composite(white, image).convert("RGB").tobytes()
        found = decode_png((tmp_path / "a.png").read_bytes())
        assert (found.width, found.height) == (32, 32)
        assert max(abs(a - b) for a, b in zip(found.rgb, expected, strict=True)) <= 1  # rounding
    again = decode_png(encode_png(found))
    assert again == Image(32, 32, found.rgb)


def test_png_that_cannot_be_read_has_no_difference() -> None:
    picture = encode_png(Image(4, 4, bytes(48)))
    assert compare_png(picture, picture[:-30]).rms is None
    assert "4x4 is now 5x4" in compare_png(picture, encode_png(Image(5, 4, bytes(60)))).problem


# 3. Verification


def test_untouched_archive_is_as_it_was_written(made, archive) -> None:
    digest = (archive / "manifest.sha256").read_text().split()[0]
    assert verify(archive, digest) == []
    assert verify_main([str(archive), "--digest", digest]) == 0
    assert verify_main([str(archive), "--digest", "0" * 64]) == 1
    assert verify_main([str(archive.parent)]) == 2


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "verdict of a run": lambda run: edit(run / "manifest.json", '"passed"', '"failed"'),
    "verdict of the session": lambda run: edit(
        run.parent / "manifest.json", '"verdict": "passed"', '"verdict": "skipped"'
    ),
    "metric": lambda run: edit(run / "manifest.json", '"value": 0.0', '"value": 1.0'),
    "artifact": lambda run: edit(run / "artifacts/model/model.json", "3.0", "4.0"),
    "output": lambda run: (run / "commands/01-stdout.txt").unlink(),
    "truncated manifest": lambda run: os.truncate(run / "manifest.json", 100),
    "deleted manifest": lambda run: (run / "manifest.json").unlink(),
    "deleted run": lambda run: shutil.rmtree(run),
    "extra file": lambda run: (run / "notes.txt").write_text("x"),
    "extra link": lambda run: (run / "notes").symlink_to(run.parent),
    "page": lambda run: edit(run.parent / "index.html", "none failed", "none failed at all"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_every_change_to_an_archive_is_found_and_said_on_its_page(archive, damage) -> None:
    (run,) = archive.glob("workflow-*")
    DAMAGE[damage](run)
    assert verify(archive)
    assert verify_main([str(archive)]) == 1
    if damage != "page":
        build_views(archive)
        page = (archive / "index.html").read_text()
        assert "This archive is not as it was written" in page
        assert compare_main([str(archive), str(archive)]) == 1


def test_digest_vouches_for_an_archive_that_was_forged_throughout(archive) -> None:
    """Whoever makes all hashes anew still has another digest than the log of the session."""
    digest = (archive / "manifest.sha256").read_text().split()[0]
    session = archive / "manifest.json"
    edit(session, '"duration_s"', '"duration_s" ')
    forged = hashlib.sha256(session.read_bytes()).hexdigest()
    (archive / "manifest.sha256").write_text(f"{forged}  manifest.json\n")
    build_views(archive)
    assert verify(archive) == []
    assert "digest" in verify(archive, digest)[0]


FORGERIES = {
    "exit status": (('"exit_status": 0', '"exit_status": 1'), "the exit status is 1, although"),
    "verdict of the session": (('"verdict": "passed"', '"verdict": "failed"'), "the verdict is"),
    "verdict of a test": (('"flaky"', '"verdict": "failed",\n"flaky"'), "although .* failed"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_verdicts_and_exit_status_that_do_not_agree_are_found_under_right_hashes(
    archive, forgery
) -> None:
    (before, after), problem = FORGERIES[forgery]
    edit(archive / "manifest.json", before, after)
    forged = hashlib.sha256((archive / "manifest.json").read_bytes()).hexdigest()
    (archive / "manifest.sha256").write_text(f"{forged}  manifest.json\n")
    build_views(archive)
    assert re.search(problem, "; ".join(verify(archive)))


def test_session_prints_the_digest(project) -> None:
    _, said = project.run("--archive", "out", "-k", "environment")
    digest = (project.folder / "out/manifest.sha256").read_text().split()[0]
    assert f"sha256 {digest} stands for the whole archive" in said


# 4. Every test


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_every_test_is_recorded_with_phases_subtests_and_reruns(project, workers) -> None:
    project.change("assert part < 3", "assert part < 2")
    project.change(
        "def test_environment():",
        "tries = []\ndef test_environment():\n    tries.append(1)\n    assert len(tries) == 2",
    )
    status, _ = project.run("--archive", "out", "--reruns", "1", *workers)
    assert status == 1
    assert project.verdicts()["parts"] == "failed"
    tests = {one["test"].rpartition("::test_")[2]: one for one in project.session()["tests"]}
    last = tests["parts"]["attempts"][-1]
    assert [sub["verdict"] for sub in last["subtests"]] == ["passed", "passed", "failed"]
    assert last["subtests"][-1]["name"] == "part=2"
    assert (tests["environment"]["verdict"], tests["environment"]["flaky"]) == ("passed", True)
    assert len(tests["environment"]["attempts"]) == 2
    first = tests["environment"]["attempts"][0]
    assert "assert len(tries) == 2" in "".join(phase["message"] for phase in first["phases"])
    assert {phase["when"] for phase in last["phases"]} >= {"setup", "call"}
    assert bool(last["worker"]) is bool(workers)
    assert tests["missing_model"]["attempts"][0]["run"]
    assert not tests["parts"]["attempts"][0]["run"]
    assert "Failures" in project.page()
    assert "Run again" in project.page()


def test_one_failed_subtest_fails_the_archive_of_its_test(project) -> None:
    """Also by unittest, whose test passes on after it."""
    (project.folder / "test_project.py").write_text(
        "import unittest\n"
        "def test_with_evidence(run_archive, subtests):\n"
        "    with subtests.test('first'): assert False\n"
        "    with subtests.test('second'): assert True\n"
        "class TestCase(unittest.TestCase):\n"
        "    def test_case(self):\n"
        "        with self.subTest(n=1): assert False\n"
    )
    assert project.run("--archive", "out")[0] == 1
    assert set(project.verdicts().values()) == {"failed"}
    (run,) = (project.folder / "out").glob("*/manifest.json")
    assert read_manifest(run.parent)["verdict"] == "failed"


ENDINGS = {
    "SIGKILL": "os.kill(os.getpid(), 9)",
    "os._exit": "os._exit(0)",
    "SIGTERM": "os.kill(os.getpid(), 15); import time; time.sleep(20)",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_ended_session_keeps_what_had_ended_and_says_interrupted(project, ending) -> None:
    project.change('assert os.environ.get("FOREIGN", "green") == "green"', ENDINGS[ending])
    status, _ = project.run("--archive", "out")
    if ending == "SIGTERM":
        assert status == 128 + signal.SIGTERM
        assert (project.folder / "out/index.html").is_file()
    else:
        assert not (project.folder / "out/index.html").exists()
    build_views(project.folder / "out")
    assert project.session()["verdict"] == "interrupted"
    verdicts = project.verdicts()
    assert {verdicts.pop("environment")} <= {"interrupted", "error"}
    assert verdicts == dict.fromkeys(["slope", "prediction", "missing_model", "parts"], "passed")
    assert "was interrupted" in project.page()
    assert verify(project.folder / "out") == []


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_killed_session_names_the_tests_that_it_left_out(project, workers) -> None:
    """With pytest-xdist the worker kills its parent, which may not have heard of all that ended."""
    project.change("assert part < 3", "os.kill(os.getppid(), 9); os.kill(os.getpid(), 9)")
    if not workers:
        project.change("os.kill(os.getppid(), 9); ", "")
    project.run("--archive", "out", *workers)
    build_views(project.folder / "out")
    assert project.session()["selection"]["collected"] == sorted(
        f"test_project.py::test_{name}"
        for name in ("slope", "prediction", "missing_model", "parts", "environment")
    )
    left = (
        1
        if not workers
        else len(project.session()["selection"]["collected"]) - len(project.session()["tests"])
    )
    assert left >= 1
    assert f"was interrupted and {left} test" in project.page()
    assert "test_environment" in Outline((project.folder / "out/index.html").read_text()).text


def test_next_session_closes_a_killed_one_and_moves_it_aside(project) -> None:
    project.change('assert os.environ.get("FOREIGN", "green") == "green"', "os._exit(0)")
    project.run("--archive", "out")
    project.change("os._exit(0)", "pass")
    status, said = project.run("--archive", "out")
    assert status == 0, said
    (aside,) = project.folder.glob("out-interrupted-*")
    assert f"archive of an interrupted session: {aside / 'index.html'}" in said
    assert project.session(aside.name)["verdict"] == "interrupted"
    assert project.session()["verdict"] == "passed"


# 5. Secrets


def test_secrets_are_nowhere_in_the_archive_and_not_on_the_terminal(project) -> None:
    project.change(
        "def test_environment():",
        "def test_environment(run_archive, run_command, tmp_path):\n"
        "    (tmp_path / 'log.txt').write_text('by hidden-variable')\n"
        "    run_archive.artifact(tmp_path / 'log.txt')\n"
        "    words = ['--token=hidden-argument', os.environ['SECRETWORD'], 'ticket-12345']\n"
        "    code = 'import sys; print(sys.argv, \"hidden-variable\"); sys.exit(1)'\n"
        "    run_command([sys.executable, '-c', code, *words], secrets=[os.environ['WORD']])",
    )
    status, said = project.run(
        "--archive", "out", "--archive-redact", "ticket-[0-9]+", "--capture=fd",
        BEAM_API_KEY="hidden-variable", SECRETWORD="hidden-secret", WORD="hidden-secret",
    )  # fmt: skip
    assert status == 1
    found = {
        path: path.read_bytes() for path in (project.folder / "out").rglob("*") if path.is_file()
    }
    for path, data in found.items():
        assert not {word for word in (b"hidden-argument\\n", b"hidden-variable'", b"hidden-secret")
                    if word in data}, path  # fmt: skip
    (run,) = (project.folder / "out").glob("*test_environment*")
    manifest = read_manifest(run)
    assert manifest["commands"][0]["args"][-3:] == ["--token={secret}", "{secret}", "{secret}"]
    stdout = (run / "commands/01-stdout.txt").read_text()
    assert stdout.count("{secret}") == 4
    assert (run / "artifacts/log.redacted.txt").read_text() == "by {secret}"
    command = project.session()["command"]
    assert command[command.index("--archive-redact") + 1] == "{secret}"
    assert "hidden-secret" not in said


# 6. Limits


def test_only_the_files_of_failed_runs_are_kept_on_request(project) -> None:
    words = ("--archive", "out", "--archive-keep", "failed")
    assert project.run(*words)[0] == 0
    assert not list((project.folder / "out").rglob("commands"))
    assert verify(project.folder / "out") == []
    project.change("assert value == 30", "assert value == 31")
    assert project.run(*words)[0] == 1
    assert {
        path.parent.name.partition("-")[0] for path in (project.folder / "out").rglob("commands")
    } == {"workflow"}


LARGE = """
def test_large(run_archive, tmp_path):
    code = "for n in range(300_000): print('line', n)"
    run_archive.run_command([sys.executable, "-c", code])
    for name in ("first", "second"):
        run_archive.artifact(tmp_path / name).write_bytes(b"x" * 600_000)
    run_archive.artifact(tmp_path / "link").symlink_to(HERE / "train.py")
    for epoch in range(2000):
        run_archive.metric(f"loss of epoch {epoch}", 1 / (epoch + 1))
    run_archive.series("loss", [1 / (epoch + 1) for epoch in range(2000)], better="lower")
"""


def test_long_outputs_large_runs_and_thousands_of_metrics_are_kept_within_limits(project) -> None:
    (project.folder / "test_project.py").write_text(
        f"import pathlib, sys\nHERE = pathlib.Path(__file__).parent\n{LARGE}"
    )
    words = ("--archive-stream-limit", "0.1", "--archive-run-limit", "1")
    status, said = project.run("--archive", "out", *words)
    assert status == 0, said
    (run,) = (project.folder / "out").glob("*test_large*")
    manifest = read_manifest(run)
    (command,) = manifest["commands"]
    whole = "".join(f"line {n}\n" for n in range(300_000)).encode()
    assert command["printed"]["stdout"]["sha256"] == hashlib.sha256(whole).hexdigest()
    stdout = (run / "commands/01-stdout.txt").read_text().splitlines()
    assert (stdout[0], stdout[-1]) == ("line 0", "line 299999")
    assert len("\n".join(stdout)) < 0.11 * 2**20
    problems = {one["name"]: one["problem"] for one in manifest["artifacts"]}
    assert problems["first"] == ""
    assert "more than" in problems["second"]
    assert "a symbolic link" in problems["link"]
    assert len(manifest["metrics"]) == 2000
    assert "<svg" in (run / "index.html").read_text()
    assert sum(file.stat().st_size for file in run.rglob("artifacts/*")) < 2**20
    page = (project.folder / "out/index.html").read_text()
    assert "1801 more are on the pages of the runs." in page
    assert verify(project.folder / "out") == []


# 7. Mishaps


def test_full_disk_is_one_line_and_takes_nothing_from_the_result(project) -> None:
    """A limit on the size of files stands for the disk: no file may be larger than 2 KiB."""
    code = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048));"
        "sys.argv = sys.argv[1:]; runpy.run_module('pytest', run_name='__main__')"
    )
    for value, status in (("green", NOT_WRITTEN), ("red", 1)):
        plugin = ["-p", "ptycho_torch.testing.plugin", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [sys.executable, "-B", "-c", code, "pytest", "-q", "-k", "environment", *plugin,
             "--archive", value],
            cwd=project.folder, capture_output=True, text=True, check=False, timeout=120,
            env={**os.environ, "PYTHONPATH": str(ROOT), "FOREIGN": value},
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        assert "archive incomplete: File too large" in done.stdout
        assert "Traceback" not in done.stdout + done.stderr
        assert "INTERNALERROR" not in done.stdout


def test_folder_that_cannot_be_made_is_said_and_the_tests_run(project) -> None:
    status, said = project.run("--archive", "/proc/archive")
    assert status == NOT_WRITTEN
    assert "archive incomplete:" in said
    assert "5 passed" in said


def test_archive_that_is_deleted_on_the_way_is_said(project) -> None:
    project.change(
        'assert os.environ.get("FOREIGN", "green") == "green"',
        "import shutil; shutil.rmtree(HERE / 'out')",
    )
    status, said = project.run("--archive", "out")
    assert status == NOT_WRITTEN
    assert "was not written or has been removed" in said


def test_new_session_removes_no_file_that_it_did_not_make(project) -> None:
    assert project.run("--archive", "out")[0] == 0
    (workflow,) = (project.folder / "out").glob("workflow-*")
    (workflow / "notes.txt").write_text("mine")
    (workflow / "artifacts/model/model.json").write_text("edited by hand")
    elsewhere = shutil.copytree(workflow, project.folder / "elsewhere")
    (project.folder / "out/linked").symlink_to(elsewhere)
    assert project.run("--archive", "out", "-k", "slope or prediction")[0] == 0
    assert (workflow / "notes.txt").read_text() == "mine"
    assert (elsewhere / "manifest.json").is_file()
    assert set(project.verdicts().values()) == {"passed"}
    assert (workflow / "manifest.json").is_file(), "the run has its folder again"


# 8. Outputs


def test_front_page_says_why_a_command_of_the_workflow_failed(project) -> None:
    """In one line, with the place in the project; the command and its output are below it."""
    project.change(
        'print(f"slope', "raise ValueError('no convergence')\nprint(f\"slope", "train.py"
    )
    assert project.run("--archive", "out")[0] == 1
    row = next(line for line in project.page().splitlines() if "::test\\_slope" in line)
    assert "failed with exit status 1: ValueError: no convergence" in row
    assert "test\\_project.py:26" in row  # where the test begins
    page = Outline((project.folder / "out/index.html").read_text())
    beginning = page.text.partition("all that pytest prints")[0]
    assert beginning.index("train.py points.json model") < beginning.index("Traceback")
    assert "def workflow(" not in beginning


def test_services_get_what_they_read(project, tmp_path) -> None:
    project.change("assert value == 30", "assert value == 31")
    summary = tmp_path / "step.md"
    summary.write_text("before\n")
    status, said = project.run(
        "--archive", "out", "--junitxml", "junit.xml",
        GITHUB_STEP_SUMMARY=str(summary), GITHUB_ACTIONS="true",
    )  # fmt: skip
    assert status == 1
    assert summary.read_text().startswith("before\n# Archive of a test session: failed")
    assert "::error file=test_project.py,line=" in said
    cases = ET.parse(project.folder / "junit.xml").getroot().iter("testcase")
    found = {
        case.get("name"): one.get("value")
        for case in cases
        for one in case.iter("property")
        if one.get("name") == "archive"
    }
    assert list(found) == ["test_missing_model"]
    assert (project.folder / found["test_missing_model"] / "index.html").is_file()


def test_pages_and_history_are_made_without_the_other_dependencies(made, tmp_path) -> None:
    """By a Python that refuses NumPy, torch and pytest."""
    for name in ("first", "second"):
        shutil.copytree(made.folder / "out", tmp_path / name)
    code = (
        "import runpy, sys\n"
        "sys.modules.update(dict.fromkeys(('numpy', 'matplotlib', 'pytest', 'yaml')))\n"
        "sys.argv[1:1] = []\n"
        "runpy.run_module('ptycho_torch.testing', run_name='__main__')"
    )

    def make(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    (tmp_path / "first/index.html").unlink()
    assert make("first") == "first/index.html"
    assert verify(tmp_path / "first") == []
    assert make("first", "second", "--history", "history.html") == "history.html"
    page = (tmp_path / "history.html").read_text()
    assert "workflow: slope" in page
    assert page.count("<svg") >= 3


def test_report_draws_several_archives_in_the_order_of_time(
    made, tmp_path, monkeypatch, capsys
) -> None:
    """The later one is named first, and has another metric."""
    for name, day, slope in (("later", 3, 4.0), ("first", 1, 3.0)):
        shutil.copytree(made.folder / "out", tmp_path / name)
        session, (run,) = tmp_path / name, (tmp_path / name).glob("workflow-*")
        for folder in (session, run):
            manifest = read_manifest(folder) | {"started": f"2030-02-{day:02}T00:00:00+00:00"}
            if folder == run:
                manifest["metrics"][0]["value"] = slope
            (folder / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", "later", "first"]) == 0
    assert capsys.readouterr().out == "history.html\n"
    page = (tmp_path / "history.html").read_text()
    assert "workflow: slope: first 3, last 4" in page
    assert page.index('href="first/index.html"') < page.index('href="later/index.html"')

    other = tmp_path / "other" / "page.html"
    other.parent.mkdir()
    assert cli.main(["report", "first", "--history", str(other)]) == 0
    assert "History of 1 test session<" in other.read_text()
    for wrong, said in ((str(run), "is the folder of one run"), ("other", "no readable manifest")):
        assert cli.main(["report", "first", wrong]) == 2
        assert said in capsys.readouterr().err
    assert (tmp_path / "history.html").read_text() == page, "a page is made whole or not at all"

"""Life cycle of an archive, seen from outside: sessions of pytest in a folder of their own."""

import getpass
import hashlib
import importlib.metadata
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from chromium import Chromium, assert_readable
from outline import Outline, assert_accessible

from ptycho_torch import cli
from ptycho_torch.testing import archive as archive_module
from ptycho_torch.testing.compare import main as compare_main
from ptycho_torch.testing.manifest import read_manifest
from ptycho_torch.testing.process import Environment
from ptycho_torch.testing.run_page import ALTERED
from ptycho_torch.testing.views import build_views

pytest_plugins = "pytester"

Inner = Callable[..., pytest.RunResult]
SCHEMA = json.loads(Path(archive_module.__file__).with_name("manifest.schema.json").read_text())

PIPELINE = '''
import os, pathlib, sys
PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000010000000108020000009077"
                    "53de0000000c49444154789c63f8cfc0000003010100c9fe92ef0000000049454e44ae426082")
CODE = """import pathlib, sys
pathlib.Path("out").mkdir(exist_ok=True)
pathlib.Path("out/a.png").write_bytes(bytes.fromhex(%r))
pathlib.Path("out/log.txt").write_text(str(pathlib.Path.cwd()))
print("trained in", pathlib.Path.cwd())
print("warned", file=sys.stderr)
""" % PNG.hex()
'''

FULL = (
    PIPELINE
    + """
def test_full(run_command, run_archive, cuda_cpu_env, tmp_path):
    source = tmp_path / "scan.npz"
    source.write_bytes(b"photons")
    run_archive.input(source)
    run_archive.seed("training", 42)
    run_archive.artifact(tmp_path / "out", caption="what was made")
    run_archive.artifact(tmp_path / "never.png")
    run_command([sys.executable, "-c", CODE], env=cuda_cpu_env, cwd=tmp_path)
    run_archive.metric("frc50", 0.62, unit="Nyquist", better="higher", tolerance=0.02)
    run_archive.metric("loss", float("nan"))
    with run_archive.assertions("image is right"):
        assert (tmp_path / "out/a.png").read_bytes() == PNG
"""
)


def runs(folder: Path) -> dict[str, dict[str, Any]]:
    """Valid manifests of the runs in an archive, by folder name without the hash; the session's
    is checked, too.
    """
    jsonschema.validate(read_manifest(folder), SCHEMA)
    found = {}
    for path in sorted(folder.glob("*/manifest.json")):
        jsonschema.validate(read_manifest(path.parent), SCHEMA)
        assert (path.parent / "index.html").stat().st_size
        assert (path.parent / "summary.md").stat().st_size
        found[re.sub(r"^.*?-(test_|workflow)|-[0-9a-f]{8}", r"\1", path.parent.name)] = (
            read_manifest(path.parent)
        )
    return found


def everything(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_everything_asked_for_is_kept(pytester: pytest.Pytester, inner_pytest: Inner) -> None:
    pytester.makepyfile(FULL)
    inner_pytest("--archive", "out").assert_outcomes(passed=1)
    (run,) = runs(pytester.path / "out").values()
    assert (run["verdict"], run["seeds"], run["attempt"]) == ("passed", {"training": 42}, 1)
    photons = hashlib.sha256(b"photons").hexdigest()
    assert run["inputs"] == [{"path": "{tmp}/test_full0/scan.npz", "bytes": 7, "sha256": photons}]
    assert [(group["name"], group["verdict"]) for group in run["groups"]] == [
        ("image is right", "passed")
    ]
    assert [metric["value"] for metric in run["metrics"]] == [0.62, "nan"]
    (command,) = run["commands"]
    assert (command["state"], command["exit_status"], command["args"][0]) == (
        "exited",
        0,
        "{python}/bin/" + Path(sys.executable).name,
    )
    assert command["wall_s"] > 0
    assert command["cpu_s"] > 0
    assert command["peak_memory_bytes"] > 2**20
    assert command["env"]["CUDA_VISIBLE_DEVICES"] == ""
    assert [
        (Path(one["path"]).name, one["problem"].partition(":")[0]) for one in run["artifacts"]
    ] == [
        ("never.png", "missing"),
        ("a.png", ""),
        ("log.txt", "kept with words replaced"),
    ]
    assert run["environment"]["versions"]["pytest"] == pytest.__version__


def test_kept_files_have_the_sizes_and_hashes_of_the_manifest(
    pytester: pytest.Pytester, inner_pytest: Inner
) -> None:
    pytester.makepyfile(FULL)
    inner_pytest("--archive", "out")
    (folder,) = (path.parent for path in (pytester.path / "out").glob("*/manifest.json"))
    run = read_manifest(folder)
    kept = [one["kept"] for one in run["artifacts"] if one["kept"]] + [
        run["commands"][0][name] for name in ("stdout", "stderr")
    ]
    assert len(kept) == 4
    for file in kept:
        assert (folder / file["path"]).stat().st_size == file["bytes"]
        assert archive_module.sha256(folder / file["path"]) == file["sha256"]


def test_without_the_flag_tests_behave_the_same_and_nothing_is_written(
    pytester: pytest.Pytester, inner_pytest: Inner
) -> None:
    pytester.makepyfile(FULL)
    before = everything(pytester.path)
    inner_pytest("--basetemp", str(pytester.path.parent / "scratch")).assert_outcomes(passed=1)
    assert [
        path
        for path in everything(pytester.path)
        if path not in before and "__pycache__" not in path.parts
    ] == []


def test_collecting_only_writes_nothing(pytester: pytest.Pytester, inner_pytest: Inner) -> None:
    pytester.makepyfile(FULL)
    inner_pytest("--archive", "out", "--collect-only")
    assert not (pytester.path / "out").exists()


def test_nothing_private_is_written(
    pytester: pytest.Pytester, inner_pytest: Inner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "mallory-x")
    monkeypatch.setenv("USER", "mallory-x")
    pytester.makepyfile(
        FULL
        + """
import getpass, pytest, socket
@pytest.mark.parametrize("path", ["/usr/lib/mallory-x/data"])
def test_private(run_command, run_archive, tmp_path, path):
    secret = f"{getpass.getuser()}@{socket.gethostname()} {os.uname().nodename} {tmp_path} "
    secret += f"{os.path.expanduser('~/x')} {sys.prefix} /usr/lib/x.so"
    binary = b"\\0\\xff" + os.fsencode(tmp_path) + b"\\xff"
    for name, data in {"a.txt": secret.encode(), "a.bin": binary}.items():
        run_archive.artifact(tmp_path / name).write_bytes(data)
    code = f"import sys; print({secret!r}); print({secret!r}, file=sys.stderr)"
    run_command([sys.executable, "-c", code])
    run_archive.metric(f"at {tmp_path} of bob@beam.example.org", 1.0)
    with run_archive.assertions(f"for {tmp_path}"):
        assert secret == ""
"""
    )
    inner_pytest("--archive", "out").assert_outcomes(passed=1, failed=1)
    folders = {str(pytester.path), str(Path.home()), sys.prefix, "/usr/lib", "/tmp"}
    names = {"mallory-x", socket.gethostname(), os.uname().nodename, getpass.getuser()} - {"root"}
    for path in everything(pytester.path / "out"):
        text = re.sub(r"data:image/png;base64,\S+", "", path.read_bytes().decode(errors="replace"))
        text += str(path.relative_to(pytester.path / "out"))
        # "{tmp}/tmp.x" is a folder with such a name in a folder that is not told
        assert [
            folder for folder in folders if re.search(rf"(?<!\}}){re.escape(folder)}(?!-)", text)
        ] == [], path.name
        assert [
            name
            for name in names
            if re.search(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", text)
        ] == [], path.name
    private = runs(pytester.path / "out")["test_private-elsewhere-data"]
    problems = {Path(one["path"]).name: one["problem"] for one in private["artifacts"]}
    assert (problems["a.txt"].partition(":")[0], problems["a.bin"][:16]) == (
        "kept with words replaced",
        "not kept: names ",
    )


def test_failure_keeps_what_was_made_and_says_why(
    pytester: pytest.Pytester, inner_pytest: Inner
) -> None:
    pytester.makepyfile(
        PIPELINE
        + """
def test_command(run_command, run_archive, tmp_path):
    run_archive.artifact(tmp_path / "out")
    run_command([sys.executable, "-c", CODE + "raise SystemExit(3)"], cwd=tmp_path)
def test_killed_child(run_command):
    code = "import os; print('before', flush=True); os.kill(os.getpid(), 9)"
    run_command([sys.executable, "-c", code])
def test_timeout(run_command):
    code = "import time; print('before', flush=True); time.sleep(60)"
    run_command([sys.executable, "-c", code], timeout_s=0.5)
def test_group(run_command, run_archive):
    run_command([sys.executable, "-c", "print('shown on failure')"])
    with run_archive.assertions("good"):
        assert True
    with run_archive.assertions("bad"):
        assert 1 == 2, "the image is wrong"
"""
    )
    result = inner_pytest("--archive", "out")
    result.assert_outcomes(failed=4)
    found = runs(pytester.path / "out")
    assert {name: run["verdict"] for name, run in found.items()} == dict.fromkeys(found, "failed")
    assert len(found) == 4
    assert [Path(one["path"]).name for one in found["test_command"]["artifacts"]] == [
        "a.png",
        "log.txt",
    ]
    assert "exit status 3" in found["test_command"]["message"]
    assert "trained in" in found["test_command"]["message"]
    assert found["test_killed_child"]["commands"][0]["exit_status"] == -signal.SIGKILL
    assert found["test_timeout"]["commands"][0]["state"] == "timed out"
    assert found["test_timeout"]["commands"][0]["stdout"]["bytes"] == len("before\n")
    assert [group["verdict"] for group in found["test_group"]["groups"]] == ["passed", "failed"]
    assert "the image is wrong" in found["test_group"]["groups"][1]["message"]
    shown = ["*-- command 1, which succeeded*", "*python* -c *"]
    shown += ["*stdout of command 1, which succeeded*", "shown on failure"]
    result.stdout.fnmatch_lines(shown)


def test_every_outcome_of_a_test_has_its_verdict(
    pytester: pytest.Pytester, inner_pytest: Inner
) -> None:
    pytester.makepyfile(
        """
        import pytest
        @pytest.fixture
        def breaks_first(run_archive): raise RuntimeError("before")
        @pytest.fixture
        def breaks_last():
            yield
            raise RuntimeError("after")
        def test_passed(run_archive): pass
        def test_failed(run_archive): assert 0
        def test_skipped(run_archive): pytest.skip("no reason")
        @pytest.mark.xfail
        def test_xfailed(run_archive): assert 0
        @pytest.mark.xfail
        def test_xpassed(run_archive): pass
        def test_setup_error(breaks_first): pass
        def test_teardown_error(breaks_last, run_archive): pass
        @pytest.mark.skip
        def test_never(run_archive): pass
        def test_without_evidence(): pass
        """
    )
    inner_pytest("--archive", "out")
    found = {
        name.removeprefix("test_"): run["verdict"]
        for name, run in runs(pytester.path / "out").items()
    }
    expected = {word: word for word in ("passed", "failed", "skipped", "xfailed", "xpassed")}
    assert found == expected | {"setup_error": "error", "teardown_error": "error"}
    session = {
        test["test"].rpartition("::test_")[2]: test["verdict"]
        for test in read_manifest(pytester.path / "out")["tests"]
    }
    assert session == found | {"never": "skipped", "without_evidence": "passed"}


@pytest.mark.usefixtures("interruptible")
def test_interrupt_keeps_the_run_and_says_so(
    pytester: pytest.Pytester, inner_pytest: Inner
) -> None:
    pytester.makepyfile(
        """
        import sys, threading, time, os, signal
        def test_a(run_archive, run_command, tmp_path):
            run_archive.artifact(tmp_path / "made.txt")
            threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
            with run_archive.assertions("never decided"):
                code = (
                    "import time; open('made.txt', 'w').write('x'); print('on', flush=True); "
                    "time.sleep(60)"
                )
                run_command([sys.executable, "-c", code], cwd=tmp_path)
        def test_b(run_archive): pass
        """
    )
    result = inner_pytest("--archive", "out", apart=True)
    assert result.ret == 2
    (run,) = runs(pytester.path / "out").values()
    assert (run["verdict"], run["commands"][0]["state"]) == ("interrupted", "interrupted")
    assert run["commands"][0]["stdout"]["bytes"] == 3
    assert run["artifacts"][0]["bytes"] == 1
    assert run["groups"][0]["verdict"] == "interrupted"
    assert read_manifest(pytester.path / "out")["verdict"] == "interrupted"


def test_killed_session_leaves_whole_manifests_that_can_be_viewed(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        """
        import sys
        def test_a(run_archive): run_archive.metric("m", 1.0)
        def test_b(run_archive, run_command):
            for number in range(10_000):
                run_archive.metric(f"m{number}", 1.0)
        """
    )
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "ptycho_torch.testing.plugin",
        "--archive",
        "out",
    ]
    process = subprocess.Popen(
        words,
        cwd=pytester.path,
        stdout=subprocess.DEVNULL,
        env=dict(os.environ) | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    deadline = time.monotonic() + 20
    while (
        not list(pytester.path.glob("out/*test_b*/manifest.json")) and time.monotonic() < deadline
    ):
        time.sleep(0.01)
    time.sleep(0.2)
    process.kill()
    process.wait()
    build_views(pytester.path / "out")
    found = runs(pytester.path / "out")
    assert found["test_a"]["verdict"] == "passed"
    assert found["test_b"]["verdict"] == "interrupted"
    assert found["test_b"]["metrics"]
    assert "</span> interrupted<" in (pytester.path / "out/index.html").read_text()


PARAMETRISED = """
import pytest
NAMES = ["a/b", "a-b", "a b", "A-B", "ü", "x" * 200, "../../x", "with[brackets]", ""]
@pytest.mark.parametrize("name", NAMES)
def test_names(run_archive, name):
    run_archive.metric("length", len(name))
"""


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_parametrised_tests_each_have_a_folder(
    pytester: pytest.Pytester, inner_pytest: Inner, workers: tuple[str, ...]
) -> None:
    if workers:
        pytest.importorskip("xdist")
    pytester.makepyfile(PARAMETRISED)
    inner_pytest("--archive", "out", *workers, apart=True).assert_outcomes(passed=9)
    manifests = [
        read_manifest(path.parent) for path in (pytester.path / "out").glob("*/manifest.json")
    ]
    assert sorted(one["metrics"][0]["value"] for one in manifests) == sorted(
        [3, 3, 3, 3, 1, 200, 7, 14, 0]
    )
    assert len({one["test"] for one in manifests}) == 9
    assert {one["attempt"] for one in manifests} == {
        1
    }  # none was taken for another try of another one
    assert {one["worker"] for one in manifests} == ({"gw0", "gw1"} if workers else {None})
    session = read_manifest(pytester.path / "out")
    assert (len(session["runs"]), len(session["tests"]), session["verdict"]) == (9, 9, "passed")
    assert list((pytester.path / "out").glob("**/*.part")) == []


SHARED = """
import pytest, sys
@pytest.fixture(scope="session")
def workflow_commands():
    return lambda archive, folder: [[sys.executable, "-c", "print('trained')"]]
def test_one(workflow):
    with workflow.archive.assertions("one"): assert workflow.results[0].stdout == "trained\\n"
def test_two(workflow):
    with workflow.archive.assertions("two"): assert False
"""


def test_session_fixture_has_one_archive_for_many_tests(
    pytester: pytest.Pytester, inner_pytest: Inner
) -> None:
    pytester.makepyfile(test_s=SHARED)
    inner_pytest("--archive", "out").assert_outcomes(passed=1, failed=1)
    (run,) = runs(pytester.path / "out").values()
    assert (run["test"], run["verdict"], len(run["commands"])) == ("workflow", "failed", 1)
    assert [(group["test"], group["verdict"]) for group in run["groups"]] == [
        ("test_s.py::test_one", "passed"),
        ("test_s.py::test_two", "failed"),
    ]


def test_session_fixture_has_an_archive_in_each_worker(
    pytester: pytest.Pytester, inner_pytest: Inner
) -> None:
    pytest.importorskip("xdist")
    pytester.makepyfile(test_s=SHARED)
    inner_pytest("--archive", "out", "-n", "2", apart=True).assert_outcomes(passed=1, failed=1)
    found = [read_manifest(path.parent) for path in (pytester.path / "out").glob("*/manifest.json")]
    assert [run["attempt"] for run in found] == [1, 1]
    assert {run["worker"]: [group["name"] for group in run["groups"]] for run in found} in (
        {"gw0": ["one"], "gw1": ["two"]},
        {"gw0": ["two"], "gw1": ["one"]},
    )


def test_crashed_worker_leaves_an_interrupted_run(
    pytester: pytest.Pytester, inner_pytest: Inner
) -> None:
    pytest.importorskip("xdist")
    pytester.makepyfile(
        "import os\ndef test_crash(run_archive):\n    run_archive.metric('m', 1.0)\n    "
        "os.kill(os.getpid(), 9)"
    )
    inner_pytest("--archive", "out", "-n", "1", apart=True)
    (run,) = runs(pytester.path / "out").values()
    assert (run["verdict"], len(run["metrics"])) == ("interrupted", 1)
    assert read_manifest(pytester.path / "out")["exit_status"] == 1


def test_each_rerun_has_a_folder(pytester: pytest.Pytester, inner_pytest: Inner) -> None:
    pytest.importorskip("pytest_rerunfailures")
    pytester.makepyfile(
        """
        tries = []
        def test_flaky(run_archive):
            tries.append(1)
            run_archive.metric("tries", len(tries))
            assert len(tries) == 3
        """
    )
    inner_pytest("--archive", "out", "--reruns", "2").assert_outcomes(passed=1)
    found = runs(pytester.path / "out").values()
    assert [(run["attempt"], run["verdict"], run["metrics"][0]["value"]) for run in found] == [
        (1, "failed", 1),
        (2, "failed", 2),
        (3, "passed", 3),
    ]
    assert [
        (test["verdict"], test["flaky"], len(test["attempts"]))
        for test in read_manifest(pytester.path / "out")["tests"]
    ] == [("passed", True, 3)]
    front = Outline((pytester.path / "out/index.html").read_text()).text
    for number in (1, 2, 3):
        assert f"::test_flaky, attempt {number}" in front, "two values have one name"
    for run in (pytester.path / "out").glob("*/index.html"):
        assert "No command was run." in run.read_text()
        assert "<dd>0.0 s</dd>" not in run.read_text()


def test_new_session_replaces_an_archive_and_touches_nothing_else(
    pytester: pytest.Pytester, inner_pytest: Inner
) -> None:
    pytester.makepyfile(test_a="def test_old(run_archive): pass")
    inner_pytest("--archive", "out")
    theirs = pytester.path / "out/theirs"
    theirs.mkdir()
    (theirs / "manifest.json").write_text('{"name": "of another program"}')
    (pytester.path / "out/notes.txt").write_text("mine")
    pytester.makepyfile(test_a="def test_newer(run_archive): pass")
    inner_pytest("--archive", "out").assert_outcomes(passed=1)
    assert (pytester.path / "out/notes.txt").read_text() == "mine"
    assert json.loads((theirs / "manifest.json").read_text()) == {"name": "of another program"}
    (theirs / "manifest.json").unlink()
    assert list(runs(pytester.path / "out")) == ["test_newer"]


def test_folder_that_is_no_archive_is_refused_and_kept(
    pytester: pytest.Pytester, inner_pytest: Inner
) -> None:
    (pytester.path / "out").mkdir()
    (pytester.path / "out/thesis.tex").write_text("years of work")
    pytester.makepyfile("def test_a(run_archive): pass")
    result = inner_pytest("--archive", "out", apart=True)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*neither empty nor an archive*"])
    assert [path.name for path in everything(pytester.path / "out")] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("folder", "said"),
    [("", "*need the name of a folder*"), ("test_a.py", "*is a file; give a folder*")],
)
def test_folder_that_cannot_be_is_refused(
    pytester: pytest.Pytester, inner_pytest: Inner, folder: str, said: str
) -> None:
    pytester.makepyfile(test_a="def test_a(run_archive): pass")
    result = inner_pytest("--archive", folder, apart=True)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])


def test_text_that_cannot_be_printed_is_kept_as_far_as_it_can(
    pytester: pytest.Pytester, inner_pytest: Inner
) -> None:
    pytester.makepyfile(r"""
        import sys
        def test_a(run_command): run_command([sys.executable, "-c", "pass", "a\udce9\x1b"])
    """)
    inner_pytest("--archive", "out").assert_outcomes(passed=1)
    assert (
        "a\N{REPLACEMENT CHARACTER}"
        in (next((pytester.path / "out").glob("*/summary.md"))).read_text()
    )


@pytest.mark.parametrize("how", ["conftest", "option", "module"])
def test_asking_for_the_plugin_twice_loads_it_once(
    pytester: pytest.Pytester, inner_pytest: Inner, how: str
) -> None:
    """Under an entry point of another name than the module's, pytest aborts on each of these."""
    asking = 'pytest_plugins = ["ptycho_torch.testing.plugin"]\n'
    pytester.makeconftest(asking if how == "conftest" else "")
    pytester.makepyfile((asking if how == "module" else "") + "def test_a(run_archive): pass")
    extra = ("-p", "ptycho_torch.testing.plugin") if how == "option" else ()
    inner_pytest(*extra, apart=True, installed=True).assert_outcomes(passed=1)


def test_entry_point_bears_the_name_of_its_module() -> None:
    points = [
        one
        for one in importlib.metadata.entry_points(group="pytest11")
        if one.value.startswith("ptycho_torch")
    ]
    if not points:
        pytest.skip("the package is not installed")
    assert {(one.name, one.value) for one in points} == {
        ("ptycho_torch.testing.plugin", "ptycho_torch.testing.plugin")
    }


ALONE = """
import importlib.machinery, sys, pytest
class Refuse:
    own = {"test_full", "wants_numpy", "wants_torch"}
    pytests = {"pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments", "py"}
    allowed = own | pytests | sys.stdlib_module_names
    rooms = ("ptycho_torch.testing", "ptycho_torch.html")
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if name == "ptycho_torch" or name.startswith(self.rooms) or top in self.allowed:
            return None
        if name == "torch":  # the package's root looks whether it is there
            return importlib.machinery.ModuleSpec(name, self)
        raise ImportError(f"{name} is neither pytest nor of the standard library")
    def create_module(self, spec):
        raise ImportError(f"{spec.name} is neither pytest nor of the standard library")
sys.meta_path.insert(0, Refuse())
sys.exit(pytest.main(["-p", "ptycho_torch.testing.plugin", *sys.argv[1:]]))
"""


def test_plugin_needs_pytest_and_the_standard_library_only(pytester: pytest.Pytester) -> None:
    """Archive, comparison and pages in an interpreter that refuses to import anything else."""
    pytester.makepyfile(test_full=FULL, wants_numpy="import numpy", wants_torch="import torch")
    env = dict(os.environ) | {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }

    def run(*words: str) -> int:
        return subprocess.run(
            [sys.executable, "-c", ALONE, *words], cwd=pytester.path, env=env, check=False
        ).returncode

    assert run("--archive", "old", "test_full.py") == 0
    assert run("--archive", "new", "--archive-compare", "old", "test_full.py") == 0
    assert "no worse" in (pytester.path / "new" / "compare.md").read_text()
    for control in ("wants_numpy.py", "wants_torch.py"):
        assert run(control) == pytest.ExitCode.INTERRUPTED, "what is refused is noticed"


def test_environment_fixture_hides_gpus_and_cannot_leak(
    pytester: pytest.Pytester, inner_pytest: Inner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "32")
    pytester.makepyfile(
        """
        import os, pytest
        def test_a(cuda_cpu_env):
            assert cuda_cpu_env["CUDA_VISIBLE_DEVICES"] == ""
            assert int(cuda_cpu_env["OMP_NUM_THREADS"]) <= 2
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
            assert cuda_cpu_env["PATH"] == os.environ["PATH"]
            with pytest.raises(TypeError):
                cuda_cpu_env["MINE"] = "1"
            assert dict(cuda_cpu_env) | {"MINE": "1"}
        """
    )
    inner_pytest().assert_outcomes(passed=1)


def test_failure_does_not_print_the_environment(
    pytester: pytest.Pytester, inner_pytest: Inner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pytest prints the arguments of a failing function, so a token in the environment would be
    published.
    """
    monkeypatch.setenv("AAA_TOKEN", "open-sesame")
    pytester.makepyfile(
        """
        import sys
        def workflow(run_command, env):
            run_command([sys.executable, "-c", "raise SystemExit(1)"], env=env)
        def test_a(run_command, cuda_cpu_env):
            workflow(run_command, cuda_cpu_env)
        def test_b(run_command, cuda_cpu_env):
            run_command([sys.executable, "-c", "raise SystemExit(1)"], env=dict(cuda_cpu_env))
        """
    )
    result = inner_pytest("--archive", "out", "-vv")
    result.assert_outcomes(failed=2)
    shown = result.stdout.str() + "".join(
        path.read_text() for path in everything(pytester.path / "out")
    )
    assert "open-sesame" not in shown
    assert "AAA_TOKEN" not in shown
    assert "open-sesame" not in repr(
        Environment({"TOKEN": "open-sesame"})
    )  # pytest may cut a long one where it likes


def test_git_revision_is_kept_and_the_archive_itself_is_no_change(
    pytester: pytest.Pytester, inner_pytest: Inner
) -> None:
    pytester.makepyfile(test_a="def test_a(run_archive): pass")
    (pytester.path / ".gitignore").write_text(
        "__pycache__\nstdout\nstderr\nrunpytest-*\n*current\n"
    )
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], cwd=pytester.path, check=True)
    inner_pytest("--archive", "out", apart=True)
    clean = runs(pytester.path / "out")["test_a"]["environment"]["git"]
    assert re.fullmatch(r"[0-9a-f]{40}", clean["revision"])
    assert (clean["dirty"], clean["changed"]) == (False, [])
    (pytester.path / "test_a.py").write_text("def test_a(run_archive): assert True")
    (pytester.path / "out/notes.txt").write_text("mine")
    inner_pytest("--archive", "out", apart=True)
    dirty = runs(pytester.path / "out")["test_a"]["environment"]["git"]
    assert (dirty["dirty"], dirty["changed"]) == (True, [" M test_a.py"])


def test_report_makes_the_views_of_an_archive_again(
    pytester: pytest.Pytester, inner_pytest: Inner, capsys: pytest.CaptureFixture[str]
) -> None:
    pytester.makepyfile(FULL + "\ndef test_other(run_archive): assert 0\n")
    inner_pytest("--archive", "out")
    archive = pytester.path / "out"
    views = [path for path in everything(archive) if path.name in ("index.html", "summary.md")]
    before = {path: path.read_bytes() for path in views}
    assert len(views) == 2 * 3
    for path in views:
        path.unlink()
    capsys.readouterr()
    assert cli.main(["report", str(archive)]) == 0
    assert capsys.readouterr().out.strip() == str(archive / "index.html")
    assert {path: path.read_bytes() for path in views} == before
    session = read_manifest(archive)
    damaged = {
        "is not of schema": {},
        "lacks tests": {name: value for name, value in session.items() if name != "tests"},
    }
    for said, manifest in damaged.items():
        (archive / "manifest.json").write_text(json.dumps(manifest))
        assert cli.main(["report", str(archive)]) == 2
        assert said in capsys.readouterr().err


def test_views_tell_of_altered_files(pytester: pytest.Pytester, inner_pytest: Inner) -> None:
    pytester.makepyfile(FULL)
    inner_pytest("--archive", "out")
    (folder,) = (path.parent for path in (pytester.path / "out").glob("*/manifest.json"))
    assert ALTERED not in (folder / "index.html").read_text()
    (folder / "artifacts/out/a.png").write_bytes(
        (folder / "artifacts/out/a.png").read_bytes() + b"x"
    )
    build_views(folder)
    page = (folder / "index.html").read_text()
    assert ALTERED in page
    assert "data:image/png" not in page


def test_pages_of_an_archive_are_drawn_and_log_nothing(
    pytester: pytest.Pytester, inner_pytest: Inner, browser: Chromium, png: Callable[..., bytes]
) -> None:
    for folder, colour, extra in (
        ("old", (90, 60, 30), ()),
        ("new", (30, 60, 90), ("--archive-compare", "old")),
    ):
        pytester.makepyfile(
            test_full=FULL.replace("PNG = ", f"PNG = {png(320, 240, colour)!r} or ")
            + "    assert 0"
        )
        inner_pytest("--archive", folder, *extra)
    (run,) = (pytester.path / "new").glob("*/index.html")
    new = pytester.path / "new"
    for path, pictures, tables in (
        (run, 1, 5),
        (new / "index.html", 1, 6),
        (new / "compare.html", 3, 4),
    ):
        assert_accessible(path.read_text(), pictures=pictures, tables=tables)
        for width, dark in ((360, False), (360, True), (1280, False), (1280, True)):
            opened = browser.open(path, width=width, dark=dark)
            shot = f"{path.parent.name}-{path.stem}-{width}-{'dark' if dark else 'light'}.png"
            (pytester.path / shot).write_bytes(opened.screenshot)
            assert_readable(opened, pictures, dark)


METRICS = """
def test_m(run_archive, request):
    for name, value, better, tolerance in {metrics!r}:
        run_archive.metric(name, value, better=better, tolerance=tolerance)
"""


@pytest.mark.parametrize(
    ("before", "now", "status", "verdict"),
    [
        pytest.param(
            ("m", 0.62, "higher", 0.02), ("m", 0.62, "higher", 0.02), 0, "same", id="same"
        ),
        pytest.param(
            ("m", 0.62, "higher", 0.02),
            ("m", 0.60, "higher", 0.02),
            0,
            "changed",
            id="just-tolerated",
        ),
        pytest.param(
            ("m", 0.62, "higher", 0.02), ("m", 0.599, "higher", 0.02), 1, "worse", id="worse"
        ),
        pytest.param(
            ("m", 0.62, "higher", 0.02), ("m", 0.9, "higher", 0.02), 0, "better", id="better"
        ),
        pytest.param(
            ("m", 0.1, "lower", 0.0), ("m", 0.2, "lower", 0.0), 1, "worse", id="lower-is-better"
        ),
        pytest.param(
            ("m", 0.1, "equal", 0.05), ("m", 0.2, "equal", 0.05), 1, "worse", id="should-not-move"
        ),
        pytest.param(
            ("m", 0.62, "higher", 0.02), ("m", float("nan"), "higher", 0.02), 1, "worse", id="nan"
        ),
        pytest.param(
            ("m", 0.62, "higher", 0.02),
            ("m", 0.1, "higher", 9.0),
            1,
            "worse",
            id="loosened-tolerance",
        ),
        pytest.param(
            ("m", 0.62, "higher", 0.02), ("m", 0.1, "lower", 0.02), 1, "worse", id="turned-round"
        ),
        pytest.param(
            ("m", 0.62, "higher", 0.02), ("other", 0.7, "higher", 0.02), 1, "missing", id="left-out"
        ),
        pytest.param(
            ("m", 0.62, "higher", None), ("m", 0.1, "higher", None), 0, "changed", id="no-tolerance"
        ),
    ],
)
def test_comparison_fails_when_a_metric_is_worse_than_its_tolerance(
    pytester: pytest.Pytester, inner_pytest: Inner, before: Any, now: Any, status: int, verdict: str
) -> None:
    for folder, metric, extra in (("old", before, ()), ("new", now, ("--archive-compare", "old"))):
        nan = "nan = float('nan')\n"
        pytester.makepyfile(test_m=nan + METRICS.format(metrics=[metric]))
        result = inner_pytest("--archive", folder, *extra, apart=False)
    assert result.ret == status
    assert read_manifest(pytester.path / "new")["exit_status"] == status
    assert compare_main([str(pytester.path / "old"), str(pytester.path / "new")]) == status
    assert f"| {verdict} |" in (pytester.path / "new/compare.md").read_text()


def test_comparison_tells_a_skipped_test_from_one_that_was_not_selected(
    pytester: pytest.Pytester, inner_pytest: Inner
) -> None:
    metric = METRICS.format(metrics=[("m", 1.0, "higher", 0.0)])
    pytester.makepyfile(test_m=metric, test_other="def test_o(run_archive): pass")
    inner_pytest("--archive", "old")
    assert inner_pytest("--archive", "new", "--archive-compare", "old", "test_other.py").ret == 0
    assert "not compared" in (pytester.path / "new/compare.md").read_text()
    pytester.makepyfile(test_m="import pytest\n@pytest.mark.skip\n" + metric.strip())
    assert inner_pytest("--archive", "new", "--archive-compare", "old").ret == 1


def test_comparison_shows_changed_pictures_artifacts_and_times(
    pytester: pytest.Pytester, inner_pytest: Inner, png: Callable[..., bytes]
) -> None:
    for folder, colour, more in (("old", (1, 2, 3), "gone.txt"), ("new", (3, 2, 1), "added.txt")):
        pytester.makepyfile(
            test_p=f"""
            import sys
            def test_p(run_archive, run_command, tmp_path):
                run_command([sys.executable, "-c", ""])
                run_archive.artifact(tmp_path / "a.png").write_bytes({png(4, 4, colour)!r})
                run_archive.artifact(tmp_path / {more!r}).write_text("x")
                run_archive.artifact(tmp_path / "same.txt").write_text("x")
            """
        )
        inner_pytest(
            "--archive", folder, *(("--archive-compare", "old") if folder == "new" else ())
        )
    text = (pytester.path / "new/compare.md").read_text()
    changes = {"a.png": "changed", "gone.txt": "missing", "added.txt": "added", "same.txt": "same"}
    for name, change in changes.items():
        assert re.search(rf"\| {name} \|.*\| {change} \|", text), name
    assert "CPU time / s" in text
    assert "peak memory / MiB" in text
    assert (pytester.path / "new/compare.html").read_text().count("data:image/png") == 3


def test_comparison_needs_two_archives(pytester: pytest.Pytester, inner_pytest: Inner) -> None:
    pytester.makepyfile("def test_a(run_archive): pass")
    assert inner_pytest("--archive-compare", "old", apart=True).ret == pytest.ExitCode.USAGE_ERROR
    assert (
        inner_pytest("--archive", "new", "--archive-compare", "old", apart=True).ret
        == pytest.ExitCode.USAGE_ERROR
    )
    assert not (pytester.path / "new").exists()
    assert compare_main([str(pytester.path), str(pytester.path)]) == 2

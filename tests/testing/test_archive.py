"""Laws of the recorder itself: atomic, literal about what it was told, inert without a folder."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ptycho_torch.testing.archive import RunArchive
from ptycho_torch.testing.manifest import read_kept, read_manifest, write_atomically
from ptycho_torch.testing.privacy import Redactor


def make_archive(folder: Path | None) -> RunArchive:
    return RunArchive(folder, Redactor([]), test="t", attempt=1, worker=None, environment={})


def test_file_killed_while_it_is_written_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    write_atomically(path, b"0" * 4_000_000)
    code = (
        "import itertools, pathlib, sys; from ptycho_torch.testing.archive import "
        "write_atomically\n"
        "for n in itertools.count(): write_atomically(pathlib.Path(sys.argv[1]), b'%d' % (n % 10) "
        "* 4_000_000)"
    )
    env = dict(os.environ) | {"PYTHONPATH": str(Path(__file__).parents[2])}
    for delay_s in (0.0, 0.007, 0.013, 0.019):
        writer = subprocess.Popen([sys.executable, "-c", code, str(path)], env=env)
        changed = path.stat().st_ino
        while path.stat().st_ino == changed:
            time.sleep(0.005)
        time.sleep(delay_s)
        writer.kill()
        writer.wait()
        content = path.read_bytes()
        assert len(content) == 4_000_000
        assert len(set(content)) == 1


def test_manifest_is_on_disk_after_every_event(tmp_path: Path) -> None:
    archive = make_archive(tmp_path)
    assert read_manifest(tmp_path)["verdict"] == "running"
    archive.seed("noise", 7)
    assert read_manifest(tmp_path)["seeds"] == {"noise": 7}
    with archive.assertions("group"):
        assert read_manifest(tmp_path)["groups"][0]["verdict"] == "running"
    assert read_manifest(tmp_path)["groups"][0]["verdict"] == "passed"
    archive.run_command([sys.executable, "-c", ""])
    assert read_manifest(tmp_path)["commands"][0]["state"] == "exited"


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (AssertionError, "failed"),
        (KeyError, "error"),
        (KeyboardInterrupt, "interrupted"),
        (pytest.skip.Exception, "skipped"),
    ],
)
@pytest.mark.parametrize("archived", [True, False], ids=["archived", "inert"])
def test_group_and_block_pass_every_exception_on(
    tmp_path: Path, error: type[BaseException], verdict: str, archived: bool
) -> None:
    with (
        pytest.raises(error),
        make_archive(tmp_path if archived else None) as archive,
        archive.assertions("group"),
    ):
        raise error("why")
    if archived:
        manifest = read_manifest(tmp_path)
        assert (manifest["verdict"], manifest["groups"][0]["verdict"]) == (verdict, verdict)


def test_swallowed_failure_of_a_group_fails_the_block(tmp_path: Path) -> None:
    with (
        make_archive(tmp_path) as archive,
        pytest.raises(AssertionError),
        archive.assertions("group"),
    ):
        raise AssertionError
    assert read_manifest(tmp_path)["verdict"] == "failed"


@pytest.mark.parametrize("folder", [True, False], ids=["archived", "inert"])
def test_wrong_use_is_refused_with_and_without_the_flag(tmp_path: Path, folder: bool) -> None:
    archive = make_archive(tmp_path if folder else None)
    archive.metric("m", 1.0)
    with pytest.raises(ValueError, match="'m' is already recorded"):
        archive.metric("m", 2.0)
    with pytest.raises(ValueError, match="needs `better`"):
        archive.metric("n", 2.0, tolerance=0.1)
    with pytest.raises(ValueError, match="must be finite, at least 0"):
        archive.metric("n", 2.0, better="higher", tolerance=-0.1)
    with pytest.raises(FileNotFoundError):
        archive.input(tmp_path / "none.npz")
    with pytest.raises(ValueError, match="must stay inside the archive"):
        archive.artifact(tmp_path, name="../escape")
    archive.artifact(tmp_path / "a")
    with pytest.raises(ValueError, match="already called 'a'"):
        archive.artifact(tmp_path / "b" / "a")


def test_artifact_that_changes_is_kept_as_it_was_last(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "archive")
    archive.artifact(tmp_path / "out")
    for words in ("first", "second, longer"):
        code = (
            "import pathlib; p = pathlib.Path('out'); p.mkdir(exist_ok=True); (p / "
            f"'log').write_text({words!r})"
        )
        archive.run_command([sys.executable, "-c", code], cwd=tmp_path)
    archive.close("passed")
    (entry,) = read_manifest(tmp_path / "archive")["artifacts"]
    assert read_kept(tmp_path / "archive", entry["kept"]) == b"second, longer"


def test_links_out_of_a_collected_folder_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "secret").write_text("s")
    (tmp_path / "out/link").symlink_to(tmp_path / "secret")
    (tmp_path / "out/loop").symlink_to(tmp_path / "out")
    archive = make_archive(tmp_path / "archive")
    archive.artifact(tmp_path / "out")
    assert not list((tmp_path / "archive").rglob("link"))


def test_manifest_cannot_point_out_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s")
    (tmp_path / "archive").mkdir()
    digest = "043a718774c572bd8a25adbeb1bfcd5c0256ae11cecf9f9c3f925d0e52beaf89"
    assert read_kept(tmp_path, {"path": "secret", "sha256": digest}) == b"s"
    assert read_kept(tmp_path / "archive", {"path": "../secret", "sha256": digest}) is None


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("--out=/data/set/x.npz", "--out={d}/x.npz"),
        ("/data/settings/x", "/data/settings/x"),
        ("/data/set", "{d}"),
        ("/usr/lib/x.so:/usr/lib/y.so", "{elsewhere}/x.so:{elsewhere}/y.so"),
        ("'...ab.../usr/lib/x'", "'...ab...{elsewhere}/x'"),
        ("file:///usr/lib/x", "file://{elsewhere}/x"),
        ("../usr/lib/x ./usr/lib/x a/usr/lib", "../usr/lib/x ./usr/lib/x a/usr/lib"),
        ("/entry_1/data_1/data at 3/4", "/entry_1/data_1/data at 3/4"),
        ("https://example.org/usr/bin", "https://example.org/usr/bin"),
        ("mallory's Mallory_run smallory", "{private}'s {private}_run smallory"),
        ("root mean square of /", "root mean square of /"),
    ],
)
def test_private_parts_are_replaced_and_the_rest_is_left(
    monkeypatch: pytest.MonkeyPatch, text: str, public: str
) -> None:
    monkeypatch.setattr("ptycho_torch.testing.privacy.machine_names", lambda: {"mallory"})
    redactor = Redactor([("d", Path("/data/set"))])
    assert redactor.text(text) == public
    assert redactor.text(public) == public

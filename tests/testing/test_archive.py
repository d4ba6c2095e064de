"""Laws of the recorder itself: atomic, literal about what it was told, inert without a folder."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ptycho_torch.testing.archive import RunArchive, RunIdentity
from ptycho_torch.testing.evidence_folder import Budget, EvidenceFolder, Limits, head_and_tail
from ptycho_torch.testing.manifest import JOURNAL, read_kept, read_manifest, write_atomically
from ptycho_torch.testing.privacy import Redactor


def make_archive(folder: Path | None, limits: Limits = Limits()) -> RunArchive:  # noqa: B008
    if folder:
        folder.mkdir(exist_ok=True)
    evidence = EvidenceFolder(folder, Budget(limits), pytest.fail)
    return RunArchive(evidence, Redactor([]), RunIdentity("t"), environment={})


def test_file_killed_while_it_is_written_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    write_atomically(path, b"0" * 4_000_000)
    code = (
        "import itertools, pathlib, sys; from ptycho_torch.testing.manifest import "
        "write_atomically\n"
        "for n in itertools.count(): write_atomically(pathlib.Path(sys.argv[1]), b'%d' % (n % 10) "
        "* 4_000_000)"
    )
    env = dict(os.environ) | {"PYTHONPATH": str(Path(__file__).parents[2])}
    for delay_s in (0.0, 0.007, 0.013, 0.019):
        writer = subprocess.Popen([sys.executable, "-c", code, str(path)], env=env)
        changed = path.stat().st_ino
        while path.stat().st_ino == changed:
            assert writer.poll() is None
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
    archive.close("passed")
    assert not list((tmp_path / "archive").rglob("link"))
    entries = read_manifest(tmp_path / "archive")["artifacts"]
    assert [(one["name"], one["problem"].partition(" to ")[0]) for one in entries] == [
        ("out/link", "not kept: a symbolic link"),
        ("out/loop", "not kept: a symbolic link"),
    ]


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
        ("file:///usr/lib/jane%20doe/x", "file://{elsewhere}/x"),
        ("'/usr/lib/jane doe/x'", "'{elsewhere}/x'"),
        ("q=%2Fdata%2Fset%2Fx", "q={d}%2Fx"),
        ("q=%2Fusr%2Flib%2Fx.so", "q={elsewhere}/x.so"),
        ("https://mallory:pass@host/x", "https://{private}@host/x"),
        ("mail bob@beam.example.org now", "mail {private} now"),
        ("by Jane Doe and jane%20doe", "by {private} and {private}"),
    ],
)
def test_private_parts_are_replaced_and_the_rest_is_left(
    monkeypatch: pytest.MonkeyPatch, text: str, public: str
) -> None:
    monkeypatch.setattr(
        "ptycho_torch.testing.privacy.machine_names", lambda: {"mallory", "jane doe"}
    )
    redactor = Redactor([("d", Path("/data/set"))])
    assert redactor.text(text).text == public
    assert redactor.text(public).text == public


def test_words_that_programs_compare_keep_the_name_of_the_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A metric may be called as a user is; a path or an address in it is still private."""
    monkeypatch.setattr("ptycho_torch.testing.privacy.machine_names", lambda: {"slope"})
    redactor = Redactor([("d", Path("/data/set"))])
    assert redactor.key("test_slope.py::test[slope-/data/set/x]").text == (
        "test_slope.py::test[slope-{d}/x]"
    )
    assert redactor.data('{"slope": "/data/set/x"}').text == '{"slope": "{d}/x"}'
    assert redactor.text("the slope").text == "the {private}"
    options = [one.text for one in redactor.arguments(["fit", "--slope=3", "slope"])]
    assert options == ["fit", "--slope=3", "{private}"]


def test_secrets_are_replaced_by_name_of_argument_and_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BEAMLINE_API_KEY", "open-sesame")
    redactor = Redactor([], [r"ticket-\d+"])
    words = ["fit", "--token=abcdef1", "--password", "hunter22", "API_TOKEN=xyz"]
    assert [one.text for one in redactor.arguments(words)] == [
        "fit",
        "--token={secret}",
        "--password",
        "{secret}",
        "API_TOKEN={secret}",
    ]
    said = "open-sesame abcdef1 hunter22 ticket-77 fit"
    assert redactor.text(said).text == "{secret} {secret} {secret} {secret} fit"
    assert redactor.mask("/tmp open-sesame") == "/tmp {secret}"
    assert redactor.is_private(b"\xff\0open-sesame")


def test_head_and_tail_are_whole_lines() -> None:
    text = "".join(f"line {number}\n" for number in range(1000))
    shown = head_and_tail(text, 200)
    assert len(shown) < 260
    kept = [line for line in shown.splitlines() if not line.startswith("[")]
    assert set(kept) <= set(text.splitlines())
    assert (kept[0], kept[-1]) == ("line 0", "line 999")
    assert head_and_tail("x" * 50, 50) == "x" * 50
    assert "x" not in head_and_tail("x" * 500, 50).replace("left out", "")


def test_long_output_is_kept_in_part_with_the_hash_of_all(tmp_path: Path) -> None:
    archive = make_archive(tmp_path, Limits(stream_bytes=1000))
    code = "for n in range(10_000): print('line', n)"
    result = archive.run_command([sys.executable, "-c", code])
    archive.close("passed")
    (command,) = read_manifest(tmp_path)["commands"]
    whole = result.stdout.encode()
    assert command["printed"]["stdout"] == {
        "bytes": len(whole),
        "sha256": hashlib.sha256(whole).hexdigest(),
    }
    assert command["stdout"]["bytes"] < 1100
    assert (read_kept(tmp_path, command["stdout"]) or b"").startswith(b"line 0\n")


def test_run_keeps_no_more_than_its_limit(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "archive", Limits(run_bytes=150))
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"x" * 100)
        archive.artifact(tmp_path / name)
    archive.close("passed")
    first, second = read_manifest(tmp_path / "archive")["artifacts"]
    assert (first["problem"], first["kept"]["bytes"]) == ("", 100)
    assert (second["kept"], second["bytes"]) == (None, 100)
    assert "more than 150 bytes" in second["problem"]


def test_files_of_a_passed_run_are_discarded_on_request(tmp_path: Path) -> None:
    for verdict, kept in (("passed", False), ("failed", True)):
        folder = tmp_path / verdict
        archive = make_archive(folder, Limits(keep_passed=False))
        archive.run_command([sys.executable, "-c", "print(1)"])
        archive.metric("m", 1.0)
        archive.close(verdict)
        archive.keep_or_discard_files()
        assert (folder / "commands").exists() is kept
        manifest = read_manifest(folder)
        assert bool(manifest["commands"][0]["stdout"]) is kept
        assert manifest["metrics"][0]["value"] == 1.0


def test_time_of_metrics_grows_linearly(tmp_path: Path) -> None:
    """Four times as many take about four times as long; a manifest written anew takes 16 times."""

    def seconds(count: int, folder: Path) -> float:
        archive = make_archive(folder)
        started = time.process_time()
        for number in range(count):
            archive.metric(f"loss {number}", 1.0)
        archive.close("passed")
        return time.process_time() - started

    few = min(seconds(1000, tmp_path / f"few{trial}") for trial in range(3))
    assert seconds(4000, tmp_path / "many") < 8 * few


def test_series_is_kept_and_refuses_what_is_no_series(tmp_path: Path) -> None:
    archive = make_archive(tmp_path)
    archive.series("loss", [3.0, float("nan"), 1.0], x=[1, 2, 4], unit="nat")
    assert read_manifest(tmp_path)["series"][0]["values"] == [3.0, "nan", 1.0]
    with pytest.raises(ValueError, match="2 values and 1 places"):
        archive.series("other", [1.0, 2.0], x=[1])
    with pytest.raises(ValueError, match="already recorded"):
        archive.metric("loss", 1.0)


def test_last_line_of_a_killed_process_does_no_harm(tmp_path: Path) -> None:
    archive = make_archive(tmp_path)
    archive.metric("m", 1.0)
    with (tmp_path / JOURNAL).open("ab") as journal:
        journal.write(b'["metrics", "n", {"name": "n", "val')
    assert [one["name"] for one in read_manifest(tmp_path)["metrics"]] == ["m"]

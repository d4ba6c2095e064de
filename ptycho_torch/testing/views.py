"""Build the two views of a manifest, `index.html` and `summary.md`."""

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ptycho_torch.html.page import (
    PNG_SIGNATURE,
    Block,
    Cell,
    Command,
    Facts,
    Gallery,
    Link,
    Note,
    Output,
    Page,
    Picture,
    Section,
    Table,
    Verdict,
    render_html,
    render_markdown,
)
from ptycho_torch.testing.manifest import (
    Entry,
    read_kept,
    read_manifest,
    run_folders,
    write_atomically,
)
from ptycho_torch.testing.process import shorten

OUTPUT_LIMIT = 20_000  # characters of a command's output on the page; the file beside it has all
ALTERED = "altered or removed since the run"


def build_views(folder: Path) -> Path:
    """Write page and summary of an archive, or of one run in it, and return the page's path.

    Raises:
        ValueError: If the folder holds no manifest of this schema.
    """
    manifest = read_manifest(folder)
    if manifest["kind"] == "session":
        runs = read_runs(folder)
        for path in runs:
            build_views(path)
        page = session_page(manifest, runs)
    else:
        page = run_page(folder, manifest)
    write_atomically(folder / "summary.md", render_markdown(page).encode())
    write_atomically(folder / "index.html", render_html(page).encode())
    return folder / "index.html"


def read_runs(archive: Path) -> dict[Path, Entry]:
    """The manifests of the runs in an archive, in the order in which they started."""
    found = {folder: read_manifest(folder) for folder in run_folders(archive)}
    return dict(sorted(found.items(), key=lambda item: (item[1]["started"], item[1]["test"])))


def run_page(folder: Path, run: Entry) -> Page:
    """The page of one run."""
    sections = (
        [Section("What went wrong", [Output("Message", run["message"], True)])]
        if run["message"]
        else []
    )
    sections += [
        Section("Assertion groups", [groups_table(run)]),
        Section("Metrics", [metrics_table(run)]),
        Section(
            "Pictures",
            [
                Gallery(pictures(folder, run))
                if pictures(folder, run)
                else Note("No picture was kept.")
            ],
        ),
        Section(
            "Commands",
            [
                part
                for at, one in enumerate(run["commands"])
                for part in command(folder, at + 1, one)
            ],
        ),
        Section("Files", [inputs_table(run), artifacts_table(folder, run)]),
        Section("Environment", environment(run["environment"])),
    ]
    lead = Facts(
        [
            ("Test", run["test"]),
            *(("Seed " + name, f"{value}") for name, value in run["seeds"].items()),
            *timing(run),
        ]
    )
    return Page(run["test"].rpartition("::")[2], sections, lead=[lead], verdict=outcome(run))


def session_page(session: Entry, runs: dict[Path, Entry]) -> Page:
    """The first page of an archive: every run with its verdict, and every test of the session."""
    rows = [
        (Link(run["test"], f"{path.name}/index.html"), Verdict(outcome(run)), run["attempt"],
         groups_in_brief(run),
         len(run["metrics"]), run["duration_s"])
        for path, run in runs.items()
    ]  # fmt: skip
    tests = [(test, Verdict(verdict)) for test, verdict in session["tests"].items()]
    counts = Counter(session["tests"].values())
    lead: list[Block] = [
        Facts(
            [
                *timing(session),
                ("Exit status", str(session["exit_status"])),
                ("Tests", count_in_words(counts)),
            ]
        ),
        Command(session["command"]),
    ]
    columns = ("Run", "Verdict", "Attempt", "Assertion groups", "Metrics", "Duration / s")
    sections = [
        Section("Runs with evidence", [Table("One folder for each run", columns, rows)]),
        Section(
            "All tests", [Table("Verdict of every test of the session", ("Test", "Verdict"), tests)]
        ),
        Section("Environment", environment(session["environment"])),
    ]
    return Page("Archive of a test session", sections, lead=lead, verdict=outcome(session))


def outcome(manifest: Entry) -> str:
    """The verdict, where a manifest that was never finished counts as interrupted."""
    return "interrupted" if manifest["verdict"] == "running" else str(manifest["verdict"])


def timing(manifest: Entry) -> list[tuple[str, Cell]]:
    """When it ran and for how long, and on which revision."""
    git = manifest["environment"]["git"]
    revision = (
        f"{git['revision'][:12]}{' with changes' if git['dirty'] else ''}"
        if git
        else "not under git"
    )
    duration = f"{manifest['duration_s']:.1f} s" if manifest["finished"] else "did not finish"
    return [("Started", manifest["started"]), ("Duration", duration), ("Revision", revision)]


def groups_table(run: Entry) -> Block:
    """Verdict of each named group of assertions."""
    rows = [
        (group["name"], Verdict(outcome(group)), group["message"], group["test"])
        for group in run["groups"]
    ]
    if not rows:
        return Note("This run names no group of assertions: its verdict is the test's alone.")
    return Table("What was asserted", ("Group", "Verdict", "Message", "Test"), rows)


def groups_in_brief(run: Entry) -> str:
    """How many groups have which verdict: "2 passed, 1 failed"."""
    return count_in_words(Counter(outcome(group) for group in run["groups"]))


def count_in_words(counts: Counter[str]) -> str:
    """Counts as "2 passed, 1 failed"."""
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) or "none"


def metrics_table(run: Entry) -> Block:
    """Recorded numbers with what was said about them."""
    columns = ("Metric", "Value", "Unit", "Better", "Tolerance")
    rows = [
        (m["name"], m["value"], m["unit"], m["better"] or "", stated(m["tolerance"]))
        for m in run["metrics"]
    ]
    return Table("What was measured", columns, rows) if rows else Note("No metric was recorded.")


def stated(tolerance: float | None) -> Cell:
    """A tolerance, or that there is none."""
    return "none" if tolerance is None else tolerance


def pictures(folder: Path, run: Entry) -> list[Picture]:
    """The kept PNG artifacts that are still what was kept."""
    found = [
        (f"{kept_name(entry)}: {entry['caption']}".rstrip(": "), kept_bytes(folder, entry))
        for entry in run["artifacts"]
    ]
    return [
        Picture(data, alt=words, caption=words)
        for words, data in found
        if data.startswith(PNG_SIGNATURE)
    ]


def kept_name(entry: Entry) -> str:
    """What an artifact is called in the archive."""
    return (
        str(entry["kept"]["path"]).removeprefix("artifacts/")
        if entry["kept"]
        else str(entry["path"])
    )


def kept_bytes(folder: Path, entry: Entry) -> bytes:
    """An artifact's content; empty if none was kept, or not this."""
    return (read_kept(folder, entry["kept"]) or b"") if entry["kept"] else b""


def command(folder: Path, number: int, one: Entry) -> list[Block]:
    """A command with what it took and what it printed."""
    status = "none" if one["exit_status"] is None else str(one["exit_status"])
    facts: list[tuple[str, Cell]] = [
        (
            f"Command {number}",
            Verdict("passed" if one["exit_status"] == 0 and one["state"] == "exited" else "failed"),
        ),
        ("Exit status", f"{status} ({one['problem'] or one['state']})"),
        ("Wall time", f"{one['wall_s']:.2f} s"),
        ("CPU time", f"{one['cpu_s']:.2f} s"),
        ("Peak memory", f"{one['peak_memory_bytes'] / 2**20:.0f} MiB"),
        ("Folder", one["cwd"]),
    ]
    variables = [f"{name}={shlex.quote(value)}" for name, value in one["env"].items()]
    blocks: list[Block] = [
        Command(one["args"]),
        Facts(facts),
        Output(f"Variables of command {number}", "\n".join(variables)),
    ]
    for stream in ("stdout", "stderr"):
        if one[stream]:
            data = read_kept(folder, one[stream])
            shown = (
                ALTERED if data is None else shorten(data.decode(errors="replace"), OUTPUT_LIMIT)
            )
            blocks.append(
                Output(f"{stream} of command {number}, {one[stream]['bytes']} bytes", shown)
            )
    return blocks


def inputs_table(run: Entry) -> Block:
    """Input files, which are not in the archive."""
    rows = [(entry["path"], entry["bytes"], entry["sha256"]) for entry in run["inputs"]]
    return (
        Table("Inputs (not kept)", ("File", "Bytes", "SHA-256"), rows)
        if rows
        else Note("No input was recorded.")
    )


def artifacts_table(folder: Path, run: Entry) -> Block:
    """Produced files, with a link where they are kept."""
    rows: list[Sequence[Cell]] = []
    for entry in run["artifacts"]:
        kept = entry["kept"]
        altered = ALTERED if kept and read_kept(folder, kept) is None else entry["problem"]
        name: Cell = Link(kept_name(entry), kept["path"]) if kept else entry["path"]
        rows.append((name, entry["bytes"], entry["sha256"] or "", altered))
    return (
        Table("Artifacts", ("File", "Bytes", "SHA-256", "Remark"), rows)
        if rows
        else Note("No artifact was recorded.")
    )


def environment(found: Entry) -> list[Block]:
    """Machine, versions, and what was changed in the work tree."""
    machine: list[tuple[str, Cell]] = [
        ("Python", found["python"]),
        ("System", f"{found['system']}, {found['machine']}"),
        (
            "Processor",
            f"{found['cpu_model']}, {found['usable_cpu_count']} of {found['cpu_count']} cores "
            "usable",
        ),
        ("Memory", f"{found['memory_bytes'] / 2**30:.1f} GiB"),
    ]
    versions = "\n".join(f"{name} {version}" for name, version in found["versions"].items())
    changed = "\n".join(found["git"]["changed"]) if found["git"] else ""
    return [
        Facts(machine),
        Output("Installed versions", versions),
        Output("Changed files in the work tree", changed),
    ]

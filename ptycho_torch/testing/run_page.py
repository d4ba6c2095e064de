"""The page of one run: what it did, measured, made and printed."""

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ptycho_torch.html.line_plot import draw_line
from ptycho_torch.html.page import (
    PNG_SIGNATURE,
    Block,
    Cell,
    Command,
    Drawing,
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
)
from ptycho_torch.testing.manifest import Entry, read_kept
from ptycho_torch.testing.process import shorten

OUTPUT_LIMIT = 20_000  # characters of a command's output on the page; the file beside it has all
ALTERED = "altered or removed since the run"


def run_page(folder: Path, run: Entry) -> Page:
    """The page of one run."""
    sections = (
        [Section("What went wrong", [Output("Message", run["message"], True)])]
        if run["message"]
        else []
    )
    sections += [
        Section("Assertion groups", [groups_table(run)]),
        Section("Metrics", [metrics_table(run), *series_plots(run)]),
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
            ]
            or [Note("No command was run.")],
        ),
        Section("Files", [inputs_table(run), artifacts_table(folder, run)]),
        Section("Environment", environment(run["environment"])),
        *replaced_section(run),
    ]
    lead = Facts(
        [
            ("Test", run["test"]),
            ("Attempt", f"{run['attempt']}"),
            *(("Seed " + name, f"{value}") for name, value in run["seeds"].items()),
            *timing(run),
        ]
    )
    return Page(run["test"].rpartition("::")[2], sections, lead=[lead], verdict=outcome(run))


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
    duration = in_seconds(manifest["duration_s"]) if manifest["finished"] else "did not finish"
    return [("Started", manifest["started"]), ("Duration", duration), ("Revision", revision)]


def in_seconds(duration_s: float) -> str:
    """A duration in words, with thousandths where it is short."""
    return f"{duration_s:.{1 if duration_s >= 1 else 3}f} s"


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


def series_plots(run: Entry) -> list[Block]:
    """A plot of each series."""
    plots: list[Block] = []
    for series in run["series"]:
        values = [float(value) for value in series["values"]]
        name = f"{series['name']} / {series['unit']}" if series["unit"] else series["name"]
        words = f"{name}: {len(values)} values, first {values[0]:.6g}, last {values[-1]:.6g}"
        plots.append(Drawing(draw_line(series["x"], values), alt=words, caption=words))
    return plots


def replaced_section(manifest: Entry) -> list[Section]:
    """Where words were replaced, and by what."""
    rows = [
        (
            one["where"],
            ", ".join(f"{{{label}}} {count}" for label, count in one["replaced"].items()),
        )
        for one in manifest["redactions"]
    ]
    table = Table("Words that were replaced, and how often", ("Where", "By"), rows)
    return [Section("Replaced words", [table])] if rows else []


def stated(tolerance: float | None) -> Cell:
    """A tolerance, or that there is none."""
    return "none" if tolerance is None else tolerance


def pictures(folder: Path, run: Entry) -> list[Picture]:
    """The kept PNG artifacts that are still what was kept."""
    found = [
        (f"{entry['name']}: {entry['caption']}".rstrip(": "), kept_bytes(folder, entry))
        for entry in run["artifacts"]
    ]
    return [
        Picture(data, alt=words, caption=words)
        for words, data in found
        if data.startswith(PNG_SIGNATURE)
    ]


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
            printed = one["printed"][stream]["bytes"]
            blocks.append(Output(f"{stream} of command {number}, {printed} bytes", shown))
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
        name: Cell = Link(entry["name"], kept["path"]) if kept else entry["path"]
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
    changed = found["git"]["changed"] if found["git"] else []
    return [
        Facts(machine),
        Output("Installed versions", versions),
        *([Output("Changed files in the work tree", "\n".join(changed))] if changed else []),
    ]

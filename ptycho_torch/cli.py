"""`ptycho-torch simulate | train | infer | doctor | compare | convert | report | demo`: the commands under one name."""

import sys
from collections.abc import Callable, Sequence

from ptycho_torch import __version__, inference, train
from ptycho_torch.command import UNUSABLE_INPUT, run_command
from ptycho_torch.config import CompareConfig, ConversionConfig, DemoConfig, DoctorConfig, ReportConfig, SimulationConfig
from ptycho_torch.run_dir import RunDir


def simulate(config: SimulationConfig) -> RunDir:
    """Write a simulated scan and its truth."""
    from ptycho_torch import simulate as simulation  # torch takes seconds to import; --help does not wait

    return simulation.simulate(config)


def compare(config: CompareConfig) -> RunDir:
    """Compare two images, and print the table."""
    import rich

    from ptycho_torch.comparison import compare_files, table

    comparison, run = compare_files(config)
    if not config.quiet:
        rich.print(table(comparison))
    return run


def convert(config: ConversionConfig) -> None:
    """Write a scan in another format."""
    from ptycho_torch.conversion import convert as work

    work(config)


def doctor(config: DoctorConfig) -> None:
    """Examine a scan."""
    from ptycho_torch.doctor import diagnose

    diagnose(config)


def report(config: ReportConfig) -> None:
    """Make the page of a run again, and say where it is."""
    from ptycho_torch.report import report as work

    print(work(config))


def demo(config: DemoConfig) -> RunDir:
    """Simulate, train, reconstruct, and compare with the known object."""
    from ptycho_torch.demo import demonstrate

    return demonstrate(config)


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "simulate": (
        lambda argv: run_command(SimulationConfig, simulate, argv, prog="ptycho-torch simulate"),
        "make a scan of a known object",
    ),
    "train": (train.main, "learn a generator from measured patterns"),
    "infer": (inference.main, "reconstruct a scan with a trained generator"),
    "compare": (
        lambda argv: run_command(CompareConfig, compare, argv, prog="ptycho-torch compare"),
        "compare a result with the truth or another result",
    ),
    "doctor": (
        lambda argv: run_command(DoctorConfig, doctor, argv, prog="ptycho-torch doctor"),
        "say whether a scan is what it says it is",
    ),
    "convert": (
        lambda argv: run_command(ConversionConfig, convert, argv, prog="ptycho-torch convert"),
        "write a scan in another format",
    ),
    "report": (
        lambda argv: run_command(ReportConfig, report, argv, prog="ptycho-torch report"),
        "make the page of a reconstruction, or of an archive of tests, again",
    ),
    "demo": (
        lambda argv: run_command(DemoConfig, demo, argv, prog="ptycho-torch demo"),
        "do all of it on a simulated scan, and compare with the truth",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first word names."""
    words = sys.argv[1:] if argv is None else list(argv)
    if words[:1] == ["--version"]:
        print(__version__)
        return 0
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0 if words else UNUSABLE_INPUT
    if words[0] not in COMMANDS:
        print(f"error: no command '{words[0]}'; expected one of {', '.join(COMMANDS)}", file=sys.stderr)
        return UNUSABLE_INPUT
    run, _ = COMMANDS[words[0]]
    return run(words[1:])


def usage() -> str:
    """The list of commands."""
    lines = [f"  {name:10} {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(["usage: ptycho-torch COMMAND [options]", "", *lines, "", "ptycho-torch COMMAND --help lists the options."])


if __name__ == "__main__":
    sys.exit(main())

"""Write `specs/command_line.md` from the configuration classes: `python docs/command_line.py`."""

import dataclasses
from pathlib import Path

from ptycho_torch.config import (
    OLDER_NAMES,
    UNNEEDED,
    CompareConfig,
    ConversionConfig,
    DemoConfig,
    DoctorConfig,
    InferenceConfig,
    ReportConfig,
    SimulationConfig,
    TrainingConfig,
)

TARGET = Path(__file__).parent.parent / "specs" / "command_line.md"

COMMANDS = {
    "python -m ptycho_torch.train, ptycho-torch train": TrainingConfig,
    "python -m ptycho_torch.inference, ptycho-torch infer": InferenceConfig,
    "ptycho-torch simulate": SimulationConfig,
    "ptycho-torch compare RESULT REFERENCE": CompareConfig,
    "ptycho-torch doctor FILE": DoctorConfig,
    "ptycho-torch convert FILE OUTPUT": ConversionConfig,
    "ptycho-torch report FOLDER": ReportConfig,
    "ptycho-torch demo": DemoConfig,
}

INTRODUCTION = """# Command line

Generated from `ptycho_torch.config` by `python docs/command_line.py`. A flag is accepted with `-` and with `_`.
`--config FILE` reads any of the options from YAML or JSON; flags override it. A switch has a `--no_…` form.
"""


def text() -> str:
    """The whole document."""
    sections = [INTRODUCTION]
    for names, config in COMMANDS.items():
        sections += [f"## {names}\n", f"{config.__doc__}\n", "| option | meaning | default |\n| --- | --- | --- |"]
        for item in dataclasses.fields(config):
            required = item.default is dataclasses.MISSING
            default = "required" if required else "none" if item.default in (None, ()) else f"`{item.default}`"
            name = item.name.upper() if item.metadata["positional"] else f"--{item.name}"
            sections.append(f"| `{name}` | {item.metadata['help'].replace('|', '/')} | {default} |")
        sections.append("")
    older = [f"- `{name}` is an older name of `{newer}`." for name, newer in OLDER_NAMES.items()]
    unneeded = [f"- `{name}` is accepted and has no effect: {reason}." for name, reason in UNNEEDED.items()]
    return "\n".join([*sections, "## Older names\n", *older, *unneeded, ""])


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")

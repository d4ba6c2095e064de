"""Every command and every line of Python of the README runs as it stands there."""

import re
from pathlib import Path

from ptycho_torch import cli, inference, train

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
SMALL = {
    "ptycho-torch simulate": ["--n_side", "8", "--pattern_size", "32"],
    "python -m ptycho_torch.train": ["--max_epochs", "1"],
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_the_commands_run_one_after_the_other_and_then_the_python(tmp_path, monkeypatch):
    """In process, and in a smaller size, so that it takes seconds; nothing else is changed."""
    monkeypatch.chdir(tmp_path)
    programs = {
        "ptycho-torch simulate": simulate,
        "python -m ptycho_torch.train": train.main,
        "ptycho-torch compare": compare,
    }
    programs |= {"python -m ptycho_torch.inference": inference.main}
    lines = [line for block in blocks("") for line in block.splitlines()]
    commands = [line for line in lines if line.startswith(tuple(programs))]
    assert len(commands) == 4
    for command in commands:
        name = next(name for name in programs if command.startswith(name))
        assert programs[name]([*command.removeprefix(name).split(), *SMALL.get(name, [])]) == 0
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {})


def simulate(words: list[str]) -> int:
    return cli.main(["simulate", *words])


def compare(words: list[str]) -> int:
    return cli.main(["compare", *words])


def test_make_targets_that_are_named_exist():
    makefile = (Path(__file__).parent.parent / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)$", README, flags=re.MULTILINE):
        assert f"\n{target}:" in makefile

"""Speed on a GPU, or on the CPU: `python benchmarks/accelerator.py`.

One table of training steps, inference from file to files, and epochs of the refinement with one and
three probe modes, each beside the Fourier transforms that it cannot do without, measured in the
same run, and beside the LSQ-ML of Pty-Chi where that is installed. A second table says how far the
images of the device are from those of the CPU; the exit status is 1 where they are too far.

It takes less than eight minutes on a GPU, and needs no installation of the package: what a bare
image with torch lacks is named before anything starts. `--small` takes two minutes on a laptop. The
results are in `docs/scaling.md`.
"""

import argparse
import importlib.util
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("bench",)  # optional packages of the project that benchmarks need
MODULES = {"pyyaml": "yaml", "scikit-image": "skimage"}  # whose names are not those of the packages


def missing_packages() -> list[str]:
    """The packages, with their versions, that the project asks for and Python does not find."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = [one for extra in EXTRAS for one in project["optional-dependencies"][extra]]
    missing = []
    for requirement in [*project["dependencies"], *optional]:
        name = requirement.partition(">=")[0]
        if importlib.util.find_spec(MODULES.get(name, name)) is None:
            missing.append(requirement)
    return missing


def main() -> int:
    """Check the packages, measure, print the tables, and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--accelerator", choices=("auto", "cpu", "gpu"), default="auto")
    parser.add_argument("--small", action="store_true", help="few patterns, for a laptop")
    arguments = parser.parse_args()
    missing = missing_packages()
    if missing:
        words = " ".join(f"'{one}'" for one in missing)
        print(f"Python lacks packages of the project; pip install {words}", file=sys.stderr)
        return 2
    sys.path.insert(0, str(ROOT))
    from accelerator_speed import FULL, SMALL, print_tables  # needs the packages

    return print_tables(arguments.accelerator, SMALL if arguments.small else FULL)


if __name__ == "__main__":
    sys.exit(main())

"""`python -m ptycho_torch.testing DIR`: make the pages of an archive; of several, their history."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ptycho_torch.testing.history import HISTORY, write_history
from ptycho_torch.testing.views import build_views


def main(argv: Sequence[str] | None = None) -> int:
    """Make the pages of an archive, or the history of several; 0, or 2 for no archive."""
    parser = argparse.ArgumentParser(
        prog="python -m ptycho_torch.testing", description=main.__doc__
    )
    parser.add_argument("archives", nargs="+", type=Path, help="folders of pytest --archive")
    parser.add_argument(
        "--history", type=Path, help=f"page of the history; {HISTORY} if several are given"
    )
    options = parser.parse_args(argv)
    try:
        if len(options.archives) > 1 or options.history:
            print(write_history(options.archives, options.history or HISTORY))
        else:
            print(build_views(options.archives[0]))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

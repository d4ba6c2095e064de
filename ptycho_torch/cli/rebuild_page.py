"""`ptycho-torch report`: the page of a reconstruction or of archives of tests."""

from collections.abc import Sequence
from pathlib import Path

from ptycho_torch.config import ReportConfig
from ptycho_torch.errors import InputError
from ptycho_torch.evaluation.report import rebuild_report
from ptycho_torch.io.run_dir import RunDir
from ptycho_torch.testing.history import HISTORY, write_history
from ptycho_torch.testing.manifest import MANIFEST
from ptycho_torch.testing.views import build_views


def report(config: ReportConfig) -> Path:
    """Make the page again, or that of the history of several archives, and print where it is.

    Raises:
        InputError: If a folder is neither a run nor an archive, or is damaged.
    """
    page = make_page(config.folder, config.history)
    print(page)
    return page


def make_page(folders: Sequence[Path], history: Path | None) -> Path:
    """Write the page of one folder, or the history of several archives, and return its path."""
    folder = folders[0]
    try:
        if len(folders) > 1 or history is not None:
            return write_history(folders, history or HISTORY)
        if (folder / MANIFEST).is_file():
            return build_views(folder)
    except ValueError as error:
        raise InputError(str(error)) from error
    return rebuild_report(RunDir(folder))

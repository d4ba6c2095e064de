"""`ptycho-torch report`: the page of a reconstruction, or of an archive of tests, made again."""

from pathlib import Path

from ptycho_torch.config import ReportConfig
from ptycho_torch.errors import InputError
from ptycho_torch.evaluation.report import rebuild_report
from ptycho_torch.io.run_dir import RunDir
from ptycho_torch.testing.manifest import MANIFEST
from ptycho_torch.testing.views import build_views


def report(config: ReportConfig) -> Path:
    """Make the page again, and print where it is.

    Raises:
        InputError: If the folder holds neither, or is damaged.
    """
    if (config.folder / MANIFEST).is_file():
        try:
            page = build_views(config.folder)
        except ValueError as error:
            raise InputError(str(error)) from error
    else:
        page = rebuild_report(RunDir(config.folder))
    print(page)
    return page

"""`ptycho-torch compare`: two images of one object, in numbers and in a picture."""

import rich

from ptycho_torch.config import CompareConfig
from ptycho_torch.evaluation.comparison import compare_files, table


def compare(config: CompareConfig) -> None:
    """Compare two images, and print the table.

    Raises:
        InputError: If a file or the folder cannot be used, or the two show no common region.
    """
    comparison, _ = compare_files(config)
    if not config.quiet:
        rich.print(table(comparison))

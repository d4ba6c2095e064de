"""`ptycho-torch verify`: whether an archive of tests is as it was written."""

from ptycho_torch.config import VerifyConfig
from ptycho_torch.errors import InputError, RunError
from ptycho_torch.testing.verify import verification_text, verify


def verify_archive(config: VerifyConfig) -> None:
    """Print that the archive is as it was written.

    Raises:
        RunError: If it is not, with all that differs.
        InputError: If the folder is no archive.
    """
    try:
        problems = verify(config.folder, config.digest)
    except ValueError as error:
        raise InputError(str(error)) from error
    text = verification_text(config.folder, problems)
    if problems:
        raise RunError(text)
    print(text)

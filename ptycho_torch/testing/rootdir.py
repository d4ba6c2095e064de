"""Keep pytest from taking the folder of an archive for a folder of tests.

pytest looks for its root before it knows the options of plugins. In `--archive ../evidence` it
then sees an argument `../evidence`, and where that folder exists, the root and the ids of all tests
change with it. Here the root is determined again without the values of these options.
"""

import pytest
from _pytest.config.findpaths import determine_setup


def forget_archive_folders(config: pytest.Config, args: list[str]) -> None:
    """Give the session the root and settings that it has without the folders of archives."""
    known = config.known_args_namespace
    options = [known.archive, known.archive_compare, known.archive_renamed]
    if not any(options):
        return
    root, settings_file, settings, ignored = determine_setup(
        inifile=known.inifilename,
        override_ini=known.override_ini,
        args=known.file_or_dir,
        rootdir_cmd_arg=known.rootdir or None,
        invocation_dir=config.invocation_params.dir,
    )
    if (root, settings_file) == (config.rootpath, config.inipath):
        return
    config._rootpath, config._inipath = root, settings_file
    config._inicfg, config._ignored_config_files = settings, ignored
    config._inicache.clear()
    args[:] = [*config.getini("addopts"), *args]

"""Keep pytest from taking the folder of an archive for a folder of tests.

pytest looks for its root before it loads plugins. In `--archive ../evidence` it then sees an
argument `../evidence`, and where that folder exists, the root and the ids of all tests change with
it. Here the root is determined again without the values of these options. pytest has no public
means for that: `Config.rootpath` is read-only, and no hook runs earlier. A version that is not made
as those known gets a warning instead; `--archive=../evidence` is right in every one.
"""

import inspect
from pathlib import Path
from typing import Any

import pytest


def forget_archive_folders(config: pytest.Config, args: list[str]) -> None:
    """Give the session the root and settings that it has without the folders of archives."""
    known = config.known_args_namespace
    options = [known.archive, known.archive_compare, known.archive_renamed]
    if not any(options):
        return
    try:
        found = setup_without_archives(config)
        changed = (found["_rootpath"], found["_inipath"]) != (config.rootpath, config.inipath)
    except (ImportError, AttributeError, KeyError, TypeError):
        warn_of_folders([Path(name) for name in options if name], config)
        return
    if changed:
        vars(config).update(found)
        vars(config)["_inicache"].clear()
        args[:] = [*config.getini("addopts"), *args]


def setup_without_archives(config: pytest.Config) -> dict[str, Any]:
    """The private attributes of `config` that hold root and settings, as they should be.

    pytest 8 has one argument and one result less than pytest 9, and names the settings otherwise.
    """
    from _pytest.config.findpaths import determine_setup  # absent, it must not end every session

    known = config.known_args_namespace
    arguments = {
        "inifile": known.inifilename,
        "override_ini": known.override_ini,
        "args": known.file_or_dir,
        "rootdir_cmd_arg": known.rootdir or None,
        "invocation_dir": config.invocation_params.dir,
    }
    taken = inspect.signature(determine_setup).parameters
    found = determine_setup(**{name: value for name, value in arguments.items() if name in taken})
    settings = "_inicfg" if "_inicfg" in vars(config) else "inicfg"
    names = ("_rootpath", "_inipath", settings, "_ignored_config_files")
    attributes = dict(zip(names, found, strict=False))
    missing = attributes.keys() - vars(config).keys()
    if missing or "_inicache" not in vars(config):
        raise AttributeError(f"this pytest has no {sorted(missing)}")
    return attributes


def warn_of_folders(folders: list[Path], config: pytest.Config) -> None:
    """Warn where a folder exists and pytest may have taken it for a folder of tests."""
    if any((config.invocation_params.dir / folder).exists() for folder in folders):
        config.issue_config_time_warning(
            pytest.PytestWarning(
                "this version of pytest may take the folder of an archive for a folder of tests; "
                f"write --archive={folders[0]}"
            ),
            stacklevel=2,
        )

"""Sessions of pytest without the other plugins of the environment, which take twice as long to load
as such a session takes.
"""

from collections.abc import Sequence

LEAN = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
PLUGINS = {"-n": "xdist", "--reruns": "pytest_rerunfailures"}  # by the flag that needs them


def plugins_of(words: Sequence[str]) -> list[str]:
    """Words that load the plugins which the words of a command line need."""
    return [word for flag, name in PLUGINS.items() if flag in words for word in ("-p", name)]

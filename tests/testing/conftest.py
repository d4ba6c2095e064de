"""What the tests of the plugin share: sessions of pytest inside a test."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lean_sessions import LEAN, plugins_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def inner_pytest(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., pytest.RunResult]:
    """Runs pytest with the plugin in a folder of its own, installed or not:
    `inner_pytest("--archive", "out")`; `apart` in a process of its own. The other plugins of the
    environment are loaded where the words need them, and all of them if `installed`.
    """
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)

    def run(*args: str, apart: bool = False, installed: bool = False) -> pytest.RunResult:
        words = ["-p", "ptycho_torch.testing.plugin", "-p", "no:cacheprovider", *args]
        start = pytester.runpytest_subprocess if apart else pytester.runpytest_inprocess
        if installed:
            return start(*words)
        with monkeypatch.context() as patch:
            for name, value in LEAN.items():
                patch.setenv(name, value)
            return start(*plugins_of(args), *words)

    return run


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT interrupts, also where a shell started the tests in the background, which then
    ignore it, as children would.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)

"""What the tests of the plugin share: sessions of pytest inside a test."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def inner_pytest(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., pytest.RunResult]:
    """Runs pytest with the plugin in a folder of its own, installed or not:
    `inner_pytest("--archive", "out")`.
    """
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)

    def run(*args: str, apart: bool = False) -> pytest.RunResult:
        words = ("-p", "ptycho_torch.testing.plugin", "-p", "no:cacheprovider", *args)
        return (
            pytester.runpytest_subprocess(*words) if apart else pytester.runpytest_inprocess(*words)
        )

    return run


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT interrupts, also where a shell started the tests in the background, which then
    ignore it, as children would.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)

"""What the tests of all components share: real servers, and patience."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

from analytics_collector.embedded import embedded_servers

Eventually = Callable[..., None]

# The same examples each time, so that a change is judged by what it changes. Now and then look
# for new ones: HYPOTHESIS_PROFILE=explore.
hypothesis.settings.register_profile("repeatable", derandomize=True, database=None)
hypothesis.settings.register_profile("explore")
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

# A suite that a shell runs in the background is started with Ctrl-C ignored, and so would be all
# that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What a machine can't give whatever is installed; everything else that is missing is a mistake.
_NO_FAULT_OF_THE_MACHINE = ("needs root", "reads /proc")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a skipped test fail where ANALYTICS_TESTS_FORBID_SKIPS is set, as in CI."""
    report = yield
    if report.skipped and os.environ.get("ANALYTICS_TESTS_FORBID_SKIPS"):
        reason = str(call.excinfo.value) if call.excinfo else "skipped"
        if not reason.startswith(_NO_FAULT_OF_THE_MACHINE):
            report.outcome = "failed"
            report.longrepr = f"a test may not be skipped here: {reason}"
    return report


def pytest_collection_finish() -> None:
    """Leave six thousand tests out of every later search for garbage."""
    gc.freeze()


@pytest.fixture(scope="session")
def servers() -> Iterator[tuple[str, str]]:
    """The URLs of a PostgreSQL and a Valkey that live as long as the tests.

    Who needs tables makes a database of its own; who needs the stream makes servers of its own.
    """
    # Not under pytest's own folder, whose long name leaves no room for a socket's.
    home = Path(tempfile.mkdtemp(prefix="analytics-test-"))
    try:
        with embedded_servers(home / "data") as urls:
            yield urls
    finally:
        shutil.rmtree(home)


@pytest.fixture(scope="session", autouse=True)
def own_spool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the SDK's events out of the user's own spool, and the user's out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANALYTICS_SPOOL_DIR", str(tmp_path_factory.mktemp("spool")))
        yield


@pytest.fixture
def eventually() -> Eventually:
    """Wait until a condition holds, and fail when it does not come true in time."""

    def wait(condition: Callable[[], object], timeout_s: float = 15.0) -> None:
        deadline = time.monotonic() + timeout_s
        pause = threading.Event()
        while not condition():
            assert time.monotonic() < deadline, "it did not come true in time"
            pause.wait(0.02)

    return wait

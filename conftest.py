"""What the tests of all components share: real servers, and patience."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from analytics_collector.embedded import embedded_servers

Eventually = Callable[..., None]


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

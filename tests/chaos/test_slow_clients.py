"""Clients that dribble or say nothing: they are shown the door, and the others don't notice."""

from __future__ import annotations

import resource
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from socket import socket
from statistics import median

import pytest

from analytics_collector._limits import HEADER_DEADLINE_S, REQUEST_DEADLINE_S
from harness.client import Mint, Sender
from harness.collector import Collector
from harness.raw_http import connect
from harness.waiting import pause

CROWD = 500  # connections of each kind
DRIBBLE_S = 0.5
NOISE_S = 10.0
SAMPLES = 60
# A sick server takes seconds; these bounds leave room for a machine that is busy otherwise.
MAX_RATIO = 10
MAX_ALWAYS_S = 0.25

HEADERS = b"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nX-Slow: "
# All the bodies together are less than what a project may have in flight, or it would be told 503.
OPENINGS = {
    "idle": b"",
    "headers": HEADERS,
    "body": (
        b"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 20000\r\nx-api-key: KEY\r\n\r\n{"
    ),
}
DEADLINES_S = {
    "idle": HEADER_DEADLINE_S,
    "headers": HEADER_DEADLINE_S,
    "body": REQUEST_DEADLINE_S,
}


def _median_s(sender: Sender, mint: Mint) -> float:
    """Return how long an honest request takes, mostly."""
    times = []
    for _ in range(SAMPLES):
        started = time.monotonic()
        assert sender.send(mint.events(2)).status == 202
        times.append(time.monotonic() - started)
    return median(times)


class _SlowClients:
    """Many connections that are opened in one of three ways and then dribble."""

    def __init__(self, url: str, kind: str, count: int, key: str, stack: ExitStack) -> None:
        self.kind = kind
        self.opened_at = time.monotonic()
        self.count = count
        self.closed_after_s: list[float] = []
        self.answers: Counter[bytes] = Counter()
        self._open: dict[socket, bytes] = {}
        for _ in range(count):
            connection = stack.enter_context(connect(url))
            connection.sendall(OPENINGS[kind].replace(b"KEY", key.encode()))
            connection.setblocking(False)
            self._open[connection] = b""

    def dribble(self) -> None:
        """Send a byte on each that is open, and note which were closed, after what answer."""
        for connection in list(self._open):
            try:
                if self.kind != "idle":
                    connection.send(b"a")
                is_closed = not self._drained(connection)
            except BlockingIOError:
                is_closed = False
            except OSError:
                is_closed = True
                self._drain_rest(connection)
            if is_closed:
                self.answers[self._open.pop(connection)[:12]] += 1
                self.closed_after_s.append(time.monotonic() - self.opened_at)

    def _drained(self, connection: socket) -> bool:
        """Read what is there; return False at the end."""
        while received := connection.recv(4096):
            self._open[connection] += received
        return False

    def _drain_rest(self, connection: socket) -> None:
        with suppress(OSError):
            self._drained(connection)


@contextmanager
def _many_files(count: int) -> Iterator[None]:
    """Let this process have *count* files open inside the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count:
        pytest.skip("needs root to open so many files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def _dribbling(clients: list[_SlowClients]) -> Iterator[None]:
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(DRIBBLE_S):
            for group in clients:
                group.dribble()

    thread = threading.Thread(target=run, name="slow clients")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    "kinds",
    [
        ("idle", "headers"),
        # A body has three times as long.
        pytest.param(("idle", "headers", "body"), marks=pytest.mark.long),
    ],
    ids=" ".join,
)
def test_slow_clients_are_closed_in_time_and_hold_nobody_up(
    collector: Collector, kinds: tuple[str, ...]
) -> None:
    """500 of each kind at once, without a word, in the headers, in the body: told 408 (RES-01)."""
    key = collector.database.new_key("ingest")
    mint = Mint(1)
    with _many_files(len(kinds) * CROWD + 200), ExitStack() as stack:
        serve = stack.enter_context(collector.serve())
        sender = stack.enter_context(Sender(serve.url, key))
        idle_s = _median_s(sender, mint)
        groups = [_SlowClients(serve.url, kind, CROWD, key, stack) for kind in kinds]
        with _dribbling(groups):
            busy_s = _median_s(sender, mint)
            last = groups[-1].opened_at + DEADLINES_S[kinds[-1]] + NOISE_S
            while time.monotonic() < last and any(
                len(group.closed_after_s) < CROWD for group in groups
            ):
                pause(0.1)
        faults = serve.faults
    print(f"idle {idle_s * 1e3:.1f} ms, busy {busy_s * 1e3:.1f} ms")

    for group in groups:
        kind, times = group.kind, sorted(group.closed_after_s)
        assert len(times) == CROWD, f"{kind}: {CROWD - len(times)} are still open"
        assert times[-1] < DEADLINES_S[kind] + NOISE_S, f"{kind}: {times}"
        assert times[0] > DEADLINES_S[kind] / 2, f"{kind}: closed before its time"
        print(f"{kind}: closed after {times[0]:.1f} to {times[-1]:.1f} s, {group.answers}")
        # A reset may overtake the answer where bytes of ours were still on their way.
        assert group.answers[b"HTTP/1.1 408"] > 0.9 * CROWD, group.answers
    assert busy_s < max(MAX_ALWAYS_S, MAX_RATIO * idle_s), f"{idle_s=}, {busy_s=}"
    assert faults == []

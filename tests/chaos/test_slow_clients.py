"""Clients that dribble or say nothing: they are shown the door, and the others don't notice."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from socket import socket
from statistics import median

from analytics_collector._limits import HEADER_DEADLINE_S, REQUEST_DEADLINE_S
from harness.client import Mint, Sender
from harness.collector import Collector
from harness.raw_http import connect
from harness.waiting import pause

CONNECTIONS = 50
DRIBBLE_S = 0.5
NOISE_S = 10.0
SAMPLES = 60
# A sick server takes seconds; these bounds leave room for a machine that is busy otherwise.
MAX_RATIO = 10
MAX_ALWAYS_S = 0.25

HEADERS = b"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nX-Slow: "
OPENINGS = {
    "idle": b"",
    "headers": HEADERS,
    "body": (
        b"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100000\r\nx-api-key: KEY\r\n\r\n{"
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
    """Fifty connections that are opened in one of three ways and then dribble."""

    def __init__(self, url: str, kind: str, key: str, stack: ExitStack) -> None:
        self.kind = kind
        self.opened_at = time.monotonic()
        self.closed_after_s: list[float] = []
        self._open: list[socket] = []
        for _ in range(CONNECTIONS):
            connection = stack.enter_context(connect(url))
            connection.sendall(OPENINGS[kind].replace(b"KEY", key.encode()))
            connection.setblocking(False)
            self._open.append(connection)

    def dribble(self) -> None:
        """Send a byte on each that is open, and note which were closed."""
        for connection in list(self._open):
            try:
                if self.kind != "idle":
                    connection.send(b"a")
                is_closed = not self._drained(connection)
            except BlockingIOError:
                is_closed = False
            except OSError:
                is_closed = True
            if is_closed:
                self._open.remove(connection)
                self.closed_after_s.append(time.monotonic() - self.opened_at)

    def _drained(self, connection: socket) -> bool:
        """Read what is there; return False at the end."""
        while connection.recv(4096):
            pass
        return False


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


def test_slow_clients_are_closed_in_time_and_hold_nobody_up(collector: Collector) -> None:
    """50 of each kind at once: without a word, in the headers, in the body."""
    key = collector.database.new_key("ingest")
    mint = Mint(1)
    with ExitStack() as stack:
        serve = stack.enter_context(collector.serve())
        sender = stack.enter_context(Sender(serve.url, key))
        idle_s = _median_s(sender, mint)
        groups = [_SlowClients(serve.url, kind, key, stack) for kind in OPENINGS]
        with _dribbling(groups):
            busy_s = _median_s(sender, mint)
            last = groups[-1].opened_at + max(DEADLINES_S.values()) + NOISE_S
            while time.monotonic() < last and any(
                len(group.closed_after_s) < CONNECTIONS for group in groups
            ):
                pause(0.1)
        faults = serve.faults
    closed = {group.kind: sorted(group.closed_after_s) for group in groups}
    print(f"idle {idle_s * 1e3:.1f} ms, busy {busy_s * 1e3:.1f} ms")

    for kind, times in closed.items():
        assert len(times) == CONNECTIONS, f"{kind}: {CONNECTIONS - len(times)} are still open"
        assert times[-1] < DEADLINES_S[kind] + NOISE_S, f"{kind}: {times}"
        print(f"{kind}: closed after {times[0]:.1f} to {times[-1]:.1f} s")
    assert closed["headers"][0] > HEADER_DEADLINE_S / 2, "closed before its time"
    assert busy_s < max(MAX_ALWAYS_S, MAX_RATIO * idle_s), f"{idle_s=}, {busy_s=}"
    assert faults == []

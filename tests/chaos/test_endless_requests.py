"""Headers and bodies without an end: refused early, and paid for by whoever sends them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from socket import socket

import pytest

from analytics_collector._limits import MAX_BODY_BYTES, MAX_HEADER_BYTES
from harness.client import Mint, Sender
from harness.collector import Collector, Serve
from harness.processes import peak_rss_bytes
from harness.raw_http import connect

MIB = 1024 * 1024
GET = b"GET /health HTTP/1.1\r\nHost: h\r\n"
POST = (
    b"POST /api/v1/events HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
    b"x-api-key: KEY\r\nTransfer-Encoding: chunked\r\n\r\n"
)
HEADERS = {
    "100000-headers": lambda: iter([GET, *[b"X-Header-%d: v\r\n" % n for n in range(100_000)]]),
    "a-header-of-200-MB": lambda: iter([GET + b"X-Huge: ", *[b"a" * MIB] * 200]),
}
# What a socket and the event loop may hold of it, beside what is looked at.
MAX_BUFFERED_BYTES = 8 * MIB
MAX_GROWTH_BYTES = 2 * MIB


def _send_until_refused(connection: socket, parts: Iterator[bytes]) -> tuple[int, bytes]:
    """Send *parts* until there is an answer or nobody takes more; return how much, and it."""
    sent, answer = 0, b""
    connection.settimeout(10)
    with contextlib.suppress(ConnectionError):
        for part in parts:
            connection.sendall(part)
            sent += len(part)
    with contextlib.suppress(ConnectionError):
        while received := connection.recv(65_536):
            answer += received
    return sent, answer


def _warm_up(serve: Serve, key: str) -> None:
    """Let it have had what a good body takes."""
    with Sender(serve.url, key) as sender:
        for _ in range(20):
            assert sender.send(Mint(1).events(50)).status == 202


@pytest.mark.parametrize("parts", HEADERS.values(), ids=HEADERS)
def test_headers_without_end_are_refused_and_not_kept(
    collector: Collector, parts: Callable[[], Iterator[bytes]]
) -> None:
    """Whoever sends them is told 431 or cut off; they never fill the memory (RES-02)."""
    key = collector.database.new_key("ingest")
    with collector.serve() as serve:
        _warm_up(serve, key)
        before_bytes = peak_rss_bytes(serve.pid)
        with connect(serve.url) as connection:
            sent, answer = _send_until_refused(connection, parts())
        grown_bytes = peak_rss_bytes(serve.pid) - before_bytes
        with Sender(serve.url, key) as sender:
            after = sender.send(Mint(2).events(1)).status
        faults = serve.faults
    print(f"{sent:,} sent, +{grown_bytes / MIB:.2f} MiB, {answer[:12]!r}")

    assert answer[:12] in (b"", b"HTTP/1.1 431", b"HTTP/1.1 400")  # a reset may overtake it
    assert sent < MAX_HEADER_BYTES + MAX_BUFFERED_BYTES
    assert grown_bytes < MAX_GROWTH_BYTES
    assert after == 202
    assert faults == []


def test_a_body_in_chunks_without_end_is_refused_where_the_limit_is(collector: Collector) -> None:
    """100 MB that nobody announced: 413 where the limit is passed, not at the end (RES-03)."""
    key = collector.database.new_key("ingest")
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    with collector.serve() as serve:
        _warm_up(serve, key)
        before_bytes = peak_rss_bytes(serve.pid)
        with connect(serve.url) as connection:
            parts = [POST.replace(b"KEY", key.encode()), *[chunk] * 1_600]
            sent, answer = _send_until_refused(connection, iter(parts))
        grown_bytes = peak_rss_bytes(serve.pid) - before_bytes
        faults = serve.faults
    print(f"{sent:,} sent, +{grown_bytes / MIB:.2f} MiB, {answer[:12]!r}")

    assert answer[:12] in (b"", b"HTTP/1.1 413")
    assert sent < 2 * MAX_BODY_BYTES + MAX_BUFFERED_BYTES
    assert grown_bytes < 4 * MIB
    assert faults == []

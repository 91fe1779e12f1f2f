"""Send prepared requests over keep-alive connections as fast as the server answers them."""

from __future__ import annotations

import asyncio
import http.client
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import quantiles

import orjson
import uvloop

from analytics_collector.ingest.validate import new_message_id

SCHEMA = {
    "type": "object",
    "required": ["order_id", "amount", "currency"],
    "properties": {
        "order_id": {"type": "string"},
        "amount": {"type": "number", "minimum": 0},
        "currency": {"enum": ["EUR", "USD"]},
        "quantity": {"type": "integer"},
    },
}
"""What the properties of the events below have to be."""
NAME = "checkout_completed"
_BROWSERS = [
    f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    f"Chrome/{version}.0.0.0 Safari/537.36"
    for version in range(110, 140)
]


def bodies(count: int, batch_size: int) -> list[bytes]:
    """Return *count* bodies of *batch_size* events as a web page sends them, of fresh ids."""
    return [
        orjson.dumps(
            {"batch": [_event(number * batch_size + index) for index in range(batch_size)]}
        )
        for number in range(count)
    ]


def _event(number: int) -> dict[str, object]:
    visitor = number // 10 % 10_000
    return {
        "type": "track",
        "messageId": new_message_id(),
        "name": NAME,
        "userId": f"user-{visitor}",
        "sessionId": f"session-{visitor}",
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds")[:23] + "Z",
        "properties": {
            "order_id": f"o-{number}",
            "amount": 129.9,
            "currency": "EUR",
            "quantity": 3,
            "plan": "pro",
            "is_trial": False,
        },
        "context": {
            "library": {"name": "analytics-js", "version": "0.1.0"},
            "userAgent": _BROWSERS[visitor % len(_BROWSERS)],
            "ip": f"203.0.113.{visitor % 256}",
            "locale": "de-DE",
            "timezone": "Europe/Berlin",
            "screen": {"width": 1920, "height": 1080},
            "page": {
                "url": f"https://shop.example/p/{visitor % 500}?utm_source=news&utm_medium=email",
                "path": f"/p/{visitor % 500}",
                "title": "Page",
                "referrer": "https://www.google.com/",
            },
        },
    }


def put_schema(host: str, port: int, key: str) -> None:
    """Register the schema of the events."""
    connection = http.client.HTTPConnection(host, port, timeout=10)
    headers = {"x-api-key": key, "Content-Type": "application/json"}
    document = orjson.dumps({"schema": SCHEMA})
    connection.request("PUT", f"/api/v1/schemas/{NAME}", document, headers)
    answer = connection.getresponse()
    if answer.status not in (200, 201):
        raise SystemExit(f"the schema was not taken: {answer.status} {answer.read()!r}")
    connection.close()


@dataclass
class Result:
    """What a run saw: how long it took, and each answer's time in seconds."""

    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    refused: int = 0

    def percentile_ms(self, percent: int) -> float:
        """Return the latency that *percent* of the answers did not exceed, in ms."""
        return quantiles(self.latencies_s, n=100)[percent - 1] * 1000


class _Connection(asyncio.Protocol):
    """One request in flight; the next goes out when its answer is whole."""

    def __init__(
        self, requests: Iterator[bytes], result: Result, done: asyncio.Future[None]
    ) -> None:
        self._requests = requests
        self._result = result
        self._done = done
        self._received = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        if len(body) < length:
            return
        self._result.latencies_s.append(time.perf_counter() - self._sent_at)
        if b" 202 " not in head[:16]:
            self._result.refused += 1
        self._received = b""
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(exc or ConnectionError("the server closed a connection"))

    def _send(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self._done.set_result(None)
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(request)


def run(host: str, port: int, key: str, prepared: list[bytes], connections: int) -> Result:
    """Send *prepared* bodies over *connections* and return what was seen."""
    requests = [
        b"POST /api/v1/events HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        b"x-api-key: %s\r\nContent-Length: %d\r\n\r\n%s" % (key.encode(), len(body), body)
        for body in prepared
    ]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(host, port, requests, connections))


async def _run(host: str, port: int, requests: list[bytes], connections: int) -> Result:
    loop = asyncio.get_running_loop()
    result = Result()
    source = iter(requests)
    done = [loop.create_future() for _ in range(connections)]
    started = time.perf_counter()
    for future in done:
        await loop.create_connection(
            lambda future=future: _Connection(source, result, future),  # type: ignore[misc]
            host,
            port,
        )
    await asyncio.gather(*done)
    result.seconds = time.perf_counter() - started
    return result

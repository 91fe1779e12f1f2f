"""Send prepared requests over keep-alive connections as fast as the server answers them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import quantiles

import orjson
import uvloop

from analytics_collector.ingest.validate import new_message_id


def bodies(count: int, batch_size: int) -> list[bytes]:
    """Return *count* bodies of *batch_size* events with six properties, all of fresh ids."""
    return [
        orjson.dumps({"batch": [_event(index) for index in range(batch_size)]})
        for _ in range(count)
    ]


def _event(index: int) -> dict[str, object]:
    return {
        "type": "track",
        "messageId": new_message_id(),
        "name": "checkout_completed",
        "userId": f"user-{index}",
        "timestamp": "2026-11-20T10:00:31.120Z",
        "properties": {
            "order_id": f"o-{index}",
            "amount": 129.9,
            "currency": "EUR",
            "quantity": 3,
            "plan": "pro",
            "is_trial": False,
        },
        "context": {"library": {"name": "analytics-sdk-python", "version": "0.1.0"}},
    }


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

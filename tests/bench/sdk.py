"""What one `track()` costs its caller, and how fast a burst is stored.

The yardstick of the call is what it can't do without: `orjson.dumps` of the same event. The burst
goes to a collector of this machine, on an embedded Postgres with fsync on.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

import ingest
import orjson

import analytics_sdk
from analytics_collector.embedded import embedded_servers

CALLS = 20_000
BURST = 20_000
PROPERTIES = {
    "order_id": "o-1",
    "amount": 129.9,
    "currency": "EUR",
    "quantity": 3,
    "plan": "pro",
    "is_trial": False,
}
EVENT = {
    "type": "track",
    "messageId": "01939fb1-5c0b-7f3e-9d52-5f1d2b1a6f10",
    "name": "checkout_completed",
    "userId": "user-1",
    "timestamp": "2026-11-20T10:00:31.120Z",
    "properties": PROPERTIES,
    "context": {"library": {"name": "analytics-sdk-python", "version": "0.1.0"}},
}


def _microseconds(call: object, times: int) -> list[float]:
    assert callable(call)
    taken = []
    for _ in range(times):
        started = time.perf_counter_ns()
        call()
        taken.append((time.perf_counter_ns() - started) / 1000)
    return taken


def cost_of_a_call() -> None:
    """Print the cost of `track()` with nobody listening, so that only the caller's part counts."""
    client = analytics_sdk.Client(
        "ak_live_bench", "http://127.0.0.1:9", max_queue_size=2 * CALLS, flush_interval_s=3600.0
    )
    client.track("warm_up")

    def track() -> None:
        assert client.track("checkout_completed", PROPERTIES, user_id="user-1")

    for _ in range(3):
        yardstick = _microseconds(lambda: orjson.dumps(EVENT), CALLS)
        taken = _microseconds(track, CALLS // 3)
        print(
            f"track()    median {median(taken):5.2f} µs   p99 {quantiles(taken, n=100)[98]:6.2f} µs"
            f"   orjson.dumps alone {median(yardstick):5.2f} µs"
            f"   ratio {median(taken) / median(yardstick):4.1f}   (aim: median 5 µs or less)"
        )
    client.shutdown(0)


def burst() -> None:
    """Print how long it takes until 20,000 events that came at once are stored."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        embedded_servers(Path(folder) / "data") as (database_url, redis_url),
    ):
        key = asyncio.run(ingest.prepare(database_url))
        port = ingest.free_port()
        argv = [*ingest.COLLECTOR, "--port", str(port)]
        with ingest.server(argv, ingest.environment(database_url, redis_url), port):
            client = analytics_sdk.Client(key, f"http://127.0.0.1:{port}", max_queue_size=BURST + 1)
            started, cpu_started = time.perf_counter(), time.process_time()
            for _ in range(BURST):
                client.track("checkout_completed", PROPERTIES, user_id="user-1")
            called = time.perf_counter() - started
            done = client.flush(60)
            seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
            stats = client.stats()
            client.shutdown()
        stored = asyncio.run(ingest.count_and_clear(database_url))
    print(
        f"burst      {stored:,} of {BURST:,} stored in {seconds:.2f} s (flushed: {done}), "
        f"{called:.2f} s of it in track()   {stats.requests} requests   "
        f"SDK CPU {cpu_s / BURST * 1e6:.1f} µs/event"
    )


if __name__ == "__main__":
    cost_of_a_call()
    burst()

"""A long day in short: what the SDK and the collector hold does not grow with what passed.

`SOAK_EVENTS` sets how many events the collector gets and `SOAK_SDK_EVENTS` how many the SDK
(100,000 and more show more); the small numbers here show what is kept of each event or batch.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from harness.client import Mint, Sender
from harness.collector import Collector
from harness.processes import Program
from harness.sdk import sdk_program
from harness.waiting import PATIENCE_S, wait_for

EVENTS = int(os.environ.get("SOAK_EVENTS", "40000"))
SDK_EVENTS = int(os.environ.get("SOAK_SDK_EVENTS", "20000"))
BATCH = 100
QUARTERS = 4
MAX_GROWTH_BYTES = 4 * 1024 * 1024
MAX_SDK_GROWTH_BYTES = 256 * 1024

# Half of the way is to warm up: caches, compiled patterns, the connection.
SDK = """
import gc, sys, tracemalloc
import httpx
from analytics_sdk import Client

def answer(request):
    body = request.read()
    return httpx.Response(202, json={"eventCount": 0, "duplicates": 0, "rejected": []})

count = int(sys.argv[1])
client = Client(flush_interval_s=0.05, batch_size=100, http_transport=httpx.MockTransport(answer))

def track(first, last):
    for number in range(first, last):
        taken = client.track(f"soaked {number % 7}", {"n": number}, user_id=f"u-{number}")
        assert taken
        if number % 1000 == 999:
            assert client.flush(30)
    assert client.flush(30)
    gc.collect()
    return tracemalloc.get_traced_memory()[0]

tracemalloc.start()
before = track(0, count // 2)
after = track(count // 2, count)
assert client.stats().delivered == count, client.stats()
print(before, after)
client.shutdown()
"""


def test_the_sdk_holds_nothing_of_the_events_that_went(tmp_path: Path) -> None:
    """Twice as many events leave as many bytes of Python, to the quarter of a megabyte (RES-15)."""
    program = sdk_program(SDK, "http://collector.test", "ak_live_x", tmp_path, str(SDK_EVENTS))
    with program:
        assert program.wait(PATIENCE_S + SDK_EVENTS / 500) == 0, program.log
        before, after = map(int, program.out.split())
    print(f"{before:,} bytes after {SDK_EVENTS // 2:,} events, {after:,} after {SDK_EVENTS:,}")

    assert after - before < MAX_SDK_GROWTH_BYTES


@pytest.mark.long
def test_the_collector_holds_nothing_of_the_events_that_went(collector: Collector) -> None:
    """In the last three quarters of the way it grows by (almost) nothing (RES-15)."""
    mint = Mint(15)
    seen = []
    with (
        collector.serve() as serve,
        collector.worker() as worker,
        Sender(serve.url, collector.database.new_key("ingest")) as sender,
    ):
        for quarter in range(QUARTERS):
            for number in range(EVENTS // BATCH // QUARTERS):
                events = mint.events(BATCH, f"u-{quarter}-{number}")
                # What a busy machine refuses comes again, as from any client; it is stored once.
                wait_for(lambda: sender.send(events).status == 202, "it is taken")  # noqa: B023
            collector.database.wait_counted()
            seen.append((_rss_bytes(serve), _rss_bytes(worker)))
        faults = serve.faults
    print(", ".join(f"{one / 2**20:.1f} and {other / 2**20:.1f} MiB" for one, other in seen))

    assert collector.database.event_count() == EVENTS
    for first, *_, last in zip(*seen, strict=True):
        assert last - first < MAX_GROWTH_BYTES
    assert faults == []


def _rss_bytes(program: Program) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{program.pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024

"""Thousands of spoiled bodies: no answer of 500, no byte lost or left behind.

`FUZZ_REQUESTS` sets how many, `FUZZ_SEED` which; `nox -s chaos` sends 20,000. Of a seed each client
sends the same bodies in the same order each time; only how the clients meet is chance.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from harness.client import INGEST_PATH, Sender
from harness.collector import Collector
from harness.corpus import load_cases
from harness.mutations import Mutator
from harness.processes import peak_rss_bytes

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "5000"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
CLIENTS = 8
QUARTERS = 4
MAX_SEED_BYTES = 8_192
# Whoever keeps the bodies alone is found out: those of 5,000 behind the first quarter take 3 MB.
# A collector that keeps nothing grows by half of that, and by no more for more bodies.
MAX_GROWTH_BYTES = 9 * 1024 * 1024 // 4
ALLOWED = {*range(200, 300), *range(400, 500), 503}
JSON = {"Content-Type": "application/json"}


class Client:
    """One connection, its share of the bodies, and what was answered."""

    def __init__(self, number: int, url: str, key: str, contents: list[bytes]) -> None:
        self.seed = SEED * 1000 + number
        self.statuses: Counter[int] = Counter()
        self.new_events = 0
        self._mutator = Mutator(contents, self.seed)
        self._sender = Sender(url, key)

    def send(self, count: int) -> None:
        """Send so many; fail at an answer that nobody should get."""
        for _ in range(count):
            body, is_gzip = self._mutator.body()
            encoding = {"Content-Encoding": "gzip"} if is_gzip else {}
            answer = self._sender.request("POST", INGEST_PATH, body, JSON | encoding)
            number = self.statuses.total()
            self.statuses[answer.status] += 1
            hint = f"request {number} of seed {self.seed}: {answer} for {body[:500]!r}"
            assert answer.status in ALLOWED, hint
            assert answer.json, hint
            if answer.status == 202:
                self.new_events += answer.json["eventCount"] - answer.json["duplicates"]

    def close(self) -> None:
        """Let the connection go."""
        self._sender.close()


def test_whatever_comes_is_stored_or_refused_and_the_numbers_add_up(collector: Collector) -> None:
    """Only 2xx, 4xx and 503; accepted less duplicates is what is stored; memory stays flat."""
    contents = [case.content for case in load_cases() if not case.is_raw]
    contents = [content for content in contents if len(content) <= MAX_SEED_BYTES]
    database = collector.database
    key = database.new_key("ingest")
    stored_before = database.event_count()
    peaks = []
    with (
        collector.serve(rate_limit_requests_per_minute=10_000_000) as serve,
        ThreadPoolExecutor(CLIENTS) as pool,
    ):
        clients = [Client(number, serve.url, key, contents) for number in range(CLIENTS)]
        share = REQUESTS // CLIENTS // QUARTERS
        started = time.monotonic()
        for _ in range(QUARTERS):
            list(pool.map(lambda client: client.send(share), clients))
            peaks.append(peak_rss_bytes(serve.pid))
        seconds = time.monotonic() - started
        for client in clients:
            client.close()
        faults = serve.faults

    statuses = sum((client.statuses for client in clients), Counter[int]())
    new_events = sum(client.new_events for client in clients)
    print(
        f"{statuses.total()} bodies in {seconds:.1f} s: {dict(statuses)}, {new_events=}, {peaks=}"
    )
    assert faults == []
    assert database.event_count() - stored_before == new_events, f"seed {SEED}"
    assert statuses[202] > REQUESTS // 20, statuses  # it was no waste of time
    assert statuses[400] > REQUESTS // 20, statuses
    assert peaks[-1] - peaks[0] < MAX_GROWTH_BYTES, peaks

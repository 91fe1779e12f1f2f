"""Spoiled bodies by the thousand: no answer of 500, no byte lost or left behind.

`FUZZ_REQUESTS` sets how many (20,000 take about a minute), `FUZZ_SEED` which.
"""

from __future__ import annotations

import os
from collections import Counter

from harness.client import INGEST_PATH, Sender
from harness.collector import Collector
from harness.corpus import load_cases
from harness.mutations import Mutator
from harness.processes import peak_rss_bytes

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "3000"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
MAX_SEED_BYTES = 8_192
MAX_GROWTH_BYTES = 32 * 1024 * 1024
JSON = {"Content-Type": "application/json"}


def test_whatever_comes_is_stored_or_refused_and_the_numbers_add_up(collector: Collector) -> None:
    """Only 2xx, 4xx and 503; accepted less duplicates is what is stored; memory stays flat."""
    contents = [case.content for case in load_cases() if not case.is_raw]
    mutator = Mutator([content for content in contents if len(content) <= MAX_SEED_BYTES], SEED)
    database = collector.database
    stored_before = database.event_count()
    statuses: Counter[int] = Counter()
    fresh = 0
    peaks = []
    with (
        collector.serve(rate_limit_requests_per_minute=10_000_000) as serve,
        Sender(serve.url, database.new_key("ingest")) as sender,
    ):
        for number in range(REQUESTS):
            body, is_gzip = mutator.body()
            encoding = {"Content-Encoding": "gzip"} if is_gzip else {}
            answer = sender.request("POST", INGEST_PATH, body, JSON | encoding)
            statuses[answer.status] += 1
            hint = f"request {number} of seed {SEED}: {answer} for {body[:500]!r}"
            assert answer.status < 500 or answer.status == 503, hint
            assert answer.json, hint
            if answer.status == 202:
                fresh += answer.json["eventCount"] - answer.json["duplicates"]
            if number in (REQUESTS // 3, REQUESTS - 1):
                peaks.append(peak_rss_bytes(serve.pid))
        faults = serve.faults

    assert faults == []
    assert database.event_count() - stored_before == fresh, f"seed {SEED}"
    assert statuses[202] > REQUESTS // 20, statuses  # it was no waste of time
    assert statuses[400] > REQUESTS // 20, statuses
    assert peaks[-1] - peaks[0] < MAX_GROWTH_BYTES, peaks
    print(dict(statuses), fresh, peaks)

"""How fast a burst of our SDK is stored by a real collector, on an embedded Postgres with fsync on.

Prints JSON, for `sdk/` to put in its table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path

import ingest

import analytics_sdk
from analytics_collector.embedded import embedded_servers

PROPERTIES = {
    "order_id": "o-1",
    "amount": 129.9,
    "currency": "EUR",
    "quantity": 3,
    "plan": "pro",
    "is_trial": False,
}


def burst(key: str, url: str, events: int, folder: str) -> dict[str, float]:
    """Track *events* at once, and return what it took until the collector had stored them."""
    client = analytics_sdk.Client(key, url, max_queue_size=events + 1, spool_dir=folder)
    started, cpu_started_s = time.perf_counter(), time.process_time()
    for _ in range(events):
        client.track("checkout_completed", PROPERTIES, user_id="user-1")
    called_s = time.perf_counter() - started
    client.flush(60)
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started_s
    requests = client.stats().requests
    client.shutdown()
    return {"seconds": seconds, "called_s": called_s, "cpu_s": cpu_s, "requests": requests}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    runs = []
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        embedded_servers(Path(folder) / "data") as (database_url, redis_url),
    ):
        key = asyncio.run(ingest.prepare(database_url))
        port = ingest.free_port()
        argv = [*ingest.COLLECTOR, "--port", str(port)]
        with ingest.server(argv, ingest.environment(database_url, redis_url), port):
            for _ in range(arguments.runs):
                spool = f"{folder}/spool"
                run = burst(key, f"http://127.0.0.1:{port}", arguments.events, spool)
                run["stored"] = asyncio.run(ingest.count_and_clear(database_url))
                runs.append(run)
    print(json.dumps(runs))


if __name__ == "__main__":
    main()

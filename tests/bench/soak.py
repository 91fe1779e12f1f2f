"""Ten million events through one process: its memory over the rounds, and whether the sums agree.

python tests/bench/soak.py --events 10000000
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import urllib.request
from pathlib import Path

import asyncpg
import ingest
import load

from analytics_collector.embedded import embedded_servers


def rss_mib(pid: int) -> float:
    """Return what a process has in memory, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("the server is gone")


def counted(port: int) -> float:
    """Return how many events the server says it accepted."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith('analytics_events_total{outcome="accepted"}'):
                return float(line.split()[1])
    return 0.0


async def count(database_url: str) -> tuple[int, int]:
    """Return how many events are stored, and how many the log of commits tells of."""
    connection = await asyncpg.connect(database_url)
    events: int = await connection.fetchval("select count(*) from events", timeout=600)
    logged: int = await connection.fetchval("select sum(event_count) from commits", timeout=600)
    await connection.close()
    return events, logged


def main() -> None:
    """Send round after round, and print what each left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--round", type=int, default=500_000, help="events a round")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--connections", type=int, default=16)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        embedded_servers(Path(folder) / "data") as (database_url, redis_url),
    ):
        key = asyncio.run(ingest.prepare(database_url))
        port = ingest.free_port()
        argv = [*ingest.COLLECTOR, "--port", str(port)]
        with ingest.server(argv, ingest.environment(database_url, redis_url), port) as pid:
            rounds = []
            for number in range(1, options.events // options.round + 1):
                bodies = load.bodies(options.round // options.batch, options.batch)
                result = load.run("127.0.0.1", port, key, bodies, options.connections)
                if result.refused:
                    raise SystemExit(f"{result.refused} answers were not 202")
                rounds.append(rss_mib(pid))
                print(
                    f"round {number:>3}   {options.round / result.seconds:>8,.0f} events/s   "
                    f"p99 {result.percentile_ms(99):6.1f} ms   RSS {rounds[-1]:6.1f} MiB",
                    flush=True,
                )
            told = counted(port)
        stored, logged = asyncio.run(count(database_url))
    sent = len(rounds) * options.round
    slope = (rounds[-1] - rounds[1]) / max(len(rounds) - 2, 1)
    print(f"sent {sent:,}, counted {told:,.0f}, stored {stored:,}, in the log {logged:,}")
    print(f"RSS grew by {slope:+.2f} MiB a round after the second")
    if not sent == told == stored == logged:
        raise SystemExit("the sums differ")


if __name__ == "__main__":
    main()

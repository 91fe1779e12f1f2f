"""Events stored per second by one collector process, beside the least that could do it.

Both run on the same embedded Postgres (fsync on), one after the other, several rounds in turn;
what counts is the ratio. CPU is of the server process, per event.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import asyncpg
import load

from analytics_collector.adapters.migrate import migrate
from analytics_collector.adapters.postgres.keys import ProjectAdmin
from analytics_collector.embedded import embedded_servers

COLLECTOR = ["-P", "-m", "analytics_collector", "serve"]
SECRET = "a secret of the benchmark"
_TICKS = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def server(argv: list[str], env: dict[str, str], port: int) -> Iterator[int]:
    process = subprocess.Popen([sys.executable, *argv], env={**os.environ, **env})
    try:
        _wait_for(port, process)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("the server did not start")


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def environment(database_url: str, redis_url: str) -> dict[str, str]:
    """Return the settings of a server on these databases, without a limit to speak of."""
    return {
        "ANALYTICS_DATABASE_URL": database_url,
        "ANALYTICS_REDIS_URL": redis_url,
        "ANALYTICS_SECRET": SECRET,
        "ANALYTICS_RATE_LIMIT_PER_MINUTE": "100000000",
        "ANALYTICS_LOG_LEVEL": "WARNING",
    }


async def prepare(database_url: str) -> str:
    await migrate(database_url)
    connection = await asyncpg.connect(database_url)
    admin = ProjectAdmin(connection, SECRET)
    await admin.ensure_project("bench")
    key = await admin.create_key("bench", ["ingest"])
    await connection.close()
    text: str = key["key"]
    return text


async def count_and_clear(database_url: str) -> int:
    connection = await asyncpg.connect(database_url)
    count: int = await connection.fetchval("select count(*) from events")
    await connection.execute("truncate events, commits")
    await connection.close()
    return count


def _round(
    name: str,
    argv: list[str],
    env: dict[str, str],
    port: int,
    key: str,
    arguments: argparse.Namespace,
) -> float:
    prepared = load.bodies(arguments.events // arguments.batch, arguments.batch)
    warm_up = load.bodies(200, arguments.batch)
    with server(argv, env, port) as pid:
        load.run("127.0.0.1", port, key, warm_up, arguments.connections)
        cpu_before_s = _cpu_s(pid)
        result = load.run("127.0.0.1", port, key, prepared, arguments.connections)
        cpu_s = _cpu_s(pid) - cpu_before_s
    events = len(prepared) * arguments.batch
    stored = asyncio.run(count_and_clear(env["ANALYTICS_DATABASE_URL"]))
    if result.refused or stored != events + len(warm_up) * arguments.batch:
        raise SystemExit(f"{name}: {result.refused} answers were not 202, {stored} events stored")
    rate = events / result.seconds
    print(
        f"{name:<10} {rate:>8,.0f} events/s   p50 {result.percentile_ms(50):5.1f} ms   "
        f"p95 {result.percentile_ms(95):5.1f} ms   server CPU {cpu_s / events * 1e6:5.1f} µs/event",
        flush=True,
    )
    return rate


def main() -> None:
    """Run the rounds and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=60_000, help="events a round")
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        embedded_servers(Path(folder) / "data") as (database_url, redis_url),
    ):
        key = asyncio.run(prepare(database_url))
        env = {
            "ANALYTICS_DATABASE_URL": database_url,
            "ANALYTICS_REDIS_URL": redis_url,
            "ANALYTICS_SECRET": SECRET,
            "ANALYTICS_RATE_LIMIT_PER_MINUTE": "100000000",
            "ANALYTICS_LOG_LEVEL": "WARNING",
        }
        here = Path(__file__).parent
        rates: dict[str, list[float]] = {"yardstick": [], "collector": []}
        print(f"batches of {arguments.batch}, {arguments.connections} connections")
        for _ in range(arguments.rounds):
            for name, seen in rates.items():
                port = free_port()
                argv = (
                    [str(here / "yardstick.py"), str(port)]
                    if name == "yardstick"
                    else [*COLLECTOR, "--port", str(port)]
                )
                seen.append(_round(name, argv, env, port, key, arguments))
        ratio = median(rates["collector"]) / median(rates["yardstick"])
        print(f"ratio      {ratio:.2f} of the yardstick's events/s (medians; aim: 0.67 or more)")


if __name__ == "__main__":
    main()

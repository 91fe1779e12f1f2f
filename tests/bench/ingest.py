"""Events stored per second by the collector, beside the least that could do it and nginx.

All run on the same embedded Postgres (fsync on), one after the other, several rounds in turn; what
counts is the ratio. Everything is on: keys, limits, event schemas, enrichment, privacy. CPU is of
the server's processes and of Postgres', per event.

    python tests/bench/ingest.py --batch 10 100 --processes 1 2 --rows 0 1000000 10000000
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import asyncpg
import load
import prefill

from analytics_collector.adapters.migrate import migrate
from analytics_collector.adapters.postgres.administration import ProjectAdmin
from analytics_collector.embedded import embedded_servers
from analytics_collector.ingest.validate import new_message_id

COLLECTOR = ["-P", "-m", "analytics_collector", "serve"]
SECRET = "a secret of the benchmark"
WARM_UP_REQUESTS = 200
_TICKS = os.sysconf("SC_CLK_TCK")
_NGINX = """
daemon off;
error_log stderr crit;
pid {folder}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    keepalive_requests 100000000;
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 2m;
        location / {{ return 202 "{{}}"; }}
    }}
}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def server(argv: list[str], env: dict[str, str], port: int) -> Iterator[int]:
    """Run a Python program that serves on *port*; give its process id."""
    with _running([sys.executable, *argv], env, port) as pid:
        yield pid


@contextmanager
def _running(command: list[str], env: dict[str, str], port: int) -> Iterator[int]:
    process = subprocess.Popen(command, env={**os.environ, **env})
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


def cpu_s(pid: int) -> float:
    """Return what a process and its descendants have used of the processors, in seconds."""
    parents = {}
    used = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            parents[int(entry.name)] = int(fields[1])
            used[int(entry.name)] = sum(map(int, fields[11:15])) / _TICKS
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(used.get(member, 0.0) for member in family)


def environment(database_url: str, redis_url: str) -> dict[str, str]:
    """Return the settings of a server on these databases, without a limit to speak of."""
    return {
        "ANALYTICS_DATABASE_URL": database_url,
        "ANALYTICS_REDIS_URL": redis_url,
        "ANALYTICS_SECRET": SECRET,
        "ANALYTICS_RATE_LIMIT_REQUESTS_PER_MINUTE": "100000000",
        "ANALYTICS_RATE_LIMIT_EVENTS_PER_MINUTE": "1000000000",
        "ANALYTICS_LOG_LEVEL": "WARNING",
    }


async def prepare(database_url: str) -> str:
    """Bring the database up to date, and return a key of a project in it."""
    await migrate(database_url)
    connection = await asyncpg.connect(database_url)
    admin = ProjectAdmin(connection, SECRET)
    await admin.ensure_project("bench")
    key = await admin.create_key("bench", ["ingest", "read", "admin"])
    await connection.close()
    text: str = key["key"]
    return text


async def count_and_clear(database_url: str) -> int:
    """Return how many events are stored, and remove them."""
    connection = await asyncpg.connect(database_url)
    count: int = await connection.fetchval("select count(*) from events")
    await connection.execute("truncate events, commits")
    await connection.close()
    return count


@dataclass(frozen=True)
class Place:
    """Where a round runs."""

    database_url: str
    env: dict[str, str]
    postgres_pid: int
    key: str
    folder: Path


@dataclass(frozen=True)
class Contender:
    """What is measured: a name, and how it is run."""

    name: str
    processes: int = 1

    @property
    def label(self) -> str:
        return self.name if self.processes == 1 else f"{self.name} x{self.processes}"

    @contextmanager
    def run(self, place: Place, port: int) -> Iterator[int]:
        """Serve; give the process id."""
        if self.name == "nginx 202":
            config = place.folder / "nginx.conf"
            config.write_text(_NGINX.format(folder=place.folder, port=port))
            with _running(["nginx", "-c", str(config)], {}, port) as pid:
                yield pid
            return
        argv = [*COLLECTOR, "--port", str(port), "--workers", str(self.processes)]
        if self.name == "yardstick":
            argv = [str(Path(__file__).parent / "yardstick.py"), str(port)]
        with server(argv, place.env, port) as pid:
            yield pid


@dataclass(frozen=True)
class Figures:
    """What a round showed."""

    rate: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    server_us: float
    postgres_us: float


def measure(contender: Contender, place: Place, batch: int, options: argparse.Namespace) -> Figures:
    """Send the events of one round; fail unless each is answered with 202 and stored."""
    # An id begins with the millisecond; what comes behind that is in no order.
    first_id = f"{new_message_id()[:13]}-7000-8000-000000000000"
    prepared = load.bodies(options.events // batch, batch)
    warm_up = load.bodies(WARM_UP_REQUESTS, batch)
    port = free_port()
    with contender.run(place, port) as pid:
        load.run("127.0.0.1", port, place.key, warm_up, options.connections)
        server_s, postgres_s = cpu_s(pid), cpu_s(place.postgres_pid)
        result = load.run("127.0.0.1", port, place.key, prepared, options.connections)
        server_s, postgres_s = cpu_s(pid) - server_s, cpu_s(place.postgres_pid) - postgres_s
    events = len(prepared) * batch
    expected = 0 if contender.name == "nginx 202" else events + len(warm_up) * batch
    found = asyncio.run(_stored(place.database_url, first_id))
    if result.refused or found != expected:
        raise SystemExit(
            f"{contender.label}: {result.refused} answers were not 202, {found} events stored"
        )
    return Figures(
        events / result.seconds,
        result.percentile_ms(50),
        result.percentile_ms(95),
        result.percentile_ms(99),
        server_s / events * 1e6,
        postgres_s / events * 1e6,
    )


async def _stored(database_url: str, since: str) -> int:
    """Return how many events with a message id from *since* on are stored: ids begin with time."""
    connection = await asyncpg.connect(database_url)
    count: int = await connection.fetchval(
        "select count(*) from events where project_id = 1 and message_id >= $1", since
    )
    await connection.close()
    return count


def main() -> None:
    """Run the rounds and print their medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=60_000, help="events a round")
    parser.add_argument("--batch", type=int, nargs="+", default=[10])
    parser.add_argument("--processes", type=int, nargs="+", default=[1])
    parser.add_argument("--rows", type=int, nargs="+", default=[0], help="events that lie there")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    contenders = [Contender("yardstick")]
    contenders += [Contender("collector", processes) for processes in options.processes]
    if shutil.which("nginx"):
        contenders.insert(0, Contender("nginx 202"))
    else:
        print("nginx is not installed (Debian: nginx-light), so it is left out")
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        embedded_servers(Path(folder) / "data") as (database_url, redis_url),
    ):
        place = Place(
            database_url,
            environment(database_url, redis_url),
            int((Path(folder) / "data/postgres/postmaster.pid").read_text().splitlines()[0]),
            asyncio.run(prepare(database_url)),
            Path(folder),
        )
        _register_schema(place)
        for rows in sorted(options.rows):
            seconds = asyncio.run(prefill.fill_up_to(database_url, rows))
            print(f"\n{rows:,} events lie there ({seconds:.0f} s to put them there)", flush=True)
            for batch in options.batch:
                _compare(contenders, place, rows, batch, options)


def _compare(
    contenders: list[Contender], place: Place, rows: int, batch: int, options: argparse.Namespace
) -> None:
    seen: dict[Contender, list[Figures]] = {contender: [] for contender in contenders}
    for _ in range(options.rounds):
        for contender in contenders:
            seen[contender].append(measure(contender, place, batch, options))
            if not rows:
                asyncio.run(count_and_clear(place.database_url))
    print(f"batches of {batch}, {options.connections} connections, medians of {options.rounds}")
    print(
        f"{'':<14}{'events/s':>10}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}"
        f"{'server µs':>11}{'postgres µs':>13}{'ratio':>8}"
    )
    yardstick = median(figures.rate for figures in seen[Contender("yardstick")])
    for contender, runs in seen.items():
        rate = median(figures.rate for figures in runs)
        print(
            f"{contender.label:<14}{rate:>10,.0f}"
            f"{median(f.p50_ms for f in runs):>9.2f}{median(f.p95_ms for f in runs):>9.2f}"
            f"{median(f.p99_ms for f in runs):>9.2f}{median(f.server_us for f in runs):>11.1f}"
            f"{median(f.postgres_us for f in runs):>13.1f}{rate / yardstick:>8.2f}",
            flush=True,
        )


def _register_schema(place: Place) -> None:
    """Let the collector know a schema for the events that are sent."""
    port = free_port()
    with server([*COLLECTOR, "--port", str(port)], place.env, port):
        load.put_schema("127.0.0.1", port, place.key)


if __name__ == "__main__":
    main()

"""What our middleware, and one event tracked by each view, add to the latency of web applications.

Each shop of `harness.apps` runs on gunicorn (preload, four workers) bare, and with analytics whose
collector is up, is killed and started again, is down, or hangs. Blocks of requests go to them in
turn, each beside one to the bare shop, so that the machine is the same for both; what counts is the
difference, as the median over the rounds. "bare again" shows how much of it is noise. On a machine
with neighbours `--realtime` keeps them out; it needs root.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median, quantiles

import ingest
import uvloop

from analytics_collector.embedded import embedded_servers
from analytics_sdk import Client

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness.collector import COMMAND, answers
from harness.waiting import wait_for
from harness.web import Gunicorn

FRAMEWORKS = ("django", "flask", "fastapi")
STATES = ("up", "restarted", "down", "hangs")
P50, P99 = 50, 99
# How many requests to a shop that has just begun are looked at, and how many warm it up.
FIRST, WARM_UP = 40, 400
RESTART_AFTER_S = 0.3

Latencies = list[float]
Pairs = list[tuple[Latencies, Latencies]]


def percentile(latencies_ms: Latencies, percent: int) -> float:
    return quantiles(latencies_ms, n=100, method="inclusive")[percent - 1]


async def _ask(port: int, user: int, number: int) -> float:
    """Do one request on a connection of its own; return how long it took, in ms."""
    request = (
        f"GET /orders/{number}?user=u-{user} HTTP/1.1\r\nHost: shop\r\nx-user: u-{user}\r\n"
        "User-Agent: bench\r\nConnection: close\r\n\r\n"
    )
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.encode())
    answer = await reader.read()
    took_ms = (time.perf_counter() - began) * 1000
    writer.close()
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise SystemExit(f"a shop answered {answer[:300]!r}")
    return took_ms


class Visitors:
    """So many users at a time, who pause between their requests."""

    def __init__(self, users: int, pause_s: float) -> None:
        self._users = users
        self._pause_s = pause_s

    def visit(self, port: int, requests: int) -> Latencies:
        """Return the latencies of *requests*."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(self._visit(port, requests // self._users))

    async def _visit(self, port: int, requests: int) -> Latencies:
        latencies_ms: Latencies = []
        dice = random.Random(1)

        async def visit(user: int) -> None:
            for number in range(requests):
                await asyncio.sleep(dice.uniform(0, 2 * self._pause_s))
                latencies_ms.append(await _ask(port, user, number))

        await asyncio.gather(*map(visit, range(self._users)))
        return latencies_ms


class Collector:
    """A collector that can be killed and started again."""

    def __init__(self, environment: dict[str, str]) -> None:
        port = ingest.free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._command = [*COMMAND, "serve", "--port", str(port)]
        self._environment = {**os.environ, **environment}
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(self._command, env=self._environment)

    def wait_ready(self) -> None:
        wait_for(lambda: answers(self.url), "the collector is ready")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        self.kill()
        self._start()


class Bench:
    """What all measurements share: databases, collectors, and how much is done."""

    def __init__(self, arguments: argparse.Namespace, folder: Path, stack: ExitStack) -> None:
        self._requests, self._rounds = arguments.requests, arguments.rounds
        self._visitors = Visitors(arguments.users, arguments.pause_ms / 1000)
        self._folder = folder
        self._database_url, redis_url = stack.enter_context(embedded_servers(folder / "data"))
        self._key = asyncio.run(ingest.prepare(self._database_url))
        environment = ingest.environment(self._database_url, redis_url)
        self._steady, self._restarted = Collector(environment), Collector(environment)
        for collector in (self._steady, self._restarted):
            stack.callback(collector.kill)
            collector.wait_ready()
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=512))
        self._urls = {
            "up": self._steady.url,
            "restarted": self._restarted.url,
            "down": f"http://127.0.0.1:{ingest.free_port()}",
            "hangs": f"http://127.0.0.1:{silent.getsockname()[1]}",
        }

    @contextmanager
    def _shop(self, framework: str, state: str | None) -> Iterator[Gunicorn]:
        """Run a shop whose collector is in *state*; without one it is bare."""
        url = self._urls[state or "down"]
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        with Gunicorn(framework, url, self._key, folder, is_bare=state is None) as shop:
            yield shop
            shop.stop()

    def first_requests(self, framework: str) -> Pairs:
        """Measure the first requests to shops that have just begun."""
        pairs = []
        for _ in range(self._rounds):
            blocks = []
            for state in ("up", None):
                with self._shop(framework, state) as shop:
                    blocks.append(self._visitors.visit(shop.port, FIRST))
            pairs.append((blocks[0], blocks[1]))
        asyncio.run(ingest.count_and_clear(self._database_url))
        return pairs

    def requests(self, framework: str) -> dict[str, Pairs]:
        """Measure requests to shops that have been there for a while."""
        with ExitStack() as stack:
            bare = stack.enter_context(self._shop(framework, None))
            shops = {"bare again": stack.enter_context(self._shop(framework, None))}
            for state in STATES:
                shops[state] = stack.enter_context(self._shop(framework, state))
            for shop in (bare, *shops.values()):
                self._visitors.visit(shop.port, WARM_UP)
            pairs: dict[str, Pairs] = {name: [] for name in shops}
            for number in range(self._rounds):
                for name, shop in shops.items():
                    # By turns, so that neither always comes after the other.
                    order = [shop, bare] if number % 2 else [bare, shop]
                    blocks = {
                        measured: self._block(measured, is_restarted=name == "restarted")
                        for measured in order
                    }
                    pairs[name].append((blocks[shop], blocks[bare]))
        self._check_stored(shops["up"], shops["restarted"])
        return pairs

    def _block(self, shop: Gunicorn, *, is_restarted: bool) -> Latencies:
        if not is_restarted:
            return self._visitors.visit(shop.port, self._requests)
        # For the bare shop too: what a start costs the machine is none of our latency.
        restart = threading.Timer(RESTART_AFTER_S, self._restarted.restart)
        restart.start()
        latencies_ms = self._visitors.visit(shop.port, self._requests)
        restart.join()
        self._restarted.wait_ready()
        return latencies_ms

    def _check_stored(self, *shops: Gunicorn) -> None:
        """Make sure that what was measured is what tracks."""
        for shop in shops:
            client = Client(shop.key, shop.url, spool_dir=shop.spool)
            if not client.recover(60):
                raise SystemExit("events were left on disk")
            client.shutdown()
        requests = len(shops) * (WARM_UP + self._rounds * self._requests)
        stored = asyncio.run(ingest.count_and_clear(self._database_url))
        if stored != 2 * requests:
            raise SystemExit(f"{stored} events of {requests} requests are stored")


def _print(name: str, pairs: Pairs) -> None:
    cells = []
    for percent in (P50, P99):
        added = [percentile(ours, percent) - percentile(bare, percent) for ours, bare in pairs]
        span = f"({min(added):+.2f}..{max(added):+.2f})"
        cells.append(f"{median(added):>+9.2f} {span:<20}")
    print(f"  {name:<26}{''.join(cells)}".rstrip(), flush=True)


def main() -> None:
    """Measure, and print a table for each framework."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frameworks", nargs="+", default=FRAMEWORKS, choices=FRAMEWORKS)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--requests", type=int, default=400, help="requests a block")
    parser.add_argument("--users", type=int, default=2, help="requests at a time")
    parser.add_argument("--pause-ms", type=float, default=5.0, help="of a user, on average")
    parser.add_argument("--realtime", action="store_true", help="before all other programs")
    arguments = parser.parse_args()
    if arguments.realtime:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, ExitStack() as stack:
        bench = Bench(arguments, Path(folder), stack)
        for framework in arguments.frameworks:
            pairs = bench.requests(framework)
            bare_ms = [latency for _, bare in pairs["bare again"] for latency in bare]
            print(
                f"\n{framework}, bare: p50 {percentile(bare_ms, P50):.2f} ms, "
                f"p99 {percentile(bare_ms, P99):.2f} ms\n"
                f"  {'added, in ms':<26}{'p50':>9}{'':<21}{'p99':>9}"
            )
            for name, measured in pairs.items():
                _print(name if name == "bare again" else f"collector {name}", measured)
            _print(f"up, the first {FIRST} requests", bench.first_requests(framework))


if __name__ == "__main__":
    main()

"""Redis and the worker come and go; no event is missing from the counts, and none is in twice."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP
from statistics import median

import pytest

from analytics_collector.adapters.redis.names import STREAM
from harness.client import Load, Mint, Sender
from harness.collector import Collector
from harness.database import Database
from harness.servers import OwnServers, valkey_command
from harness.waiting import pause, wait_for

SAMPLES = 100
# A request that waits for Redis takes seconds. Between two stretches of the same work the median
# hardly moves; the tail tells more of the machine.
MAX_MEDIAN_RATIO = 3
MAX_TAIL_RATIO = 10
MAX_TAIL_S = 0.25
COUNTING = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"


def test_each_event_is_counted_once_whatever_redis_and_the_worker_suffer(
    collector: Collector, victims: OwnServers, chaos_s: float, seed: int
) -> None:
    """FLUSHALL, kill -9 of Valkey and of the worker; ingest notices nothing of it."""
    dice = random.Random(seed)
    database = collector.database
    worker = collector.worker()

    def flush() -> None:
        valkey_command(victims.valkey.url, "FLUSHALL")

    def kill_valkey() -> None:
        victims.valkey.crash(SIGKILL)
        pause(dice.uniform(0, 0.2))
        victims.valkey.start()

    def kill_worker() -> None:
        if worker.is_running:
            worker.kill()
        worker.start()

    harm: list[Callable[[], None]] = [flush, flush, flush, kill_valkey, kill_worker]
    done: list[str] = []
    with collector.serve() as serve, worker:
        with Load(serve.url, database.new_key("ingest"), clients=2, seed=seed) as load:
            wait_for(lambda: database.value("select count(*) from daily_counts"), "it counts")
            ends_at = time.monotonic() + chaos_s / 2
            while time.monotonic() < ends_at:
                act = dice.choice(harm)
                act()
                done.append(act.__name__)
                pause(dice.uniform(0.05, 0.7))
        assert worker.is_running, worker.log
        database.wait_counted()
        pause(0.5)  # nothing more may come
        miscounted = database.miscounted()
    print(f"{load.acknowledged} events, {done}, {load.answers}")

    assert miscounted == []
    assert set(load.answers) == {202}, load.answers
    assert load.unanswered == 0
    assert database.event_count() == load.acknowledged


@pytest.mark.parametrize("is_committed", [False, True], ids=["before-commit", "after-commit"])
def test_an_entry_in_the_hands_of_a_killed_worker_counts_once(
    collector: Collector, victims: OwnServers, is_committed: bool
) -> None:
    """Delivered and not acknowledged to Redis, its effect committed or not: the next one knows."""
    database = collector.database
    mint = Mint(4)
    worker = collector.worker()
    _let_counting_rest(database)
    with (
        collector.serve() as serve,
        worker,
        Sender(serve.url, database.new_key("ingest")) as sender,
    ):
        assert sender.send(mint.events(5)).status == 202
        wait_for(lambda: database.value(COUNTING), "it counts")
        valkey_command(victims.valkey.url, "CLIENT", "PAUSE", "60000", "WRITE")
        if is_committed:
            database.wait_counted()
        worker.kill()
        valkey_command(victims.valkey.url, "CLIENT", "UNPAUSE")
        pending = valkey_command(victims.valkey.url, "XPENDING", STREAM, "daily_counts")
        worker.start()
        # Not as many as before, or those counted twice could stand in for these.
        assert sender.send(mint.events(7)).status == 202
        database.wait_counted()

    assert pending.startswith(b"*4\r\n:1\r\n"), pending


def _let_counting_rest(database: Database) -> None:
    """Let each transaction that counts rest for half a second before its end."""
    database.execute("""
        create function rest() returns trigger language plpgsql as $$
        begin
            perform pg_sleep(0.5);
            return null;
        end $$
    """)
    database.execute("""
        create trigger rest after insert on daily_counts
        for each statement execute function rest()
    """)


def test_without_redis_events_are_taken_and_the_health_tells(
    collector: Collector, victims: OwnServers
) -> None:
    """Degraded, not down; when it is back, what came meanwhile is counted."""
    database = collector.database
    mint = Mint(2)
    with (
        collector.serve() as serve,
        collector.worker() as worker,
        Sender(serve.url, database.new_key("ingest")) as sender,
    ):
        assert sender.send(mint.events(5)).status == 202
        whole = sender.get("/health")
        victims.valkey.crash(SIGKILL)
        statuses = {sender.send(mint.events(5)).status for _ in range(20)}
        degraded = sender.get("/health")
        ready = sender.get("/readyz").status
        victims.valkey.start()
        database.wait_counted()
        assert worker.is_running, worker.log
        recovered = sender.get("/health")

    assert statuses == {202}
    assert (whole.json["status"], recovered.json["status"]) == ("ok", "ok")
    assert (degraded.status, degraded.json["status"]) == (200, "degraded")
    assert degraded.json["dependencies"] == {"postgres": "ok", "redis": "unavailable"}
    assert ready == 200
    assert database.event_count() == 21 * 5


@pytest.mark.long
def test_a_redis_that_hangs_holds_nobody_up(collector: Collector, victims: OwnServers) -> None:
    """It is no part of the way to the 202: as fast as before, at the median and at the tail."""
    database = collector.database
    mint = Mint(3)
    with (
        collector.serve() as serve,
        collector.worker(),
        Sender(serve.url, database.new_key("ingest"), timeout_s=20) as sender,
    ):
        _seconds(sender, mint)
        before = _seconds(sender, mint)
        os.kill(victims.valkey.pid, SIGSTOP)
        try:
            during = _seconds(sender, mint)
        finally:
            os.kill(victims.valkey.pid, SIGCONT)
        database.wait_counted()
    ratio = median(during) / median(before)
    print(f"median {median(before) * 1e3:.1f} ms, {ratio:.2f} times that while Redis hangs")
    print(f"p99 {_p99(before) * 1e3:.1f} ms, then {_p99(during) * 1e3:.1f} ms")

    assert ratio < MAX_MEDIAN_RATIO
    assert _p99(during) < max(MAX_TAIL_RATIO * _p99(before), MAX_TAIL_S)


def _seconds(sender: Sender, mint: Mint) -> list[float]:
    """Return how long each of `SAMPLES` requests took."""
    found = []
    for _ in range(SAMPLES):
        events = mint.events(1)
        started = time.monotonic()
        assert sender.send(events).status == 202
        found.append(time.monotonic() - started)
    return found


def _p99(seconds: Sequence[float]) -> float:
    return sorted(seconds)[len(seconds) * 99 // 100]


def test_a_redis_that_lost_its_tail_is_filled_again(
    collector: Collector, victims: OwnServers
) -> None:
    """Killed, with an append-only file that ends earlier: what it forgot is counted (RD-16)."""
    database = collector.database
    mint = Mint(5)
    worker = collector.worker()
    with (
        collector.serve() as serve,
        worker,
        Sender(serve.url, database.new_key("ingest")) as sender,
    ):
        assert sender.send(mint.events(2)).status == 202
        database.wait_counted()
        kept_bytes = _appended(victims).stat().st_size
        _let_counting_rest(database)  # so that some of what is lost has not been counted
        for number in range(10):
            assert sender.send(mint.events(1 + number)).status == 202
        wait_for(lambda: _length(victims) == 11, "all is published")
        worker.kill()
        file = _appended(victims)
        victims.valkey.crash(SIGKILL)
        os.truncate(file, kept_bytes)
        victims.valkey.start()
        left = _length(victims)
        uncounted = database.miscounted()
        worker.start()
        database.wait_counted()

    assert left < 11
    assert uncounted


def _appended(victims: OwnServers) -> Path:
    """Return the file to which Valkey appends what it does."""
    folder = valkey_command(victims.valkey.url, "CONFIG", "GET", "dir").split(b"\r\n")[4].decode()
    (file,) = Path(folder).rglob("*.incr.aof")
    return file


def _length(victims: OwnServers) -> int:
    return int(valkey_command(victims.valkey.url, "XLEN", STREAM)[1:])

"""Postgres hangs, refuses, is full, read-only or gone: 503 in time, and back by itself."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from signal import SIGCONT, SIGKILL, SIGQUIT, SIGSTOP

import asyncpg
import pytest

from analytics_collector.adapters.postgres.pool import connect_pool, lend
from harness.checker import check
from harness.client import Answer, Load, Mint, Sender
from harness.collector import Collector, Serve
from harness.database import Database
from harness.processes import is_alive, offspring
from harness.servers import OwnServers
from harness.session import Session
from harness.waiting import pause, wait_for

COMMIT_TIMEOUT_S = 1.5
REFUSED_WITHIN_S = 5.0
NOISE_S = 8.0
NO_CONNECTION = (asyncpg.TooManyConnectionsError, asyncpg.CannotConnectNowError)
READERS = 3
POOLED = 2 + 2 + 2 + READERS
"""As many connections `serve` has at most: to write, at the door, for books and to read."""
BACKENDS = """
    select pid from pg_stat_activity
    where application_name = 'analytics-collector' and datname = current_database()
"""


@pytest.fixture
def serve(collector: Collector) -> Iterator[Serve]:
    """A running collector that does not wait for long."""
    settings = {"commit_timeout_s": COMMIT_TIMEOUT_S, "database_pool_size": READERS}
    with collector.serve(**settings) as serve:
        yield serve


@pytest.fixture
def sender(collector: Collector, serve: Serve) -> Iterator[Sender]:
    """A client whose key the collector has seen."""
    with Sender(serve.url, collector.database.new_key()) as sender:
        assert sender.send(Mint(1000).events(1)).status == 202
        yield sender


def _refused_in_time(sender: Sender, mint: Mint) -> Answer:
    """Send one batch that can't be stored; check how that is told."""
    started = time.monotonic()
    answer = sender.send(mint.events(2))

    assert answer.status == 503, answer
    assert answer.json["code"] == "STORE_UNAVAILABLE"
    assert int(answer.headers["retry-after"]) >= 1
    assert time.monotonic() - started < REFUSED_WITHIN_S
    return answer


def _recovers(sender: Sender, mint: Mint, database: Database) -> None:
    """Check that events are taken again, without any help; and what is stored is whole."""
    wait_for(lambda: sender.send(mint.events(2)).status == 202, "it takes events again")
    events = mint.events(3)
    answer = sender.send(events)

    assert (answer.status, answer.json["duplicates"]) == (202, 0)
    stored = {message_id for message_id, _ in database.stored()}
    assert {event["messageId"] for event in events} <= stored


def test_terminated_backends_cost_retries_and_nothing_else(
    collector: Collector, serve: Serve, chaos_s: float, seed: int
) -> None:
    """Every connection ends, ten times a second; never a 500, and the pool heals."""
    database = collector.database
    key = database.new_key("ingest")
    with Session(database.url) as session, Load(serve.url, key, clients=3, seed=seed) as load:
        ends_at = time.monotonic() + chaos_s / 4
        while time.monotonic() < ends_at:
            session.fetch(f"select pg_terminate_backend(pid) from ({BACKENDS}) as ours")
            pause(0.1)
    findings = check(load.ledgers, database.stored())

    assert findings.is_clean, findings
    assert set(load.answers) <= {202, 503}, load.answers
    assert load.unanswered == 0
    assert load.answers[202] > 0


def test_a_backend_that_hangs_is_given_up(
    collector: Collector, serve: Serve, sender: Sender
) -> None:
    """The request is refused in time; the next goes another way."""
    mint = Mint(1)
    database = collector.database
    pids = [row[0] for row in database.fetch(BACKENDS)]
    for pid in pids:
        os.kill(pid, SIGSTOP)
    try:
        _refused_in_time(sender, mint)
        _recovers_while_they_hang(sender, mint)
    finally:
        for pid in pids:
            os.kill(pid, SIGCONT)

    _recovers(sender, mint, database)
    assert serve.faults == []


def _recovers_while_they_hang(sender: Sender, mint: Mint) -> None:
    wait_for(lambda: sender.send(mint.events(2)).status == 202, "new connections are made")


def test_a_locked_table_is_not_waited_for_too_long(
    collector: Collector, serve: Serve, sender: Sender
) -> None:
    """503 within the time for a commit, again and again, and 202 as soon as the lock is gone."""
    mint = Mint(2)
    with Session(collector.database.url) as session:
        session.fetch("begin")
        session.fetch("lock table events in access exclusive mode")
        _refused_in_time(sender, mint)
        _refused_in_time(sender, mint)
        session.fetch("rollback")

        _recovers(sender, mint, collector.database)


def test_a_postgres_without_a_free_connection_is_unavailable_not_a_fault(
    collector: Collector, victims: OwnServers, sender: Sender
) -> None:
    """All connections are taken by others while ours end: refused, and back when there is room."""
    mint = Mint(3)
    name = collector.database.value("select current_database()")
    ours = BACKENDS.replace("current_database()", f"'{name}'")
    with ExitStack() as strangers:
        first = strangers.enter_context(Session(victims.postgres.url))
        # Its pools come back at once and may be quicker than we are; and a backend takes a moment
        # to end, which leaves its place free.
        terminate = f"select pg_terminate_backend(pid) from ({ours}) as ours"
        calm = 0
        while calm < 3:
            taken = _take_all_connections(collector.database, strangers)
            calm = 0 if taken or first.fetch(terminate) else calm + 1
        answers = [sender.send(mint.events(2)) for _ in range(3)]

    assert {answer.status for answer in answers} == {503}
    assert {answer.json["code"] for answer in answers} == {"STORE_UNAVAILABLE"}
    wait_for(lambda: _connects(collector.database), "the strangers have gone")
    _recovers(sender, mint, collector.database)
    held = len(collector.database.fetch(BACKENDS))
    print(f"{held} connections")
    assert held <= POOLED, "connections were leaked"


def _take_all_connections(database: Database, strangers: ExitStack) -> int:
    """Take what is free, and return how many that were."""
    taken = 0
    with pytest.raises(NO_CONNECTION):
        while taken < 200:
            strangers.enter_context(Session(database.url))
            taken += 1
    return taken


def _connects(database: Database) -> bool:
    try:
        return database.value("select count(*) < 20 from pg_stat_activity") is True
    except NO_CONNECTION:
        return False


def _name(database: Database) -> str:
    name: str = database.value("select current_database()")
    return name


def test_a_read_only_postgres_is_unavailable_not_a_fault(
    collector: Collector, victims: OwnServers, serve: Serve, sender: Sender
) -> None:
    """As after a failover to a standby: 503, not ready, and back when it may write."""
    mint = Mint(4)
    with _read_only(victims):
        wait_for(lambda: sender.send(mint.events(2)).status == 503, "it refuses")
        _refused_in_time(sender, mint)
        health = sender.get("/health")
        ready = sender.get("/readyz").status

    _recovers(sender, mint, collector.database)
    assert ready == 503
    assert (health.status, health.json["status"]) == (503, "unavailable")
    assert serve.faults == []


@contextmanager
def _read_only(victims: OwnServers) -> Iterator[None]:
    with Session(victims.postgres.url) as session:
        session.fetch("set default_transaction_read_only = off")
        session.fetch("alter system set default_transaction_read_only = on")
        session.fetch("select pg_reload_conf()")
        try:
            yield
        finally:
            session.fetch("set default_transaction_read_only = off")
            session.fetch("alter system reset default_transaction_read_only")
            session.fetch("select pg_reload_conf()")
            wait_for(
                lambda: _shows(victims, "default_transaction_read_only") == "off", "it may write"
            )


def _shows(victims: OwnServers, name: str) -> str:
    value: str = Database(victims.postgres.url).value(f"show {name}")
    return value


def test_a_kill_takes_every_process_of_postgres_before_it_can_end_in_order(
    victims: OwnServers,
) -> None:
    """What the tests of kills rely on: also one that does not notice that its parent is gone."""
    pids = offspring(victims.postgres.pid)
    stopped = next(pid for pid, command in pids.items() if "walwriter" in command)
    os.kill(stopped, SIGSTOP)
    victims.postgres.crash(SIGKILL)

    wait_for(lambda: not any(map(is_alive, pids)), "all of them are gone", 10)


@pytest.mark.parametrize("number", [SIGQUIT, SIGKILL])
def test_a_postgres_that_is_gone_is_unavailable_and_missed_no_longer_than_it_is_away(
    collector: Collector, victims: OwnServers, serve: Serve, sender: Sender, number: int
) -> None:
    """503 with Retry-After and not ready; alive all the time; then 202 again."""
    mint = Mint(5)
    victims.postgres.crash(number)
    try:
        for _ in range(3):
            _refused_in_time(sender, mint)
        probes = {path: sender.get(path).status for path in ("/livez", "/readyz", "/health")}
        question = sender.get("/api/v1/users/u-1/events")
    finally:
        victims.postgres.start()

    _recovers(sender, mint, collector.database)
    assert probes == {"/livez": 200, "/readyz": 503, "/health": 503}
    assert question.status == 503
    assert serve.faults == []


def test_a_slow_commit_is_not_overtaken_in_the_stream(
    collector: Collector, chaos_s: float, seed: int
) -> None:
    """Two collectors; a commit that got its number early may end late, and is counted still."""
    database = collector.database
    _slow_down_commits(database)
    dice = random.Random(seed)
    with ExitStack() as stack:
        loads = []
        for _ in range(2):
            serve = stack.enter_context(collector.serve())
            key = database.new_key("ingest")
            loads.append(Load(serve.url, key, clients=2, seed=dice.randrange(10**6)))
        stack.enter_context(collector.worker())
        with loads[0], loads[1]:
            pause(chaos_s / 4)
        database.wait_counted()
    print(f"{database.event_count()} events")

    assert database.event_count() == sum(load.acknowledged for load in loads)


def _slow_down_commits(database: Database) -> None:
    """Let each transaction rest between its number and its end, for up to 50 ms."""
    database.execute("""
        create function rest() returns trigger language plpgsql as $$
        begin
            perform pg_sleep(random() * 0.05);
            return new;
        end $$
    """)
    database.execute("create trigger rest after insert on commits execute function rest()")


def test_a_postgres_that_is_frozen_holds_nobody_up(
    collector: Collector, victims: OwnServers, serve: Serve, sender: Sender
) -> None:
    """Nothing ends there, not even what was given up: 503 in time, again and again."""
    mint = Mint(6)
    with victims.postgres.frozen():
        for _ in range(3):
            _refused_in_time(sender, mint)
        alive = sender.get("/livez").status

    _recovers(sender, mint, collector.database)
    assert alive == 200
    assert serve.faults == []


def test_a_borrower_leaves_a_frozen_postgres_when_its_time_is_over(
    collector: Collector, victims: OwnServers
) -> None:
    """To give a connection back waits for the end of what was asked there, but not for ever."""

    async def borrow() -> float:
        pool = await connect_pool(collector.database.url, min_size=1, max_size=1, timeout_s=60)
        try:
            async with lend(pool):
                pass  # it lies there from now on
            with victims.postgres.frozen():
                started = time.monotonic()
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.5), lend(pool) as connection:
                        await connection.execute("select 1")
                return time.monotonic() - started
        finally:
            pool.terminate()

    async def borrow_in_time() -> float:
        async with asyncio.timeout(30):
            return await borrow()

    assert asyncio.run(borrow_in_time()) < 1.5 + NOISE_S


def test_a_collector_ends_in_time_beside_a_postgres_that_is_frozen(
    collector: Collector, victims: OwnServers
) -> None:
    """What it has counted is written within a few seconds or not at all, all of it together."""
    with collector.serve(commit_timeout_s=60) as serve:
        with Sender(serve.url, collector.database.new_key()) as sender:
            assert sender.send(Mint(7).events(3)).status == 202
        with victims.postgres.frozen():
            started = time.monotonic()
            code = serve.stop()
            took_s = time.monotonic() - started

    assert code == 0
    assert took_s < 5 + NOISE_S


def test_locked_books_keep_no_event_and_no_new_key_waiting(collector: Collector) -> None:
    """Usage and quotas are written down later; who sends does not notice."""
    database = collector.database
    mint = Mint(8)
    with (
        collector.serve() as serve,
        Sender(serve.url, database.new_key()) as sender,
        Session(database.url) as session,
    ):
        session.fetch("begin")
        session.fetch("lock table monthly_usage, key_usage in access exclusive mode")
        assert sender.send(mint.events(2)).status == 202
        wait_for(lambda: _waiting_for_locks(database) >= 2, "both books are waited for")
        with Sender(serve.url, database.new_key()) as stranger:
            started = time.monotonic()
            answers = [who.send(mint.events(2)).status for who in (stranger, sender, stranger)]
            took_s = time.monotonic() - started
        still_locked = _waiting_for_locks(database) >= 1
        session.fetch("rollback")

        assert answers == [202, 202, 202]
        assert took_s < 1.0 + NOISE_S
        assert still_locked
        wait_for(
            lambda: database.value("select coalesce(sum(event_count), 0) from monthly_usage") == 8,
            "what was stored is in the books",
        )


def test_slow_analyses_keep_no_new_key_waiting(collector: Collector) -> None:
    """With every connection for questions taken, keys are looked up as ever."""
    database = collector.database
    key = database.new_key()
    with (
        collector.serve(database_pool_size=1) as serve,
        Session(database.url) as session,
        ThreadPoolExecutor(2) as threads,
    ):
        session.fetch("begin")
        session.fetch("lock table events in access exclusive mode")
        questions = [threads.submit(_ask, serve, key) for _ in range(2)]
        wait_for(lambda: _waiting_for_locks(database) >= 1, "an analysis hangs")
        with Sender(serve.url, database.new_key()) as stranger:
            answer = stranger.post("/api/v1/events/validate", {"batch": Mint(9).events(2)})
        hung = not any(question.done() for question in questions)
        session.fetch("rollback")

        assert answer.status == 200
        assert hung
        assert {question.result() for question in questions} <= {200, 503}


def _ask(serve: Serve, key: str) -> int:
    with Sender(serve.url, key) as asker:
        return asker.get("/api/v1/users/u-1/events").status


def _waiting_for_locks(database: Database) -> int:
    count: int = database.value("select count(*) from pg_locks where not granted")
    return count

"""A log in Postgres, a stream in a Valkey of its own, and those who go from one to the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from redis.asyncio import Redis

from analytics_collector.adapters.migrate import migrate
from analytics_collector.adapters.postgres.log import CommitLog, open_log
from analytics_collector.adapters.postgres.store import PostgresEventStore
from analytics_collector.adapters.redis.client import connect
from analytics_collector.adapters.redis.names import STREAM
from analytics_collector.adapters.redis.stream import ConsumerGroup, EventStream
from analytics_collector.ingest.validate import validate
from analytics_collector.model import EventRow, RawBatch
from analytics_collector.settings import Settings, read_settings
from analytics_collector.worker import daily_counts
from analytics_collector.worker.consumer import Consumer
from analytics_collector.worker.daily_counts import DailyCounts
from analytics_collector.worker.publisher import Publisher
from analytics_collector.worker.run import active_alone

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def event(name: str = "e", **members: Any) -> EventRow:
    raw = {"type": "track", "name": name, "messageId": str(uuid4()), **members}
    return validate(RawBatch([raw], None, exact=False), 1, datetime.now(UTC)).rows[0]


class OneConnection:
    """A pool that has one connection, in the middle of a transaction that the test began."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    @asynccontextmanager
    async def acquire(self, *, timeout: float) -> AsyncIterator[asyncpg.Connection]:
        yield self._connection


class Plant:
    """One database and one stream, both empty at first, and parts to run on them."""

    def __init__(self, settings: Settings, pool: asyncpg.Pool, redis: Redis) -> None:
        self.settings = settings
        self.pool = pool
        self.redis = redis
        self.stored = 0

    async def commit(self, *events: EventRow, on: Any = None) -> None:
        """Store *events* as one commit, in a transaction of the connection *on* if given."""
        rows = events or (event(),)
        await PostgresEventStore(self.pool if on is None else OneConnection(on)).append(rows)
        self.stored += len(rows)

    def log(self) -> Any:
        """Open a log on a connection of its own."""
        return open_log(self.settings.database_url, 5.0)

    def publisher(self, log: CommitLog) -> Publisher:
        return Publisher(log, EventStream(self.redis))

    def counter(self, log: CommitLog, effect: Any = None, group: Any = None) -> Consumer:
        """Return the consumer that counts; another *effect* of its name may stand in."""
        return Consumer(
            effect or DailyCounts(),
            log,
            group or ConsumerGroup(self.redis, daily_counts.NAME, "me"),
            first_pause_s=0.001,
        )

    def keep_publishing(self) -> asyncio.Task[None]:
        """Run a publisher as a worker does."""
        return self._keep("publisher", lambda log: self.publisher(log).run())

    def keep_counting(self, effect: Any = None) -> asyncio.Task[None]:
        """Run a consumer as a worker does."""
        return self._keep(daily_counts.NAME, lambda log: self.counter(log, effect).run())

    def _keep(self, role: str, job: Any) -> asyncio.Task[None]:
        return asyncio.create_task(active_alone(self.settings, role, job))

    async def publish_all(self, publisher: Publisher) -> None:
        """Publish until there is nothing more to do, twice in a row."""
        idle = 0
        while idle < 2:
            idle = 0 if await publisher.publish_some() else idle + 1

    async def streamed(self) -> list[str]:
        """Return the ids of the commits in the stream."""
        return [fields["commit_id"] for _, fields in await self.redis.xrange(STREAM)]

    async def counted(self) -> int:
        """Return how many events the consumer has counted."""
        counted: int = await self.pool.fetchval(
            "select coalesce(sum(event_count), 0)::bigint from daily_counts"
        )
        return counted

    async def kill_backends(self) -> None:
        """End the connections of the workers."""
        await self.pool.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and application_name like '%worker'"
        )

    async def until(self, condition: Callable[[], Coroutine[Any, Any, bool]]) -> None:
        """Wait until *condition* holds, and fail when it does not come true in time."""
        async with asyncio.timeout(20):
            while not await condition():
                await asyncio.sleep(0.01)

    async def until_all_counted(self) -> None:
        """Wait until each event has been counted, and see that none is counted again."""

        async def done() -> bool:
            return await self.counted() >= self.stored

        await self.until(done)
        assert await self.counted() == self.stored


@pytest.fixture
def plant(postgres_dsn: str, valkey_url: str, run: Run) -> Iterator[Plant]:
    """Return an empty log and an empty stream."""
    name = f"test_{uuid4().hex}"
    dsn = postgres_dsn.replace("/analytics?", f"/{name}?")
    settings = read_settings({}, database_url=dsn, redis_url=valkey_url, secret="not used here")
    redis = connect(valkey_url)

    async def create() -> asyncpg.Pool:
        connection = await asyncpg.connect(postgres_dsn)
        await connection.execute(f"create database {name}")
        await connection.close()
        await migrate(dsn)
        await redis.flushall()
        return await asyncpg.create_pool(dsn, min_size=1, max_size=3)

    pool = run(create())
    yield Plant(settings, pool, redis)
    run(pool.close())
    run(redis.aclose())


@pytest.fixture
def new_event() -> Callable[..., EventRow]:
    """Make a row of the project 1."""
    return event


class Ended:
    """Ends tasks at the end of a block."""

    def __init__(self, *tasks: asyncio.Task[None]) -> None:
        self._tasks = tasks

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        # A worker that stopped by itself stopped for a fault of ours.
        assert {type(result) for result in results} <= {asyncio.CancelledError}


@pytest.fixture
def ended() -> type[Ended]:
    """Run tasks for the length of a block."""
    return Ended

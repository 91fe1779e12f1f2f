"""Join the parts of a server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import asyncpg
from redis.asyncio import Redis

from analytics_collector._limits import MAX_BYTES_IN_FLIGHT
from analytics_collector.adapters.postgres.administration import Administration
from analytics_collector.adapters.postgres.dead_letters import PostgresDeadLetters
from analytics_collector.adapters.postgres.key_store import PostgresKeyStore
from analytics_collector.adapters.postgres.live import PostgresLiveLog
from analytics_collector.adapters.postgres.pool import (
    STORE_FAILURES,
    connect_pool,
    is_reachable,
)
from analytics_collector.adapters.postgres.quota import PostgresUsageLedger
from analytics_collector.adapters.postgres.reader import PostgresReader
from analytics_collector.adapters.postgres.schemas import PostgresSchemas
from analytics_collector.adapters.postgres.sessions import PostgresSessionHistory
from analytics_collector.adapters.postgres.store import PostgresEventStore
from analytics_collector.adapters.redis.client import REDIS_FAILURES, connect
from analytics_collector.adapters.redis.live import RedisLiveStream
from analytics_collector.adapters.redis.quota import RedisUsageBoard
from analytics_collector.adapters.redis.sessions import RedisSessionStore
from analytics_collector.adapters.redis.spool import RedisSpool
from analytics_collector.adapters.redis.tokens import RedisTokenStore
from analytics_collector.adapters.spool.sqlite import SqliteSpool, spool_name
from analytics_collector.background import CountWriter
from analytics_collector.errors import ConfigurationError, UnsafeStore
from analytics_collector.http.body import InFlight
from analytics_collector.ingest.enrich.geo import GeoDatabase
from analytics_collector.ingest.enrich.stage import Enricher
from analytics_collector.ingest.leases import Leases
from analytics_collector.ingest.limit import DefaultLimits, RateLimiter
from analytics_collector.ingest.pipeline import Pipeline
from analytics_collector.ingest.plans import Plans
from analytics_collector.ingest.quota import CountedStore, MonthlyQuota
from analytics_collector.ingest.rejected import RejectedEvents, RejectedWriter
from analytics_collector.ingest.replay import Replayer
from analytics_collector.ingest.schemas import SchemaChecks
from analytics_collector.ingest.sessions import Sessions
from analytics_collector.ingest.spooling import Spooling
from analytics_collector.ingest.write import GroupWriter
from analytics_collector.interfaces import EventStore, KeyStore
from analytics_collector.keys import Keys
from analytics_collector.live import LiveTail
from analytics_collector.remembered_keys import RememberedKeys
from analytics_collector.schemas.report import SchemaReport
from analytics_collector.settings import SPOOL_IN_REDIS, Settings
from analytics_collector.usage import KeyUsage
from analytics_collector.worker.reapply import Reapply

_PROBE_S = 2.0
_END_S = 5.0

logger = logging.getLogger(__name__)
_REPLAY_TIMEOUT_S = 10.0


class Job(Protocol):
    """Something that goes on in the background, beside the requests."""

    def start(self) -> None:
        """Begin; needs a running event loop."""
        ...

    async def stop(self) -> None:
        """Finish what is at hand."""
        ...


class Probes:
    """Ask what we depend on whether it answers."""

    def __init__(self, pool: asyncpg.Pool, redis: Redis) -> None:
        self._pool = pool
        self._redis = redis

    async def postgres(self) -> bool:
        """Return whether Postgres answers in time and takes writes."""
        try:
            async with asyncio.timeout(_PROBE_S):
                read_only: str = await self._pool.fetchval("show transaction_read_only")
        except (*STORE_FAILURES, UnsafeStore, ConfigurationError):
            return False
        return read_only == "off"

    async def redis(self) -> bool:
        """Return whether Redis answers in time."""
        try:
            async with asyncio.timeout(_PROBE_S):
                await self._redis.ping()
        except REDIS_FAILURES:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Outage:
    """What takes events while Postgres is away, where that is wanted."""

    spooling: Spooling
    keys: RememberedKeys

    async def stop(self) -> None:
        """Let go of the spool; what it holds stays."""
        await self.keys.stop()
        await self.spooling.stop()


@dataclass(frozen=True, slots=True)
class Services:
    """What the endpoints use, at `request.app.state.services`."""

    keys: Keys
    pipeline: Pipeline
    in_flight: InFlight
    reader: PostgresReader
    live: LiveTail
    probes: Probes
    limiter: RateLimiter
    trusted_proxies: int
    writer: GroupWriter
    outage: Outage | None
    jobs: tuple[Job, ...]
    dead_letters: PostgresDeadLetters
    administration: Administration
    schemas: PostgresSchemas
    pools: tuple[asyncpg.Pool, ...]
    redis: Redis

    @property
    def replayer(self) -> Replayer:
        """What sends dead letters through once more."""
        return Replayer(self.dead_letters, self.pipeline, Reapply(self.dead_letters))

    async def close(self) -> None:
        """Write what was taken, then let go of everything.

        What is no event (counts, letters, leases) has a few seconds, all of it together.
        """
        await self.writer.stop()
        if self.outage is not None:
            await self.outage.stop()
        await _end_together(job.stop() for job in self.jobs)
        for pool in self.pools:
            pool.terminate()
        await self.redis.aclose()


async def _end_together(ends: Iterable[Awaitable[None]]) -> None:
    """Carry out *ends*; neither one that fails nor one that hangs keeps the others from theirs."""
    tasks = [asyncio.ensure_future(end) for end in ends]
    _, late = await asyncio.wait(tasks, timeout=_END_S)
    for task in late:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, BaseException):
            logger.error("Not ended in order", extra={"error": type(outcome).__name__})


async def build_services(settings: Settings) -> Services:
    """Return started services. Raises `UnsafeStore` or `ConfigurationError` if they can't be.

    Writes have connections of their own, and so have keys and probes, and so has the keeping of
    books: neither a slow analysis nor a locked table of counts keeps an event waiting.
    """
    enricher = _enricher(settings.secret, settings.geoip_database)
    min_size = 1
    if settings.ack == "spool" and not await is_reachable(
        settings.database_url, settings.commit_timeout_s
    ):
        min_size = 0
    write_pool, door_pool, books_pool, read_pool = [
        await connect_pool(
            settings.database_url,
            min_size=min_size,
            max_size=max_size,
            timeout_s=settings.commit_timeout_s,
        )
        for max_size in (2, 2, 2, settings.database_pool_size)
    ]
    redis = connect(settings.redis_url)
    leases = Leases(RedisTokenStore(redis))
    limiter = RateLimiter(defaults=_default_limits(settings), leases=leases)
    quota = MonthlyQuota(
        PostgresUsageLedger(books_pool), RedisUsageBoard(redis), settings.monthly_events
    )
    store = CountedStore(PostgresEventStore(write_pool), quota)
    key_store = PostgresKeyStore(door_pool)
    rejected = RejectedEvents()
    outage = await _outage(settings, redis, store, key_store, rejected)
    writer = GroupWriter(store, None if outage is None else outage.spooling)
    writer.start()
    sessions = Sessions(RedisSessionStore(redis), PostgresSessionHistory(door_pool))
    usage = KeyUsage()
    dead_letters = PostgresDeadLetters(books_pool)
    report = SchemaReport()
    plans = Plans(PostgresSchemas(door_pool))
    jobs: tuple[Job, ...] = (
        leases,
        quota,
        sessions,
        plans,
        CountWriter("usage of keys", usage, PostgresKeyStore(books_pool).add_usage),
        CountWriter("report on schemas", report, PostgresSchemas(books_pool).add_findings),
        RejectedWriter(
            rejected, dead_letters, settings.secret, settings.dead_letter_max_per_project
        ),
    )
    for job in jobs:
        job.start()
    return Services(
        keys=Keys(
            key_store if outage is None else outage.keys,
            settings.secret,
            previous=settings.secret_previous,
            usage=usage,
        ),
        pipeline=Pipeline(
            limiter,
            writer,
            usage=usage,
            schemas=SchemaChecks(plans, report),
            enricher=enricher,
            sessions=sessions,
            quota=quota,
            rejected=rejected,
        ),
        in_flight=InFlight(MAX_BYTES_IN_FLIGHT),
        reader=PostgresReader(read_pool),
        live=LiveTail(RedisLiveStream(redis), PostgresLiveLog(read_pool), settings.live_listeners),
        probes=Probes(door_pool, redis),
        limiter=limiter,
        trusted_proxies=settings.trusted_proxies,
        writer=writer,
        outage=outage,
        jobs=jobs,
        dead_letters=dead_letters,
        # Whoever asks long questions must not keep a key from being revoked.
        administration=Administration(books_pool, settings.secret),
        schemas=PostgresSchemas(books_pool),
        pools=(write_pool, door_pool, books_pool, read_pool),
        redis=redis,
    )


async def _outage(
    settings: Settings,
    redis: Redis,
    store: EventStore,
    key_store: KeyStore,
    rejected: RejectedEvents,
) -> Outage | None:
    if settings.ack != "spool":
        return None
    name = spool_name(settings.database_url)
    spool: SqliteSpool | RedisSpool
    if settings.spool == SPOOL_IN_REDIS:
        spool = RedisSpool(redis, name, settings.spool_max_bytes)
        memory = None
    else:
        folder = settings.data_dir / "spool" if settings.spool is None else Path(settings.spool)
        spool = memory = SqliteSpool(folder.absolute(), name, settings.spool_max_bytes)
    await spool.open()
    keys = RememberedKeys(key_store, settings.key_grace_s, memory)
    await keys.recall()
    spooling = Spooling(spool, GroupWriter(store), rejected=rejected)
    spooling.start()
    return Outage(spooling, keys)


@asynccontextmanager
async def open_replayer(
    database_url: str, secret: str, geoip_database: Path | None
) -> AsyncIterator[Replayer]:
    """Give what sends dead letters through once more, on a database and nothing else.

    Without Redis it leaves out the stage that attaches sessions.
    """
    pool = await connect_pool(database_url, min_size=1, max_size=2, timeout_s=_REPLAY_TIMEOUT_S)
    writer = GroupWriter(PostgresEventStore(pool))
    writer.start()
    plans = Plans(PostgresSchemas(pool))
    try:
        pipeline = Pipeline(
            RateLimiter(),
            writer,
            schemas=SchemaChecks(plans, SchemaReport()),
            enricher=_enricher(secret, geoip_database),
        )
        letters = PostgresDeadLetters(pool)
        yield Replayer(letters, pipeline, Reapply(letters))
    finally:
        await writer.stop()
        pool.terminate()


def _enricher(secret: str, geoip_database: Path | None) -> Enricher:
    return Enricher(secret, None if geoip_database is None else GeoDatabase(geoip_database))


def _default_limits(settings: Settings) -> DefaultLimits:
    return DefaultLimits(
        requests_per_key=settings.rate_limit_requests_per_minute,
        requests=settings.rate_limit_project_requests_per_minute,
        events=settings.rate_limit_events_per_minute,
        events_per_user=settings.rate_limit_user_events_per_minute,
        requests_per_address=settings.rate_limit_address_requests_per_minute,
    )

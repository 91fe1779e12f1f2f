"""Join the parts of a server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import asyncpg
from redis.asyncio import Redis

from analytics_collector._limits import MAX_BYTES_IN_FLIGHT
from analytics_collector.adapters.postgres.keys import PostgresKeyStore
from analytics_collector.adapters.postgres.pool import STORE_FAILURES, connect_pool
from analytics_collector.adapters.postgres.reader import PostgresReader
from analytics_collector.adapters.postgres.store import PostgresEventStore
from analytics_collector.adapters.redis.client import REDIS_FAILURES, connect
from analytics_collector.http.body import InFlight
from analytics_collector.ingest.limit import RateLimiter
from analytics_collector.ingest.pipeline import Pipeline
from analytics_collector.ingest.write import GroupWriter
from analytics_collector.keys import Keys
from analytics_collector.settings import Settings

_PROBE_S = 2.0


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
        except STORE_FAILURES:
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
class Services:
    """What the endpoints use, at `request.app.state.services`."""

    keys: Keys
    pipeline: Pipeline
    in_flight: InFlight
    reader: PostgresReader
    probes: Probes
    writer: GroupWriter
    pools: tuple[asyncpg.Pool, ...]
    redis: Redis

    async def close(self) -> None:
        """Write what was taken, then let go of everything."""
        await self.writer.stop()
        for pool in self.pools:
            pool.terminate()
        await self.redis.aclose()


async def build_services(settings: Settings) -> Services:
    """Return started services. Raises `UnsafeStore` or `ConfigurationError` if they can't be.

    Writes have connections of their own, and so have keys and probes: a slow analysis never keeps
    an event waiting.
    """
    write_pool = await connect_pool(
        settings.database_url, min_size=1, max_size=2, timeout_s=settings.commit_timeout_s
    )
    door_pool = await connect_pool(
        settings.database_url, min_size=1, max_size=2, timeout_s=settings.commit_timeout_s
    )
    read_pool = await connect_pool(
        settings.database_url,
        min_size=1,
        max_size=settings.database_pool_size,
        timeout_s=settings.commit_timeout_s,
    )
    redis = connect(settings.redis_url)
    writer = GroupWriter(PostgresEventStore(write_pool))
    writer.start()
    return Services(
        keys=Keys(PostgresKeyStore(door_pool), settings.secret),
        pipeline=Pipeline(RateLimiter(settings.rate_limit_per_minute), writer),
        in_flight=InFlight(MAX_BYTES_IN_FLIGHT),
        reader=PostgresReader(read_pool),
        probes=Probes(door_pool, redis),
        writer=writer,
        pools=(write_pool, door_pool, read_pool),
        redis=redis,
    )

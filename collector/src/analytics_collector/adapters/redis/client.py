"""A connection to Redis that does nothing twice behind our back."""

from __future__ import annotations

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

# What an absent, full, slow or restarting server can raise.
REDIS_FAILURES = (RedisError, OSError, TimeoutError)


def connect(redis_url: str) -> Redis:
    """Return a client of *redis_url*; it connects when first used."""
    client: Redis = Redis.from_url(
        redis_url,
        decode_responses=True,
        socket_timeout=5.0,
        socket_connect_timeout=2.0,
        # The library's own retries would repeat a command that Redis has carried out already.
        retry=Retry(NoBackoff(), 0),
        retry_on_timeout=False,
    )
    return client

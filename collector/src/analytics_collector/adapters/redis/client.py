"""A connection to Redis that does nothing twice behind our back."""

from __future__ import annotations

import asyncio
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

# What an absent, full, slow or restarting server can raise.
REDIS_FAILURES = (RedisError, OSError, TimeoutError)


class _Client(Redis):
    """A client whose commands end with their task."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Carry out a command; raise what ends the task, even if that got lost underneath."""
        answer = await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        # The library sends through asyncio.wait_for, which before Python 3.12 loses a cancellation
        # that comes at its end: a worker would never hear that it is to stop.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError
        return answer


def connect(redis_url: str) -> Redis:
    """Return a client of *redis_url*; it connects when first used."""
    client: Redis = _Client.from_url(
        redis_url,
        decode_responses=True,
        socket_timeout=5.0,
        socket_connect_timeout=2.0,
        # The library's own retries would repeat a command that Redis has carried out already.
        retry=Retry(NoBackoff(), 0),
        retry_on_timeout=False,
    )
    return client

"""Follow the stream for the live tail: read, and leave no trace in it."""

from __future__ import annotations

import logging

from redis.asyncio import Redis

from analytics_collector.adapters.redis.client import REDIS_FAILURES
from analytics_collector.adapters.redis.names import STREAM
from analytics_collector.adapters.redis.stream import entries_of, of_stream
from analytics_collector.model import Cursor, Entry

logger = logging.getLogger(__name__)

_ENTRIES_AT_ONCE = 8
_BLOCK_MS = 500


class RedisLiveStream:
    """Implements `live.LiveStream`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._is_away = False
        # Behind this cursor there is nothing of ours up to that id.
        self._passed = (Cursor(0, 0), str(Cursor(0, 0)))

    async def after(self, cursor: Cursor) -> list[Entry] | None:
        """Return the next entries behind *cursor*, waiting up to half a second for the first.

        None if there are none and it did not wait: Redis does not answer, which is told once, or
        what comes next is of somebody else, which is passed over the next time.
        """
        if self._passed[0] != cursor:
            self._passed = (cursor, str(cursor))
        try:
            answer = await self._redis.xread(
                {STREAM: self._passed[1]}, count=_ENTRIES_AT_ONCE, block=_BLOCK_MS
            )
        except REDIS_FAILURES as exc:
            if not self._is_away:
                facts = {"reason": type(exc).__name__}
                logger.warning("Live tail without Redis: follows Postgres", extra=facts)
            self._is_away = True
            return None
        self._is_away = False
        found = of_stream(answer)
        entries = entries_of(found)
        if found and not entries:
            self._passed = (cursor, found[-1][0])
            return None
        return entries

"""The token buckets in Redis: many processes, one limit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from redis.asyncio import Redis

from analytics_collector.adapters.redis.client import REDIS_FAILURES
from analytics_collector.adapters.redis.names import TOKENS
from analytics_collector.interfaces import Lease, LeaseRequest, TokensUnavailable

# Requests wait for an answer no longer than `ingest.leases.PATIENCE_S`; this is for the task that
# asks on their behalf.
_TIMEOUT_S: Final = 1.0
_MAX_PER_CALL: Final = 500

# A bucket is `<tokens> <seconds>`: how many there were, when. One that is full is not kept.
# Time is the server's, so the clocks of the processes don't matter.
_LEASE = """
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local answer = {}
for i, key in ipairs(KEYS) do
    local limit, least, wanted, back, owed = unpack(ARGV, i * 5 - 4, i * 5)
    limit = tonumber(limit)
    local left = limit
    local held = redis.call('GET', key)
    if held then
        local tokens, since = string.match(held, '(%S+) (%S+)')
        left = tokens + math.max(0, now - since) * limit / 60
    end
    left = math.max(0, math.min(limit, left + back) - owed)
    local granted = 0
    if left >= tonumber(least) then granted = math.min(math.floor(left), tonumber(wanted)) end
    left = left - granted
    if left < limit then
        local full_in_ms = math.ceil((limit - left) / limit * 60000)
        redis.call('SET', key, string.format('%.6f %.6f', left, now), 'PX', full_in_ms + 1000)
    else
        redis.call('DEL', key)
    end
    answer[i * 2 - 1] = granted
    answer[i * 2] = string.format('%.6f', left)
end
return answer
"""


class RedisTokenStore:
    """Implements `interfaces.TokenStore`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._script = redis.register_script(_LEASE)

    async def lease(self, requests: Sequence[LeaseRequest]) -> list[Lease]:
        """Answer *requests* in their order, in one call for each 500."""
        leases: list[Lease] = []
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                if not requests:
                    await self._redis.ping()
                for start in range(0, len(requests), _MAX_PER_CALL):
                    leases += await self._lease(requests[start : start + _MAX_PER_CALL])
        except REDIS_FAILURES as exc:
            raise TokensUnavailable(type(exc).__name__) from exc
        return leases

    async def _lease(self, requests: Sequence[LeaseRequest]) -> list[Lease]:
        keys = [TOKENS + request.name for request in requests]
        arguments: list[float] = []
        for request in requests:
            arguments += request[1:]
        answer = await self._script(keys=keys, args=arguments)
        return [
            Lease(float(granted), float(left))
            for granted, left in zip(answer[::2], answer[1::2], strict=True)
        ]

"""What projects have stored in a month, in Redis: what the processes tell each other quickly."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import date
from typing import Final

from redis.asyncio import Redis

from analytics_collector.adapters.redis.client import REDIS_FAILURES
from analytics_collector.adapters.redis.names import USAGE
from analytics_collector.interfaces import UsageUnknown

_TIMEOUT_S: Final = 1.0
_KEEP_S: Final = 40 * 86_400

# A count only grows, so of two the larger is the newer.
_EXCHANGE = """
local answer = {}
for i, key in ipairs(KEYS) do
    local theirs = tonumber(redis.call('GET', key) or '-1')
    local mine = tonumber(ARGV[i + 1])
    if mine > theirs then redis.call('SET', key, ARGV[i + 1], 'EX', ARGV[1]) end
    answer[i] = string.format('%.0f', math.max(mine, theirs))
end
return answer
"""


class RedisUsageBoard:
    """Implements `interfaces.UsageBoard`."""

    def __init__(self, redis: Redis) -> None:
        self._script = redis.register_script(_EXCHANGE)

    async def exchange(self, month: date, known: Mapping[int, int]) -> dict[int, int]:
        """Tell what is *known* of projects, -1 for nothing; return what anybody knows."""
        keys = [f"{USAGE}{month:%Y-%m}:{project_id}" for project_id in known]
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                totals = await self._script(keys=keys, args=[_KEEP_S, *known.values()])
        except REDIS_FAILURES as exc:
            raise UsageUnknown(type(exc).__name__) from exc
        return {
            project_id: int(total)
            for project_id, total in zip(known, totals, strict=True)
            if int(total) >= 0
        }

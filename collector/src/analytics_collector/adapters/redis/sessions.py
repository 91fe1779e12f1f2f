"""The sessions of streams in Redis: many processes, one opinion."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Final

from redis.asyncio import Redis

from analytics_collector.adapters.redis.client import REDIS_FAILURES
from analytics_collector.adapters.redis.names import session_stream, sessions_since
from analytics_collector.interfaces import SessionsUnavailable, StreamTimes
from analytics_collector.spans import (
    CAP_MS,
    GAP_MS,
    MAX_SPANS,
    Spans,
    read_spans,
    write_spans,
)

# After a stream's last event: longer than a session waits, so that late events find theirs.
_KEEP_MS: Final = 2 * 60 * 60 * 1000
_NAME_BYTES: Final = 12

# The rule of `ingest/spans.py`, where no other process can come between. `since` is when this
# memory began: a stream of which it knows nothing is new, unless it could have had events before
# that. Then the caller is asked to look elsewhere.
_PLACE = """
local now, gap, cap, keep, most = unpack(ARGV, 1, 5)
now, gap, cap, most = tonumber(now), tonumber(gap), tonumber(cap), tonumber(most)
local must_know = ARGV[6] == '1'
local since = tonumber(redis.call('GET', KEYS[1]) or '')
if not since then
    since = now
    redis.call('SET', KEYS[1], string.format('%.0f', now))
end

local function read(spans, text)
    for o, f, l in string.gmatch(text, '(-?%d+),(-?%d+),(-?%d+)') do
        o, f, l = tonumber(o), tonumber(f), tonumber(l)
        local known
        for _, span in ipairs(spans) do if span[1] == o then known = span end end
        if known then
            known[2], known[3] = math.min(known[2], f), math.max(known[3], l)
        else
            spans[#spans + 1] = {o, f, l}
        end
    end
end

local function settle(spans)
    table.sort(spans, function(a, b) return a[2] < b[2] or (a[2] == b[2] and a[1] < b[1]) end)
    while #spans > most do table.remove(spans, 1) end
end

local function place(spans, at)
    for _, span in ipairs(spans) do
        local first, last = math.min(span[2], at), math.max(span[3], at)
        if at >= span[2] - gap and at <= span[3] + gap
            and (last - first <= cap or (at >= span[2] and at <= span[3])) then
            span[2], span[3] = first, last
            settle(spans)
            return
        end
    end
    spans[#spans + 1] = {at, at, at}
    settle(spans)
end

local answer = {}
for i = 2, #KEYS do
    local known, times = ARGV[i * 2 + 3], ARGV[i * 2 + 4]
    local held = redis.call('GET', KEYS[i])
    if must_know and not held and now - since < gap then
        answer[i - 1] = '?'
    else
        local spans = {}
        read(spans, held or '')
        read(spans, known)
        settle(spans)
        for at in string.gmatch(times, '-?%d+') do place(spans, tonumber(at)) end
        local parts = {}
        for n, span in ipairs(spans) do
            parts[n] = string.format('%.0f,%.0f,%.0f', span[1], span[2], span[3])
        end
        answer[i - 1] = table.concat(parts, ';')
        redis.call('SET', KEYS[i], answer[i - 1], 'PX', keep)
    end
end
return answer
"""
_UNKNOWN: Final = "?"


class RedisSessionStore:
    """Implements `interfaces.SessionStore`."""

    def __init__(self, redis: Redis, clock: Callable[[], float] = time.time) -> None:
        self._script = redis.register_script(_PLACE)
        self._clock = clock

    async def place(
        self, project_id: int, wanted: Sequence[StreamTimes], must_know: bool
    ) -> list[Spans | None]:
        """Answer for all streams in one call."""
        keys = [sessions_since(project_id)]
        arguments: list[str | int] = [int(self._clock() * 1000), GAP_MS, CAP_MS, _KEEP_MS]
        arguments += [MAX_SPANS, int(must_know)]
        for stream, times, known in wanted:
            keys.append(session_stream(project_id, _short_name(stream)))
            arguments += [write_spans(known), " ".join(map(str, times))]
        try:
            answers = await self._script(keys=keys, args=arguments)
        except REDIS_FAILURES as exc:
            raise SessionsUnavailable(type(exc).__name__) from exc
        return [None if answer == _UNKNOWN else read_spans(answer) for answer in answers]


def _short_name(stream: str) -> str:
    """Return a name of *stream* that is short, and tells nobody who it is."""
    return hashlib.blake2b(stream.encode(), digest_size=_NAME_BYTES).hexdigest()

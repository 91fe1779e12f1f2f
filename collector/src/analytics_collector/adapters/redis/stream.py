"""The stream of commits in Redis: a fast projection of the log in Postgres, refillable from it."""

from __future__ import annotations

from collections.abc import Sequence

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from analytics_collector.adapters.redis.names import STREAM, STREAM_TAIL
from analytics_collector.model import Cursor, Entry

# A Redis that was flushed, restored or restarted with a shorter log has another tail, or no
# stream at all. To see that in the very call that appends leaves no gap for it to happen in.
_APPEND = """
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[1] then return 0 end
if ARGV[1] ~= '' and redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
for i = 2, #ARGV, 4 do
    local added = redis.pcall('XADD', KEYS[1], ARGV[i],
        'commit_id', ARGV[i + 1], 'previous', ARGV[i + 2], 'events', ARGV[i + 3])
    if type(added) == 'table' then
        -- "equal or smaller": somebody else has added an entry that would have to come later.
        if added.err and string.find(added.err, 'smaller') then return 0 end
        return added
    end
end
redis.call('SET', KEYS[2], ARGV[#ARGV - 3])
return 1
"""

_TAIL = """
local tail = redis.call('GET', KEYS[2])
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if tail and last and last[1] == tail then return tail end
return false
"""


class EventStream:
    """The publisher's end of the stream."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._append = redis.register_script(_APPEND)
        self._tail = redis.register_script(_TAIL)

    async def tail(self) -> Cursor | None:
        """Return the cursor of the last entry; None if the stream is not as it was left."""
        tail = await self._tail(keys=[STREAM, STREAM_TAIL])
        return None if tail is None else Cursor.parse(str(tail))

    async def length(self) -> int:
        """Return how many entries the stream holds."""
        held: int = await self._redis.xlen(STREAM)
        return held

    async def clear(self) -> None:
        """Forget what is left of a stream that is not whole."""
        await self._redis.delete(STREAM, STREAM_TAIL)

    async def append(self, expected_tail: Cursor | None, entries: Sequence[Entry]) -> bool:
        """Append *entries* if the stream still ends at *expected_tail*; return whether it did."""
        arguments: list[str] = ["" if expected_tail is None else str(expected_tail)]
        for entry in entries:
            commit_id = str(entry.cursor.commit_id)
            arguments += [str(entry.cursor), commit_id, str(entry.previous), entry.events]
        return bool(await self._append(keys=[STREAM, STREAM_TAIL], args=arguments))

    async def trim(self, keep_entries: int, keep_bytes: int, slowest: Cursor) -> None:
        """Drop what every consumer has passed, once there is more than is to be kept.

        *slowest* is the cursor of our slowest consumer; other consumer groups of the stream are
        asked of Redis. Nothing at or behind any of them goes.
        """
        # Of all entries, for a sample of them says little where some are large.
        size_bytes = await self._redis.memory_usage(STREAM, samples=0) or 0
        if await self._redis.xlen(STREAM) <= keep_entries and size_bytes <= keep_bytes:
            return
        places = [slowest, *await self.places_of_groups()]
        await self._redis.xtrim(STREAM, minid=str(min(places)), approximate=True)

    async def places_of_groups(self) -> list[Cursor]:
        """Return the cursor of the first entry that each consumer group has not passed yet."""
        places = []
        for group in await self._redis.xinfo_groups(STREAM):
            pending = await self._redis.xpending(STREAM, group["name"])
            first = pending["min"] if pending["pending"] else group["last-delivered-id"]
            places.append(Cursor.parse(first))
        return places


class ConsumerGroup:
    """A consumer's end of the stream: the entries in order, first those left unacknowledged."""

    def __init__(self, redis: Redis, group: str, consumer: str) -> None:
        self._redis = redis
        self._group = group
        self._consumer = consumer

    async def ensure(self) -> bool:
        """Make the group at the stream's beginning; return False if there is no stream yet."""
        try:
            await self._redis.xgroup_create(STREAM, self._group, id="0")
        except ResponseError as exc:
            if "BUSYGROUP" in str(exc):
                return True
            if "requires the key to exist" in str(exc):
                return False
            raise
        return True

    async def claim_pending(self, count: int) -> list[Entry]:
        """Take over up to *count* entries that were delivered and not acknowledged, oldest first.

        Only for the one active consumer of the group: whoever had them is gone.
        """
        _, entries, *_ = await self._redis.xautoclaim(
            STREAM, self._group, self._consumer, min_idle_time=0, start_id="0-0", count=count
        )
        return entries_of(entries)

    async def read(self, count: int, block_ms: int) -> list[Entry]:
        """Return up to *count* new entries, waiting *block_ms* for the first."""
        answer = await self._redis.xreadgroup(
            self._group, self._consumer, {STREAM: ">"}, count=count, block=block_ms
        )
        return entries_of(of_stream(answer))

    async def acknowledge(self, entries: Sequence[Entry]) -> None:
        """Tell that *entries* need not be delivered again."""
        await self._redis.xack(STREAM, self._group, *[str(entry.cursor) for entry in entries])


def of_stream(answer: object) -> list[tuple[str, dict[str, str]]]:
    """Return the entries of an XREADGROUP answer: a list of pairs in RESP2, a map in RESP3."""
    if not answer:
        return []
    if isinstance(answer, dict):
        found = answer[STREAM]
        return found[0] if found and isinstance(found[0], list) else found
    assert isinstance(answer, list)
    entries: list[tuple[str, dict[str, str]]] = answer[0][1]
    return entries


def entries_of(raw: Sequence[tuple[str, dict[str, str] | None]]) -> list[Entry]:
    """Return what Redis answered as entries; what is no entry of ours is left out."""
    # An entry that was trimmed while it was pending comes without fields, and one that somebody
    # else added without ours. What that leaves out, the consumer takes from Postgres.
    return [
        Entry(Cursor.parse(name), Cursor.parse(fields["previous"]), fields["events"])
        for name, fields in raw
        if fields and {"previous", "events"} <= fields.keys()
    ]

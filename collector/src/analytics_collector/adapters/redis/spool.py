"""The spool as a Redis list, for a host without a disk that stays.

The weaker choice: a Redis that is emptied, or loses its disk, has lost what was acknowledged from
it. It needs an append-only file, and Valkey or Redis 7.2 to say when a record is in it (WAITAOF);
with `appendfsync everysec` that takes up to a second. Between processes the order of what they
acknowledge is theirs alone until each has seen, twice a second, what the others left.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from analytics_collector import metrics
from analytics_collector.adapters.redis.client import REDIS_FAILURES
from analytics_collector.adapters.redis.names import SPOOL
from analytics_collector.adapters.spool.rows import decode_rows, encode_rows
from analytics_collector.errors import ConfigurationError, StoreUnavailable
from analytics_collector.interfaces import SpooledRows, SpoolFull, SpoolState
from analytics_collector.model import EventRow

logger = logging.getLogger(__name__)

_LEAD_MS: Final = 10_000
_READ_AT_ONCE: Final = 16
# What `decode_rows` trips over in a record of a newer version, or one that is damaged.
_UNREADABLE: Final = (ValueError, TypeError, LookupError)

# A record is `<number> <seconds since 1970> <events> <rows>`. Numbers rise as long as the totals
# live; those of a Redis that was emptied begin again, in another epoch.

# Totals that went without their records (a Redis may evict) are counted anew, and the numbers go
# on: would they begin again, who removes old records would take new ones with them.
_REPAIR: Final = """
local function each(key, visit)
    for start = 0, redis.call('LLEN', key) - 1, 100 do
        for _, record in ipairs(redis.call('LRANGE', key, start, start + 99)) do visit(record) end
    end
end
local function repair(epoch)
    if redis.call('HEXISTS', KEYS[2], 'epoch') == 1 then return 0 end
    if redis.call('EXISTS', KEYS[1], KEYS[3]) == 0 then return 0 end
    local last, events, bytes, refused = 0, 0, 0, 0
    each(KEYS[1], function(record)
        local number, some, rows = string.match(record, '^(%d+) %S+ (%d+) (.*)$')
        last = math.max(last, tonumber(number))
        events = events + tonumber(some)
        bytes = bytes + #rows
    end)
    each(KEYS[3], function(rows)
        local is_read, some = pcall(cjson.decode, rows)
        refused = refused + (is_read and type(some) == 'table' and #some or 1)
        bytes = bytes + #rows
    end)
    redis.call('HSET', KEYS[2], 'epoch', epoch, 'number', last, 'events', events,
        'bytes', bytes, 'refused', refused)
    return 1
end
"""

_MEND: Final = f"{_REPAIR} return repair(ARGV[1])"

_APPEND: Final = f"""{_REPAIR}
repair(ARGV[5])
local bytes = tonumber(redis.call('HGET', KEYS[2], 'bytes') or '0')
if bytes + #ARGV[3] > tonumber(ARGV[4]) then return 0 end
redis.call('HSETNX', KEYS[2], 'epoch', ARGV[5])
local number = redis.call('HINCRBY', KEYS[2], 'number', 1)
redis.call('RPUSH', KEYS[1], number .. ' ' .. ARGV[1] .. ' ' .. ARGV[2] .. ' ' .. ARGV[3])
redis.call('HINCRBY', KEYS[2], 'events', ARGV[2])
redis.call('HINCRBY', KEYS[2], 'bytes', #ARGV[3])
return 1
"""

_REMOVE: Final = """
if redis.call('HGET', KEYS[2], 'epoch') ~= ARGV[1] then return 0 end
while true do
    local head = redis.call('LINDEX', KEYS[1], 0)
    if not head then break end
    local number, events, rows = string.match(head, '^(%d+) %S+ (%d+) (.*)$')
    if tonumber(number) > tonumber(ARGV[2]) then break end
    redis.call('LPOP', KEYS[1])
    redis.call('HINCRBY', KEYS[2], 'events', -events)
    redis.call('HINCRBY', KEYS[2], 'bytes', -#rows)
end
if tonumber(ARGV[3]) > 0 then
    redis.call('RPUSH', KEYS[3], ARGV[4])
    redis.call('HINCRBY', KEYS[2], 'refused', ARGV[3])
    redis.call('HINCRBY', KEYS[2], 'bytes', #ARGV[4])
end
return 1
"""

_LEAD: Final = """
local leader = redis.call('GET', KEYS[1])
if leader and leader ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

_FOLLOW: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""


@contextmanager
def _guard() -> Iterator[None]:
    """Let the failures of Redis inside appear as `StoreUnavailable`."""
    try:
        yield
    except REDIS_FAILURES as exc:
        metrics.SPOOL_FAILURES.inc()
        raise StoreUnavailable(f"spool: {type(exc).__name__}") from exc


class RedisSpool:
    """Implements `interfaces.Spool`."""

    sync_timeout_ms = 3_000

    def __init__(self, redis: Redis, name: str, max_bytes: int) -> None:
        """*name* stands for the database that the events are for."""
        self._redis = redis
        self._max_bytes = max_bytes
        # The braces keep them together in a cluster, where one script may touch only one slot.
        self._records = f"{SPOOL}{{{name}}}"
        self._totals = f"{self._records}:totals"
        self._refused = f"{self._records}:refused"
        self._keys = [self._records, self._totals, self._refused]
        self._leader = f"{self._records}:leader"
        self._self = secrets.token_hex(8)
        self._append = redis.register_script(_APPEND)
        self._mend = redis.register_script(_MEND)
        self._remove = redis.register_script(_REMOVE)
        self._lead = redis.register_script(_LEAD)
        self._follow = redis.register_script(_FOLLOW)
        self._appends = self._appending = 0
        self._has_records = False

    async def open(self) -> None:
        """See what waits there. Raises `ConfigurationError` if this Redis can't sync what it gets.

        One that is away is no mistake: it may be back when it is needed.
        """
        try:
            await self._redis.execute_command("WAITAOF", 1, 0, 1)  # type: ignore[no-untyped-call]
            await self._mend_totals()
            await self.state()
        except ResponseError as exc:
            raise ConfigurationError(
                f"this Redis can't keep a spool ({exc}): set `appendonly yes` there (Valkey, or "
                "Redis 7.2 and later), or ANALYTICS_SPOOL to a directory"
            ) from exc
        except (*REDIS_FAILURES, StoreUnavailable):
            metrics.SPOOL_FAILURES.inc()

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits, as far as this process knows."""
        return not self._has_records

    async def append(self, rows: Sequence[EventRow]) -> None:
        """Return when *rows* are synced to its disk. Raises `SpoolFull` or `StoreUnavailable`."""
        arguments = (time.time(), len(rows), encode_rows(rows), self._max_bytes, self._self)
        self._has_records = True
        self._appends += 1
        self._appending += 1
        try:
            # WAITAOF speaks of what its own connection has written.
            with _guard():
                async with self._redis.pipeline(transaction=False) as pipeline:
                    await self._append(self._keys, arguments, client=pipeline)
                    pipeline.execute_command("WAITAOF", 1, 0, self.sync_timeout_ms)
                    has_room, (synced, _) = await pipeline.execute()
        finally:
            self._appending -= 1
        if not has_room:
            raise SpoolFull(f"of {self._max_bytes} bytes too many are taken")
        if not synced:
            raise StoreUnavailable("spool: Redis did not sync in time")

    async def oldest(self, max_events: int, max_bytes: int) -> SpooledRows | None:
        """Return the rows that wait longest, or None. Raises `StoreUnavailable`.

        What can't be read is kept apart when its turn comes.
        """
        while True:
            with _guard():
                epoch: Any = await self._redis.hget(self._totals, "epoch")
                records: Any = await self._redis.lrange(self._records, 0, _READ_AT_ONCE - 1)
            if not records:
                return None
            if found := await self._readable(epoch, records, max_events, max_bytes):
                return found

    async def _readable(
        self, epoch: str | None, records: Sequence[str], max_events: int, max_bytes: int
    ) -> SpooledRows | None:
        """Return the first rows of *records*, up to what can't be read; keep apart such before."""
        rows: list[EventRow] = []
        until, size_bytes = "", 0
        for record in records:
            number, _, events, payload = record.split(" ", 3)
            is_too_much = (
                len(rows) + int(events) > max_events or size_bytes + len(payload) > max_bytes
            )
            if until and is_too_much:
                break
            try:
                rows += decode_rows(payload.encode())
            except _UNREADABLE as exc:
                if until:
                    break
                await self._take_away(f"{epoch} {number}", int(events), payload.encode())
                metrics.SPOOL_DRAINED.labels("refused").inc(int(events))
                # Not the message, which may cite an event.
                reason = type(exc).__name__
                logger.error(
                    "Spooled events can't be read", extra={"events": int(events), "reason": reason}
                )
            else:
                until = number
                size_bytes += len(payload)
        return SpooledRows(f"{epoch} {until}", rows, size_bytes) if until else None

    async def remove(self, until: str, refused: Sequence[EventRow]) -> None:
        """Remove all up to *until*, and keep *refused* apart. Raises `StoreUnavailable`."""
        await self._take_away(until, len(refused), encode_rows(refused))

    async def _take_away(self, until: str, refused_events: int, refused: bytes) -> None:
        epoch, _, number = until.rpartition(" ")
        if not epoch:  # no record was seen
            return
        with _guard():
            is_of_epoch = await self._remove(self._keys, [epoch, number, refused_events, refused])
        if not is_of_epoch:
            # Nothing was removed, and who brought it home must not do so again without a pause.
            metrics.SPOOL_FAILURES.inc()
            await self._mend_totals()
            logger.warning("Spool has lost its totals, or all that was in it")
            raise StoreUnavailable("spool: of another epoch")

    async def _mend_totals(self) -> None:
        with _guard():
            if await self._mend(self._keys, [self._self]):
                logger.warning("Totals of the spool were lost and counted anew")

    async def state(self) -> SpoolState:
        """Return what waits, and since when. Raises `StoreUnavailable`."""
        appends = self._appends
        with _guard():
            totals: Any = await self._redis.hmget(self._totals, ["events", "bytes", "refused"])
            head: Any = await self._redis.lindex(self._records, 0)
        if head is not None:
            self._has_records = True
        elif appends == self._appends and not self._appending:
            self._has_records = False
        since = None if head is None else float(head.split(" ", 2)[1])
        events, size_bytes, refused = (int(total or 0) for total in totals)
        return SpoolState(events, size_bytes, self._max_bytes, since, refused)

    async def probe(self) -> None:
        """See that it takes a write now. Raises `StoreUnavailable`."""
        with _guard():
            await self._redis.hincrby(self._totals, "events", 0)

    async def lead(self) -> bool:
        """Return whether this process is the one that drains. Raises `StoreUnavailable`."""
        with _guard():
            return bool(await self._lead([self._leader], [self._self, _LEAD_MS]))

    async def follow(self) -> None:
        """Let another process drain."""
        with _guard():
            await self._follow([self._leader], [self._self])

    async def close(self) -> None:
        """Do nothing: the connection is not ours."""

"""Copy the log of commits from Postgres into the Redis stream, in order, without a gap.

Postgres is the record and the stream can be refilled from it at any time: when the stream is not
as we left it (flushed, restored, restarted), publishing goes on from the slowest consumer.
"""

from __future__ import annotations

import asyncio
import logging

from redis.exceptions import OutOfMemoryError

from analytics_collector import metrics
from analytics_collector.adapters.postgres.log import CommitLog
from analytics_collector.adapters.redis.stream import EventStream
from analytics_collector.model import Cursor

logger = logging.getLogger(__name__)

# Polling beats NOTIFY, which takes a global lock at every commit that sends one.
BUSY_POLL_S = 0.02
IDLE_POLL_S = 0.2
_IDLE_AFTER_POLLS = 50
_COMMITS_AT_ONCE = 16
# The stream is for those who follow it, not an archive: what all have passed may go.
_KEEP_ENTRIES = 10_000
_KEEP_BYTES = 256 * 1024 * 1024
_TRIM_EVERY = 200


class Publisher:
    """The one that appends; see `run.active_alone` for how it stays the only one."""

    def __init__(self, log: CommitLog, stream: EventStream) -> None:
        self._log = log
        self._stream = stream
        self._tail: Cursor | None = None
        self._cursor: Cursor | None = None
        # Whoever was here before may have left more than is to be kept.
        self._since_trim = _TRIM_EVERY

    async def run(self) -> None:
        """Publish for ever; raises what Postgres or Redis raise."""
        empty_polls = 0
        while True:
            published = await self.publish_some()
            if published:
                empty_polls = 0
                continue
            empty_polls += 1
            await asyncio.sleep(BUSY_POLL_S if empty_polls < _IDLE_AFTER_POLLS else IDLE_POLL_S)

    async def publish_some(self) -> int:
        """Append the next commits; return how many. 0 also after finding another tail."""
        if self._cursor is None:
            await self._resume()
        assert self._cursor is not None
        entries = await self._log.after(self._cursor, _COMMITS_AT_ONCE)
        if not entries:
            # Without work a lost stream must be noticed too: consumers may wait for its refill.
            if await self._stream.tail() != self._tail:
                self._forget()
            return 0
        try:
            is_appended = await self._stream.append(self._tail, entries)
        except OutOfMemoryError:
            # It would be full for ever: what all have passed makes room.
            await self._trim(keep_entries=0, keep_bytes=0)
            raise
        if not is_appended:
            self._forget()
            return 0
        self._tail = self._cursor = entries[-1].cursor
        metrics.PUBLISHED.inc(len(entries))
        await self._trim_sometimes(len(entries))
        return len(entries)

    async def _resume(self) -> None:
        if await self._log.adopt_restored():
            logger.warning("The database was restored from another cluster: commits are renumbered")
        self._tail = await self._stream.tail()
        if self._tail is not None and not await self._log.knows(self._tail):
            logger.warning("The stream is of another database", extra={"tail": str(self._tail)})
            self._tail = None
        if self._tail is None:
            await self._stream.clear()
        self._cursor = self._tail or await self._log.slowest_cursor()
        logger.info("Publishing from", extra={"cursor": str(self._cursor)})

    def _forget(self) -> None:
        logger.warning("The stream is not as it was left", extra={"expected": str(self._tail)})
        metrics.RESYNCS.inc()
        self._cursor = None

    async def _trim_sometimes(self, appended: int) -> None:
        self._since_trim += appended
        if self._since_trim >= _TRIM_EVERY:
            self._since_trim = 0
            await self._trim(_KEEP_ENTRIES, _KEEP_BYTES)

    async def _trim(self, keep_entries: int, keep_bytes: int) -> None:
        slowest = await self._log.slowest_cursor()
        await self._stream.trim(keep_entries, keep_bytes, slowest)

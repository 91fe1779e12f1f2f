"""The frame of a consumer of the stream: order, places, and what to do when an effect fails.

When Postgres or Redis fail, nothing moves: `run` raises, and begins again when they are back, for
ever. When an effect fails on what it was given, its commits are tried one by one, each five times
with growing pauses; then the events that it fails on are told from the others, become dead letters,
and the consumer goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from analytics_collector import metrics
from analytics_collector.adapters.postgres.log import CommitLog, Effect
from analytics_collector.adapters.postgres.pool import EVENT_FAULTS, STORE_FAILURES
from analytics_collector.adapters.redis.client import REDIS_FAILURES
from analytics_collector.adapters.redis.stream import ConsumerGroup
from analytics_collector.model import Cursor, Entry

logger = logging.getLogger(__name__)

TRIES: Final = 5
FIRST_PAUSE_S: Final = 0.1
_ENTRIES_AT_ONCE = 50
_BLOCK_MS = 500
_NO_STREAM_S = 0.1


class Consumer:
    """The one active consumer of its group; see `run.active_alone`.

    Entries are applied in the order of the stream, each only after the one that it names as the
    one before, so the cursor in Postgres never passes over one: not over those that a predecessor
    left unacknowledged, nor over what the stream has lost.
    """

    def __init__(
        self,
        effect: Effect,
        log: CommitLog,
        group: ConsumerGroup,
        *,
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        """*first_pause_s* is how long one waits after a first failure; then twice as long."""
        self._effect = effect
        self._log = log
        self._group = group
        self._first_pause_s = first_pause_s

    async def run(self) -> None:
        """Consume for ever; raises what Postgres or Redis raise (also when the group is lost)."""
        while not await self._group.ensure():
            await asyncio.sleep(_NO_STREAM_S)
        while entries := await self._group.claim_pending(_ENTRIES_AT_ONCE):
            await self._apply(entries)
        while True:
            entries = await self._group.read(_ENTRIES_AT_ONCE, _BLOCK_MS)
            if entries:
                await self._apply(entries)

    async def _apply(self, entries: Sequence[Entry]) -> None:
        applied = 1
        while applied:
            try:
                applied = await self._log.apply(self._effect, entries)
            except Exception as exc:
                if not is_fault_of_events(exc):
                    raise
                self._note_failure(exc, 0)
                applied = await self._apply_one_by_one(entries[-1].cursor)
            metrics.CONSUMED.labels(self._effect.name).inc(applied)
        await self._group.acknowledge(entries)

    async def _apply_one_by_one(self, until: Cursor) -> int:
        """Apply commits up to *until*, so that one that fails holds up none before it."""
        applied = 0
        cursor: Cursor | None = Cursor(0, 0)
        while cursor is not None and cursor < until:
            cursor = await self._apply_next()
            applied += cursor is not None
        return applied

    async def _apply_next(self) -> Cursor | None:
        for attempt in range(1, TRIES + 1):
            try:
                return await self._log.apply_next(self._effect)
            except Exception as exc:
                if not is_fault_of_events(exc):
                    raise
                self._note_failure(exc, attempt)
            if attempt < TRIES:
                await asyncio.sleep(self._first_pause_s * 2 ** (attempt - 1))
        passed = await self._log.pass_next(self._effect, is_fault_of_events)
        if passed is None:
            return None
        cursor, letters = passed
        metrics.DEAD_LETTERS.labels(f"consumer:{self._effect.name}").inc(letters)
        logger.error(
            "Events given up on",
            extra={"consumer": self._effect.name, "cursor": str(cursor), "events": letters},
        )
        return cursor

    def _note_failure(self, exc: Exception, attempt: int) -> None:
        metrics.CONSUMER_FAILURES.labels(self._effect.name).inc()
        # Its text could quote an event.
        logger.warning(
            "Events could not be applied",
            extra={
                "consumer": self._effect.name,
                "reason": type(exc).__name__,
                "attempt": attempt,
            },
        )


def is_fault_of_events(exc: Exception) -> bool:
    """Return whether an effect that raised *exc* would do so again with the same events."""
    if isinstance(exc, EVENT_FAULTS):
        return True
    return not isinstance(exc, (*STORE_FAILURES, *REDIS_FAILURES))

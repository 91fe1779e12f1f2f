"""What is acknowledged while the store is away, and how it comes home.

The writer asks `is_empty` and, as long as something waits, puts every group behind it: events of
one user never overtake each other. The drainer brings the oldest to the store, in groups as large
as the writer's own, and removes them only when they are committed; who dies in between has them
stored already, and the message ids keep them single.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Final

from analytics_collector import metrics
from analytics_collector.errors import StoreUnavailable
from analytics_collector.ingest.rejected import RejectedEvents
from analytics_collector.ingest.write import MAX_GROUP_BYTES, MAX_GROUP_EVENTS, GroupWriter
from analytics_collector.interfaces import (
    SPOOL_IS_FULL,
    Spool,
    SpooledRows,
    SpoolFull,
    SpoolState,
)
from analytics_collector.model import EventRow

logger = logging.getLogger(__name__)

# How often one looks for what other processes have left, and tells the numbers.
POLL_S: Final = 0.5
_FIRST_RETRY_S: Final = 0.1
_SLOWEST_RETRY_S: Final = 1.0

# A store that is away says so sooner, as a rule; one that works at it is given up later.
_TOO_LONG_S: Final = 0.5

_RATE_S: Final = 10.0
_UNKNOWN_RETRY_AFTER_S: Final = 30
_MAX_RETRY_AFTER_S: Final = 300


class Spooling:
    """A spool, its drainer, and what is known of both. Implements `interfaces.Overflow`."""

    def __init__(
        self,
        spool: Spool,
        home: GroupWriter,
        clock: Callable[[], float] = time.monotonic,
        *,
        rejected: RejectedEvents | None = None,
    ) -> None:
        """*home* writes to the store and nowhere else; it is started and stopped with this.

        What the store refuses for good is noted among the *rejected*.
        """
        self._spool = spool
        self._home = home
        self._rejected = rejected
        self._clock = clock
        self._rate = _Rate(clock)
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._state: SpoolState | None = None
        self._turned_away = False
        # At once; fewer after the store has taken too long for them.
        self._most_events = MAX_GROUP_EVENTS

    def start(self) -> None:
        """Begin to drain; needs a running event loop."""
        self._home.start()
        self._task = asyncio.create_task(self._run(), name="spool drainer")

    async def stop(self) -> None:
        """Stop draining; what waits stays where it is."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._home.stop()
        await self._spool.close()

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return self._spool.is_empty

    async def append(self, rows: Sequence[EventRow]) -> None:
        """Return when *rows* are safe. Raises `StoreUnavailable`, with the time to come again."""
        try:
            await self._spool.append(rows)
        except SpoolFull as exc:
            metrics.SPOOL_FULL.inc()
            self._turned_away = True
            raise StoreUnavailable(f"spool full: {exc}", retry_after_s=self.retry_after_s) from exc
        self._turned_away = False
        metrics.SPOOLED.inc(len(rows))
        self._wake.set()

    @property
    def retry_after_s(self) -> int:
        """When there may be room again, as fast as it was drained lately."""
        state = self._state
        rate = self._rate.bytes_per_s
        if state is None or not rate:
            return _UNKNOWN_RETRY_AFTER_S
        # Those who come again should find room for more than one of them.
        wanted = state.bytes - SPOOL_IS_FULL * state.max_bytes
        return min(max(math.ceil(wanted / rate), 1), _MAX_RETRY_AFTER_S)

    async def state(self) -> SpoolState:
        """Return what waits, and since when. Raises `StoreUnavailable`."""
        self._state = state = await self._spool.state()
        metrics.SPOOL_EVENTS.set(state.events)
        metrics.SPOOL_BYTES.set(state.bytes)
        metrics.SPOOL_REFUSED.set(state.refused)
        age_s = 0.0 if state.oldest_at is None else max(0.0, time.time() - state.oldest_at)
        metrics.SPOOL_AGE.set(age_s)
        return state

    async def has_room(self) -> bool:
        """Return whether it would take a group now."""
        try:
            state = await self.state()
            await self._spool.probe()
        except StoreUnavailable:
            return False
        return not self.is_full(state)

    def is_full(self, state: SpoolState) -> bool:
        """Return whether hardly anything finds room, or the last group did not."""
        return state.is_full or self._turned_away

    async def drain_some(self) -> int:
        """Bring the oldest events home; return how many that were. Raises `StoreUnavailable`."""
        found = await self._spool.oldest(MAX_GROUP_EVENTS, MAX_GROUP_BYTES)
        if found is None:
            await self._spool.remove("0", [])  # no record and yet a mark: take that away
            return 0
        refused, duplicates = await self._bring_home(found)
        await self._spool.remove(found.until, refused)
        if self._rejected is not None:  # only now, or they would be noted each time this fails
            self._rejected.note_spooled(refused)
        self._turned_away = False
        self._rate.add(found.size_bytes)
        new = len(found.rows) - duplicates - len(refused)
        for outcome, count in (
            ("stored", new),
            ("duplicate", duplicates),
            ("refused", len(refused)),
        ):
            metrics.SPOOL_DRAINED.labels(outcome).inc(count)
        return len(found.rows)

    async def _bring_home(self, found: SpooledRows) -> tuple[list[EventRow], int]:
        """Write what was *found*; return what the store refused and how many it had already."""
        refused: list[EventRow] = []
        duplicates = 0
        left = list(found.rows)
        while left:
            rows, began_at = left[: self._most_events], self._clock()
            try:
                stored = await self._home.write(rows, found.size_bytes)
            except StoreUnavailable:
                # So many would take too long the next time, too.
                if self._clock() - began_at >= _TOO_LONG_S:
                    self._most_events = max(len(rows) // 2, 1)
                raise
            refused += [rows[position] for position in stored.refused]
            duplicates += len(stored.duplicates)
            del left[: len(rows)]
        self._most_events = min(2 * self._most_events, MAX_GROUP_EVENTS)
        return refused, duplicates

    async def _run(self) -> None:
        while True:
            try:
                await self.state()
                if not self.is_empty:
                    await self._drain()
            except StoreUnavailable as exc:
                logger.warning("Spool can't be read", extra={"reason": str(exc)})
            except Exception:
                # The guard round the drainer: what it trips over must not end it.
                logger.exception("Draining failed")
            await self._pause(POLL_S)

    async def _drain(self) -> None:
        """Drain until nothing waits; while the store is away try its head again and again."""
        retry_s = _FIRST_RETRY_S
        try:
            while not self.is_empty and await self._spool.lead():
                try:
                    await self.drain_some()
                except StoreUnavailable:  # the writer has told why
                    await asyncio.sleep(retry_s)
                    retry_s = min(2 * retry_s, _SLOWEST_RETRY_S)
                else:
                    retry_s = _FIRST_RETRY_S
                await self.state()
        finally:
            await self._spool.follow()

    async def _pause(self, seconds: float) -> None:
        """Wait, or less if something was spooled meanwhile."""
        self._wake.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass


class _Rate:
    """How many bytes a second were drained in the last seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since = self._last = clock()
        self._bytes = 0

    def add(self, size_bytes: int) -> None:
        now = self._clock()
        if now - self._last > _RATE_S or now - self._since > 2 * _RATE_S:
            self._since, self._bytes = self._last if now - self._last <= _RATE_S else now, 0
        self._last = now
        self._bytes += size_bytes

    @property
    def bytes_per_s(self) -> float:
        """0 if nothing was drained lately."""
        now = self._clock()
        if now - self._last > _RATE_S:
            return 0.0
        return self._bytes / max(now - self._since, 1.0)

"""A consumer of the stream: how many events of each name a project had each day (UTC)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import date
from typing import Final

import orjson

from analytics_collector import metrics
from analytics_collector.adapters.postgres.log import CommitLog
from analytics_collector.adapters.redis.stream import ConsumerGroup
from analytics_collector.model import DailyCount, Entry

NAME: Final = "daily_counts"
_ENTRIES_AT_ONCE = 50
_BLOCK_MS = 500
_NO_STREAM_S = 0.1


class DailyCounts:
    """The one active consumer of its group; see `run.active_alone`.

    Entries are applied in the order of the stream, each only after the one that it names as the
    one before, so the cursor in Postgres never passes over one: not over those that a predecessor
    left unacknowledged, nor over what the stream has lost.
    """

    def __init__(self, log: CommitLog, group: ConsumerGroup) -> None:
        self._log = log
        self._group = group

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
        fresh = await self._log.apply_counts(NAME, entries, count_by_day)
        await self._group.acknowledge(entries)
        metrics.CONSUMED.labels(NAME).inc(fresh)


def count_by_day(entries: Sequence[Entry]) -> list[DailyCount]:
    """Return (project id, day in UTC, event name, events) of all events in *entries*.

    Sorted, so that two writers of the same rows can't wait for each other in a circle.
    """
    counts: Counter[tuple[int, str, str]] = Counter(
        (event["projectId"], event["timestamp"][:10], event["name"])
        for entry in entries
        for event in orjson.loads(entry.events)
    )
    return [
        (project_id, date.fromisoformat(day), name, count)
        for (project_id, day, name), count in sorted(counts.items())
    ]

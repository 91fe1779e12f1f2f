"""A consumer's effect: how many events of each name a project had each day (UTC)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date
from typing import Final

import asyncpg
import orjson

from analytics_collector.adapters.sqlfile import load_blocks
from analytics_collector.model import DailyCount, Entry

NAME: Final = "daily_counts"
_SQL = load_blocks("analytics_collector.adapters.postgres", "queries/consumers.sql")


class DailyCounts:
    """Adds up. Implements `adapters.postgres.log.Effect`."""

    name = NAME

    async def apply(self, connection: asyncpg.Connection, entries: Sequence[Entry]) -> None:
        """Add the events of *entries* to their days."""
        if counts := count_by_day(entries):
            columns = [list(column) for column in zip(*counts, strict=True)]
            await connection.execute(_SQL["add_daily_counts"], *columns)


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

"""The event store on Postgres: one statement, one transaction, one round trip a group."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from analytics_collector.adapters.postgres.pool import store_guard
from analytics_collector.adapters.sqlfile import load_blocks
from analytics_collector.interfaces import RowsRefused
from analytics_collector.model import EventRow

_STORE_EVENTS = load_blocks("analytics_collector.adapters.postgres", "queries/events.sql")[
    "store_events"
]
# Two groups that hold the same new message ids in opposite order can deadlock; Postgres ends one
# of them, and the same statement then finds the other's rows.
_DEADLOCK_ATTEMPTS = 5

_Refused = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError)


class PostgresEventStore:
    """Implements `interfaces.EventStore`."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def append(self, rows: Sequence[EventRow]) -> list[int]:
        """Commit *rows*; return the positions of those that were there before."""
        columns = [list(column) for column in zip(*rows, strict=True)]
        async with store_guard():
            try:
                duplicates = await self._append(columns)
            except _Refused as exc:
                raise RowsRefused(str(exc)) from exc
        return [position - 1 for position in duplicates]

    async def _append(self, columns: list[list[object]]) -> list[int]:
        for attempt in range(1, _DEADLOCK_ATTEMPTS + 1):
            try:
                found: list[int] = await self._pool.fetchval(_STORE_EVENTS, *columns)
                return found
            except asyncpg.DeadlockDetectedError:
                if attempt == _DEADLOCK_ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

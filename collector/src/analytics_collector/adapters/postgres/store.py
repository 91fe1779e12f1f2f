"""The event store on Postgres: one statement, one transaction, one round trip a group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg

from analytics_collector.adapters.postgres.pool import lend, store_guard
from analytics_collector.adapters.sqlfile import load_blocks
from analytics_collector.interfaces import RowsRefused
from analytics_collector.model import EventRow

_SQL = load_blocks("analytics_collector.adapters.postgres", "queries/events.sql")

# Two groups that hold the same new message ids in opposite order can deadlock; Postgres ends one
# of them, and the same statement then finds the other's rows.
_DEADLOCK_ATTEMPTS = 5

_REFUSED = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
)


class PostgresEventStore:
    """Implements `interfaces.EventStore`."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def append(self, rows: Sequence[EventRow]) -> list[int]:
        """Commit *rows*; return the positions of those that were there before."""
        columns = [_sparse(column) for column in zip(*rows, strict=True)]
        identifies = any(row.type == "identify" for row in rows)
        async with store_guard():
            try:
                commit_id, stored = await self._store(columns, identifies)
            except _REFUSED as exc:
                # Its text would quote the row.
                raise RowsRefused(f"{type(exc).__name__} {exc.sqlstate}") from exc
            if stored == len(rows):
                return []
            async with lend(self._pool) as connection:
                found = await connection.fetch(_SQL["stored_ids"], commit_id)
        new = {(row["project_id"], row["message_id"]) for row in found}
        return [
            position
            for position, row in enumerate(rows)
            if (row.project_id, row.message_id) not in new
        ]

    async def _store(self, columns: list[Any], identifies: bool) -> tuple[int, int]:
        """Return the id of the commit and how many of its events are new."""
        for attempt in range(1, _DEADLOCK_ATTEMPTS + 1):
            try:
                if identifies:
                    return await self._store_and_merge(columns)
                async with lend(self._pool) as connection:
                    return _outcome(await connection.fetchrow(_SQL["store_events"], *columns))
            except asyncpg.DeadlockDetectedError:
                if attempt == _DEADLOCK_ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    async def _store_and_merge(self, columns: list[Any]) -> tuple[int, int]:
        async with lend(self._pool) as connection, connection.transaction():
            outcome = _outcome(await connection.fetchrow(_SQL["store_events"], *columns))
            await connection.execute(_SQL["merge_traits"], outcome[0])
        return outcome


def _outcome(row: asyncpg.Record | None) -> tuple[int, int]:
    assert row is not None  # the statement returns one row, always
    return row["commit_id"], row["event_count"]


def _sparse(column: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Return *column*, or None if it holds nothing: most events lack most members."""
    return column if any(column) else None

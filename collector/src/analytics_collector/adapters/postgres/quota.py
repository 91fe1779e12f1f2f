"""What projects have stored in a month, in Postgres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import asyncpg

from analytics_collector.adapters.postgres.pool import lend, store_guard
from analytics_collector.adapters.sqlfile import load_blocks
from analytics_collector.interfaces import ProjectMonth

_SQL = load_blocks("analytics_collector.adapters.postgres", "queries/quota.sql")


class PostgresUsageLedger:
    """Implements `interfaces.UsageLedger`."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def add(self, counts: Mapping[ProjectMonth, int]) -> dict[ProjectMonth, int]:
        """Add *counts*; return what each project has stored in its month now."""
        projects, months = zip(*counts, strict=True)
        async with store_guard(), lend(self._pool) as connection:
            rows = await connection.fetch(
                _SQL["add_usage"], projects, months, list(counts.values())
            )
        return {(row["project_id"], row["month"]): row["event_count"] for row in rows}

    async def read(self, projects: Sequence[int], month: date) -> dict[int, int]:
        """Return what each of *projects* has stored in *month*, unless that is nothing."""
        async with store_guard(), lend(self._pool) as connection:
            rows = await connection.fetch(_SQL["read_usage"], projects, month)
        return {row["project_id"]: row["event_count"] for row in rows}

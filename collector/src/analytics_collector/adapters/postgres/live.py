"""Read the log of commits for the live tail, on connections that other questions use, too."""

from __future__ import annotations

import asyncpg

from analytics_collector.adapters.postgres.log import commits_after
from analytics_collector.adapters.postgres.pool import store_guard
from analytics_collector.adapters.sqlfile import load_blocks
from analytics_collector.errors import StoreUnavailable
from analytics_collector.model import Cursor, Entry

_SQL = load_blocks("analytics_collector.adapters.postgres", "queries/live.sql")


class PostgresLiveLog:
    """Implements `live.LiveLog`."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def latest(self) -> Cursor:
        """Return the last commit that nothing in progress can precede."""
        async with store_guard():
            row = await self._pool.fetchrow(_SQL["latest_commit"])
        return Cursor(0, 0) if row is None else Cursor(row["xid"], row["commit_id"])

    async def find(self, cursor: Cursor) -> Cursor | None:
        """Return where the commit at *cursor* is now, None if the log does not have it."""
        async with store_guard():
            row = await self._pool.fetchrow(_SQL["find_commit"], cursor.xid, cursor.commit_id)
        if row is not None and not row["is_in_place"]:
            raise StoreUnavailable("the log was restored, and no worker has taken it up yet")
        return None if row is None else Cursor(row["xid"], row["commit_id"])

    async def after(
        self, cursor: Cursor, limit: int, project_id: int | None = None, *, inclusive: bool = False
    ) -> list[Entry]:
        """Return up to *limit* commits behind *cursor*, with the events of one project or all."""
        async with store_guard():
            return await commits_after(self._pool, cursor, limit, project_id, inclusive=inclusive)

"""The log of commits in Postgres, for those who follow it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import asyncpg

from analytics_collector.adapters.sqlfile import load_blocks
from analytics_collector.model import Cursor, DailyCount, Entry

_PACKAGE = "analytics_collector.adapters.postgres"
_SQL = load_blocks(_PACKAGE, "queries/events.sql") | load_blocks(_PACKAGE, "queries/consumers.sql")

_CATCH_UP_COMMITS = 16


class CommitLog:
    """One connection, which also holds a lock: at most one process is active in a role."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def try_lock(self, role: str) -> bool:
        """Return whether this connection is now the only one active in *role*, until it ends."""
        locked: bool = await self._connection.fetchval(
            "select pg_try_advisory_lock(hashtextextended('analytics:' || $1, 0))", role
        )
        return locked

    async def after(self, cursor: Cursor, limit: int) -> list[Entry]:
        """Return up to *limit* commits behind *cursor* that nothing in progress can precede."""
        rows = await self._connection.fetch(
            _SQL["commits_after"], cursor.xid, cursor.commit_id, limit
        )
        cursors = [Cursor(row["xid"], row["commit_id"]) for row in rows]
        return [
            Entry(own, previous, row["events"] or "[]")
            for own, previous, row in zip(cursors, [cursor, *cursors], rows, strict=False)
        ]

    async def knows(self, cursor: Cursor) -> bool:
        """Return whether there is a commit at *cursor*."""
        found: bool = await self._connection.fetchval(_SQL["knows"], cursor.xid, cursor.commit_id)
        return found

    async def adopt_restored(self) -> bool:
        """Renumber commits that come from another cluster, whose transactions counted further.

        A dump that was restored has them. They are older than all that this cluster will commit,
        and would otherwise never come below the horizon. Return whether there were any.
        """
        async with self._connection.transaction():
            if not await self._connection.fetchval(_SQL["has_restored"]):
                return False
            await self._connection.execute(_SQL["renumber_commits"])
            await self._connection.execute(_SQL["renumber_consumers"])
        return True

    async def slowest_cursor(self) -> Cursor:
        """Return how far the slowest of our consumers has come."""
        row = await self._connection.fetchrow(_SQL["slowest_cursor"])
        assert row is not None
        return Cursor(row["xid"], row["commit_id"])

    async def apply_counts(
        self,
        consumer: str,
        entries: Sequence[Entry],
        count: Callable[[Sequence[Entry]], list[DailyCount]],
    ) -> int:
        """Add what *count* makes of *entries*, as far as *consumer* has not applied them yet.

        Where one does not follow what was applied last, commits are missing in the stream (or lie
        with a process that is no longer active): they are taken from here first.
        Effect and cursor are one transaction, so each commit counts once whatever crashes when.
        Return how many commits were new.
        """
        applied = 0
        while True:
            async with self._connection.transaction():
                cursor = await self._lock_cursor(consumer)
                fresh = [entry for entry in entries if entry.cursor > cursor]
                if not fresh:
                    return applied
                run = _without_gap(cursor, fresh) or await self.after(cursor, _CATCH_UP_COMMITS)
                if not run:
                    return applied  # what the log does not know is not ours
                if counts := count(run):
                    columns = [list(column) for column in zip(*counts, strict=True)]
                    await self._connection.execute(_SQL["add_daily_counts"], *columns)
                last = run[-1].cursor
                await self._connection.execute(
                    _SQL["move_cursor"], consumer, last.xid, last.commit_id
                )
            applied += len(run)

    async def _lock_cursor(self, consumer: str) -> Cursor:
        row = await self._connection.fetchrow(_SQL["lock_cursor"], consumer)
        assert row is not None, f"{consumer} is not in the table consumers"
        return Cursor(row["xid"], row["commit_id"])


def _without_gap(cursor: Cursor, entries: Sequence[Entry]) -> list[Entry]:
    """Return the first of *entries*, as far as each follows the one before, from *cursor* on."""
    run: list[Entry] = []
    for entry in entries:
        if entry.previous != (run[-1].cursor if run else cursor):
            break
        run.append(entry)
    return run


@asynccontextmanager
async def open_log(database_url: str, timeout_s: float) -> AsyncIterator[CommitLog]:
    """Give a log on a connection of its own, closed at the end even if it hangs."""
    connection = await asyncpg.connect(
        database_url,
        timeout=timeout_s,
        command_timeout=30.0,
        server_settings={"application_name": "analytics-collector worker", "TimeZone": "UTC"},
    )
    try:
        yield CommitLog(connection)
    finally:
        connection.terminate()

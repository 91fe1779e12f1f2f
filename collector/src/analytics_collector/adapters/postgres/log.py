"""The log of commits in Postgres, for those who follow it."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Final, Protocol

import asyncpg

from analytics_collector.adapters.postgres.dead_letters import CONSUMER_STAGE, add_letters
from analytics_collector.adapters.sqlfile import load_blocks
from analytics_collector.model import Cursor, DeadLetter, Entry

_PACKAGE = "analytics_collector.adapters.postgres"
_SQL = load_blocks(_PACKAGE, "queries/events.sql") | load_blocks(_PACKAGE, "queries/consumers.sql")

_CATCH_UP_COMMITS = 16
_SEPARATOR: Final = re.compile(r"[\s,]*")


class Effect(Protocol):
    """What a consumer does with events. It must not matter how they are divided among calls."""

    @property
    def name(self) -> str:
        """The consumer's name, in the table `consumers` too."""
        ...

    async def apply(self, connection: asyncpg.Connection, entries: Sequence[Entry]) -> None:
        """Do it, as part of the transaction that is open on *connection*."""
        ...


class CommitLog:
    """One connection, which also holds a lock: at most one process is active in a role."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    @property
    def connection(self) -> asyncpg.Connection:
        """The connection that holds the lock; who works on it works alone."""
        return self._connection

    async def try_lock(self, role: str) -> bool:
        """Return whether this connection is now the only one active in *role*, until it ends."""
        locked: bool = await self._connection.fetchval(
            "select pg_try_advisory_lock(hashtextextended('analytics:' || $1, 0))", role
        )
        return locked

    async def after(self, cursor: Cursor, limit: int) -> list[Entry]:
        """Return up to *limit* commits behind *cursor* that nothing in progress can precede."""
        return await commits_after(self._connection, cursor, limit)

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
            await self._connection.execute(_SQL["renumber_restored"])
        return True

    async def slowest_cursor(self) -> Cursor:
        """Return how far the slowest of our consumers has come."""
        row = await self._connection.fetchrow(_SQL["slowest_cursor"])
        assert row is not None
        return Cursor(row["xid"], row["commit_id"])

    async def remove_before(self, cursor: Cursor, older_than: timedelta, limit: int) -> int:
        """Remove of the oldest *limit* commits those before *cursor* that are older, not its own.

        Return how many that were. Their events stay.
        """
        status = await self._connection.execute(
            _SQL["remove_commits"], cursor.xid, cursor.commit_id, limit, older_than
        )
        return int(status.rpartition(" ")[2])

    async def apply(self, effect: Effect, entries: Sequence[Entry]) -> int:
        """Apply the next of *entries* that *effect* has not seen yet, and return how many.

        Where one does not follow what was applied last, commits are missing in the stream (or lie
        with a process that is no longer active): they are taken from here first.
        Effect and cursor are one transaction, so each commit counts once whatever crashes when.
        """
        async with self._connection.transaction():
            cursor = await self._lock_cursor(effect.name)
            fresh = [entry for entry in entries if entry.cursor > cursor]
            if not fresh:
                return 0
            run = _without_gap(cursor, fresh) or await self.after(cursor, _CATCH_UP_COMMITS)
            if not run:
                return 0  # what the log does not know is not ours
            await effect.apply(self._connection, run)
            await self._move_cursor(effect.name, run[-1].cursor)
        return len(run)

    async def apply_next(self, effect: Effect) -> Cursor | None:
        """Apply the one commit that comes next, as Postgres has it; return its cursor."""
        async with self._connection.transaction():
            following = await self.after(await self._lock_cursor(effect.name), 1)
            if not following:
                return None
            await effect.apply(self._connection, following)
            await self._move_cursor(effect.name, following[0].cursor)
        return following[0].cursor

    async def pass_next(
        self, effect: Effect, is_fault: Callable[[Exception], bool]
    ) -> tuple[Cursor, int] | None:
        """Apply what can be applied of the commit that comes next, and let the cursor pass it.

        It is halved until the events are found that *effect* fails on for a reason that is in
        them (*is_fault*); those become dead letters, in the same transaction. Return the cursor
        and how many those were.
        """
        async with self._connection.transaction():
            following = await self.after(await self._lock_cursor(effect.name), 1)
            if not following:
                return None
            [entry] = following
            events = _separated(entry.events)
            letters = await self._apply_by_halves(effect, entry, events, is_fault)
            await add_letters(self._connection, letters)
            await self._move_cursor(effect.name, entry.cursor)
        return entry.cursor, len(letters)

    async def _apply_by_halves(
        self,
        effect: Effect,
        entry: Entry,
        events: list[str],
        is_fault: Callable[[Exception], bool],
    ) -> list[DeadLetter]:
        if not events:
            return []
        try:
            async with self._connection.transaction():  # a savepoint
                await effect.apply(self._connection, [part_of(entry, events)])
        except Exception as exc:
            if not is_fault(exc):
                raise
            if len(events) == 1:
                return [_letter(effect.name, events[0], exc)]
        else:
            return []
        half = len(events) // 2
        letters = await self._apply_by_halves(effect, entry, events[:half], is_fault)
        return letters + await self._apply_by_halves(effect, entry, events[half:], is_fault)

    async def _move_cursor(self, consumer: str, to: Cursor) -> None:
        await self._connection.execute(_SQL["move_cursor"], consumer, to.xid, to.commit_id)

    async def _lock_cursor(self, consumer: str) -> Cursor:
        row = await self._connection.fetchrow(_SQL["lock_cursor"], consumer)
        assert row is not None, f"{consumer} is not in the table consumers"
        return Cursor(row["xid"], row["commit_id"])


async def commits_after(
    source: asyncpg.Pool | asyncpg.Connection,
    cursor: Cursor,
    limit: int,
    project_id: int | None = None,
    *,
    inclusive: bool = False,
) -> list[Entry]:
    """Return up to *limit* commits behind *cursor* that nothing in progress can precede.

    With the events of one project or of all; with *inclusive* the commit at *cursor* comes first.
    """
    rows = await source.fetch(
        _SQL["commits_after"], cursor.xid, cursor.commit_id, limit, project_id, inclusive
    )
    cursors = [Cursor(row["xid"], row["commit_id"]) for row in rows]
    return [
        Entry(own, previous, row["events"] or "[]")
        for own, previous, row in zip(cursors, [cursor, *cursors], rows, strict=False)
    ]


def part_of(entry: Entry, events: Sequence[str]) -> Entry:
    """Return *entry* with only these of its events, each JSON."""
    return entry._replace(events=f"[{','.join(events)}]")


def _separated(events: str) -> list[str]:
    """Return each event of a JSON array as it stands there."""
    decoder = json.JSONDecoder()
    found = []
    place = events.index("[") + 1
    while (place := _SEPARATOR.match(events, place).end()) < len(events) - 1:  # type: ignore[union-attr]
        _, end = decoder.raw_decode(events, place)
        found.append(events[place:end])
        place = end
    return found


def _letter(consumer: str, event: str, fault: Exception) -> DeadLetter:
    said = json.loads(event)
    received_at = datetime.fromisoformat(said["receivedAt"])
    return DeadLetter(
        said["projectId"],
        CONSUMER_STAGE + consumer,
        type(fault).__name__,
        None,
        said["name"],
        None,
        said["messageId"],
        received_at,
        None,
        event,
        True,
    )


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
        server_settings={
            "application_name": "analytics-collector worker",
            "TimeZone": "UTC",
            # A host that vanishes must not keep the lock of the active worker for hours.
            "tcp_keepalives_idle": "10",
            "tcp_keepalives_interval": "5",
            "tcp_keepalives_count": "3",
        },
    )
    try:
        yield CommitLog(connection)
    finally:
        connection.terminate()

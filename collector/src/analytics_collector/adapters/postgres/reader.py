"""Answer questions about stored events from Postgres. Reads events, keeps workflows."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import groupby
from operator import itemgetter
from typing import Any
from weakref import WeakValueDictionary

import asyncpg
import orjson
from asyncpg.pool import PoolConnectionProxy

from analytics_collector.adapters.postgres.funnel_sql import FunnelSql, funnel_sql
from analytics_collector.adapters.postgres.pool import store_guard
from analytics_collector.adapters.sqlfile import load_blocks
from analytics_collector.analytics.params import (
    FunnelQuery,
    Moment,
    Workflow,
    WorkflowDraft,
)
from analytics_collector.errors import Refusal, StoreUnavailable
from analytics_collector.wire import wire_time

QUERY_TIMEOUT_S = 30.0
# Whoever does not read them keeps answers in memory.
MAX_ANSWER_BYTES = 4_194_304
# The sort of a funnel stays in memory up to some 500,000 events; compiling its expressions would
# cost more than running them.
_SESSION = """
    set local statement_timeout = {timeout_ms:d};
    set local work_mem = '64MB';
    set local jit = off
"""
_TIED_EVENTS_AT_ONCE = 1_000
_MANY_MOMENTS = 100

_PACKAGE = "analytics_collector.adapters.postgres"
_WORKFLOWS = load_blocks(_PACKAGE, "queries/workflows.sql")
_USER_EVENTS = load_blocks(_PACKAGE, "queries/user_events.sql")["user_events"]

DepthOf = Callable[[list[Moment], int, int], int]


class PostgresReader:
    """The questions that `analytics/` and `http/query.py` ask.

    Every method raises `StoreUnavailable` if Postgres failed, or took longer than *timeout_s*.
    """

    def __init__(self, pool: asyncpg.Pool, timeout_s: float = QUERY_TIMEOUT_S) -> None:
        self._pool = pool
        self._timeout_s = timeout_s
        # Of each project that asks: one that asks a lot leaves half of the connections to others.
        self._shares: WeakValueDictionary[int, asyncio.Semaphore] = WeakValueDictionary()

    async def funnel_counts(
        self, project_id: int, query: FunnelQuery, depth_of: DepthOf
    ) -> list[int]:
        """Return how many persons came as far as each step of *query*.

        *depth_of(moments, steps, window_s)* decides for the few persons whose simultaneous
        events no order of rows can rank.
        """
        sql = funnel_sql(project_id, query)
        async with self._snapshot(project_id) as connection:
            found = await connection.fetchval(
                sql.depths, *sql.depths_parameters, timeout=QUERY_TIMEOUT_S
            )
            counts: list[int] = list(found)
            if sql.ties:
                async for moments in _tied_persons(connection, sql, self._timeout_s):
                    asked = (moments, len(query.steps), query.window_s)
                    if len(moments) > _MANY_MOMENTS:  # others wait for the event loop
                        depth = await asyncio.to_thread(depth_of, *asked)
                    else:
                        depth = depth_of(*asked)
                    for k in range(depth):
                        counts[k] += 1
        return counts

    async def user_events(
        self, project_id: int, user_id: str, limit: int, max_bytes: int = MAX_ANSWER_BYTES
    ) -> tuple[list[dict[str, Any]], bool]:
        """
        Return the newest *limit* events of the user, newest first, as JSON members.

        And whether there are fewer of them, for *max_bytes* hold no more.
        """
        async with self._snapshot(project_id) as connection:
            rows = await connection.fetch(
                _USER_EVENTS, project_id, user_id, limit, max_bytes, timeout=self._timeout_s
            )
        return [_event(row) for row in rows], bool(rows) and len(rows) < rows[0]["found"]

    async def create_workflow(self, project_id: int, draft: WorkflowDraft) -> Workflow:
        """Save *draft*; `Refusal` (CONFLICT) if the project has a workflow of that name."""
        async with store_guard():
            try:
                row = await self._pool.fetchrow(
                    _WORKFLOWS["create_workflow"],
                    f"wf_{secrets.token_hex(12)}",
                    project_id,
                    draft.name,
                    orjson.dumps(draft.steps).decode(),
                    draft.window_s,
                )
            except asyncpg.UniqueViolationError as exc:
                raise Refusal(
                    "CONFLICT",
                    "This project has a workflow of that name; choose another, or delete it first.",
                    details={"field": "name"},
                ) from exc
        assert row is not None  # it was inserted
        return _workflow(row)

    async def list_workflows(self, project_id: int) -> list[Workflow]:
        """Return the workflows of the project, oldest first."""
        async with store_guard():
            rows = await self._pool.fetch(_WORKFLOWS["list_workflows"], project_id)
        return [_workflow(row) for row in rows]

    async def find_workflow(self, project_id: int, workflow_id: str) -> Workflow | None:
        """Return the workflow, or None if the project has none of that id."""
        async with store_guard():
            row = await self._pool.fetchrow(_WORKFLOWS["find_workflow"], project_id, workflow_id)
        return _workflow(row) if row else None

    async def delete_workflow(self, project_id: int, workflow_id: str) -> bool:
        """Delete the workflow; return whether the project had it."""
        async with store_guard():
            found = await self._pool.fetchval(
                _WORKFLOWS["delete_workflow"], project_id, workflow_id
            )
        return found is not None

    @asynccontextmanager
    async def _snapshot(self, project_id: int) -> AsyncIterator[PoolConnectionProxy]:
        """Lend a connection whose statements all see the same events, within the time allowed."""
        half = max(self._pool.get_max_size() // 2, 1)
        share = self._shares.setdefault(project_id, asyncio.Semaphore(half))
        async with store_guard():
            try:
                async with (
                    asyncio.timeout(self._timeout_s),
                    share,
                    self._pool.acquire() as connection,
                    connection.transaction(isolation="repeatable_read", readonly=True),
                ):
                    await connection.execute(
                        _SESSION.format(timeout_ms=round(self._timeout_s * 1_000))
                    )
                    yield connection
            except (TimeoutError, asyncpg.QueryCanceledError) as exc:
                raise StoreUnavailable(
                    "question timed out",
                    advice=f"The question took over {self._timeout_s:g} s; "
                    "ask about a shorter range.",
                ) from exc


async def _tied_persons(
    connection: PoolConnectionProxy, sql: FunnelSql, timeout_s: float
) -> AsyncIterator[list[Moment]]:
    """Yield the moments of one person after the other, in order of time."""
    assert sql.ties
    person: str | None = None
    rows: list[asyncpg.Record] = []
    cursor = connection.cursor(
        sql.ties, *sql.ties_parameters, prefetch=_TIED_EVENTS_AT_ONCE, timeout=timeout_s
    )
    async for row in cursor:
        if row["person"] != person and rows:
            yield _moments(rows)
            rows = []
        person = row["person"]
        rows.append(row)
    if rows:
        yield _moments(rows)


def _moments(rows: list[asyncpg.Record]) -> list[Moment]:
    return [
        Moment(
            at=at,
            may_enter=group[0]["may_enter"],
            masks=[row["mask"] for row in group for _ in range(row["events"])],
        )
        for at, same in groupby(rows, key=itemgetter("t"))
        if (group := list(same))
    ]


def _event(row: asyncpg.Record) -> dict[str, Any]:
    return {
        "messageId": row["message_id"],
        "type": row["type"],
        "name": row["name"],
        "userId": row["user_id"],
        "anonymousId": row["anonymous_id"],
        "sessionId": row["session_id"],
        "groupId": row["group_id"],
        "previousId": row["previous_id"],
        "timestamp": wire_time(row["timestamp"]),
        "clientTimestamp": wire_time(row["client_timestamp"]),
        "receivedAt": wire_time(row["received_at"]),
        "properties": orjson.Fragment(row["properties"]),
        "traits": _fragment(row["traits"]),
        "context": orjson.Fragment(row["context"]),
        "extra": _fragment(row["extra"]),
        "enrichment": _fragment(row["enrichment"]),
    }


def _fragment(text: str | None) -> orjson.Fragment | None:
    return None if text is None else orjson.Fragment(text)


def _workflow(row: asyncpg.Record) -> Workflow:
    return Workflow(
        workflow_id=row["workflow_id"],
        name=row["name"],
        steps=orjson.loads(row["steps"]),
        window_s=row["window_seconds"],
        created_at=row["created_at"],
    )

"""The sessions that stored events tell of, for when the faster memory is lost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg

from analytics_collector.adapters.postgres.pool import lend, store_guard
from analytics_collector.adapters.sqlfile import load_blocks
from analytics_collector.interfaces import StreamTimes
from analytics_collector.spans import GAP_MS, Span, Spans, merge

_SQL = load_blocks("analytics_collector.adapters.postgres", "queries/sessions.sql")
_GAP: Final = timedelta(milliseconds=GAP_MS)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


class PostgresSessionHistory:
    """Implements `interfaces.SessionHistory`."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def sessions_near(self, project_id: int, wanted: Sequence[StreamTimes]) -> list[Spans]:
        """Return what is stored of each stream within 30 minutes of its times."""
        async with store_guard(), lend(self._pool) as connection:
            rows = await connection.fetch(
                _SQL["sessions_near"],
                project_id,
                [ask.stream.startswith("a") for ask in wanted],
                [ask.stream[1:] for ask in wanted],
                [_instant(min(ask.times)) - _GAP for ask in wanted],
                [_instant(max(ask.times)) + _GAP for ask in wanted],
            )
        found: list[Spans] = [[] for _ in wanted]
        for row in rows:
            origin = _milliseconds(datetime.fromisoformat(row["start"]))
            at = _milliseconds(row["at"])
            merge(found[row["position"]], [Span(origin, min(origin, at), max(origin, at))])
        return found


def _instant(milliseconds: int) -> datetime:
    return _EPOCH + milliseconds * _MILLISECOND


def _milliseconds(at: datetime) -> int:
    return (at - _EPOCH) // _MILLISECOND

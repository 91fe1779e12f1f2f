"""How far those who follow the log of commits are behind its end."""

from __future__ import annotations

from typing import Final, NamedTuple

import asyncpg

from analytics_collector.adapters.sqlfile import load_blocks
from analytics_collector.model import Cursor

PUBLISHER: Final = "publisher"
# Further than this nobody counts: it would cost the more, the worse things are.
MAX_COMMITS: Final = 10_000
_SQL = load_blocks("analytics_collector.adapters.postgres", "queries/lag.sql")


class Lag(NamedTuple):
    """One that follows: commits it has not passed yet, and how long the oldest of them waits."""

    name: str
    commits: int
    seconds: float


async def read_lags(connection: asyncpg.Connection, published: Cursor | None) -> list[Lag]:
    """Return the lag of each consumer, and of the publisher, which has *published* up to there.

    Where that is not known it is as far as the slowest consumer. Commits are counted up to
    `MAX_COMMITS`.
    """
    place = (None, None) if published is None else published
    rows = await connection.fetch(_SQL["lags"], *place, MAX_COMMITS)
    # The clock of Postgres may have been set back since.
    return [Lag(row["name"], row["commits"], max(0.0, row["seconds"])) for row in rows]


async def is_active(connection: asyncpg.Connection, role: str) -> bool:
    """Return whether some process of ours is active in *role*, as `CommitLog.try_lock` has it."""
    active: bool = await connection.fetchval(_SQL["is_active"], role)
    return active

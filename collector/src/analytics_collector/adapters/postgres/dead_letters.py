"""Dead letters in Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

import asyncpg
import orjson

from analytics_collector.adapters.postgres.pool import store_guard
from analytics_collector.adapters.sqlfile import load_blocks
from analytics_collector.model import DeadLetter, KeptLetter, LetterFilter
from analytics_collector.project_settings import ProjectSettings, read_project_settings

_SQL: Final = load_blocks("analytics_collector.adapters.postgres", "queries/dead_letters.sql")

CONSUMER_STAGE: Final = "consumer:"

# Waiting for a connection included.
_WRITE_S: Final = 5.0
_ASK_S: Final = 30.0


class PostgresDeadLetters:
    """Keeps them, on a pool or on one connection. All of it raises `StoreUnavailable`."""

    def __init__(self, database: asyncpg.Pool | asyncpg.Connection) -> None:
        self._database = database

    async def add(self, letters: Sequence[DeadLetter]) -> None:
        """Keep *letters*, in one transaction."""
        async with _guard(_WRITE_S):
            await add_letters(self._database, letters)

    async def bound(self, project_ids: Sequence[int], max_per_project: int) -> int:
        """Remove what each of the projects has too many of, the oldest; return how many."""
        async with _guard(_WRITE_S):
            return await bound_letters(self._database, project_ids, max_per_project)

    async def newest(
        self, wanted: LetterFilter, limit: int, *, with_payload: bool = False
    ) -> list[KeptLetter]:
        """Return up to *limit* letters, the newest first."""
        return await self._select("select_letters", wanted, limit, with_payload)

    async def in_order(self, wanted: LetterFilter, limit: int) -> list[KeptLetter]:
        """Return up to *limit* letters with their payloads, the oldest first."""
        return await self._select("select_letters_in_order", wanted, limit, True)

    async def _select(
        self, statement: str, wanted: LetterFilter, limit: int, with_payload: bool
    ) -> list[KeptLetter]:
        async with _guard(_ASK_S):
            rows = await self._database.fetch(_SQL[statement], *wanted, with_payload, limit)
        return [KeptLetter(*row) for row in rows]

    async def edit(
        self,
        letter_id: int,
        within: int | None,
        payload: str,
        name: str | None,
        message_id: str | None,
    ) -> bool:
        """Give a letter another payload, a whole event; return False if it can't be had.

        *within* is the one project that it may belong to, or None.
        """
        async with _guard(_ASK_S):
            edited = await self._database.fetchval(
                _SQL["edit_letter"], letter_id, within, payload, name, message_id
            )
        return edited is not None

    async def remove(
        self, letter_id: int, within: int | None = None, revision: int | None = None
    ) -> bool:
        """Remove a letter; return False if there is none, or none at that *revision*."""
        async with _guard(_ASK_S):
            payload = await self._database.fetchval(
                _SQL["remove_letter"], letter_id, within, revision
            )
        return payload is not None

    async def purge(self, wanted: LetterFilter) -> int:
        """Remove all that *wanted* means; return how many that were."""
        async with _guard(_ASK_S):
            return _count(await self._database.execute(_SQL["purge_letters"], *wanted))

    async def failed(self, letter: KeptLetter, stage: str, reason: str, field: str | None) -> None:
        """Note that *letter* failed again, unless it was edited meanwhile."""
        async with _guard(_ASK_S):
            await self._database.execute(
                _SQL["letter_failed"], letter.letter_id, letter.revision, stage, reason, field
            )

    async def is_stored(self, project_id: int, message_id: str) -> bool:
        """Return whether there is an event of that id."""
        async with _guard(_ASK_S):
            found: bool = await self._database.fetchval(
                _SQL["known_message"], project_id, message_id
            )
        return found

    async def settings_of(self, project_id: int) -> ProjectSettings:
        """Return the settings of a project, or the defaults if there is none."""
        async with _guard(_ASK_S):
            text = await self._database.fetchval(_SQL["project_settings"], project_id)
        return read_project_settings(orjson.loads(text or b"{}"))

    @asynccontextmanager
    async def taken(self, letter: KeptLetter) -> AsyncIterator[asyncpg.Connection | None]:
        """Remove *letter* in one transaction with what is done in the block on the connection.

        None if it is gone meanwhile, or was edited. What the block raises undoes the removal.
        """
        async with _guard(_ASK_S):
            if isinstance(self._database, asyncpg.Pool):
                async with self._database.acquire() as connection, connection.transaction():
                    yield await _take(connection, letter)  # type: ignore[arg-type]  # a proxy of one
            else:
                async with self._database.transaction():
                    yield await _take(self._database, letter)


@asynccontextmanager
async def _guard(timeout_s: float) -> AsyncIterator[None]:
    async with store_guard(), asyncio.timeout(timeout_s):
        yield


async def _take(connection: asyncpg.Connection, letter: KeptLetter) -> asyncpg.Connection | None:
    payload = await connection.fetchval(
        _SQL["remove_letter"], letter.letter_id, None, letter.revision
    )
    return None if payload is None else connection


async def add_letters(
    database: asyncpg.Pool | asyncpg.Connection, letters: Sequence[DeadLetter]
) -> None:
    """Keep *letters*, as part of what else is done in the transaction of a connection."""
    if letters:
        await database.execute(_SQL["add_letters"], *zip(*letters, strict=True))


async def bound_letters(
    database: asyncpg.Pool | asyncpg.Connection,
    project_ids: Sequence[int] | None,
    max_per_project: int,
) -> int:
    """Remove what each of the projects (None: of all) has too many of; return how many."""
    return _count(await database.execute(_SQL["bound_projects"], project_ids, max_per_project))


async def expire_letters(connection: asyncpg.Connection, older_than: timedelta, limit: int) -> int:
    """Remove up to *limit* letters that are older than the timedelta; return how many."""
    return _count(await connection.execute(_SQL["expire_letters"], older_than, limit))


def _count(status: str) -> int:
    """Return how many rows a statement concerned, from what Postgres says of it: `DELETE 3`."""
    return int(status.rpartition(" ")[2])

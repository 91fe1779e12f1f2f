"""What the door needs to know of API keys, in Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import asyncpg
import orjson

from analytics_collector.adapters.postgres.pool import lend, store_guard
from analytics_collector.adapters.sqlfile import load_blocks
from analytics_collector.model import DEFAULT_PROJECT, ApiKey, KeyUse
from analytics_collector.project_settings import read_project_settings

_SQL = load_blocks("analytics_collector.adapters.postgres", "queries/keys.sql")

# Waiting for a connection included.
_TIMEOUT_S = 5.0


class PostgresKeyStore:
    """Implements `interfaces.KeyStore`, and adds up how much keys are used."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def find_key(self, digests: Sequence[bytes]) -> ApiKey | None:
        """Return the valid key with one of *digests*, or None."""
        async with store_guard(), asyncio.timeout(_TIMEOUT_S), lend(self._pool) as connection:
            row = await connection.fetchrow(_SQL["find_key"], digests, DEFAULT_PROJECT)
        if row is None:
            return None
        origins = row["allowed_origins"]
        return ApiKey(
            row["key_id"],
            row["project_id"],
            frozenset(row["scopes"]),
            row["expires_at"],
            None if origins is None else tuple(origins),
            read_project_settings(orjson.loads(row["settings"])),
            row["of_installation"],
            row["pepper"],
        )

    async def keep_digest(self, key_id: int, digest: bytes, pepper: str) -> None:
        """Store the key under *digest*, made with *pepper*."""
        async with store_guard(), asyncio.timeout(_TIMEOUT_S), lend(self._pool) as connection:
            await connection.execute(_SQL["keep_digest"], key_id, digest, pepper)

    async def add_usage(self, uses: Sequence[KeyUse]) -> None:
        """Add *uses* to the days of their keys, and to their totals."""
        async with store_guard(), asyncio.timeout(_TIMEOUT_S), lend(self._pool) as connection:
            await connection.execute(_SQL["add_usage"], *zip(*uses, strict=True))

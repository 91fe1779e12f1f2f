"""Projects and API keys in Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import asyncpg
import orjson

from analytics_collector.adapters.postgres.pool import store_guard
from analytics_collector.adapters.sqlfile import load_blocks
from analytics_collector.errors import Refusal
from analytics_collector.keys import DISPLAY_CHARS, digest, generate_key
from analytics_collector.model import ApiKey
from analytics_collector.project_settings import read_project_settings

_SQL = load_blocks("analytics_collector.adapters.postgres", "queries/keys.sql")

# Waiting for a connection included.
_TIMEOUT_S = 5.0


class PostgresKeyStore:
    """Implements `interfaces.KeyStore`."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def find_key(self, digest: bytes) -> ApiKey | None:
        """Return the valid key with *digest*, or None."""
        async with store_guard(), asyncio.timeout(_TIMEOUT_S):
            row = await self._pool.fetchrow(_SQL["find_key"], digest)
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
        )


class ProjectAdmin:
    """Makes, lists and ends projects and keys; for the command line."""

    def __init__(self, connection: asyncpg.Connection, secret: str) -> None:
        self._connection = connection
        self._secret = secret

    async def create_project(self, name: str) -> dict[str, Any]:
        """Make the project *name*. Raises `Refusal` (CONFLICT) if there is one."""
        project_id = await self._connection.fetchval(_SQL["create_project"], name)
        if project_id is None:
            raise Refusal("CONFLICT", f"There is a project named {name!r} already.")
        return {"project_id": project_id, "name": name}

    async def ensure_project(self, name: str) -> int:
        """Return the id of the project *name*, made if there was none."""
        await self._connection.fetchval(_SQL["create_project"], name)
        return await self._project_id(name)

    async def list_projects(self) -> list[dict[str, Any]]:
        """Return every project, oldest first."""
        return [dict(row) for row in await self._connection.fetch(_SQL["list_projects"])]

    async def create_key(
        self,
        project: str,
        scopes: Sequence[str],
        name: str = "",
        expires_at: datetime | None = None,
    ) -> dict[str, Any]:
        """Make a key of *project*; `key` of what is returned is shown this once.

        Raises `Refusal` (NOT_FOUND) if there is no such project.
        """
        project_id = await self._project_id(project)
        key = generate_key()
        row = await self._connection.fetchrow(
            _SQL["create_key"],
            project_id,
            name,
            digest(self._secret, key.encode()),
            key[:DISPLAY_CHARS],
            sorted(set(scopes)),
            expires_at,
        )
        assert row is not None
        return {
            "key": key,
            "key_id": row["key_id"],
            "project": project,
            "name": name,
            "prefix": key[:DISPLAY_CHARS],
            "scopes": sorted(set(scopes)),
            "created_at": row["created_at"],
            "expires_at": expires_at,
        }

    async def list_keys(self, project: str | None = None) -> list[dict[str, Any]]:
        """Return what may be shown of every key, of *project* if given."""
        return [dict(row) for row in await self._connection.fetch(_SQL["list_keys"], project)]

    async def revoke_key(self, key_id: int) -> dict[str, Any]:
        """End the key; every process refuses it within 5 seconds. Raises `Refusal` (NOT_FOUND)."""
        row = await self._connection.fetchrow(_SQL["revoke_key"], key_id)
        if row is None:
            raise Refusal("NOT_FOUND", f"There is no key with the id {key_id}.")
        return dict(row)

    async def _project_id(self, name: str) -> int:
        project_id: int | None = await self._connection.fetchval(_SQL["find_project"], name)
        if project_id is None:
            raise Refusal("NOT_FOUND", f"There is no project named {name!r}; create it first.")
        return project_id

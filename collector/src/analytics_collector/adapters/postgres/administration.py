"""Projects and API keys in Postgres, for those who look after them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
import orjson
from asyncpg.pool import PoolConnectionProxy

from analytics_collector.adapters.postgres.pool import store_guard
from analytics_collector.adapters.sqlfile import load_blocks
from analytics_collector.errors import Refusal
from analytics_collector.keys import (
    DEFAULT_OVERLAP_S,
    DISPLAY_CHARS,
    digest,
    generate_key,
    pepper_id,
)
from analytics_collector.model import DEFAULT_PROJECT
from analytics_collector.project_settings import merge_project_settings, read_project_settings

_SQL = load_blocks("analytics_collector.adapters.postgres", "queries/keys.sql")

# Waiting for a connection included.
_TIMEOUT_S = 5.0
MAX_LISTED: Final = 1_000


class Administration:
    """Gives each request a `ProjectAdmin` on a connection of its own."""

    def __init__(self, pool: asyncpg.Pool, secret: str) -> None:
        self._pool = pool
        self._secret = secret

    @asynccontextmanager
    async def session(self) -> AsyncIterator[ProjectAdmin]:
        """Give one; what Postgres does to it inside appears as `StoreUnavailable`."""
        async with store_guard(), asyncio.timeout(_TIMEOUT_S), self._pool.acquire() as connection:
            yield ProjectAdmin(connection, self._secret)


class ProjectAdmin:
    """Makes, lists, changes and ends projects and keys.

    Where a method takes *within*, what does not belong to the project of that id is as if it were
    not there; None is all projects. Every one that looks for something raises `Refusal`
    (NOT_FOUND) when there is none.
    """

    def __init__(
        self, connection: asyncpg.Connection | PoolConnectionProxy[asyncpg.Record], secret: str
    ) -> None:
        self._connection = connection
        self._secret = secret

    # Projects

    async def create_project(
        self, name: str, settings: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Make the project *name*.

        Raises `Refusal` (CONFLICT) if there is one, `InvalidQuery` if the settings are not valid.
        """
        stored = _checked(merge_project_settings({}, settings or {}))
        row = await self._connection.fetchrow(_SQL["create_project"], name, stored)
        if row is None:
            raise _name_taken(name)
        return _project(row)

    async def ensure_project(self, name: str) -> int:
        """Return the id of the project *name*, made if there was none."""
        await self._connection.fetchval(_SQL["create_project"], name, "{}")
        return await self.project_id(name)

    async def project_id(self, name: str) -> int:
        """Return the id of the project *name*."""
        project_id: int | None = await self._connection.fetchval(_SQL["find_project"], name)
        if project_id is None:
            raise Refusal("NOT_FOUND", f"There is no project named {name!r}; create it first.")
        return project_id

    async def list_projects(self, within: int | None = None) -> list[dict[str, Any]]:
        """Return the projects with their settings, oldest first."""
        rows = await self._connection.fetch(_SQL["list_projects"], within)
        return [_project(row) for row in rows]

    async def find_project(self, project_id: int) -> dict[str, Any]:
        """Return the project with its settings."""
        found = await self.list_projects(project_id)
        if not found:
            raise _no_project()
        return found[0]

    async def change_project(
        self, project_id: int, name: str | None, patch: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Give the project another *name* if that is not None, and merge *patch* into its settings.

        Raises `InvalidQuery` if the settings would not be valid, `Refusal` (CONFLICT) if the name
        is taken or is, or was, the one of the installation's own project.
        """
        async with self._connection.transaction():
            row = await self._connection.fetchrow(_SQL["lock_project"], project_id)
            if row is None:
                raise _no_project()
            # Whoever bears this name rules the installation.
            if name not in (None, row["name"]) and DEFAULT_PROJECT in (name, row["name"]):
                raise Refusal("CONFLICT", f"The name {DEFAULT_PROJECT!r} stays where it is.")
            settings = merge_project_settings(orjson.loads(row["settings"]), patch)
            try:
                row = await self._connection.fetchrow(
                    _SQL["change_project"], project_id, name, _checked(settings)
                )
            except asyncpg.UniqueViolationError as exc:
                raise _name_taken(name) from exc
            assert row is not None
            return _project(row)

    # Keys

    async def create_key(
        self,
        project: str | int,
        scopes: Sequence[str],
        name: str = "",
        expires_at: datetime | None = None,
        allowed_origins: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """Make a key of *project* (its name or id); `key` of what is returned is shown this once.

        Raises `Refusal` (NOT_FOUND) if there is no such project.
        """
        project_id = await self.project_id(project) if isinstance(project, str) else project
        key = generate_key()
        try:
            key_id = await self._connection.fetchval(
                _SQL["create_key"],
                project_id,
                name,
                digest(self._secret, key.encode()),
                key[:DISPLAY_CHARS],
                sorted(set(scopes)),
                expires_at,
                allowed_origins,
                pepper_id(self._secret),
            )
        except asyncpg.ForeignKeyViolationError as exc:
            raise _no_project() from exc
        return {"key": key, **await self.find_key(key_id)}

    async def list_keys(
        self, project: str | None = None, within: int | None = None
    ) -> list[dict[str, Any]]:
        """Return what may be shown of the newest `MAX_LISTED` keys, oldest first.

        *project* is a name, *within* an id; both None is all projects.
        """
        return await self._keys(project, within, None)

    async def find_key(self, key_id: int, within: int | None = None) -> dict[str, Any]:
        """Return what may be shown of the key."""
        found = await self._keys(None, within, key_id)
        if not found:
            raise _no_key(key_id)
        return found[0]

    async def change_key(
        self, key_id: int, changes: Mapping[str, Any], within: int | None = None
    ) -> dict[str, Any]:
        """Set `name`, `expires_at` and `allowed_origins`, as far as *changes* has them."""
        given = [
            part
            for member in ("name", "expires_at", "allowed_origins")
            for part in (member in changes, changes.get(member))
        ]
        if await self._connection.fetchval(_SQL["change_key"], key_id, within, *given) is None:
            raise _no_key(key_id)
        return await self.find_key(key_id)

    async def rotate_key(
        self, key_id: int, overlap_s: int = DEFAULT_OVERLAP_S, within: int | None = None
    ) -> dict[str, Any]:
        """Make a key that replaces another, which ends *overlap_s* seconds from now.

        It may what the old one may, in the same project, from the same origins; when the old one
        was to expire, it lasts as long as that from now. Raises `Refusal` (CONFLICT) if the key is
        not valid, or has been replaced.
        """
        async with self._connection.transaction():
            old = await self._connection.fetchrow(_SQL["lock_key"], key_id, within)
            if old is None:
                raise _no_key(key_id)
            if old["replaced_by"] is not None:
                successor = old["replaced_by"]
                raise Refusal("CONFLICT", f"The key was replaced by {successor}; rotate that one.")
            if not old["is_valid"]:
                raise Refusal("CONFLICT", "The key is revoked or has expired; create a new one.")
            new = await self.create_key(
                old["project_id"],
                old["scopes"],
                old["name"],
                old["expires_at"] and datetime.now(UTC) + (old["expires_at"] - old["created_at"]),
                old["allowed_origins"],
            )
            ends_at = await self._connection.fetchval(
                _SQL["replace_key"], key_id, new["key_id"], timedelta(seconds=overlap_s)
            )
        return {**new, "replaces": key_id, "old_key_expires_at": ends_at}

    async def revoke_key(self, key_id: int, within: int | None = None) -> dict[str, Any]:
        """End the key; every process refuses it within 5 seconds."""
        row = await self._connection.fetchrow(_SQL["revoke_key"], key_id, within)
        if row is None:
            raise _no_key(key_id)
        return dict(row)

    async def key_usage(self, key_id: int, days: int, within: int | None = None) -> dict[str, Any]:
        """Return when and how much the key was used, and for what on each of the last *days*."""
        found = await self.find_key(key_id, within)
        rows = await self._connection.fetch(_SQL["key_usage"], key_id, days)
        known = ("key_id", "last_used_at", "usage_count")
        return {name: found[name] for name in known} | {"days": [dict(row) for row in rows]}

    async def _keys(
        self, project: str | None, within: int | None, key_id: int | None
    ) -> list[dict[str, Any]]:
        rows = await self._connection.fetch(_SQL["list_keys"], project, within, key_id, MAX_LISTED)
        return [dict(row) for row in rows]


def _project(row: asyncpg.Record) -> dict[str, Any]:
    return {**row, "settings": orjson.loads(row["settings"])}


def _checked(settings: dict[str, Any]) -> str:
    """Return *settings* as they are stored, if they are valid."""
    read_project_settings(settings)
    return orjson.dumps(settings).decode()


def _no_project() -> Refusal:
    return Refusal("NOT_FOUND", "There is no project of that id.")


def _no_key(key_id: int) -> Refusal:
    return Refusal("NOT_FOUND", f"There is no key with the id {key_id}.")


def _name_taken(name: str | None) -> Refusal:
    return Refusal("CONFLICT", f"There is a project named {name!r} already.")

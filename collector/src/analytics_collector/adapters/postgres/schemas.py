"""Event schemas in Postgres: for the door, and for those who look after them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
import orjson
from asyncpg.pool import PoolConnectionProxy

from analytics_collector.adapters.postgres.pool import lend, store_guard
from analytics_collector.adapters.sqlfile import load_blocks
from analytics_collector.errors import Refusal
from analytics_collector.interfaces import SchemaFinding, StoredPlan, StoredSchema
from analytics_collector.schemas.document import EventSchema, read_event_name, read_schema

_SQL = load_blocks("analytics_collector.adapters.postgres", "queries/schemas.sql")

# Waiting for a connection included.
_TIMEOUT_S = 5.0
MAX_SCHEMAS: Final = 1_000
MAX_VERSIONS: Final = 10_000
MAX_PLAN_BYTES: Final = 4 * 1_024 * 1_024
MAX_PLAN_PATTERNS: Final = 1_000
MAX_UNPLANNED: Final = 1_000
MAX_FAULTS: Final = 20
MAX_NAMES: Final = 1_000


class PostgresSchemas:
    """Implements `interfaces.SchemaStore`; gives each administrator a `SchemaRegistry`."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def load_plan(self, project_id: int) -> StoredPlan:
        """Return the schemas of the project and their revision, from one moment."""
        async with store_guard(), asyncio.timeout(_TIMEOUT_S), lend(self._pool) as connection:
            rows = await connection.fetch(_SQL["load_plan"], project_id)
        schemas = [
            StoredSchema(row["name"], row["version"], row["mode"], row["document"])
            for row in rows
            if row["name"] is not None
        ]
        return StoredPlan(rows[0]["revision"], schemas)

    async def plan_revisions(self, project_ids: Sequence[int]) -> dict[int, int]:
        """Return the revisions of those that ever had a schema."""
        async with store_guard(), asyncio.timeout(_TIMEOUT_S), lend(self._pool) as connection:
            rows = await connection.fetch(_SQL["plan_revisions"], project_ids)
        return {row["project_id"]: row["revision"] for row in rows}

    async def add_findings(self, findings: Sequence[SchemaFinding]) -> None:
        """Add *findings* to what was found before."""
        columns = list(zip(*(found[:7] for found in findings), strict=True))
        faults = [
            (*found[:3], place, keyword, events)
            for found in findings
            for (place, keyword), events in found.faults.items()
        ]
        async with (
            store_guard(),
            asyncio.timeout(_TIMEOUT_S),
            lend(self._pool) as connection,
            connection.transaction(),
        ):
            await connection.execute(_SQL["add_findings"], *columns[:6], MAX_UNPLANNED, columns[6])
            if faults:
                await connection.execute(_SQL["add_faults"], *zip(*faults, strict=True), MAX_FAULTS)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[SchemaRegistry]:
        """Give a registry; what Postgres does to it inside appears as `StoreUnavailable`."""
        async with store_guard(), asyncio.timeout(_TIMEOUT_S), self._pool.acquire() as connection:
            yield SchemaRegistry(connection)


class SchemaRegistry:
    """Registers, lists and removes the event schemas of projects."""

    def __init__(
        self, connection: asyncpg.Connection | PoolConnectionProxy[asyncpg.Record]
    ) -> None:
        self._connection = connection

    async def put(
        self, project_id: int, name: str, document: Any, mode: str | None, *, sets_mode: bool
    ) -> dict[str, Any]:
        """Let *document* be the schema of the event *name* from now on.

        It is a new version unless it means what the last one does. The mode is *mode* if
        *sets_mode*, else as it was. Raises `InvalidQuery`, and `Refusal` (CONFLICT) where the
        project has too many.
        """
        schema = read_schema(document)
        read_event_name(name)
        connection = self._connection
        async with connection.transaction():
            await connection.execute(_SQL["next_revision"], project_id)
            last = await connection.fetchrow(_SQL["find_schema"], project_id, name)
            is_new = last is None or last["digest"] != schema.digest
            await self._check_size(project_id, name, schema)
            before = 0 if last is None else last["version"]
            version = before + 1 if is_new else before
            # A schema that comes back after it was removed begins without the mode it had.
            is_back = last is not None and last["is_removed"]
            await connection.execute(
                _SQL["put_schema"], project_id, name, version, mode, sets_mode or is_back
            )
            if is_new:
                await connection.execute(
                    _SQL["put_version"],
                    project_id,
                    name,
                    version,
                    schema.document,
                    schema.digest,
                    schema.size_bytes,
                    schema.patterns,
                )
        found = await self.find(project_id, name)
        return {**found, "is_new": is_new}

    async def _check_size(self, project_id: int, name: str, schema: EventSchema) -> None:
        size = await self._connection.fetchrow(_SQL["plan_size"], project_id, name)
        assert size is not None
        for found, most, unit in (
            (size["schemas"] + 1, MAX_SCHEMAS, "schemas"),
            (size["size_bytes"] + schema.size_bytes, MAX_PLAN_BYTES, "bytes of schemas"),
            (size["patterns"] + schema.patterns, MAX_PLAN_PATTERNS, "patterns in its schemas"),
            (size["versions"] + 1, MAX_VERSIONS, "versions of schemas"),
        ):
            if found > most:
                raise Refusal("CONFLICT", f"A project may have at most {most} {unit}.")

    async def remove(self, project_id: int, name: str) -> dict[str, Any]:
        """Let events called *name* have no schema. Raises `Refusal` (NOT_FOUND)."""
        async with self._connection.transaction():
            await self._connection.execute(_SQL["next_revision"], project_id)
            version = await self._connection.fetchval(_SQL["remove_schema"], project_id, name)
            if version is None:
                raise _no_schema()
        return {"name": name, "version": version, "removed": True}

    async def list_all(self, project_id: int) -> list[dict[str, Any]]:
        """Return the schemas with the numbers and times of their versions, by name."""
        return await self._read(project_id, None)

    async def find(self, project_id: int, name: str) -> dict[str, Any]:
        """Return the schema of the event *name*. Raises `Refusal` (NOT_FOUND)."""
        found = await self._read(project_id, name)
        if not found:
            raise _no_schema()
        return found[0]

    async def find_version(self, project_id: int, name: str, version: int) -> dict[str, Any]:
        """Return one version, even of a schema that was removed. Raises `Refusal` (NOT_FOUND)."""
        row = await self._connection.fetchrow(_SQL["find_version"], project_id, name, version)
        if row is None:
            raise Refusal("NOT_FOUND", "The event has no such version of a schema.")
        return {
            "name": name,
            "version": version,
            "created_at": row["created_at"],
            "schema": orjson.loads(row["document"]),
        }

    async def _read(self, project_id: int, name: str | None) -> list[dict[str, Any]]:
        rows = await self._connection.fetch(_SQL["list_schemas"], project_id, name)
        versions: dict[str, list[dict[str, Any]]] = {}
        for row in await self._connection.fetch(_SQL["list_versions"], project_id, name):
            entry = {"version": row["version"], "created_at": row["created_at"]}
            versions.setdefault(row["name"], []).append(entry)
        return [
            {
                "name": row["name"],
                "version": row["version"],
                "mode": row["mode"],
                "changed_at": row["changed_at"],
                "schema": orjson.loads(row["document"]),
                "versions": versions[row["name"]],
            }
            for row in rows
        ]

    async def report(self, project_id: int) -> dict[str, list[dict[str, Any]]]:
        """Return what did not fit: `violations` by event and version, and `unplanned` events."""
        findings = await self._connection.fetch(_SQL["read_findings"], project_id)
        faults: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
        for row in await self._connection.fetch(_SQL["read_faults"], project_id):
            sample = {"path": row["place"], "code": row["keyword"], "count": row["event_count"]}
            faults.setdefault((row["name"], row["version"]), []).append(sample)
        violations, unplanned = [], []
        for row in findings:
            if row["version"]:
                samples = faults.get((row["name"], row["version"]), [])
                violations.append({**row, "samples": samples})
            else:
                left_out = ("version", "rejected_count")
                unplanned.append({k: v for k, v in row.items() if k not in left_out})
        return {"violations": violations, "unplanned": unplanned}

    async def samples(
        self, project_id: int, days: float, events_per_name: int
    ) -> AsyncIterator[tuple[str, list[Any]]]:
        """Yield each name of an event with what was sent in the newest of the last *days*."""
        since = datetime.now(UTC) - timedelta(days=days)
        names = await self._connection.fetch(_SQL["event_names"], project_id, MAX_NAMES)
        for (name,) in names:
            rows = await self._connection.fetch(
                _SQL["sample_events"], project_id, name, since, events_per_name
            )
            if rows:
                yield name, [orjson.loads(row["value"] or "{}") for row in rows]


def _no_schema() -> Refusal:
    return Refusal("NOT_FOUND", "There is no schema for an event of that name.")

"""Bring a database to the schema of this version: plain SQL files, each applied once.

Files are `NNNN_name.sql` in `adapters/postgres/migrations/`. All pending ones are applied in one
transaction under an advisory lock, so any number of processes may start at once.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

import asyncpg

from analytics_collector.errors import ConfigurationError

# Any constant that no other program is likely to lock: "analytic" in ASCII.
_LOCK_ID = 0x616E616C79746963

_CREATE_TABLE = """
create table if not exists schema_migrations (
    version integer primary key,
    name text not null,
    checksum text not null,
    applied_at timestamptz not null default now()
)
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its number, its name and its statements."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """Return the SHA-256 of the statements, to notice a file that was changed later."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def load_migrations() -> list[Migration]:
    """Return the migrations that this version knows, in their order."""
    folder = files("analytics_collector.adapters.postgres").joinpath("migrations")
    found = [
        Migration(int(entry.name[:4]), entry.name, entry.read_text(encoding="utf-8"))
        for entry in folder.iterdir()
        if entry.name.endswith(".sql")
    ]
    return sorted(found, key=lambda migration: migration.version)


async def migrate(database_url: str, migrations: list[Migration] | None = None) -> list[Migration]:
    """Apply what is pending and return it; an empty list if the schema was up to date.

    Raises `ConfigurationError` if the database is newer than this version, or if a file that was
    applied has been changed since.
    """
    known = load_migrations() if migrations is None else migrations
    connection = await asyncpg.connect(database_url, timeout=10)
    try:
        async with connection.transaction():
            await connection.execute("select pg_advisory_xact_lock($1)", _LOCK_ID)
            await connection.execute(_CREATE_TABLE)
            pending = _pending(known, await _applied(connection))
            for migration in pending:
                await connection.execute(migration.sql)
                await connection.execute(
                    "insert into schema_migrations (version, name, checksum) values ($1, $2, $3)",
                    migration.version,
                    migration.name,
                    migration.checksum,
                )
            return pending
    finally:
        await connection.close()


async def check_schema(connection: asyncpg.Connection, *, is_running: bool = False) -> None:
    """Raise `ConfigurationError` unless the schema is the one of this version.

    Whoever *is_running* goes on with a newer one: an upgrade migrates first.
    """
    exists = await connection.fetchval("select to_regclass('schema_migrations') is not null")
    applied = await _applied(connection) if exists else {}
    known = load_migrations()
    if is_running:
        versions = {migration.version for migration in known}
        applied = {
            version: checksum for version, checksum in applied.items() if version in versions
        }
    pending = _pending(known, applied)
    if pending:
        raise ConfigurationError(
            f"the database lacks {', '.join(m.name for m in pending)}: "
            "run `analytics-collector migrate` first"
        )


async def _applied(connection: asyncpg.Connection) -> dict[int, str]:
    rows = await connection.fetch("select version, checksum from schema_migrations")
    return {row["version"]: row["checksum"] for row in rows}


def _pending(known: list[Migration], applied: dict[int, str]) -> list[Migration]:
    newer = applied.keys() - {migration.version for migration in known}
    if newer:
        raise ConfigurationError(
            f"the database has migration {max(newer):04}, which this version does not know: "
            "upgrade analytics-collector"
        )
    for migration in known:
        if applied.get(migration.version, migration.checksum) != migration.checksum:
            raise ConfigurationError(f"{migration.name} was changed after it had been applied")
    return [migration for migration in known if migration.version not in applied]

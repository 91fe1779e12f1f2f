"""A database of a test's own, and what a test wants to know of it."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg

from analytics_collector.adapters.migrate import migrate
from analytics_collector.adapters.postgres.administration import ProjectAdmin
from harness.waiting import wait_for

SECRET = "a secret for the tests"
PROJECT = "default"
_TIMEOUT_S = 30.0


class Database:
    """One database with the collector's schema and the project `default`."""

    def __init__(self, url: str) -> None:
        self.url = url

    @classmethod
    def create(cls, server_url: str) -> Database:
        """Make a new one on a server."""
        name = f"test_{uuid4().hex}"
        Database(server_url).execute(f"create database {name}")
        database = cls(urlunsplit(urlsplit(server_url)._replace(path=f"/{name}")))
        asyncio.run(migrate(database.url))
        asyncio.run(database._ensure_project())
        return database

    def drop(self, server_url: str) -> None:
        """Remove it: a server that crashed looks at every file of every database."""
        name = urlsplit(self.url).path.removeprefix("/")
        Database(server_url).execute(f"drop database {name} with (force)")

    def fetch(self, statement: str, *values: object) -> list[asyncpg.Record]:
        """Return the rows of a statement; it never waits for ever."""

        async def run() -> list[asyncpg.Record]:
            connection = await asyncpg.connect(
                self.url, timeout=_TIMEOUT_S, command_timeout=_TIMEOUT_S
            )
            try:
                rows: list[asyncpg.Record] = await connection.fetch(statement, *values)
                return rows
            finally:
                await connection.close()

        return asyncio.run(run())

    def value(self, statement: str, *values: object) -> Any:
        """Return the one value that a statement yields."""
        return self.fetch(statement, *values)[0][0]

    def execute(self, statement: str) -> None:
        """Run a statement that yields nothing."""
        self.fetch(statement)

    def new_key(self, *scopes: str) -> str:
        """Return a new key of the project, by default one that may send and ask."""

        async def create() -> str:
            connection = await asyncpg.connect(self.url, timeout=_TIMEOUT_S)
            try:
                admin = ProjectAdmin(connection, SECRET)
                made = await admin.create_key(PROJECT, scopes or ("ingest", "read"))
            finally:
                await connection.close()
            key: str = made["key"]
            return key

        return asyncio.run(create())

    def event_count(self) -> int:
        """Return how many events are stored."""
        count: int = self.value("select count(*) from events")
        return count

    def stored(self) -> list[tuple[str, str]]:
        """Return message id and user id of every event, in stored order."""
        rows = self.fetch("select message_id::text, user_id from events order by seq")
        return [(row[0], row[1]) for row in rows]

    def miscounted(self) -> list[tuple[Any, ...]]:
        """Return each day and name of which `daily_counts` has not exactly what is stored."""
        rows = self.fetch("""
            with stored as (
                select project_id, ("timestamp" at time zone 'UTC')::date as day, name,
                    count(*) as event_count
                from events group by 1, 2, 3
            )
            select day, name, stored.event_count, counted.event_count
            from stored full join daily_counts as counted using (project_id, day, name)
            where stored.event_count is distinct from counted.event_count
        """)
        return [tuple(row) for row in rows]

    def wait_counted(self, timeout_s: float = 60.0) -> None:
        """Wait until each stored event is in `daily_counts`, once; fail with the differences."""
        try:
            wait_for(lambda: not self.miscounted(), "", timeout_s)
        except AssertionError:
            raise AssertionError(f"day, name, stored, counted: {self.miscounted()}") from None

    async def _ensure_project(self) -> None:
        connection = await asyncpg.connect(self.url, timeout=_TIMEOUT_S)
        try:
            await ProjectAdmin(connection, SECRET).ensure_project(PROJECT)
        finally:
            await connection.close()

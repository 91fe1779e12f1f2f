"""Databases without a schema, events to store, and a Valkey that may be emptied."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from analytics_collector.ingest.validate import validate
from analytics_collector.model import EventRow, RawBatch

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def empty_database(postgres_dsn: str, run: Run) -> str:
    """Return the DSN of a new database with nothing in it."""
    name = f"test_{uuid4().hex}"

    async def create() -> None:
        connection = await asyncpg.connect(postgres_dsn)
        await connection.execute(f"create database {name}")
        await connection.close()

    run(create())
    return postgres_dsn.replace("/analytics?", f"/{name}?")


@pytest.fixture
def connection(empty_database: str, run: Run) -> Iterator[asyncpg.Connection]:
    """Return a connection to the new database."""
    connection = run(asyncpg.connect(empty_database))
    yield connection
    run(connection.close())


@pytest.fixture
def project_id(pool: asyncpg.Pool, run: Run) -> int:
    """Return a project with nothing in it."""
    insert = "insert into projects (name) values ($1) returning project_id"
    found: int = run(pool.fetchval(insert, uuid4().hex))
    return found


@pytest.fixture
def row(project_id: int) -> Callable[..., EventRow]:
    """Make a valid row of the project from members of an event."""

    def make(**members: Any) -> EventRow:
        event = {"type": "track", "name": "e", "messageId": str(uuid4()), **members}
        batch = validate(RawBatch([event], None, exact=False), project_id, datetime.now(UTC))
        return batch.rows[0]

    return make

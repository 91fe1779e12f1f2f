"""A real PostgreSQL for the analyses, a database of its own for each module, and its questions."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid4, uuid5

import asyncpg
import pytest

from analytics_collector.adapters.postgres.reader import PostgresReader
from analytics_collector.adapters.postgres.store import PostgresEventStore
from analytics_collector.analytics.funnel import evaluate
from analytics_collector.analytics.params import read_funnel
from analytics_collector.embedded import embedded_servers
from analytics_collector.model import EventRow

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(scope="session")
def postgres_dsn() -> Iterator[str]:
    """The DSN of a PostgreSQL that lives as long as the tests."""
    # Not under pytest's own folder: it is closed to `nobody`, as whom root runs the servers.
    home = Path(tempfile.mkdtemp(prefix="analytics-test-"))
    try:
        with embedded_servers(home / "data") as (dsn, _redis_url):
            yield dsn
    finally:
        shutil.rmtree(home)


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Run a coroutine in the one event loop of the module, where its pool lives."""
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture(scope="module")
def pool(postgres_dsn: str, run: Run) -> Iterator[asyncpg.Pool]:
    """A pool on a fresh database with the schema of the collector."""
    name = f"test_{uuid4().hex}"
    schema = files("analytics_collector.adapters.postgres") / "migrations" / "0001_init.sql"

    async def create() -> asyncpg.Pool:
        connection = await asyncpg.connect(postgres_dsn)
        await connection.execute(f"create database {name}")
        await connection.close()
        pool = await asyncpg.create_pool(postgres_dsn, database=name, min_size=1, max_size=4)
        await pool.execute(schema.read_text(encoding="utf-8"))
        return pool

    pool = run(create())
    yield pool
    run(pool.close())


@pytest.fixture(scope="module")
def reader(pool: asyncpg.Pool) -> PostgresReader:
    """The reader under test."""
    return PostgresReader(pool)


class Project:
    """A project with nothing in it but what a test stores."""

    def __init__(self, project_id: int, reader: PostgresReader, store: PostgresEventStore) -> None:
        self.id = project_id
        self._reader = reader
        self._store = store

    async def add(self, *events: dict[str, Any]) -> None:
        """Store *events* in the form of the vectors (analytics.md F); an id twice is one event."""
        new = {event.get("id", str(n)): event for n, event in reversed([*enumerate(events)])}
        await self._store.append([self._row(key, event) for key, event in [*new.items()][::-1]])

    async def counts(self, **question: Any) -> list[int]:
        """Return the persons at each step of a funnel, asked for as over HTTP."""
        answer = await self.answer(**question)
        return [step["userCount"] for step in answer["steps"]]

    async def answer(self, **question: Any) -> dict[str, Any]:
        """Return the answer to a funnel, asked for as over HTTP."""
        asked = read_funnel(question, datetime.now(UTC))
        return await evaluate(self._reader, self.id, asked, None)

    def _row(self, key: str, event: dict[str, Any]) -> EventRow:
        at = datetime.fromisoformat(event["ts"])
        return EventRow(
            project_id=self.id,
            message_id=str(uuid5(NAMESPACE_OID, f"{self.id} {key}")),
            timestamp=at,
            received_at=at,
            client_timestamp=None,
            timestamp_clamped=False,
            type="track",
            name=event["event"],
            user_id=event.get("user_id"),
            anonymous_id=event.get("anonymous_id"),
            session_id=event.get("session_id"),
            group_id=None,
            previous_id=None,
            properties=json.dumps(event.get("properties", {})),
            traits=None,
            context="{}",
            extra=None,
        )


@pytest.fixture(scope="module")
def new_project(pool: asyncpg.Pool, reader: PostgresReader, run: Run) -> Callable[[], Project]:
    """Make a new project in the database of the module."""
    store = PostgresEventStore(pool)

    def make() -> Project:
        insert = "insert into projects (name) values ($1) returning project_id"
        return Project(run(pool.fetchval(insert, uuid4().hex)), reader, store)

    return make


@pytest.fixture
def project(new_project: Callable[[], Project]) -> Project:
    """A new project for one test."""
    return new_project()

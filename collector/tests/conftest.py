"""A real PostgreSQL for the analyses, a database of its own for each module, and its questions."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import NAMESPACE_OID, uuid4, uuid5

import asyncpg
import httpx
import jsonschema_rs
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from analytics_collector.adapters.migrate import migrate
from analytics_collector.adapters.postgres.reader import PostgresReader
from analytics_collector.adapters.postgres.store import PostgresEventStore
from analytics_collector.analytics.funnel import evaluate
from analytics_collector.analytics.params import read_funnel
from analytics_collector.embedded import Supervisor
from analytics_collector.embedded.valkey import EmbeddedValkey
from analytics_collector.errors import Refusal, StoreUnavailable
from analytics_collector.http import query
from analytics_collector.http.problems import on_refusal, on_store_unavailable
from analytics_collector.model import ApiKey, EventRow

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(scope="session")
def enrichment_form() -> Callable[[Any], None]:
    """Check that an enrichment has the form of the specification, and nothing beside."""
    path = Path(__file__).parents[2] / "spec/schema/enrichment.json"
    form = _closed(json.loads(path.read_bytes()))
    return jsonschema_rs.Draft202012Validator(form).validate


def _closed(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(part) for name, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed


@pytest.fixture(scope="session")
def postgres_dsn(servers: tuple[str, str]) -> str:
    """The DSN of a PostgreSQL that lives as long as the tests."""
    return servers[0]


@pytest.fixture(scope="module")
def valkey_url() -> Iterator[str]:
    """Return the URL of a Valkey of the module's own."""
    home = Path(tempfile.mkdtemp(prefix="analytics-test-"))
    valkey = EmbeddedValkey(home / "data")
    supervisor = Supervisor([valkey.child()], data_dir=home / "data")
    supervisor.start()
    try:
        yield valkey.url
    finally:
        supervisor.stop()
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

    async def create() -> asyncpg.Pool:
        connection = await asyncpg.connect(postgres_dsn)
        await connection.execute(f"create database {name}")
        await connection.close()
        await migrate(postgres_dsn.replace("/analytics?", f"/{name}?"))
        return await asyncpg.create_pool(postgres_dsn, database=name, min_size=1, max_size=4)

    pool = run(create())
    yield pool
    run(pool.close())


@pytest.fixture(scope="module")
def reader(pool: asyncpg.Pool) -> PostgresReader:
    """Return the reader under test."""
    return PostgresReader(pool)


class Project:
    """A project with nothing in it but what a test stores."""

    def __init__(self, project_id: int, reader: PostgresReader, store: PostgresEventStore) -> None:
        self.id = project_id
        self._reader = reader
        self._store = store

    async def add(self, *events: dict[str, Any]) -> None:
        """Store *events* in the form of the vectors; an id twice is one event."""
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
    """Return a new project for one test."""
    return new_project()


ROUTES = [
    Route("/api/v1/users/{user_id:path}/events", query.user_events),
    Route("/api/v1/analytics/funnel", query.funnel, methods=["POST"]),
    Route("/api/v1/workflows", query.list_workflows, methods=["GET"]),
    Route("/api/v1/workflows", query.create_workflow, methods=["POST"]),
    Route("/api/v1/workflows/{workflow_id}", query.get_workflow, methods=["GET"]),
    Route("/api/v1/workflows/{workflow_id}", query.delete_workflow, methods=["DELETE"]),
]


class Keys:
    """The keys of one project: `read` may ask, `ingest` may not."""

    def __init__(self, project_id: int) -> None:
        self._project_id = project_id

    async def find(self, value: bytes) -> ApiKey | None:
        if value not in (b"read", b"ingest"):
            return None
        return ApiKey(1, self._project_id, frozenset({value.decode()}), None)


class Api:
    """The endpoints for one project, asked as a client would."""

    def __init__(
        self, project_id: int, reader: PostgresReader, store: PostgresEventStore, run: Run
    ) -> None:
        self.project_id = project_id
        self._store = store
        self._run = run
        self._app = Starlette(
            routes=ROUTES,
            exception_handlers={Refusal: on_refusal, StoreUnavailable: on_store_unavailable},
        )
        self._app.state.services = SimpleNamespace(reader=reader, keys=Keys(project_id))

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        scope["request_id"] = "req_1"
        await self._app(scope, receive, send)

    def ask(
        self, method: str, path: str, key: str | None = "read", **kwargs: Any
    ) -> httpx.Response:
        headers = {"x-api-key": key} if key else {}

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._serve)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, f"/api/v1{path}", headers=headers, **kwargs)

        return self._run(ask())

    def assert_refused(
        self, answer: httpx.Response, status: int, code: str, field: str | None = None
    ) -> None:
        """Check that *answer* says no, in the form of all refusals, and points to *field*."""
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.json().get("field") == field
        assert answer.json()["requestId"] == "req_1"

    def store(self, name: str, user_id: str, at: datetime, **members: Any) -> str:
        message_id = str(uuid4())
        row = {
            "project_id": self.project_id,
            "message_id": message_id,
            "timestamp": at,
            "received_at": at,
            "client_timestamp": None,
            "timestamp_clamped": False,
            "type": "track",
            "name": name,
            "user_id": user_id,
            "anonymous_id": None,
            "session_id": None,
            "group_id": None,
            "previous_id": None,
            "properties": "{}",
            "traits": None,
            "context": "{}",
            "extra": None,
        }
        self._run(self._store.append([EventRow(**(row | members))]))
        return message_id


@pytest.fixture
def new_api(pool: asyncpg.Pool, run: Run, reader: PostgresReader) -> Callable[..., Api]:
    """Make the endpoints of a new project; another reader than the real one may answer."""

    def make(answering: PostgresReader = reader) -> Api:
        insert = "insert into projects (name) values ($1) returning project_id"
        project_id = run(pool.fetchval(insert, uuid4().hex))
        return Api(project_id, answering, PostgresEventStore(pool), run)

    return make


@pytest.fixture
def api(new_api: Callable[..., Api]) -> Api:
    """Return the endpoints of a new project."""
    return new_api()

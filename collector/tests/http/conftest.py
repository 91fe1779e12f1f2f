"""The collector behind a real socket, and clients that do what no library would."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest
import uvicorn
import uvloop

from analytics_collector.adapters.migrate import migrate
from analytics_collector.adapters.postgres.administration import ProjectAdmin
from analytics_collector.app import create_app
from analytics_collector.assemble import Services, build_services
from analytics_collector.http.protocol import HardenedProtocol
from analytics_collector.settings import read_settings

SECRET = "a secret for the tests only"


class Host:
    """An event loop in a thread of its own, as in the server, with the applications it serves."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._loop = self._runner.get_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._servers: list[tuple[uvicorn.Server, Any]] = []

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run *coroutine* in the loop and return what it returns."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def serve(self, app: Any, protocol: type[HardenedProtocol] = HardenedProtocol) -> int:
        """Serve *app*, and return the port."""
        config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=1,
        )
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(config)
        task = asyncio.run_coroutine_threadsafe(server.serve(sockets=[listener]), self._loop)
        self._servers.append((server, task))
        port: int = listener.getsockname()[1]
        return port  # the kernel takes connections from now on

    def close(self) -> None:
        """Stop what is served, and the loop."""
        for server, task in self._servers:
            server.should_exit = True
            task.result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._runner.close()


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """Return a loop to serve applications in."""
    host = Host()
    yield host
    host.close()


@dataclass
class Wire:
    """One connection, on which a test may send anything."""

    port: int
    connection: socket.socket = field(init=False)

    def __post_init__(self) -> None:
        self.connection = socket.create_connection(("127.0.0.1", self.port), timeout=8)

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def rest(self) -> bytes:
        """Return all that comes until the server closes the connection."""
        received = b""
        try:
            while chunk := self.connection.recv(65536):
                received += chunk
        except ConnectionResetError:
            pass
        return received

    def until(self, text: bytes) -> bytes:
        """Return what comes up to *text*."""
        received = b""
        while text not in received:
            chunk = self.connection.recv(65536)
            assert chunk, received
            received += chunk
        return received


@pytest.fixture
def dial() -> Iterator[Callable[[int], Wire]]:
    """Open a connection that ends with the test."""
    wires: list[Wire] = []

    def open_wire(port: int) -> Wire:
        wires.append(Wire(port))
        return wires[-1]

    yield open_wire
    for wire in wires:
        wire.connection.close()


class Site:
    """The whole collector on a database of its own, with a project and its keys."""

    def __init__(self, host: Host, postgres_dsn: str, redis_url: str, **settings: object) -> None:
        self.database = f"test_{uuid4().hex}"
        self._host = host
        self._admin_dsn = postgres_dsn
        self._dsn = postgres_dsn.replace("/analytics?", f"/{self.database}?")
        self._redis_url = redis_url
        host.run(self._create_database())
        self.services: Services = host.run(self._build(settings))
        self._beside: list[Services] = []
        self.port = host.serve(create_app(self.services))
        self.keys = {scope: self.new_key([scope]) for scope in ("ingest", "read", "admin")}

    async def _create_database(self) -> None:
        connection = await asyncpg.connect(self._admin_dsn)
        await connection.execute(f"create database {self.database}")
        await connection.close()
        await migrate(self._dsn)

    async def _build(self, chosen: dict[str, object]) -> Services:
        settings: dict[str, object] = {
            "database_url": self._dsn,
            "redis_url": self._redis_url,
            "secret": SECRET,
            "commit_timeout_s": 1.0,
            # All tests come from one address, and many have no key.
            "rate_limit_address_requests_per_minute": 1_000_000,
        }
        return await build_services(read_settings({}, **(settings | chosen)))

    def new_key(self, scopes: list[str], project: str = "mine") -> str:
        """Return a new key of *project*, which is made if there is none."""

        async def make() -> str:
            connection = await asyncpg.connect(self._dsn)
            admin = ProjectAdmin(connection, SECRET)
            await admin.ensure_project(project)
            made = await admin.create_key(project, scopes)
            await connection.close()
            key: str = made["key"]
            return key

        return self._host.run(make())

    def beside(self, **settings: object) -> int:
        """Serve another collector on the same databases, as a second process; return its port."""
        self._beside.append(self._host.run(self._build(settings)))
        return self._host.serve(create_app(self._beside[-1]))

    def variant(self, **parts: Any) -> int:
        """Serve the collector with other parts, and return the port."""
        return self._host.serve(create_app(replace(self.services, **parts)))

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run *coroutine* where the collector runs."""
        return self._host.run(coroutine)

    async def connect(self) -> asyncpg.Connection:
        """Return a connection to the database, for its operator."""
        return await asyncpg.connect(self._dsn)

    def sql(self, query: str, *args: Any) -> list[Any]:
        """Run *query* as the operator of the database."""

        async def fetch() -> list[Any]:
            connection = await asyncpg.connect(self._dsn)
            records = await connection.fetch(query, *args)
            await connection.close()
            return records

        return self._host.run(fetch())

    def let_postgres_in(self, anybody: bool) -> None:
        """Let Postgres take connections, or end them all and take none."""

        async def switch() -> None:
            connection = await asyncpg.connect(self._admin_dsn)
            await connection.execute(
                f"alter database {self.database} with allow_connections {anybody}"
            )
            if not anybody:
                await connection.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1",
                    self.database,
                )
            await connection.close()

        self._host.run(switch())

    @contextmanager
    def without_postgres(self, key: str) -> Iterator[None]:
        """Keep Postgres away inside the block, in which *key* is known however long it takes."""
        keys = self.services.keys
        now = keys._clock()
        keys._clock = lambda: now
        try:
            self.run(keys.peek(key.encode()))
            self.let_postgres_in(False)
            yield
        finally:
            self.let_postgres_in(True)
            keys._clock = time.monotonic

    def names(self) -> list[str]:
        """Return the names of the stored events, in order."""
        return [record["name"] for record in self.sql("select name from events order by seq")]

    def ask(self, method: str, path: str, port: int | None = None, **kwargs: Any) -> httpx.Response:
        """Send one request."""
        url = f"http://127.0.0.1:{port or self.port}{path}"
        # Without the certificates for https, which take longer to load than any answer.
        return httpx.request(method, url, verify=False, **kwargs)

    def post(
        self, *events: Any, key: str | None = "ingest", port: int | None = None, **headers: str
    ) -> httpx.Response:
        """Send *events* as one batch."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            sent["x-api-key"] = self.keys.get(key, key)
        return self.ask("POST", "/api/v1/events", port, json={"batch": events}, headers=sent)

    def close(self) -> None:
        """Let go of the databases."""
        for services in (*self._beside, self.services):
            self._host.run(services.close())


@pytest.fixture(scope="module")
def site(host: Host, servers: tuple[str, str]) -> Iterator[Site]:
    """Return the whole collector behind a port."""
    with closing(Site(host, *servers)) as site:
        yield site


@pytest.fixture
def new_site(
    host: Host, servers: tuple[str, str], valkey_url: str
) -> Iterator[Callable[..., Site]]:
    """Start a collector with the settings that a test wants, on an empty Redis."""
    sites: list[Site] = []

    def start(**settings: object) -> Site:
        redis_url = str(settings.pop("redis_url", valkey_url))
        sites.append(Site(host, servers[0], redis_url, **settings))
        if redis_url == valkey_url:
            sites[-1].run(sites[-1].services.redis.flushdb())
        return sites[-1]

    yield start
    for site in sites:
        site.close()

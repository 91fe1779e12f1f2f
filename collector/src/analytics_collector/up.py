"""Everything in one command: Postgres, Valkey, a server and a worker, in one data directory.

The directory also keeps the secret and the two keys that `up` prints, readable by its owner only.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from analytics_collector.adapters.postgres.administration import ProjectAdmin
from analytics_collector.embedded import ChildSpec, Supervisor, embedded_servers
from analytics_collector.embedded.directory import DataDir
from analytics_collector.embedded.lock import try_lock, unlock
from analytics_collector.embedded.postgres import EmbeddedPostgres
from analytics_collector.embedded.valkey import EmbeddedValkey
from analytics_collector.errors import ConfigurationError
from analytics_collector.model import DEFAULT_PROJECT
from analytics_collector.server import listen
from analytics_collector.settings import environment_for_child

_READY_TIMEOUT_S = 2.0
_SERVE_STOP_S = 15.0
_LEFTOVER_POLL_S = 0.1
# Whatever http_proxy says: the server is on this machine.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Installation:
    """A data directory of `up`: where its servers listen, and the secret."""

    data_dir: Path

    @property
    def database_url(self) -> str:
        """Where its Postgres listens while it runs."""
        return EmbeddedPostgres(self.data_dir).dsn

    @property
    def redis_url(self) -> str:
        """Where its Valkey listens while it runs."""
        return EmbeddedValkey(self.data_dir).url

    def ensure_secret(self) -> str:
        """Return the secret of its keys, made at the first use."""
        path = self.data_dir / "secret"
        if not path.exists():
            DataDir(self.data_dir).create()
            _keep_private(path, secrets.token_urlsafe(32))
        return path.read_text().strip()

    @property
    def is_new(self) -> bool:
        """Whether `up` has never run here."""
        return not (self.data_dir / "secret").exists()

    @contextmanager
    def database(self) -> Iterator[str]:
        """Give the URL of its Postgres, started for the length of the block unless it runs."""
        if self.is_new:
            raise ConfigurationError(f"{self.data_dir} holds no data of `analytics-collector up`")
        if EmbeddedPostgres(self.data_dir).is_ready():
            yield self.database_url
            return
        with embedded_servers(self.data_dir) as (database_url, _):
            yield database_url

    def note_url(self, url: str) -> None:
        """Keep where the running `up` answers, for other commands on this directory."""
        path = self.data_dir / "url"
        path.unlink(missing_ok=True)
        _keep_private(path, url)

    def running_url(self) -> str:
        """Return where `up` answers, or did when it last ran. Raises `ConfigurationError`."""
        try:
            return (self.data_dir / "url").read_text()
        except FileNotFoundError:
            raise ConfigurationError(
                f"{self.data_dir} holds no data of `analytics-collector up`, or none that ran"
            ) from None

    def kept_key(self) -> str:
        """Return the key that `up` printed. Raises `ConfigurationError`."""
        try:
            key: str = json.loads((self.data_dir / "credentials.json").read_text())["key"]
        except FileNotFoundError:
            raise ConfigurationError(f"{self.data_dir} has no credentials of `up`") from None
        return key

    async def ensure_credentials(self) -> dict[str, str]:
        """Return `key` (ingest and read) and `admin_key` of the default project.

        They are made at the first start, or again when the file that keeps them is gone.
        """
        path = self.data_dir / "credentials.json"
        if path.exists():
            kept: dict[str, str] = json.loads(path.read_text())
            return kept
        connection = await asyncpg.connect(self.database_url, timeout=10)
        try:
            admin = ProjectAdmin(connection, self.ensure_secret())
            await admin.ensure_project(DEFAULT_PROJECT)
            key = await admin.create_key(DEFAULT_PROJECT, ["ingest", "read"], "up")
            admin_key = await admin.create_key(DEFAULT_PROJECT, ["admin"], "up (admin)")
        finally:
            await connection.close()
        made = {"key": key["key"], "admin_key": admin_key["key"]}
        _keep_private(path, json.dumps(made))
        return made


def children(installation: Installation, host: str, port: int) -> list[ChildSpec]:
    """Return what `up` runs, in the order of starting."""
    data_dir = installation.data_dir
    directory = DataDir(data_dir)
    env = environment_for_child(
        {
            "ANALYTICS_DATABASE_URL": installation.database_url,
            "ANALYTICS_REDIS_URL": installation.redis_url,
            "ANALYTICS_SECRET": installation.ensure_secret(),
            "ANALYTICS_HOST": host,
            "ANALYTICS_PORT": str(port),
            "ANALYTICS_DATA_DIR": str(data_dir),
        }
    )
    # -P: what lies in the current directory is not imported instead of the real thing.
    command = (sys.executable, "-P", "-m", "analytics_collector")
    return [
        EmbeddedPostgres(data_dir).child(),
        EmbeddedValkey(data_dir).child(),
        ChildSpec(
            name="serve",
            argv=(*command, "serve", "--migrate"),
            env=env,
            ready=lambda: _answers(base_url(host, port) + "/readyz"),
            stop_timeout_s=_SERVE_STOP_S,
            lock_path=directory.lock("serve"),
            log_path=directory.log("serve"),
        ),
        ChildSpec(
            name="worker",
            argv=(*command, "worker"),
            env=env,
            lock_path=directory.lock("worker"),
            log_path=directory.log("worker"),
        ),
    ]


def supervisor(installation: Installation, host: str, port: int) -> Supervisor:
    """Return the supervisor of all that `up` runs; it refuses a directory that is in use."""
    return Supervisor(children(installation, host, port), data_dir=installation.data_dir)


def choose_port(host: str, port: int, installation: Installation) -> int:
    """Return *port* if it can be had, for 0 one that is free at the moment.

    A server that a killed `up` left behind may still be answering what it took: it is waited for.
    Raises `ConfigurationError` if somebody else listens there.
    """
    try:
        probe = listen(host, port)
    except ConfigurationError:
        _refuse_second(installation)
        _wait_for_leftover(installation)
        probe = listen(host, port)
    with probe:
        chosen: int = probe.getsockname()[1]
        return chosen


def _refuse_second(installation: Installation) -> None:
    """Raise `DataDirInUse` if another `up` works on the directory: then the port is its."""
    directory = DataDir(installation.data_dir)
    if directory.path.exists():
        directory.claim()
        directory.release()


def _wait_for_leftover(installation: Installation) -> None:
    lock = DataDir(installation.data_dir).lock("serve")
    deadline = time.monotonic() + _SERVE_STOP_S
    while lock.exists() and time.monotonic() < deadline:
        descriptor = try_lock(lock)
        if descriptor is not None:
            unlock(descriptor)
            return
        time.sleep(_LEFTOVER_POLL_S)


def base_url(host: str, port: int) -> str:
    """Return the URL under which a client on this machine reaches the server."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - it is compared, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _answers(url: str) -> bool:
    try:
        with _DIRECT.open(url, timeout=_READY_TIMEOUT_S) as answer:
            status: int = answer.status
            return status == 200
    except (urllib.error.URLError, OSError):
        return False


def _keep_private(path: Path, text: str) -> None:
    """Make the file *path* with *text*, for us alone; one that is there already stays.

    After a crash there is the whole of it or nothing, and of two who make it at once one wins.
    """
    fresh = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileExistsError):
        os.link(fresh, path)
    fresh.unlink()


def as_json(value: dict[str, Any]) -> str:
    """Return *value* as one line of JSON."""
    return json.dumps(value, default=str)

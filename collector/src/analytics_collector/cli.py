"""The command line. Exit codes: 0 done, 1 it could not be done (the reason is told), 2 misused."""

from __future__ import annotations

import asyncio
import functools
import math
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import click
import uvloop
from prometheus_client import start_http_server

from analytics_collector import logs, metrics
from analytics_collector.adapters.migrate import migrate as migrate_database
from analytics_collector.adapters.postgres.keys import ProjectAdmin
from analytics_collector.errors import CollectorError, ConfigurationError
from analytics_collector.model import SCOPES
from analytics_collector.server import serve as serve_until_stopped
from analytics_collector.settings import NOT_NEEDED, read_settings
from analytics_collector.up import (
    Installation,
    as_json,
    base_url,
    choose_port,
    supervisor,
)
from analytics_collector.version import __version__
from analytics_collector.worker.run import run_until_stopped

_data_dir = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Work on the data of `up` in this directory, running or stopped.",
)
_json = click.option("--json", "as_machine", is_flag=True, help="Print one JSON value.")


def told(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let what can go wrong end the command with its reason instead of a traceback."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except CollectorError as exc:
            raise click.ClickException(str(exc)) from exc
        except asyncpg.PostgresError as exc:
            raise click.ClickException(f"Postgres: {type(exc).__name__}: {exc}") from exc
        except OSError as exc:
            where = f": {exc.filename}" if exc.filename else ""
            raise click.ClickException(f"{exc.strerror or exc}{where}") from exc

    return wrapper


@click.group()
@click.version_option(__version__)
def main() -> None:
    """Take events over HTTP, keep them in Postgres, publish them to Redis, answer questions.

    Settings come from the environment: ANALYTICS_DATABASE_URL, ANALYTICS_REDIS_URL and
    ANALYTICS_SECRET; `up` needs none.
    """


@main.command()
@click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False))
@click.option("--host", default=None, help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; 0: any free.  [default: 8000]")
@_json
@told
def up(data_dir: Path | None, host: str | None, port: int | None, as_machine: bool) -> None:
    """Run everything with databases of its own, until stopped.

    Prints `url:` and `key:` (scopes ingest and read, of the project `default`) when it is ready.
    """
    settings = read_settings(
        host=host,
        port=port,
        data_dir=data_dir,
        # It brings its own.
        database_url=NOT_NEEDED,
        redis_url=NOT_NEEDED,
        secret=NOT_NEEDED,
    )
    logs.configure("WARNING")
    installation = Installation(settings.data_dir.absolute())
    chosen = choose_port(settings.host, settings.port, installation)

    def announce() -> None:
        credentials = asyncio.run(installation.ensure_credentials())
        url = base_url(settings.host, chosen)
        if as_machine:
            click.echo(as_json({"url": url, **credentials, "pid": os.getpid()}))
            return
        click.echo(f"data: {installation.data_dir}")
        click.echo(f"url: {url}")
        click.echo(f"key: {credentials['key']}")

    running = supervisor(installation, settings.host, chosen)
    raise SystemExit(running.run_until_signal(announce))


@main.command()
@click.option("--host")
@click.option("--port", type=click.IntRange(0, 65535))
@click.option("--migrate", "migrate_first", is_flag=True, help="Bring the schema up to date first.")
@told
def serve(host: str | None, port: int | None, migrate_first: bool) -> None:
    """Run one server on the databases of the environment."""
    settings = read_settings(host=host, port=port)
    logs.configure(settings.log_level)
    if migrate_first:
        asyncio.run(migrate_database(settings.database_url))
    _run_on_uvloop(serve_until_stopped(settings))


@main.command()
@click.option("--metrics-port", type=click.IntRange(1, 65535), help="Serve /metrics there.")
@told
def worker(metrics_port: int | None) -> None:
    """Publish commits to Redis and run the consumers, on the databases of the environment."""
    settings = read_settings(secret=NOT_NEEDED)
    logs.configure(settings.log_level)
    if metrics_port is not None:
        start_http_server(metrics_port, settings.host, metrics.REGISTRY)
    _run_on_uvloop(run_until_stopped(settings))


@main.command()
@_data_dir
@_json
@told
def migrate(data_dir: Path | None, as_machine: bool) -> None:
    """Bring the database to the schema of this version; harmless when it is."""
    with _database(data_dir) as (database_url, _):
        applied = [migration.name for migration in asyncio.run(migrate_database(database_url))]
    if as_machine:
        click.echo(as_json({"applied": applied}))
    else:
        click.echo("applied: " + (", ".join(applied) or "nothing, the schema is up to date"))


@main.group()
def projects() -> None:
    """Create and list projects."""


@projects.command("create")
@click.argument("name")
@_data_dir
@_json
@told
def create_project(name: str, data_dir: Path | None, as_machine: bool) -> None:
    """Create the project NAME."""
    if not name.strip() or not name.isprintable():
        raise click.BadParameter("must have characters that can be read", param_hint="NAME")
    made = _administer(data_dir, lambda admin: admin.create_project(name))
    click.echo(as_json(made) if as_machine else f"project {made['project_id']}: {name}")


@projects.command("list")
@_data_dir
@_json
@told
def list_projects(data_dir: Path | None, as_machine: bool) -> None:
    """List the projects."""
    _print_rows(_administer(data_dir, lambda admin: admin.list_projects()), as_machine)


@main.group()
def keys() -> None:
    """Create, list and revoke API keys."""


@keys.command("create")
@click.option("--project", default="default", show_default=True)
@click.option("--scope", "scopes", type=click.Choice(SCOPES), multiple=True, required=True)
@click.option("--name", default="", help="What the key is for.")
@click.option("--expires-in-days", type=click.FloatRange(0, 36_500, min_open=True))
@_data_dir
@_json
@told
def create_key(
    project: str,
    scopes: tuple[str, ...],
    name: str,
    expires_in_days: float | None,
    data_dir: Path | None,
    as_machine: bool,
) -> None:
    """Create a key; it is shown this once. Give --scope more than once for several."""
    expires_at = None
    if expires_in_days is not None and math.isnan(expires_in_days):
        raise click.BadParameter("must be a number", param_hint="--expires-in-days")
    if expires_in_days is not None:
        expires_at = datetime.now(UTC) + timedelta(days=expires_in_days)
    made = _administer(
        data_dir,
        lambda admin: admin.create_key(project, scopes, name, expires_at),
        with_secret=True,
    )
    click.echo(as_json(made) if as_machine else f"key: {made['key']}\nid: {made['key_id']}")


@keys.command("list")
@click.option("--project", help="Only the keys of this project.")
@_data_dir
@_json
@told
def list_keys(project: str | None, data_dir: Path | None, as_machine: bool) -> None:
    """List the keys, without their secrets."""
    _print_rows(_administer(data_dir, lambda admin: admin.list_keys(project)), as_machine)


@keys.command("revoke")
@click.argument("key_id", type=click.IntRange(1, 2**63 - 1))
@_data_dir
@_json
@told
def revoke_key(key_id: int, data_dir: Path | None, as_machine: bool) -> None:
    """Revoke the key KEY_ID (see `keys list`); within 5 s it is refused everywhere."""
    revoked = _administer(data_dir, lambda admin: admin.revoke_key(key_id))
    click.echo(as_json(revoked) if as_machine else f"key {key_id} is revoked")


@contextmanager
def _database(data_dir: Path | None, *, with_secret: bool = False) -> Iterator[tuple[str, str]]:
    """Give the database's URL and the secret, of `up`'s directory or of the environment."""
    if data_dir is not None:
        installation = Installation(data_dir.absolute())
        with installation.database() as database_url:
            yield database_url, installation.ensure_secret()
        return
    try:
        settings = read_settings(redis_url=NOT_NEEDED, secret=None if with_secret else NOT_NEEDED)
    except ConfigurationError as exc:
        raise ConfigurationError(
            f"{exc}; or, for the data of `up`, give its directory with --data-dir"
        ) from exc
    yield settings.database_url, settings.secret


def _administer(
    data_dir: Path | None,
    action: Callable[[ProjectAdmin], Awaitable[Any]],
    *,
    with_secret: bool = False,
) -> Any:
    async def run(database_url: str, secret: str) -> Any:
        connection = await asyncpg.connect(database_url, timeout=10)
        try:
            return await action(ProjectAdmin(connection, secret))
        finally:
            await connection.close()

    with _database(data_dir, with_secret=with_secret) as (database_url, secret):
        return asyncio.run(run(database_url, secret))


def _print_rows(rows: list[dict[str, Any]], as_machine: bool) -> None:
    if as_machine:
        click.echo(as_json({"items": rows}))
        return
    for row in rows:
        click.echo("  ".join(f"{name}={value}" for name, value in row.items() if value is not None))


def _run_on_uvloop(main_coroutine: Any) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main_coroutine)

"""The commands that run something: everything, a server, a worker; and the schema's."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import click
import uvloop
from prometheus_client import start_http_server

from analytics_collector import logs, metrics
from analytics_collector.adapters.migrate import migrate as migrate_database
from analytics_collector.adapters.postgres.pool import STORE_FAILURES
from analytics_collector.cli.common import data_dir_option, json_option, open_database, told
from analytics_collector.server import serve as serve_until_stopped
from analytics_collector.settings import NOT_NEEDED, read_settings
from analytics_collector.up import Installation, as_json, base_url, choose_port, supervisor
from analytics_collector.worker.run import run_until_stopped
from analytics_collector.workers import run_workers, serve_inherited

logger = logging.getLogger(__name__)


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False))
@click.option("--host", default=None, help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; 0: any free.  [default: 8000]")
@json_option
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
        installation.note_url(url)
        if as_machine:
            click.echo(as_json({"url": url, **credentials, "pid": os.getpid()}))
            return
        click.echo(f"data: {installation.data_dir}")
        click.echo(f"url: {url}")
        click.echo(f"key: {credentials['key']}")

    running = supervisor(installation, settings.host, chosen)
    raise SystemExit(running.run_until_signal(announce))


@click.command()
@click.option("--host")
@click.option("--port", type=click.IntRange(0, 65535))
@click.option("--uds", type=click.Path(path_type=Path), help="Listen on a Unix socket there.")
@click.option("--workers", type=click.IntRange(1, 1024), help="How many processes.  [default: 1]")
@click.option("--tls-cert", type=click.Path(path_type=Path), help="Certificates, as PEM.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="Their private key, as PEM.")
@click.option("--migrate", "migrate_first", is_flag=True, help="Bring the schema up to date first.")
@click.option("--inherited", hidden=True, help="Descriptors of the parent: socket, pipe.")
@told
def serve(migrate_first: bool, inherited: str | None, **given: Any) -> None:
    """Run a server on the databases of the environment."""
    settings = read_settings(**given)
    logs.configure(settings.log_level)
    if migrate_first:
        try:
            asyncio.run(migrate_database(settings.database_url))
        except STORE_FAILURES as exc:
            if settings.ack != "spool":
                raise
            # It starts all the same; each connection that is made later looks at the schema.
            logger.warning("Schema not brought up to date", extra={"reason": type(exc).__name__})
    if inherited is not None:
        listener_fd, _, alive_fd = inherited.partition(",")
        _run_on_uvloop(serve_inherited(settings, int(listener_fd), int(alive_fd)))
    elif settings.workers > 1:
        asyncio.run(run_workers(settings))
    else:
        _run_on_uvloop(serve_until_stopped(settings))


@click.command()
@click.option("--metrics-port", type=click.IntRange(1, 65535), help="Serve /metrics there.")
@told
def worker(metrics_port: int | None) -> None:
    """Publish commits to Redis and run the consumers, on the databases of the environment."""
    settings = read_settings(secret=NOT_NEEDED)
    logs.configure(settings.log_level)
    if metrics_port is not None:
        start_http_server(metrics_port, settings.host, metrics.REGISTRY)
    _run_on_uvloop(run_until_stopped(settings))


@click.command()
@data_dir_option
@json_option
@told
def migrate(data_dir: Path | None, as_machine: bool) -> None:
    """Bring the database to the schema of this version; harmless when it is."""
    with open_database(data_dir) as (database_url, _):
        applied = [migration.name for migration in asyncio.run(migrate_database(database_url))]
    if as_machine:
        click.echo(as_json({"applied": applied}))
    else:
        click.echo("applied: " + (", ".join(applied) or "nothing, the schema is up to date"))


def _run_on_uvloop(main_coroutine: Any) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main_coroutine)

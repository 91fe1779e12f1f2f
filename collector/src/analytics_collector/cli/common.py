"""What the commands share: options, the way to a database, how rows and failures are told."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import click

from analytics_collector.adapters.postgres.administration import ProjectAdmin
from analytics_collector.errors import CollectorError, ConfigurationError
from analytics_collector.settings import NOT_NEEDED, read_settings
from analytics_collector.up import Installation, as_json

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Work on the data of `up` in this directory, running or stopped.",
)
json_option = click.option("--json", "as_machine", is_flag=True, help="Print one JSON value.")


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


@contextmanager
def open_database(data_dir: Path | None, *, with_secret: bool = False) -> Iterator[tuple[str, str]]:
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


def administer(
    data_dir: Path | None,
    action: Callable[[ProjectAdmin], Awaitable[Any]],
    *,
    with_secret: bool = False,
) -> Any:
    """Return what *action* returns, done on the database of *data_dir* or the environment."""

    async def run(database_url: str, secret: str) -> Any:
        connection = await asyncpg.connect(database_url, timeout=10)
        try:
            return await action(ProjectAdmin(connection, secret))
        finally:
            await connection.close()

    with open_database(data_dir, with_secret=with_secret) as (database_url, secret):
        return asyncio.run(run(database_url, secret))


def read_secrets(data_dir: Path | None) -> tuple[str, tuple[str, ...]]:
    """Return the secret, of `up`'s directory or the environment, and the environment's previous."""
    kept = None
    if data_dir is not None:
        installation = Installation(data_dir.absolute())
        if installation.is_new:
            raise ConfigurationError(f"{data_dir} holds no data of `analytics-collector up`")
        kept = installation.ensure_secret()
    settings = read_settings(database_url=NOT_NEEDED, redis_url=NOT_NEEDED, secret=kept)
    return settings.secret, settings.secret_previous


def print_row(row: dict[str, Any], as_machine: bool) -> None:
    """Print *row*, a line for each member, or as one JSON value."""
    if as_machine:
        click.echo(as_json(row))
        return
    for name, value in row.items():
        if value is not None:
            click.echo(f"{name}: {value}")


def print_rows(rows: list[dict[str, Any]], as_machine: bool) -> None:
    """Print *rows*, a line for each, or as one JSON value."""
    if as_machine:
        click.echo(as_json({"items": rows}))
        return
    for row in rows:
        click.echo("  ".join(f"{name}={value}" for name, value in row.items() if value is not None))

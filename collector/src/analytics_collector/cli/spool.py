"""What waits on this host for Postgres."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import click

from analytics_collector.adapters.spool.file import read_state
from analytics_collector.cli.common import data_dir_option, json_option, print_rows, told
from analytics_collector.errors import ConfigurationError
from analytics_collector.settings import NOT_NEEDED, SPOOL_IN_REDIS, read_settings


@click.group()
def spool() -> None:
    """Look at the events that were acknowledged while Postgres was away."""


@spool.command()
@data_dir_option
@json_option
@told
def status(data_dir: Path | None, as_machine: bool) -> None:
    """Tell how much waits, for each database; also while servers run."""
    settings = read_settings(
        database_url=NOT_NEEDED, redis_url=NOT_NEEDED, secret=NOT_NEEDED, data_dir=data_dir
    )
    if settings.spool == SPOOL_IN_REDIS:
        raise ConfigurationError("the spool is in Redis: GET /health of a server tells its size")
    in_data_dir = data_dir is not None or settings.spool is None
    folder = settings.data_dir / "spool" if in_data_dir else Path(settings.spool or "")
    # Those that were set aside too, but not what SQLite keeps beside its files.
    paths = [p for p in sorted(folder.glob("*.sqlite*")) if not p.name.endswith(("-wal", "-shm"))]
    print_rows([_row(path) for path in paths], as_machine)


def _row(path: Path) -> dict[str, object]:
    try:
        state = read_state(path)
    except sqlite3.Error as exc:
        return {"spool": str(path), "problem": str(exc)}
    since = None if state.oldest_at is None else datetime.fromtimestamp(state.oldest_at, UTC)
    return {
        "spool": str(path),
        "events": state.events,
        "bytes": state.bytes,
        "refused": state.refused,
        "oldest": None if since is None else since.isoformat(timespec="milliseconds"),
    }

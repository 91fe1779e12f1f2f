"""Dead letters, from the command line: events that were given up on."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import asyncpg
import click

from analytics_collector.adapters.postgres.administration import ProjectAdmin
from analytics_collector.adapters.postgres.dead_letters import PostgresDeadLetters
from analytics_collector.assemble import open_replayer
from analytics_collector.cli.common import (
    data_dir_option,
    json_option,
    open_database,
    print_rows,
    told,
)
from analytics_collector.errors import Refusal
from analytics_collector.ingest.payload import MAX_PAYLOAD_BYTES, facts_of
from analytics_collector.ingest.replay import Verdict
from analytics_collector.model import KeptLetter, LetterFilter
from analytics_collector.settings import NOT_NEEDED, read_settings
from analytics_collector.up import as_json

_TIME: Final = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"])
_ID: Final = click.IntRange(1, 2**63 - 1)
_OLDEST_FIRST: Final = 0


def _filters(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--to", type=_TIME, help="Only what was received before (UTC)."),
        click.option("--from", "since", type=_TIME, help="Only what was received from then (UTC)."),
        click.option("--name", help="Only events of this name."),
        click.option("--stage", help="decode, validate, schema, store or consumer:NAME."),
        click.option("--reason", help="Only with this code, such as MISSING_NAME."),
        click.option("--project", help="Only of this project.  [default: all]"),
    ):
        command = option(command)
    return command


@click.group()
def dlq() -> None:
    """Look at events that were given up on, and send them through again."""


@dlq.command("list")
@_filters
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@data_dir_option
@json_option
@told
def list_letters(limit: int, data_dir: Path | None, as_machine: bool, **filters: Any) -> None:
    """List dead letters, the newest first, without their payloads."""
    letters = _on_letters(
        data_dir, filters, lambda kept, wanted: kept.newest(wanted, limit), _project_of(filters)
    )
    print_rows([_row(letter) for letter in letters], as_machine)


@dlq.command("show")
@click.argument("letter_id", type=_ID)
@data_dir_option
@json_option
@told
def show_letter(letter_id: int, data_dir: Path | None, as_machine: bool) -> None:
    """Show the dead letter LETTER_ID with its payload."""
    letter = _find(data_dir, letter_id)
    row = _row(letter) | {"payload": json.loads(letter.payload or "null")}
    if as_machine:
        click.echo(as_json(row))
        return
    payload = row.pop("payload")
    for name, value in row.items():
        if value is not None:
            click.echo(f"{name}: {value}")
    click.echo(json.dumps(payload, indent=2))


@dlq.command("edit")
@click.argument("letter_id", type=_ID)
@click.option(
    "--payload",
    type=click.File("r", encoding="utf-8"),
    help="Take it from this file (- is the standard input).  [default: open $EDITOR]",
)
@data_dir_option
@json_option
@told
def edit_letter(letter_id: int, payload: Any, data_dir: Path | None, as_machine: bool) -> None:
    """Give the dead letter LETTER_ID another payload: the event as it should have been."""
    letter = _find(data_dir, letter_id)
    if payload is None:
        before = json.dumps(json.loads(letter.payload or "null"), indent=2)
        text = click.edit(before, extension=".json")
        if text is None:
            raise click.ClickException("nothing was changed")
    else:
        text = payload.read()
    event = _read_event(text)
    name, message_id = facts_of(event)
    content = json.dumps(event, separators=(",", ":"))
    if len(content) > MAX_PAYLOAD_BYTES:
        raise click.ClickException(f"an event has at most {MAX_PAYLOAD_BYTES} bytes as JSON")
    edited = _on_letters(
        data_dir, {}, lambda kept, _: kept.edit(letter_id, None, content, name, message_id)
    )
    if not edited:
        raise click.ClickException("what a consumer could not apply is stored, and stays as it is")
    click.echo(as_json({"letter_id": letter_id}) if as_machine else f"letter {letter_id} is edited")


@dlq.command("replay")
@click.argument("letter_ids", type=_ID, nargs=-1)
@_filters
@click.option("--all", "everything", is_flag=True, help="All that the filters let through.")
@click.option("--dry-run", is_flag=True, help="Tell what would become of them, change nothing.")
@data_dir_option
@json_option
@told
def replay_letters(
    letter_ids: tuple[int, ...],
    everything: bool,
    dry_run: bool,
    data_dir: Path | None,
    as_machine: bool,
    **filters: Any,
) -> None:
    """Send dead letters through once more, the oldest first: LETTER_IDS, or those of the filters.

    Those that succeed are removed. Exit code 1 if one did not.
    """
    _need_a_choice(letter_ids, everything, filters)
    verdicts = _replay(data_dir, letter_ids, filters, dry_run)
    if as_machine:
        click.echo(
            as_json({"dry_run": dry_run, "items": [verdict._asdict() for verdict in verdicts]})
        )
    else:
        print_rows([verdict._asdict() for verdict in verdicts], as_machine)
        counts = Counter(verdict.outcome for verdict in verdicts)
        told_counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
        click.echo(("would be: " if dry_run else "") + (told_counts or "nothing to replay"))
    if any(verdict.outcome in ("rejected", "incomplete") for verdict in verdicts):
        raise SystemExit(1)


@dlq.command("purge")
@click.argument("letter_ids", type=_ID, nargs=-1)
@_filters
@click.option("--all", "everything", is_flag=True, help="All that the filters let through.")
@data_dir_option
@json_option
@told
def purge_letters(
    letter_ids: tuple[int, ...],
    everything: bool,
    data_dir: Path | None,
    as_machine: bool,
    **filters: Any,
) -> None:
    """Remove dead letters for good: LETTER_IDS, or those of the filters."""
    _need_a_choice(letter_ids, everything, filters)
    removed = _on_letters(
        data_dir,
        filters,
        lambda kept, wanted: kept.purge(wanted._replace(ids=letter_ids or None)),
        _project_of(filters),
    )
    click.echo(as_json({"removed": removed}) if as_machine else f"{removed} removed")


def _need_a_choice(letter_ids: tuple[int, ...], everything: bool, filters: dict[str, Any]) -> None:
    if not letter_ids and not everything and not any(filters.values()):
        raise click.UsageError("name letters, or a filter, or give --all")


def _project_of(filters: dict[str, Any]) -> str | None:
    project: str | None = filters.get("project")
    return project


def _on_letters(
    data_dir: Path | None,
    filters: dict[str, Any],
    action: Callable[[PostgresDeadLetters, LetterFilter], Awaitable[Any]],
    project: str | None = None,
) -> Any:
    async def run(database_url: str) -> Any:
        connection = await asyncpg.connect(database_url, timeout=10)
        try:
            wanted = await _wanted(connection, filters, project)
            return await action(PostgresDeadLetters(connection), wanted)
        finally:
            await connection.close()

    with open_database(data_dir) as (database_url, _):
        return asyncio.run(run(database_url))


async def _wanted(
    connection: asyncpg.Connection, filters: dict[str, Any], project: str | None
) -> LetterFilter:
    project_id = None if project is None else await ProjectAdmin(connection, "").project_id(project)
    since, to = filters.get("since"), filters.get("to")
    return LetterFilter(
        project_id,
        filters.get("reason"),
        filters.get("stage"),
        filters.get("name"),
        None if since is None else since.replace(tzinfo=UTC),
        None if to is None else to.replace(tzinfo=UTC),
    )


def _find(data_dir: Path | None, letter_id: int) -> KeptLetter:
    wanted = LetterFilter(ids=(letter_id,))
    found = _on_letters(data_dir, {}, lambda kept, _: kept.newest(wanted, 1, with_payload=True))
    if not found:
        raise Refusal("NOT_FOUND", f"There is no dead letter {letter_id}.")
    letter: KeptLetter = found[0]
    return letter


def _replay(
    data_dir: Path | None, letter_ids: tuple[int, ...], filters: dict[str, Any], dry_run: bool
) -> list[Verdict]:
    async def run(database_url: str, secret: str) -> list[Verdict]:
        connection = await asyncpg.connect(database_url, timeout=10)
        try:
            wanted = await _wanted(connection, filters, _project_of(filters))
        finally:
            await connection.close()
        wanted = wanted._replace(ids=letter_ids or None)
        verdicts: list[Verdict] = []
        behind: int | None = _OLDEST_FIRST
        async with open_replayer(database_url, secret, geoip_database) as replayer:
            while behind is not None:
                some = wanted._replace(behind=behind)
                replayed, behind = await replayer.replay(some, dry_run=dry_run)
                verdicts += replayed
        return verdicts

    geoip_database = read_settings(
        database_url=NOT_NEEDED, redis_url=NOT_NEEDED, secret=NOT_NEEDED
    ).geoip_database
    with open_database(data_dir, with_secret=True) as (database_url, secret):
        return asyncio.run(run(database_url, secret))


def _read_event(text: str) -> dict[str, Any]:
    try:
        event = json.loads(text)
        json.dumps(event, allow_nan=False)
    except (ValueError, RecursionError) as exc:
        raise click.ClickException(f"not JSON: {exc}") from exc
    if not isinstance(event, dict):
        raise click.ClickException("an event is a JSON object")
    return event


def _row(letter: KeptLetter) -> dict[str, Any]:
    row = letter._asdict()
    del row["payload"]
    return {
        name: value.isoformat(timespec="milliseconds") if isinstance(value, datetime) else value
        for name, value in row.items()
    }

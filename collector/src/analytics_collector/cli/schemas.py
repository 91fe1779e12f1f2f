"""Event schemas, from the command line: a folder of files, and what is registered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import click

from analytics_collector.adapters.postgres.administration import ProjectAdmin
from analytics_collector.adapters.postgres.schemas import SchemaRegistry
from analytics_collector.cli.common import data_dir_option, json_option, open_database, told
from analytics_collector.model import DEFAULT_PROJECT
from analytics_collector.schemas.document import read_schema
from analytics_collector.schemas.files import file_name, read_folder, write_folder
from analytics_collector.schemas.infer import infer
from analytics_collector.up import as_json

_folder = click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
_new_folder = click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
_project = click.option(
    "--project", default=DEFAULT_PROJECT, show_default=True, help="The project's name."
)
_prune = click.option(
    "--prune", is_flag=True, help="Also remove schemas that have no file in FOLDER."
)

Action = Callable[[SchemaRegistry, int], Awaitable[Any]]


@click.group()
def schemas() -> None:
    """Register event schemas: a folder with one JSON file for each event, named after it.

    A file holds a JSON Schema of the event's properties, or the short form
    {"orderId": "string", "note": "string?"}. `analytics-sdk codegen` reads the same folder.
    """


@schemas.command("push")
@_folder
@click.option(
    "--mode",
    type=click.Choice(["off", "warn", "reject", "project"]),
    help="What becomes of events that do not fit; `project`: as its settings say. "
    "Without it each schema keeps its own.",
)
@_prune
@_project
@data_dir_option
@json_option
@told
def push(
    folder: Path,
    mode: str | None,
    prune: bool,
    project: str,
    data_dir: Path | None,
    as_machine: bool,
) -> None:
    """Register the schemas of FOLDER: all of them, or none if one can't be."""
    wanted = read_folder(folder)

    async def act(registry: SchemaRegistry, project_id: int) -> dict[str, list[str]]:
        changes = await _changes(registry, project_id, wanted)
        for name, schema in wanted.items():
            if mode is not None or name in (*changes["added"], *changes["changed"]):
                said = None if mode == "project" else mode
                await registry.put(project_id, name, schema, said, sets_mode=mode is not None)
        for name in changes["extra"] if prune else ():
            await registry.remove(project_id, name)
        return changes

    changes = _act(data_dir, project, act)
    extra = changes.pop("extra")
    _tell({**changes, "removed": extra if prune else []}, as_machine)


@schemas.command("diff")
@_folder
@_prune
@_project
@data_dir_option
@json_option
@told
def diff(folder: Path, prune: bool, project: str, data_dir: Path | None, as_machine: bool) -> None:
    """Tell what `push` would change; exit 1 if it is anything."""
    wanted = read_folder(folder)
    changes = _act(data_dir, project, lambda registry, at: _changes(registry, at, wanted))
    extra = changes.pop("extra")
    changes["removed"] = extra if prune else []
    _tell(changes, as_machine)
    if any(changes.values()):
        raise SystemExit(1)


@schemas.command("pull")
@_new_folder
@_project
@data_dir_option
@json_option
@told
def pull(folder: Path, project: str, data_dir: Path | None, as_machine: bool) -> None:
    """Write what is registered to FOLDER, a file for each event."""
    found = _act(data_dir, project, lambda registry, project_id: registry.list_all(project_id))
    changed = write_folder(folder, {entry["name"]: entry["schema"] for entry in found})
    _tell({"written": [file.name for file in changed]}, as_machine)


@schemas.command("infer")
@_new_folder
@click.option("--days", type=click.FloatRange(0, min_open=True), default=7, show_default=True,
              help="Look at events of that many days.")  # fmt: skip
@click.option("--events", type=click.IntRange(1, 1_000_000), default=10_000, show_default=True,
              help="Look at no more events of a name, the newest.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Write over files that are there.")
@_project
@data_dir_option
@json_option
@told
def infer_schemas(
    folder: Path,
    days: float,
    events: int,
    overwrite: bool,
    project: str,
    data_dir: Path | None,
    as_machine: bool,
) -> None:
    """Guess the schemas of stored events, and write them to FOLDER for you to correct.

    What 99 % of them had is required. Values are listed only where there were few of them.
    """

    async def act(registry: SchemaRegistry, project_id: int) -> dict[str, Any]:
        found = {}
        async for name, values in registry.samples(project_id, days, events):
            if overwrite or not (folder / file_name(name)).exists():
                found[name] = infer(values)
        return found

    changed = write_folder(folder, _act(data_dir, project, act))
    _tell({"written": [file.name for file in changed]}, as_machine)


async def _changes(
    registry: SchemaRegistry, project_id: int, wanted: dict[str, Any]
) -> dict[str, list[str]]:
    """Return the names of what is new, what means something else, and what has no file."""
    there = {entry["name"]: entry["schema"] for entry in await registry.list_all(project_id)}
    return {
        "added": sorted(wanted.keys() - there.keys()),
        "changed": [
            name
            for name in sorted(wanted.keys() & there.keys())
            if read_schema(wanted[name]).digest != read_schema(there[name]).digest
        ],
        "extra": sorted(there.keys() - wanted.keys()),
    }


def _act(data_dir: Path | None, project: str, action: Action) -> Any:
    """Return what *action* returns, done in one transaction on the project called *project*."""

    async def run(database_url: str, secret: str) -> Any:
        connection = await asyncpg.connect(database_url, timeout=10)
        try:
            project_id = await ProjectAdmin(connection, secret).project_id(project)
            async with connection.transaction():
                return await action(SchemaRegistry(connection), project_id)
        finally:
            await connection.close()

    with open_database(data_dir) as (database_url, secret):
        return asyncio.run(run(database_url, secret))


def _tell(changes: dict[str, list[str]], as_machine: bool) -> None:
    if as_machine:
        click.echo(as_json(changes))
        return
    for what, names in changes.items():
        for name in names:
            click.echo(f"{what}: {name}")
    if not any(changes.values()):
        click.echo("nothing to do")

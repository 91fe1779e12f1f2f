"""Projects, from the command line."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import click

from analytics_collector.adapters.postgres.administration import ProjectAdmin
from analytics_collector.cli.common import (
    administer,
    data_dir_option,
    json_option,
    print_row,
    print_rows,
    told,
)
from analytics_collector.up import as_json


@click.group()
def projects() -> None:
    """Create, list and set up projects."""


@projects.command("create")
@click.argument("name")
@data_dir_option
@json_option
@told
def create_project(name: str, data_dir: Path | None, as_machine: bool) -> None:
    """Create the project NAME."""
    if not name.strip() or not name.isprintable():
        raise click.BadParameter("must have characters that can be read", param_hint="NAME")
    made = administer(data_dir, lambda admin: admin.create_project(name))
    click.echo(as_json(made) if as_machine else f"project {made['project_id']}: {name}")


@projects.command("list")
@data_dir_option
@json_option
@told
def list_projects(data_dir: Path | None, as_machine: bool) -> None:
    """List the projects."""
    print_rows(administer(data_dir, lambda admin: admin.list_projects()), as_machine)


@projects.command("show")
@click.argument("name")
@data_dir_option
@json_option
@told
def show_project(name: str, data_dir: Path | None, as_machine: bool) -> None:
    """Show the project NAME and what it has set for itself."""

    async def find(admin: ProjectAdmin) -> dict[str, Any]:
        return await admin.find_project(await admin.project_id(name))

    _print(administer(data_dir, find), as_machine)


@projects.command("set")
@click.argument("name")
@click.argument("settings", nargs=-1, required=True, metavar="SETTING...")
@data_dir_option
@json_option
@told
def set_project(
    name: str, settings: tuple[str, ...], data_dir: Path | None, as_machine: bool
) -> None:
    """Change settings of the project NAME; the others stay. In 5 s they hold everywhere.

    A SETTING is `section.member=value`, such as privacy.ip=drop, the value as JSON or a plain word
    and null for the default; or a JSON object, such as '{"limits": {"eventsPerMinute": 60000}}'.
    """
    patches = [_read_setting(text) for text in settings]

    async def change(admin: ProjectAdmin) -> dict[str, Any]:
        project_id = await admin.project_id(name)
        patch: dict[str, Any] = {}
        for section, members in chain.from_iterable(part.items() for part in patches):
            if isinstance(members, dict) and isinstance(patch.get(section), dict):
                members = patch[section] | members
            patch[section] = members
        return await admin.change_project(project_id, None, patch)

    _print(administer(data_dir, change), as_machine)


def _read_setting(text: str) -> dict[str, Any]:
    place, is_assigned, value = text.partition("=")
    section, has_member, member = place.partition(".")
    try:
        if not text.startswith("{") and is_assigned and has_member:
            return {section: {member: _read_value(value)}}
        document = json.loads(text)
    except ValueError as exc:
        raise click.BadParameter(f"{text!r} is neither section.member=value nor JSON") from exc
    if not isinstance(document, dict):
        raise click.BadParameter(f"{text!r} is no JSON object")
    return document


def _read_value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text  # a plain word


def _print(project: dict[str, Any], as_machine: bool) -> None:
    if not as_machine:
        project = project | {"settings": json.dumps(project["settings"])}
    print_row(project, as_machine)

"""Projects, from the command line."""

from __future__ import annotations

from pathlib import Path

import click

from analytics_collector.cli.common import (
    administer,
    data_dir_option,
    json_option,
    print_rows,
    told,
)
from analytics_collector.up import as_json


@click.group()
def projects() -> None:
    """Create and list projects."""


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

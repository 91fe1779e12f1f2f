"""API keys, from the command line."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from analytics_collector.cli.common import (
    administer,
    data_dir_option,
    json_option,
    print_rows,
    told,
)
from analytics_collector.model import SCOPES
from analytics_collector.up import as_json


@click.group()
def keys() -> None:
    """Create, list and revoke API keys."""


@keys.command("create")
@click.option("--project", default="default", show_default=True)
@click.option("--scope", "scopes", type=click.Choice(SCOPES), multiple=True, required=True)
@click.option("--name", default="", help="What the key is for.")
@click.option("--expires-in-days", type=click.FloatRange(0, 36_500, min_open=True))
@data_dir_option
@json_option
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
    made = administer(
        data_dir,
        lambda admin: admin.create_key(project, scopes, name, expires_at),
        with_secret=True,
    )
    click.echo(as_json(made) if as_machine else f"key: {made['key']}\nid: {made['key_id']}")


@keys.command("list")
@click.option("--project", help="Only the keys of this project.")
@data_dir_option
@json_option
@told
def list_keys(project: str | None, data_dir: Path | None, as_machine: bool) -> None:
    """List the keys, without their secrets."""
    print_rows(administer(data_dir, lambda admin: admin.list_keys(project)), as_machine)


@keys.command("revoke")
@click.argument("key_id", type=click.IntRange(1, 2**63 - 1))
@data_dir_option
@json_option
@told
def revoke_key(key_id: int, data_dir: Path | None, as_machine: bool) -> None:
    """Revoke the key KEY_ID (see `keys list`); within 5 s it is refused everywhere."""
    revoked = administer(data_dir, lambda admin: admin.revoke_key(key_id))
    click.echo(as_json(revoked) if as_machine else f"key {key_id} is revoked")

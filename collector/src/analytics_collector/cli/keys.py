"""API keys, from the command line."""

from __future__ import annotations

import math
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from analytics_collector.cli.common import (
    administer,
    data_dir_option,
    json_option,
    print_row,
    print_rows,
    read_secrets,
    told,
)
from analytics_collector.keys import DEFAULT_OVERLAP_S, MAX_OVERLAP_S, is_well_formed, pepper_id
from analytics_collector.model import SCOPES
from analytics_collector.origins import read_origins
from analytics_collector.up import as_json


@click.group()
def keys() -> None:
    """Create, list, rotate, expire and revoke API keys."""


_days = click.FloatRange(0, 36_500, min_open=True)
_key_id = click.argument("key_id", type=click.IntRange(1, 2**63 - 1))


@keys.command("create")
@click.option("--project", default="default", show_default=True)
@click.option("--scope", "scopes", type=click.Choice(SCOPES), multiple=True, required=True)
@click.option("--name", default="", help="What the key is for.")
@click.option("--expires-in-days", type=_days)
@click.option(
    "--allow-origin",
    "origins",
    multiple=True,
    help="A web origin that may use it, such as https://*.example.org.  [default: any]",
)
@data_dir_option
@json_option
@told
def create_key(
    project: str,
    scopes: tuple[str, ...],
    name: str,
    expires_in_days: float | None,
    origins: tuple[str, ...],
    data_dir: Path | None,
    as_machine: bool,
) -> None:
    """Create a key; it is shown this once.

    Give --scope and --allow-origin more than once for several.
    """
    expires_at = _from_now(expires_in_days, "--expires-in-days")
    allowed = read_origins(list(origins), "--allow-origin") if origins else None
    made = administer(
        data_dir,
        lambda admin: admin.create_key(project, scopes, name, expires_at, allowed),
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


@keys.command("show")
@_key_id
@data_dir_option
@json_option
@told
def show_key(key_id: int, data_dir: Path | None, as_machine: bool) -> None:
    """Show what may be shown of the key KEY_ID."""
    print_row(administer(data_dir, lambda admin: admin.find_key(key_id)), as_machine)


@keys.command("usage")
@_key_id
@click.option("--days", type=click.IntRange(1, 400), default=30, show_default=True)
@data_dir_option
@json_option
@told
def show_usage(key_id: int, days: int, data_dir: Path | None, as_machine: bool) -> None:
    """Show how much the key KEY_ID was used on each of the last days (UTC)."""
    used: dict[str, Any] = administer(data_dir, lambda admin: admin.key_usage(key_id, days))
    if as_machine:
        click.echo(as_json(used))
        return
    by_day = used.pop("days")
    print_row(used, as_machine)
    print_rows(by_day, as_machine)


@keys.command("rotate")
@_key_id
@click.option(
    "--overlap-seconds",
    type=click.IntRange(0, MAX_OVERLAP_S),
    default=DEFAULT_OVERLAP_S,
    show_default=True,
    help="How long the old key stays valid.",
)
@data_dir_option
@json_option
@told
def rotate_key(key_id: int, overlap_seconds: int, data_dir: Path | None, as_machine: bool) -> None:
    """Make a key that may what KEY_ID may; the old one ends after the overlap."""
    made = administer(
        data_dir, lambda admin: admin.rotate_key(key_id, overlap_seconds), with_secret=True
    )
    if as_machine:
        click.echo(as_json(made))
        return
    click.echo(f"key: {made['key']}\nid: {made['key_id']}")
    click.echo(f"key {key_id} is valid until {made['old_key_expires_at']}")


@keys.command("expire")
@_key_id
@click.option("--in-days", type=_days, help="When it is to end.  [default: now]")
@click.option("--never", is_flag=True, help="Let it not end by itself.")
@data_dir_option
@json_option
@told
def expire_key(
    key_id: int, in_days: float | None, never: bool, data_dir: Path | None, as_machine: bool
) -> None:
    """Let the key KEY_ID end now, or at another time than it was to."""
    if never and in_days is not None:
        raise click.UsageError("--in-days and --never exclude each other")
    ends_at = None if never else _from_now(in_days or 0.0, "--in-days")
    changed = administer(data_dir, lambda admin: admin.change_key(key_id, {"expires_at": ends_at}))
    print_row(changed, as_machine)


@keys.command("check")
@click.argument("candidate", metavar="KEY")
@json_option
def check_key(candidate: str, as_machine: bool) -> None:
    """Say whether KEY is well formed, without asking any database; `-` reads it from stdin.

    A key that is well formed may still be unknown, revoked or expired. Exit code 1 if it is not.
    """
    text = sys.stdin.read().strip() if candidate == "-" else candidate
    good = is_well_formed(text.encode("utf-8", "surrogateescape"))
    told_as = "well formed" if good else "not well formed: mistyped, cut off, or no key of ours"
    click.echo(as_json({"well_formed": good}) if as_machine else told_as)
    raise SystemExit(0 if good else 1)


@keys.command("pepper")
@data_dir_option
@json_option
@told
def show_peppers(data_dir: Path | None, as_machine: bool) -> None:
    """Show the public ids of ANALYTICS_SECRET and ANALYTICS_SECRET_PREVIOUS.

    `keys list` shows under which of them each key is stored.
    """
    current, previous = read_secrets(data_dir)
    row = {"current": pepper_id(current), "previous": [pepper_id(secret) for secret in previous]}
    print_row(row, as_machine)


@keys.command("revoke")
@_key_id
@data_dir_option
@json_option
@told
def revoke_key(key_id: int, data_dir: Path | None, as_machine: bool) -> None:
    """Revoke the key KEY_ID (see `keys list`); within 5 s it is refused everywhere."""
    revoked = administer(data_dir, lambda admin: admin.revoke_key(key_id))
    click.echo(as_json(revoked) if as_machine else f"key {key_id} is revoked")


def _from_now(days: float | None, option: str) -> datetime | None:
    if days is None:
        return None
    if math.isnan(days):
        raise click.BadParameter("must be a number", param_hint=option)
    return datetime.now(UTC) + timedelta(days=days)

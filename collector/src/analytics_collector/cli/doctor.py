"""Whether everything is as it should be."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click

from analytics_collector.cli.common import data_dir_option, json_option, told
from analytics_collector.doctor import Finding, examine
from analytics_collector.errors import ConfigurationError
from analytics_collector.settings import Settings, read_settings
from analytics_collector.up import Installation, as_json

_MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


@click.command()
@data_dir_option
@json_option
@told
def doctor(data_dir: Path | None, as_machine: bool) -> None:
    """Look at settings, Postgres, Redis, worker, spool; say what to mend.

    Changes nothing. Exit code 1 if something fails; a warning is none.
    """
    try:
        with _settings(data_dir) as settings:
            findings = asyncio.run(examine(settings, data_dir))
    except ConfigurationError as exc:
        advice = "set them in the environment, or give the directory of `up` with --data-dir"
        findings = [Finding("settings", "fail", str(exc), advice)]
    failed = any(finding.status == "fail" for finding in findings)
    if as_machine:
        click.echo(as_json({"ok": not failed, "checks": [asdict(found) for found in findings]}))
    else:
        for finding in findings:
            click.echo(f"{_MARKS[finding.status]}  {finding.check}: {finding.detail}")
            if finding.advice:
                click.echo(f"      -> {finding.advice}")
    raise SystemExit(1 if failed else 0)


@contextmanager
def _settings(data_dir: Path | None) -> Iterator[Settings]:
    if data_dir is None:
        yield read_settings()
        return
    installation = Installation(data_dir.absolute())
    with installation.database() as database_url:
        yield read_settings(
            database_url=database_url,
            redis_url=installation.redis_url,
            secret=installation.ensure_secret(),
            data_dir=installation.data_dir,
        )

"""Backup and restore as the README tells it, from one cluster to another."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from analytics_collector.embedded.binaries import find_postgres_bin
from harness.client import Sender
from harness.collector import COMMAND, Collector, Serve
from harness.database import Database
from harness.processes import Program
from harness.servers import OwnServers, own_servers
from harness.waiting import wait_for


@pytest.fixture
def elsewhere() -> Iterator[OwnServers]:
    """A cluster that has never seen the data."""
    with own_servers() as servers:
        servers.start()
        yield servers


def _run(program: str, *words: str) -> None:
    command = [str(find_postgres_bin() / program), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _send(serve: Serve, key: str, *names: str) -> None:
    with Sender(serve.url, key) as sender:
        for name in names:
            event = {"type": "track", "name": name, "userId": "u-1"}
            assert sender.send([event]).status == 202


def _tail(serve: Serve, key: str, folder: Path, *words: str) -> Program:
    environment = {
        "ANALYTICS_API_URL": serve.url,
        "ANALYTICS_API_KEY": key,
        "PYTHONUNBUFFERED": "1",
    }
    return Program([*COMMAND, "tail", "--json", *words], folder, "tail", environment)


def _lines(tail: Program) -> list[dict[str, str]]:
    whole = [line for line in tail.out.splitlines(keepends=True) if line.endswith("\n")]
    return [json.loads(line) for line in whole]


@pytest.mark.long
def test_a_backup_is_taken_up_by_another_cluster(
    servers: tuple[str, str], elsewhere: OwnServers, tmp_path: Path
) -> None:
    """Keys, events, counts and places in the live tail go on; what came after the dump is gone.

    The stream in Redis is of the old cluster, and is begun anew.
    """
    before = [f"before{n}" for n in range(20)]
    after = [f"after{n}" for n in range(20)]
    old = Database.create(servers[0])
    key = old.new_key()
    collector = Collector(old, elsewhere.valkey.url, tmp_path)
    with collector.serve() as serve, collector.worker(), _tail(serve, key, tmp_path) as tail:
        wait_for(lambda: _comes(serve, key, tail), tail.log)
        _send(serve, key, *before)
        wait_for(lambda: _lines(tail)[-1]["name"] == before[-1], tail.log)
        heard = {line["name"]: line["id"] for line in _lines(tail)}
        old.wait_counted()
        _run("pg_dump", "--format=custom", f"--file={tmp_path / 'backup'}", old.url)
        _send(serve, key, "after the dump")
        old.wait_counted()

    name = f"restored_{Path(urlsplit(old.url).path).name}"
    Database(elsewhere.postgres.url).execute(f"create database {name}")
    new = Database(urlunsplit(urlsplit(elsewhere.postgres.url)._replace(path=f"/{name}")))
    _run(
        "pg_restore",
        "--exit-on-error",
        "--no-owner",
        f"--dbname={new.url}",
        str(tmp_path / "backup"),
    )
    collector = Collector(new, elsewhere.valkey.url, tmp_path / "new")
    with (
        collector.serve() as serve,
        collector.worker(),
        _tail(serve, key, tmp_path / "new", "--since", heard[before[9]]) as tail,
    ):
        _send(serve, key, *after)
        new.wait_counted()
        wait_for(lambda: _lines(tail)[-1:] and _lines(tail)[-1]["name"] == after[-1], tail.log)
        names = [line["name"] for line in _lines(tail)]

    assert names == before[10:] + after
    assert new.value("select count(*) from events where name = 'after the dump'") == 0
    old.drop(servers[0])


def _comes(serve: Serve, key: str, tail: Program) -> bool:
    _send(serve, key, "is anybody there?")
    return bool(_lines(tail))

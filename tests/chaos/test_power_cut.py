"""The power goes: what the disk of Postgres itself has is all there is of what was acknowledged."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from analytics_collector.embedded.postgres import EmbeddedPostgres
from harness.checker import Findings, check
from harness.client import Ledger, Load
from harness.collector import Collector
from harness.database import Database
from harness.disk import PowerCutDisk, power_cut_disk
from harness.servers import OwnServers, Server
from harness.waiting import pause, wait_for

MIB = 1024 * 1024


@pytest.fixture
def disk() -> Iterator[PowerCutDisk]:
    """A disk with room for a cluster."""
    with power_cut_disk(512 * MIB) as disk:
        yield disk


def test_nothing_acknowledged_is_lost_when_the_power_goes(
    disk: PowerCutDisk, victims: OwnServers, tmp_path: Path, chaos_s: float, seed: int
) -> None:
    """And without the wait for the disk something is, so the power really went."""
    server = _server_on(disk.folder)
    server.start()
    try:
        database = Database.create(server.url)
        collector = Collector(database, victims.valkey.url, tmp_path)
        key = database.new_key("ingest")
        with collector.serve() as serve:
            waiting = _cut_under_load(Load(serve.url, key, seed=seed), server, disk, chaos_s / 8)
            kept = _kept(waiting, database, disk)
            _let_commits_not_wait(database)
            hasty = Load(serve.url, key, seed=seed + 1, users="hasty")
            lost = _kept(_cut_under_load(hasty, server, disk, 0.5), database, disk)
    finally:
        server.stop()
    print(f"lost {len(kept.lost)} of {kept.acknowledged}, {len(lost.lost)} of {lost.acknowledged}")

    assert kept.acknowledged > 50
    assert kept.lost == kept.doubled == kept.out_of_order == []
    assert lost.lost


def _server_on(folder: Path) -> Server:
    postgres = EmbeddedPostgres(folder / "data")
    spec = postgres.child()
    # It is on by default; said like this it could not be turned off.
    argv = list(spec.argv)
    place = argv.index("fsync=on")
    del argv[place - 1 : place + 1]
    return Server(replace(spec, argv=argv), postgres.dsn)


def _cut_under_load(load: Load, server: Server, disk: PowerCutDisk, seconds: float) -> list[Ledger]:
    """Cut the power after a while; return what the clients knew when that was done."""
    with load:
        pause(seconds)
        with server.frozen():
            disk.cut_power()
            return deepcopy(load.ledgers)


def _kept(ledgers: list[Ledger], database: Database, disk: PowerCutDisk) -> Findings:
    """Start Postgres on what the disk had, and compare that with what was acknowledged."""
    with disk.after_the_cut() as folder:
        server = _server_on(folder)
        server.start()
        try:
            name = urlsplit(database.url).path
            found = Database(urlunsplit(urlsplit(server.url)._replace(path=name)))
            return check(ledgers, found.stored())
        finally:
            server.stop()


def _let_commits_not_wait(database: Database) -> None:
    """Tell Postgres, which has been found safe, to leave the writing to the kernel."""
    database.execute("alter system set fsync = off")
    database.execute("select pg_reload_conf()")
    wait_for(lambda: database.value("show fsync") == "off", "no commit waits for the disk")

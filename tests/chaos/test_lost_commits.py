"""The line to Postgres breaks when a commit is done and not yet confirmed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from harness.client import Mint, Sender
from harness.collector import Collector
from harness.database import Database
from harness.proxy import FaultProxy
from harness.servers import OwnServers
from harness.waiting import wait_for


@pytest.fixture
def line(collector: Collector) -> Iterator[FaultProxy]:
    """The line between a collector and its Postgres."""
    host = unquote(urlsplit(collector.database.url).query.removeprefix("host="))
    with FaultProxy(f"{host}/.s.PGSQL.5432") as proxy:
        yield proxy


@pytest.fixture
def behind_the_line(
    collector: Collector, victims: OwnServers, line: FaultProxy, tmp_path: Path
) -> Collector:
    """The collector of the other fixture, with the line in between."""
    url = urlsplit(collector.database.url)
    through = f"postgresql://{url.username}@127.0.0.1:{line.port}{url.path}?sslmode=disable"
    return Collector(Database(through), victims.valkey.url, tmp_path)


def test_an_answer_that_was_lost_is_503_and_the_retry_a_duplicate(
    collector: Collector, line: FaultProxy, behind_the_line: Collector
) -> None:
    """Nobody knows whether it was stored, so nobody says so; the message ids keep it single."""
    events = Mint(1).events(4)
    with (
        behind_the_line.serve() as serve,
        Sender(serve.url, collector.database.new_key()) as sender,
    ):
        assert sender.send(Mint(2).events(1)).status == 202
        line.loses_answers = True
        unclear = sender.send(events)
        line.loses_answers = False
        wait_for(lambda: sender.get("/readyz").status == 200, "it is ready")
        again = sender.send(events)
        faults = serve.faults

    assert (unclear.status, unclear.json["code"]) == (503, "STORE_UNAVAILABLE")
    assert (again.status, again.json["eventCount"], again.json["duplicates"]) == (202, 4, 4)
    assert collector.database.event_count() == 5
    assert line.faults_done >= 1
    assert faults == []


def test_an_answer_that_was_lost_is_spooled_and_stored_once(
    collector: Collector, line: FaultProxy, behind_the_line: Collector, tmp_path: Path
) -> None:
    """With a spool it is acknowledged at once, and found to be there when it comes home."""
    events = Mint(3).events(4)
    with (
        behind_the_line.serve(ack="spool", spool=tmp_path / "spool") as serve,
        Sender(serve.url, collector.database.new_key()) as sender,
    ):
        assert sender.send(Mint(4).events(1)).status == 202
        line.loses_answers = True
        unclear = sender.send(events)
        line.loses_answers = False
        wait_for(lambda: sender.get("/health").json["status"] == "ok", "it came home")
        metrics = sender.get("/metrics").body.decode()
        faults = serve.faults

    assert (unclear.status, unclear.json["durability"]) == (202, "spooled")
    assert 'analytics_spool_drained_events_total{outcome="duplicate"} 4.0' in metrics
    assert collector.database.event_count() == 5
    assert faults == []

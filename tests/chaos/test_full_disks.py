"""The disk of Postgres, of Valkey or of the spool is full: told, survived, and over when it is."""

from __future__ import annotations

import time
from pathlib import Path

from analytics_collector.embedded.postgres import EmbeddedPostgres
from analytics_collector.embedded.valkey import EmbeddedValkey
from harness.client import Mint, Sender
from harness.collector import Collector
from harness.database import Database
from harness.disk import small_disk
from harness.servers import OwnServers, Server, valkey_command
from harness.waiting import pause, wait_for

MIB = 1024 * 1024


def test_a_postgres_whose_disk_is_full_is_503_and_keeps_what_it_had_confirmed(
    victims: OwnServers, tmp_path: Path
) -> None:
    """It ends itself when its log finds no room; with room and a start it has all of it again."""
    mint = Mint(1)
    acknowledged: list[str] = []
    with small_disk(160 * MIB) as disk:
        postgres = EmbeddedPostgres(disk.folder / "data")
        server = Server(postgres.child(), postgres.dsn)
        server.start()
        try:
            database = Database.create(server.url)
            collector = Collector(database, victims.valkey.url, tmp_path)
            with (
                collector.serve(commit_timeout_s=2) as serve,
                Sender(serve.url, database.new_key()) as sender,
            ):
                disk.fill()
                ends_at = time.monotonic() + 30
                statuses = []
                while time.monotonic() < ends_at and 503 not in statuses[-3:]:
                    events = [
                        {**event, "properties": {"text": "x" * 20_000}} for event in mint.events(40)
                    ]
                    statuses.append(sender.send(events).status)
                    if statuses[-1] == 202:
                        acknowledged += [event["messageId"] for event in events]
                refused = [sender.send(mint.events(1)).status for _ in range(2)]
                disk.give_room()
                if not server.is_running:
                    server.start()
                wait_for(lambda: sender.send(mint.events(1)).status == 202, "it takes events again")
            stored = {message_id for message_id, _ in database.stored()}
        finally:
            server.stop()

    assert set(statuses) <= {202, 503}
    assert refused == [503, 503]
    assert set(acknowledged) <= stored


def test_a_redis_whose_disk_is_full_costs_no_event(collector: Collector) -> None:
    """It takes nothing more; ingest does not notice, and all is counted when there is room."""
    database = collector.database
    mint = Mint(2)
    with small_disk(4 * MIB) as disk:
        valkey = EmbeddedValkey(disk.folder / "data")
        server = Server(valkey.child(), valkey.url)
        server.start()
        try:
            own = Collector(database, server.url, disk.folder)
            with (
                own.serve() as serve,
                own.worker() as worker,
                Sender(serve.url, database.new_key()) as sender,
            ):
                assert sender.send(mint.events(5)).status == 202
                database.wait_counted()
                disk.fill()
                refused = wait_for(lambda: _refusal(server.url), "it takes nothing more")
                statuses = {sender.send(mint.events(5)).status for _ in range(10)}
                pause(0.3)
                is_alive = worker.is_running
                disk.give_room()
                database.wait_counted()
                faults = serve.faults
        finally:
            server.stop()

    assert b"MISCONF" in refused
    assert statuses == {202}
    assert is_alive
    assert faults == []


def _refusal(url: str) -> bytes:
    """Return how Valkey refuses to write; empty if it does not. What is left of a page is used."""
    answer = valkey_command(url, "SET", "filler", "x" * 20_000)
    return answer if answer.startswith(b"-") else b""


def test_a_spool_whose_disk_is_full_is_503_and_loses_nothing(
    collector: Collector, victims: OwnServers
) -> None:
    """Before its own limit: what was acknowledged comes home, and room is used as it comes."""
    database = collector.database
    mint = Mint(3)
    with (
        small_disk(2 * MIB) as disk,
        collector.serve(ack="spool", spool=disk.folder / "spool", commit_timeout_s=1) as serve,
        Sender(serve.url, database.new_key()) as sender,
    ):
        assert sender.send(mint.events(1)).status == 202
        victims.postgres.crash()
        acknowledged = 1
        for _ in range(5):
            assert sender.send(mint.events(2)).status == 202
            acknowledged += 2
        disk.fill()
        while (answer := sender.send(mint.events(20))).status == 202:
            acknowledged += 20
        ready = sender.get("/readyz").status
        disk.give_room()
        again = sender.send(mint.events(2)).status
        acknowledged += 2
        victims.postgres.start()
        wait_for(lambda: database.event_count() >= acknowledged, "all came home")
        wait_for(lambda: sender.get("/health").json["status"] == "ok", "it is empty")
        faults = serve.faults

    assert (answer.status, answer.json["code"]) == (503, "STORE_UNAVAILABLE")
    assert ready == 503
    assert again == 202
    assert database.event_count() in (acknowledged, acknowledged + 20)
    assert faults == []

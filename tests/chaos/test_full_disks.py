"""The disk of Postgres, of Valkey or of the spool is full: told, survived, and over when it is."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from analytics_collector.embedded.postgres import EmbeddedPostgres
from analytics_collector.embedded.valkey import EmbeddedValkey
from harness.client import Mint, Sender
from harness.collector import Collector
from harness.database import Database
from harness.disk import SmallDisk, small_disk
from harness.servers import OwnServers, Server, valkey_command
from harness.waiting import pause, wait_for

MIB = 1024 * 1024


def test_a_postgres_whose_disk_is_full_is_503_and_keeps_what_it_had_confirmed(
    victims: OwnServers, tmp_path: Path
) -> None:
    """It panics when its log finds no room; with room and a start it has all of it again."""
    mint = Mint(1)
    acknowledged: list[str] = []
    statuses = set()

    def send(count: int, text: str) -> int:
        events = [mint.event(properties={"text": text}) for _ in range(count)]
        status = sender.send(events).status
        statuses.add(status)
        if status == 202:
            acknowledged.extend(event["messageId"] for event in events)
        return status

    def takes_events() -> bool:
        server.start()  # unless it runs; it may end later than its panic is told
        return send(1, "x") == 202

    with small_disk(64 * MIB) as disk, _server_with_its_log_on(disk) as server:
        database = Database.create(server.url)
        collector = Collector(database, victims.valkey.url, tmp_path)
        with (
            collector.serve(commit_timeout_s=2) as serve,
            Sender(serve.url, database.new_key()) as sender,
        ):
            disk.fill()
            wait_for(lambda: send(40, "x" * 20_000) and _has_panicked(server), "its log is full")
            # It starts again by itself, and may find room for a little.
            for _ in range(5):
                send(1, "x")
            disk.give_room()
            wait_for(takes_events, "it takes events again")
        stored = {message_id for message_id, _ in database.stored()}

    assert statuses == {202, 503}
    assert set(acknowledged) <= stored


@contextmanager
def _server_with_its_log_on(disk: SmallDisk) -> Iterator[Server]:
    """Give a Postgres whose write-ahead log, and nothing else, is on that disk."""
    # Not under pytest's own folder, whose long name leaves no room for a socket's.
    home = Path(tempfile.mkdtemp(prefix="analytics-chaos-"))
    postgres = EmbeddedPostgres(home / "data")
    server = Server(postgres.child(), postgres.dsn)
    try:
        server.start()
        server.stop()
        log = home / "data" / "postgres" / "pg_wal"
        owner = log.stat()
        shutil.move(log, disk.folder / "wal")
        for path in (disk.folder / "wal", *(disk.folder / "wal").rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid)
        log.symlink_to(disk.folder / "wal")
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(home)


def _has_panicked(server: Server) -> bool:
    log_path = server.spec.log_path
    assert log_path is not None
    log = log_path.read_text()
    return "PANIC:" in log and "No space left on device" in log


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

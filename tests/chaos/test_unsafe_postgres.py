"""A Postgres that may lose what it confirmed: nothing is acknowledged on its word."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from harness.client import Mint, Sender
from harness.collector import Collector
from harness.servers import OwnServers, Server
from harness.waiting import wait_for

SETTINGS = ("fsync", "synchronous_commit")


@contextmanager
def _careless(victims: OwnServers, setting: str) -> Iterator[None]:
    """Run the same Postgres with *setting* off."""
    victims.postgres.stop()
    spec = victims.postgres.spec
    careless = Server(replace(spec, argv=[*spec.argv, "-c", f"{setting}=off"]), "")
    try:
        careless.start()
        yield
    finally:
        careless.stop()
        victims.postgres.start()


@pytest.mark.parametrize("setting", SETTINGS)
def test_it_does_not_start_on_an_unsafe_postgres_and_names_the_setting(
    collector: Collector, victims: OwnServers, setting: str, tmp_path: Path
) -> None:
    """Neither with a spool nor without; it says how to turn it on."""
    with _careless(victims, setting):
        for settings in ({}, {"ack": "spool", "spool": tmp_path / "spool"}):
            server = collector.serve(**settings)
            server.start()
            try:
                assert server.wait() == 1
                assert f"Postgres has {setting} off" in server.log
                assert f"alter system reset {setting}" in server.log
                assert "Traceback" not in server.log
            finally:
                server.end()


def test_nothing_goes_to_a_postgres_that_came_back_unsafe(
    collector: Collector, victims: OwnServers, tmp_path: Path
) -> None:
    """The spool keeps what it has acknowledged until the setting is right again."""
    database = collector.database
    key = database.new_key()
    settings = {"ack": "spool", "spool": tmp_path / "spool", "commit_timeout_s": 1}
    with collector.serve(**settings) as serve, Sender(serve.url, key) as sender:
        assert sender.send(Mint(1).events(1)).status == 202  # its key is remembered
    victims.postgres.crash()
    with collector.serve(**settings) as serve, Sender(serve.url, key) as sender:
        answer = sender.send(Mint(2).events(3))
        with _careless(victims, "fsync"):
            wait_for(lambda: "Postgres has fsync off" in serve.log, "it was looked at")
            second = sender.send(Mint(3).events(2))
            stored = database.event_count()
        wait_for(lambda: sender.get("/health").json["status"] == "ok", "all came home")

    assert {answer.json["durability"], second.json["durability"]} == {"spooled"}
    assert stored == 1
    assert database.event_count() == 6


def test_a_postgres_that_comes_back_unsafe_is_not_acknowledged_from(
    collector: Collector, victims: OwnServers
) -> None:
    """Also where it was safe when the server began: 503 until the setting is right again."""
    database, mint = collector.database, Mint(4)
    with (
        collector.serve(commit_timeout_s=1) as serve,
        Sender(serve.url, database.new_key()) as sender,
    ):
        assert sender.send(mint.events(1)).status == 202
        victims.postgres.crash()
        with _careless(victims, "fsync"):
            answers = [sender.send(mint.events(1)).status for _ in range(5)]
            stored = database.event_count()
        wait_for(lambda: sender.send(mint.events(1)).status == 202, "it is safe again")

    assert (set(answers), stored) == ({503}, 1)

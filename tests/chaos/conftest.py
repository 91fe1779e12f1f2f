"""Servers that may be harmed, and a collector on them; each test gets them whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from harness.collector import Collector
from harness.database import Database
from harness.servers import OwnServers, own_servers, valkey_command
from harness.waiting import wait_for


@pytest.fixture(scope="session")
def _servers_to_harm() -> Iterator[OwnServers]:
    with own_servers() as servers:
        yield servers


@pytest.fixture
def victims(_servers_to_harm: OwnServers) -> OwnServers:
    """A Postgres and a Valkey for this test to harm, whole and with an empty stream."""
    _servers_to_harm.start()
    valkey_command(_servers_to_harm.valkey.url, "FLUSHALL")
    return _servers_to_harm


@pytest.fixture
def collector(victims: OwnServers, tmp_path: Path) -> Iterator[Collector]:
    """A collector on these servers, not started, with a database of its own."""
    database = Database.create(victims.postgres.url)
    yield Collector(database, victims.valkey.url, tmp_path)
    victims.postgres.start()
    wait_for(lambda: _is_dropped(database, victims), "the database can be dropped")


def _is_dropped(database: Database, victims: OwnServers) -> bool:
    try:
        database.drop(victims.postgres.url)
    except (asyncpg.PostgresError, OSError):
        return False
    return True


@pytest.fixture
def chaos_s() -> float:
    """How long to make trouble: CHAOS_SECONDS, 4 unless set; 20 and more show more."""
    return float(os.environ.get("CHAOS_SECONDS", "4"))


@pytest.fixture
def seed() -> int:
    """What the trouble depends on: CHAOS_SEED, 1 unless set; shown after a failure."""
    seed = int(os.environ.get("CHAOS_SEED", "1"))
    print(f"CHAOS_SEED={seed}")
    return seed

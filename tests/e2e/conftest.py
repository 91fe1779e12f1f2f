"""A collector on a database of its own, for each module that asks for one."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.collector import Collector
from harness.database import Database


@pytest.fixture(scope="module")
def collector(servers: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Collector:
    """A collector that nobody has started yet, on the servers of the session."""
    postgres_url, valkey_url = servers
    folder: Path = tmp_path_factory.mktemp("collector")
    # A database of Valkey of our own: nobody else's stream is in it.
    return Collector(Database.create(postgres_url), f"{valkey_url}?db=1", folder)

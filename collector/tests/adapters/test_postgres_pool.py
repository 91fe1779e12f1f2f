"""A pool is given only on a Postgres whose word can be kept."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from analytics_collector.adapters.migrate import migrate
from analytics_collector.adapters.postgres.pool import check_durability, connect_pool
from analytics_collector.embedded import Supervisor
from analytics_collector.embedded.postgres import EmbeddedPostgres
from analytics_collector.errors import ConfigurationError, UnsafeStore

SIZE = {"min_size": 1, "max_size": 1, "timeout_s": 5.0}


@pytest.fixture
def careless_server():
    """Return the DSN of a Postgres that was started to be fast."""
    home = Path(tempfile.mkdtemp(prefix="analytics-test-"))
    postgres = EmbeddedPostgres(home / "data")
    careless = ["-c", "fsync=off", "-c", "full_page_writes=off"]
    child = postgres.child()
    supervisor = Supervisor([replace(child, argv=[*child.argv, *careless])], data_dir=home / "data")
    supervisor.start()
    try:
        yield postgres.dsn
    finally:
        supervisor.stop()
        shutil.rmtree(home)


def test_a_postgres_that_does_not_flush_is_refused_by_name(careless_server, run):
    """Without fsync or full page writes a power cut takes back what we acknowledged."""
    with pytest.raises(UnsafeStore, match="fsync and full_page_writes off"):
        run(connect_pool(careless_server, **SIZE))


def test_a_postgres_that_commits_later_is_refused_by_name(empty_database, connection, run):
    """Without synchronous commit a crash does; the message says how to turn it on."""
    run(migrate(empty_database))
    name = run(connection.fetchval("select current_database()"))
    run(connection.execute(f"alter database {name} set synchronous_commit = off"))

    with pytest.raises(UnsafeStore, match=r"synchronous_commit off.*alter system reset"):
        run(connect_pool(empty_database, **SIZE))


def test_a_database_without_our_tables_is_refused(empty_database, run):
    """The server says at its start what is missing, not at the first event."""
    with pytest.raises(ConfigurationError, match="migrate"):
        run(connect_pool(empty_database, **SIZE))


def test_our_commits_wait_for_the_disk_even_if_the_server_is_changed_later(
    empty_database, connection, run
):
    """What was checked at the start holds for every connection that we ever make."""
    run(migrate(empty_database))
    name = run(connection.fetchval("select current_database()"))
    pool = run(connect_pool(empty_database, **SIZE))

    run(connection.execute(f"alter database {name} set synchronous_commit = off"))
    run(pool.expire_connections())

    assert run(pool.fetchval("show synchronous_commit")) == "on"
    run(pool.close())


def test_a_server_that_runs_goes_on_after_the_next_version_has_migrated(
    empty_database, connection, run
):
    """New connections too: an upgrade migrates first, then replaces one server after another."""
    run(migrate(empty_database))
    pool = run(connect_pool(empty_database, **SIZE))

    run(connection.execute("insert into schema_migrations values (9999, 'later', '')"))
    run(pool.expire_connections())
    assert run(pool.fetchval("select 1")) == 1

    run(connection.execute("delete from schema_migrations where version < 3"))
    run(pool.expire_connections())
    with pytest.raises(ConfigurationError, match="lacks"):
        run(pool.fetchval("select 1"))
    run(pool.close())


def test_a_safe_server_is_accepted(connection, run):
    """Postgres as it comes is good enough."""
    run(check_durability(connection))


def test_a_server_that_is_not_there_is_told_as_it_is(run):
    """At the start there is nobody to answer 503 to: the reason reaches the operator."""
    with pytest.raises((OSError, asyncpg.PostgresError)):
        run(connect_pool("postgresql://u@/db?host=/nonexistent", **SIZE))

"""Migrations: each once, all or nothing, and never on a database of a newer version."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import asyncpg
import pytest

from analytics_collector.adapters.migrate import (
    Migration,
    check_schema,
    load_migrations,
    migrate,
)
from analytics_collector.errors import ConfigurationError

ONE = Migration(1, "0001_one.sql", "create table one (n integer); insert into one values (1)")
TWO = Migration(2, "0002_two.sql", "create table two (n integer)")
BROKEN = Migration(2, "0002_broken.sql", "create table two (n integer); select 1 / 0")


def test_what_is_pending_is_applied_once(empty_database, connection, run):
    """A second start finds nothing to do, a later version only what is new."""
    assert run(migrate(empty_database, [ONE])) == [ONE]
    assert run(migrate(empty_database, [ONE])) == []
    assert run(migrate(empty_database, [ONE, TWO])) == [TWO]

    assert run(connection.fetchval("select count(*) from one")) == 1
    versions = run(connection.fetch("select version from schema_migrations order by 1"))
    assert [row["version"] for row in versions] == [1, 2]


def test_a_new_database_lets_nobody_in(empty_database, connection, run):
    """No key and no project that everybody knows: who runs it makes the first (SEC-22)."""
    run(migrate(empty_database))

    assert run(connection.fetchval("select count(*) from api_keys")) == 0
    assert run(connection.fetchval("select count(*) from projects")) == 0


def test_ten_that_start_at_once_apply_it_once(empty_database, connection, run):
    """Any number of servers may come up together on an empty database."""

    async def together() -> list[list[Migration]]:
        return await asyncio.gather(*(migrate(empty_database, [ONE, TWO]) for _ in range(10)))

    applied = run(together())

    assert sorted(map(len, applied)) == [0] * 9 + [2]
    assert run(connection.fetchval("select count(*) from one")) == 1


def test_a_migration_that_fails_leaves_nothing_behind(empty_database, connection, run):
    """There is no half-changed database, not even by the migrations before the one that failed."""
    with pytest.raises(asyncpg.DivisionByZeroError):
        run(migrate(empty_database, [ONE, BROKEN]))

    tables = run(connection.fetch("select tablename from pg_tables where schemaname = 'public'"))
    assert tables == []
    assert run(migrate(empty_database, [ONE, TWO])) == [ONE, TWO]


def test_a_file_that_was_changed_after_it_was_applied_is_refused(empty_database, run):
    """Two databases of the same version must not differ."""
    run(migrate(empty_database, [ONE]))

    with pytest.raises(ConfigurationError, match=r"0001_one\.sql was changed"):
        run(migrate(empty_database, [replace(ONE, sql=ONE.sql + " "), TWO]))


def test_a_database_of_a_newer_version_is_refused(empty_database, connection, run):
    """An old server does not touch what it does not understand, and says what to do."""
    run(migrate(empty_database, [ONE, TWO]))

    with pytest.raises(ConfigurationError, match=r"0002.*upgrade"):
        run(migrate(empty_database, [ONE]))


def test_a_server_does_not_start_on_another_schema(empty_database, connection, run):
    """It names what is missing and the command that helps; after that it is content."""
    first = load_migrations()[0].name
    with pytest.raises(ConfigurationError, match=rf"{first}.*analytics-collector migrate"):
        run(check_schema(connection))

    assert run(migrate(empty_database)) == load_migrations()
    run(check_schema(connection))
    run(connection.execute("insert into schema_migrations values (9999, 'later', '')"))
    with pytest.raises(ConfigurationError, match=r"9999.*upgrade"):
        run(check_schema(connection))
    # Who runs already goes on: the new schema has all that the old one had.
    run(check_schema(connection, is_running=True))


def test_no_two_of_our_files_have_the_same_number():
    """The number is the order; two of one number would be a race."""
    versions = [migration.version for migration in load_migrations()]

    assert versions == sorted(set(versions))

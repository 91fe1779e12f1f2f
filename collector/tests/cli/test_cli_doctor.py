"""What the doctor finds, on real servers that are well or ill."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
import redis
from click.testing import CliRunner

from analytics_collector.adapters.migrate import migrate
from analytics_collector.adapters.postgres.log import open_log
from analytics_collector.adapters.postgres.store import PostgresEventStore
from analytics_collector.cli import main
from analytics_collector.embedded import Supervisor
from analytics_collector.embedded.valkey import EmbeddedValkey
from analytics_collector.ingest.validate import validate
from analytics_collector.model import RawBatch

SECRET = "k3Jq0vVb9s1ZtQ8mWc5xYp2LrN7dHf4G"


class Patient:
    """An installation, and the doctor to look at it."""

    def __init__(self, run, admin_dsn, redis_url, folder):
        self.run = run
        self._admin_dsn = admin_dsn
        self.database = f"test_{uuid4().hex}"
        self.dsn = admin_dsn.replace("/analytics?", f"/{self.database}?")
        self.data_dir = folder / "data"
        self.environment = {
            "ANALYTICS_DATABASE_URL": self.dsn,
            "ANALYTICS_REDIS_URL": redis_url,
            "ANALYTICS_SECRET": SECRET,
            "ANALYTICS_DATA_DIR": str(self.data_dir),
        }
        self.operate(f"create database {self.database}")

    def operate(self, statement):
        """Do what the operator of the server does."""

        async def do():
            connection = await asyncpg.connect(self._admin_dsn)
            await connection.execute(statement)
            await connection.close()

        self.run(do())

    def migrate(self):
        self.run(migrate(self.dsn))
        return self

    def execute(self, statement):
        """Run *statement* in the database."""

        async def do():
            connection = await asyncpg.connect(self.dsn)
            await connection.execute(statement)
            await connection.close()

        self.run(do())

    def commit(self):
        """Store one event, as an hour ago."""

        async def do():
            pool = await asyncpg.create_pool(self.dsn, min_size=1, max_size=1)
            raw = {"type": "track", "name": "e", "messageId": str(uuid4())}
            rows = validate(RawBatch([raw], None, exact=False), 1, datetime.now(UTC)).rows
            await PostgresEventStore(pool).append(rows)
            await pool.execute("update commits set committed_at = now() - interval '1 h'")
            await pool.close()

        self.run(do())

    def output(self, *arguments, **environment):
        """Return the exit code and what is printed."""
        given = {**self.environment, **environment}
        result = CliRunner().invoke(main, ["doctor", *arguments], env=given)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result.exit_code, result.output

    def look(self, **environment):
        """Return the exit code and each check's status, detail and advice."""
        code, text = self.output("--json", **environment)
        told = json.loads(text)
        assert told["ok"] == (code == 0)
        return code, {check["check"]: check for check in told["checks"]}

    def assert_finds(self, check, status, words, **environment):
        """See that *check* has *status*, tells *words* and, unless it is ok, what to do."""
        code, checks = self.look(**environment)
        found = checks[check]
        assert (found["status"], words in found["detail"]) == (status, True), found
        assert bool(found["advice"]) == (status != "ok")
        if status == "fail":
            assert code == 1


@pytest.fixture
def empty(run, servers, tmp_path):
    """An installation whose database is empty."""
    patient = Patient(run, *servers, tmp_path)
    yield patient
    patient.operate(f"drop database {patient.database} with (force)")


@pytest.fixture
def patient(empty):
    """An installation that is well, but has no worker."""
    return empty.migrate()


@pytest.fixture
def forgetful_redis_url():
    """The URL of a Valkey of the test's own that keeps nothing."""
    home = Path(tempfile.mkdtemp(prefix="analytics-test-"))
    valkey = EmbeddedValkey(home / "data")
    supervisor = Supervisor([valkey.child()], data_dir=home / "data")
    supervisor.start()
    try:
        with redis.Redis.from_url(valkey.url) as operator:
            operator.config_set("maxmemory-policy", "allkeys-lru")
            operator.config_set("appendonly", "no")
        yield valkey.url
    finally:
        supervisor.stop()
        shutil.rmtree(home)


def test_a_well_installation_passes(patient):
    """Every check is told, and only the worker, which doesn't run, is warned of."""
    code, checks = patient.look()

    assert code == 0
    assert {name for name, check in checks.items() if check["status"] != "ok"} == {
        "worker: daily_counts",
        "worker: publisher",
    }
    assert {"settings", "secret", "postgres", "schema", "clock", "redis", "spool"} <= set(checks)


def test_the_doctor_speaks_to_people_too(patient):
    """A line for each check, and below it what to do."""
    code, text = patient.output()

    assert code == 0
    assert "ok    postgres: version " in text
    assert "warn  worker: publisher: nothing waits, and nobody is active\n      -> run " in text


def test_settings_that_are_missing_are_told_all_at_once(run):
    """Without them there is nothing to look at."""
    names = ("ANALYTICS_DATABASE_URL", "DATABASE_URL", "ANALYTICS_REDIS_URL", "ANALYTICS_SECRET")
    result = CliRunner().invoke(main, ["doctor"], env=dict.fromkeys((*names, "REDIS_URL")))

    assert result.exit_code == 1
    assert result.output.startswith("FAIL  settings: ANALYTICS_DATABASE_URL")
    assert "ANALYTICS_SECRET" in result.output


def test_a_database_without_our_tables_fails(empty):
    """It says what brings them."""
    empty.assert_finds("schema", "fail", "0001_init.sql")


def test_a_postgres_that_would_lose_commits_fails(patient):
    """As the server itself would refuse it."""
    patient.operate(f"alter database {patient.database} set synchronous_commit = off")
    patient.assert_finds("postgres durability", "fail", "synchronous_commit")


def test_a_postgres_that_takes_no_writes_fails(patient):
    """A replica is no place for events."""
    patient.operate(f"alter database {patient.database} set default_transaction_read_only = on")
    patient.assert_finds("postgres", "fail", "takes no writes")


@pytest.mark.parametrize(("seconds", "status"), [(5, "warn"), (-5, "warn"), (60, "fail")])
def test_clocks_that_differ_are_told(patient, seconds, status):
    """By how much, whichever is ahead."""
    patient.execute(
        "create schema other; create function other.clock_timestamp() returns timestamptz "
        f"language sql as $$select pg_catalog.clock_timestamp() + interval '{seconds} s'$$"
    )
    patient.operate(
        f"alter database {patient.database} set search_path = other, pg_catalog, public"
    )
    patient.assert_finds("clock", status, "s between this machine and Postgres")


def test_more_connections_than_postgres_has_are_warned_of(patient):
    """The arithmetic that is forgotten when workers are added."""
    workers = {"ANALYTICS_WORKERS": "64"}
    patient.assert_finds("postgres connections", "warn", "may want 900", **workers)


def test_commits_that_nobody_follows_fail(patient):
    """The newest commit is held against the cursors; a dead worker shows after a minute."""
    patient.commit()

    for name in ("daily_counts", "publisher"):
        waits = "1 commits behind, the oldest for 3600 s, and nobody is active"
        patient.assert_finds(f"worker: {name}", "fail", waits)


def test_a_worker_that_runs_and_lags_is_told_from_a_dead_one(patient):
    """The lock of its role tells that it is alive."""
    patient.commit()

    async def held():
        async with open_log(patient.dsn, 5.0) as log:
            assert await log.try_lock("daily_counts")
            # The command runs a loop of its own.
            return await asyncio.to_thread(patient.look)

    _, checks = patient.run(held())

    lagging = checks["worker: daily_counts"]
    assert lagging["status"] == "fail"
    assert lagging["detail"] == "1 commits behind, the oldest for 3600 s"
    assert "worker's log" in lagging["advice"]


@pytest.mark.parametrize(
    ("secret", "status", "words"),
    [
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "fail", "guessed"),
        ("change-me-change-me-change-me-now", "warn", "placeholder"),
        ("k3Jq0vVb9s1ZtQ8m", "warn", "short"),
        ("9f86d081884c7d659a2feaa0c55ad015", "ok", "random"),
    ],
)
def test_a_secret_that_can_be_guessed_is_told_and_not_shown(patient, secret, status, words):
    """Whoever guesses it can make keys."""
    patient.assert_finds("secret", status, words, ANALYTICS_SECRET=secret)
    assert secret not in patient.output(ANALYTICS_SECRET=secret)[1]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@127.0.0.1:1/analytics",
        "postgresql://me:hunter2@nowhere.invalid/analytics",
        "postgresql://me:hunter2@127.0.0.1:5432/analytics?sslmode=hunter2",
    ],
)
def test_a_postgres_that_is_away_fails_without_its_password(patient, url):
    """The same for everything that can be wrong with the URL; Redis is looked at all the same."""
    away = {"ANALYTICS_DATABASE_URL": url}
    patient.assert_finds("postgres", "fail", "can't be reached", **away)
    _, text = patient.output(**away)
    assert "hunter2" not in text
    assert "ok    redis: version" in text


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2@127.0.0.1:1/0",
        "redis://:hunter2@127.0.0.1:1/hunter2",
        "redis://:hunter2@127.0.0.1:1/0?socket_timeout=hunter2",
    ],
)
def test_a_redis_that_is_away_fails_without_its_password(patient, url):
    """And Postgres is looked at all the same."""
    code, text = patient.output(ANALYTICS_REDIS_URL=url)
    assert code == 1
    assert "FAIL  redis: " in text
    assert "ok    schema" in text
    assert "hunter2" not in text


def test_a_redis_that_forgets_is_warned_of(patient, forgetful_redis_url):
    """It never holds the only copy, except where it is the spool."""
    ours = {"ANALYTICS_REDIS_URL": forgetful_redis_url}

    patient.assert_finds("redis memory", "warn", "allkeys-lru", **ours)
    patient.assert_finds("redis persistence", "warn", "appendonly is off", **ours)
    spool = {"ANALYTICS_ACK": "spool", "ANALYTICS_SPOOL": "redis"}
    patient.assert_finds("redis memory", "fail", "allkeys-lru", **ours, **spool)


def test_secrets_that_others_may_read_fail(patient):
    """The data directory of an `up` keeps keys."""
    patient.data_dir.mkdir(mode=0o700)
    patient.assert_finds("data directory", "ok", "private")
    kept = patient.data_dir / "secret"
    kept.write_text(SECRET)
    kept.chmod(0o644)
    patient.assert_finds("data directory", "fail", str(kept))
    kept.chmod(0o600)
    patient.data_dir.chmod(0o755)
    patient.assert_finds("data directory", "fail", str(patient.data_dir))


def test_a_spool_that_can_not_take_events_fails(patient):
    """Before the first outage rather than in it."""
    folder = patient.data_dir / "spool"
    spool = {"ANALYTICS_ACK": "spool"}
    patient.assert_finds("spool", "ok", "not in use")
    patient.assert_finds("spool", "ok", "will be made", **spool)
    assert not folder.exists()
    folder.mkdir(parents=True, mode=0o755)
    folder.chmod(0o755)
    patient.assert_finds("spool", "fail", "others may enter", **spool)
    folder.chmod(0o700)
    patient.assert_finds("spool", "ok", "0 events wait", **spool)
    much = {"ANALYTICS_SPOOL_MAX_BYTES": str(2**60)}
    patient.assert_finds("spool", "warn", "no room", **spool, **much)


def test_a_spool_that_can_not_be_made_fails(patient):
    """Nor does the doctor try."""
    patient.data_dir.write_text("a file is in the way")
    patient.assert_finds("spool", "fail", "can't be made", ANALYTICS_ACK="spool")
    patient.assert_finds("data directory", "fail", "no directory")


def test_a_directory_that_up_never_had_is_said_so(tmp_path: Path):
    """And nothing is made in it."""
    folder = tmp_path / "none"
    result = CliRunner().invoke(main, ["doctor", "--data-dir", str(folder)])

    assert result.exit_code == 1
    assert "holds no data" in result.output
    assert not folder.exists()

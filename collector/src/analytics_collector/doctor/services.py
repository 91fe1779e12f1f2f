"""What answers elsewhere: Postgres and the log of commits in it, Redis, the worker."""

from __future__ import annotations

import time
from typing import Final

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from analytics_collector.adapters.migrate import check_schema
from analytics_collector.adapters.postgres.lag import (
    MAX_COMMITS,
    PUBLISHER,
    Lag,
    is_active,
    read_lags,
)
from analytics_collector.adapters.postgres.pool import STORE_FAILURES, check_durability
from analytics_collector.adapters.redis.client import REDIS_FAILURES, connect
from analytics_collector.adapters.redis.stream import EventStream
from analytics_collector.doctor.findings import Finding, Status, reason
from analytics_collector.errors import ConfigurationError, UnsafeStore
from analytics_collector.model import Cursor
from analytics_collector.settings import SPOOL_IN_REDIS, Settings

# The first with pg_current_snapshot(), on which the order of the log stands.
_OLDEST_POSTGRES: Final = 130_000
# More than this and times of receipt look wrong beside those of commits; then, really wrong: it is
# from where on the times of clients are corrected.
_SKEW_WARN_S: Final = 1.0
_SKEW_FAIL_S: Final = 30.0
# A worker needs milliseconds.
_LAG_WARN_S: Final = 60.0
_LAG_FAIL_S: Final = 600.0
# Beside the pool for questions: of a server for writes and for the door, of a worker for its jobs.
_OTHER_CONNECTIONS: Final = 6
_WORKER_CONNECTIONS: Final = 4


async def check_postgres(settings: Settings, published: Cursor | None) -> list[Finding]:
    """Look at Postgres, and in its log at the worker; *published* is where the stream ends."""
    try:
        connection = await asyncpg.connect(
            settings.database_url, timeout=settings.commit_timeout_s, command_timeout=10.0
        )
    except STORE_FAILURES as exc:
        advice = "look at ANALYTICS_DATABASE_URL, the server and the network between"
        return [Finding("postgres", "fail", f"can't be reached: {reason(exc)}", advice)]
    try:
        return [
            await _version(connection),
            await _durability(connection),
            await _connections(connection, settings),
            await _clock(connection),
            *await _schema_and_worker(connection, published),
        ]
    except STORE_FAILURES as exc:
        return [Finding("postgres", "fail", f"did not answer: {reason(exc)}", "look at its log")]
    finally:
        connection.terminate()


async def _version(connection: asyncpg.Connection) -> Finding:
    version = str(await connection.fetchval("show server_version"))
    number = int(await connection.fetchval("show server_version_num"))
    if number < _OLDEST_POSTGRES:
        return Finding("postgres", "fail", f"is version {version}", "upgrade it to 13 or newer")
    if await connection.fetchval("show transaction_read_only") == "on":
        advice = "let ANALYTICS_DATABASE_URL name the primary"
        return Finding("postgres", "fail", "takes no writes: a replica?", advice)
    return Finding("postgres", "ok", f"version {version}")


async def _durability(connection: asyncpg.Connection) -> Finding:
    try:
        await check_durability(connection)
    except UnsafeStore as exc:
        detail, _, advice = str(exc).partition(": ")
        return Finding("postgres durability", "fail", detail, advice)
    return Finding("postgres durability", "ok", "a commit is on the disk when it is confirmed")


async def _connections(connection: asyncpg.Connection, settings: Settings) -> Finding:
    most = int(await connection.fetchval("show max_connections"))
    most -= int(await connection.fetchval("show superuser_reserved_connections"))
    each = settings.database_pool_size + _OTHER_CONNECTIONS
    wanted = settings.workers * each + _WORKER_CONNECTIONS
    detail = f"this host may want {wanted} of {most}"
    if wanted > most:
        advice = "lower ANALYTICS_DATABASE_POOL_SIZE or ANALYTICS_WORKERS, or raise max_connections"
        return Finding("postgres connections", "warn", detail, advice)
    return Finding("postgres connections", "ok", detail)


async def _clock(connection: asyncpg.Connection) -> Finding:
    before = time.time()
    theirs = float(await connection.fetchval("select extract(epoch from clock_timestamp())"))
    after = time.time()
    # Its clock was read somewhere in between.
    skew_s = max(before - theirs, theirs - after, 0.0)
    status: Status = (
        "ok" if skew_s <= _SKEW_WARN_S else "warn" if skew_s <= _SKEW_FAIL_S else "fail"
    )
    advice = "" if status == "ok" else "keep both machines on time with chrony or ntpd"
    return Finding("clock", status, f"{skew_s:.3f} s between this machine and Postgres", advice)


async def _schema_and_worker(
    connection: asyncpg.Connection, published: Cursor | None
) -> list[Finding]:
    try:
        await check_schema(connection)
    except ConfigurationError as exc:
        return [Finding("schema", "fail", str(exc), "`analytics-collector migrate`")]
    lags = await read_lags(connection, published)
    return [
        Finding("schema", "ok", "is that of this version"),
        *[_follower(lag, await is_active(connection, lag.name)) for lag in lags],
    ]


def _follower(lag: Lag, active: bool) -> Finding:
    check = f"worker: {lag.name}"
    if lag.commits == 0 and active:
        return Finding(check, "ok", "has caught up")
    run_one = "run `analytics-collector worker`"
    if lag.commits == 0:
        return Finding(check, "warn", "nothing waits, and nobody is active", run_one)
    count = f"{lag.commits}{'+' if lag.commits >= MAX_COMMITS else ''}"
    detail = f"{count} commits behind, the oldest for {lag.seconds:.0f} s"
    if not active:
        status: Status = "fail" if lag.seconds > _LAG_WARN_S else "warn"
        return Finding(check, status, f"{detail}, and nobody is active", run_one)
    if lag.seconds <= _LAG_WARN_S:
        return Finding(check, "ok", detail)
    status = "fail" if lag.seconds > _LAG_FAIL_S else "warn"
    where = "Redis" if lag.name == PUBLISHER else "transactions in Postgres that stay open"
    return Finding(check, status, detail, f"look at the worker's log, and at {where}")


async def check_redis(settings: Settings) -> tuple[list[Finding], Cursor | None]:
    """Look at Redis; return also where the stream ends, None if that can't be told."""
    try:
        redis = connect(settings.redis_url)
    except ValueError:
        advice = "it looks like redis://user:password@host:6379/0"
        return [Finding("redis", "fail", "ANALYTICS_REDIS_URL is not understood", advice)], None
    try:
        info = await redis.info("server")
        version = info.get("valkey_version") or info.get("redis_version")
        findings = [Finding("redis", "ok", f"version {version}"), *await _memory(redis, settings)]
        return findings, await EventStream(redis).tail()
    except REDIS_FAILURES as exc:
        advice = "look at ANALYTICS_REDIS_URL, the server and the network between"
        return [Finding("redis", "fail", f"can't be used: {reason(exc)}", advice)], None
    finally:
        await redis.aclose()


async def _memory(redis: Redis, settings: Settings) -> list[Finding]:
    # Where it holds acknowledged events, what it forgets is lost.
    bad: Status = "fail" if settings.ack == "spool" and settings.spool == SPOOL_IN_REDIS else "warn"
    try:
        told = await redis.config_get("maxmemory-policy", "appendonly")
    except ResponseError:
        advice = "see that the service has maxmemory-policy noeviction, and appendonly yes"
        return [Finding("redis memory", "warn", "it does not tell its configuration", advice)]
    policy, append_only = told.get("maxmemory-policy"), told.get("appendonly")
    return [
        Finding("redis memory", "ok", "is never evicted")
        if policy == "noeviction"
        else Finding(
            "redis memory",
            bad,
            f"maxmemory-policy is {policy}: it may throw away the stream",
            "`config set maxmemory-policy noeviction`, and in its configuration file",
        ),
        Finding("redis persistence", "ok", "appendonly is on")
        if append_only == "yes"
        else Finding(
            "redis persistence",
            bad,
            "appendonly is off: after its restart limits, sessions and stream begin anew",
            "`config set appendonly yes`, and in its configuration file",
        ),
    ]

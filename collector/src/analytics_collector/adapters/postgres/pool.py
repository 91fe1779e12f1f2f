"""Connections to Postgres, and what its failures mean to us."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from analytics_collector.adapters.migrate import check_schema
from analytics_collector.errors import ConfigurationError, StoreUnavailable, UnsafeStore

logger = logging.getLogger(__name__)

# What a broken, overloaded, stopping or read-only server can make asyncpg raise. After a
# terminated backend it raises InternalClientError, which belongs to none of its families.
STORE_FAILURES = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
    EOFError,
)

# Of these: what lies in the values, not in the server. The same would come again.
EVENT_FAULTS = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    asyncpg.PLPGSQLError,
)

# To get a connection or to give it back: it lies there, or something is wrong.
_LEND_S = 1.0

_DURABILITY = ("fsync", "full_page_writes", "synchronous_commit")


# It answers, and waiting does not help: the operator has to change something.
_MISCONFIGURED = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)


async def is_reachable(database_url: str, timeout_s: float) -> bool:
    """Return whether there is a Postgres that is safe to acknowledge from and has our schema.

    Raises `UnsafeStore` or `ConfigurationError` (schema) if there is one that is not, and what
    asyncpg raises if it refuses us for good.
    """
    try:
        connection = await asyncpg.connect(database_url, timeout=timeout_s)
        try:
            await _check(connection)
        finally:
            await connection.close(timeout=timeout_s)
    except _MISCONFIGURED:
        raise
    except STORE_FAILURES as exc:
        logger.warning("Postgres is away", extra={"reason": type(exc).__name__})
        return False
    return True


async def connect_pool(
    database_url: str, *, min_size: int, max_size: int, timeout_s: float
) -> asyncpg.Pool:
    """Return a pool on a Postgres that is safe to acknowledge from and has our schema.

    Each connection is looked at when it is made, for Postgres may come back another than it was;
    later one that is not safe is an outage to those who want it. With a *min_size* of 0 it may be
    away. Otherwise raises `UnsafeStore`, `ConfigurationError` (schema), or what asyncpg raises.
    """
    if min_size:
        # On a connection that leaves all settings as they are.
        connection = await asyncpg.connect(database_url, timeout=timeout_s)
        try:
            await _check(connection)
        finally:
            await connection.close()
    return await asyncpg.create_pool(
        database_url,
        min_size=min_size,
        max_size=max_size,
        timeout=timeout_s,
        command_timeout=timeout_s,
        init=_check_again,
        reset=_keep,
        # Even if the server is reconfigured while we run, our commits wait for the disk.
        server_settings={"synchronous_commit": "on", "application_name": "analytics-collector"},
    )


def lend(pool: asyncpg.Pool) -> Any:
    """Return a context that lends a connection of *pool*, to those who may not wait for long.

    Giving one back waits until a command that was given up is known to have ended, which a frozen
    server never says: what bounds the asking bounds that as well.
    """
    return pool.acquire(timeout=_LEND_S)


async def _check(connection: asyncpg.Connection) -> None:
    await check_durability(connection)
    await check_schema(connection)


async def _check_again(connection: asyncpg.Connection) -> None:
    await check_durability(connection)
    await check_schema(connection, is_running=True)


async def _keep(connection: asyncpg.Connection) -> None:
    """Do nothing when a connection goes back: we leave no state, and a reset is a round trip."""


async def check_durability(connection: asyncpg.Connection) -> None:
    """Raise `UnsafeStore` if this Postgres acknowledges commits that a crash can take back."""
    off = [name for name in _DURABILITY if await connection.fetchval(f"show {name}") == "off"]
    if off:
        raise UnsafeStore(
            f"Postgres has {' and '.join(off)} off, so it would lose events that were "
            f"acknowledged: run `alter system reset {off[0]}` and `select pg_reload_conf()`"
        )


@asynccontextmanager
async def store_guard() -> AsyncIterator[None]:
    """Let the failures of Postgres inside appear as `StoreUnavailable`."""
    try:
        yield
    except asyncio.CancelledError:
        raise
    except asyncpg.SyntaxOrAccessError:
        raise  # a statement of ours is wrong, or a grant is missing: no outage that would pass
    except (UnsafeStore, ConfigurationError) as exc:
        # A server that was away when we started is back, and is not one that we may use.
        logger.error("Postgres can't be used", extra={"reason": str(exc)})
        raise StoreUnavailable(type(exc).__name__) from exc
    except STORE_FAILURES as exc:
        raise StoreUnavailable(type(exc).__name__) from exc

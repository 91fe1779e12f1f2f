"""Keep the jobs of a worker going, whatever happens to Postgres or Redis."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable

from redis.asyncio import Redis

from analytics_collector.adapters.postgres.log import CommitLog, open_log
from analytics_collector.adapters.postgres.pool import STORE_FAILURES
from analytics_collector.adapters.redis.client import REDIS_FAILURES, connect
from analytics_collector.adapters.redis.stream import ConsumerGroup, EventStream
from analytics_collector.settings import Settings
from analytics_collector.worker import daily_counts, housekeeping, lag_watch
from analytics_collector.worker.consumer import Consumer
from analytics_collector.worker.daily_counts import DailyCounts
from analytics_collector.worker.housekeeping import Housekeeping
from analytics_collector.worker.lag_watch import LagWatch
from analytics_collector.worker.publisher import Publisher

logger = logging.getLogger(__name__)

_RETRY_S = 0.5
_STANDBY_S = 1.0

Job = Callable[[CommitLog], Awaitable[None]]


async def run_until_stopped(settings: Settings) -> None:
    """Run all jobs until SIGTERM or SIGINT."""
    this = asyncio.current_task()
    assert this is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, this.cancel)
    try:
        await run_jobs(settings)
    except asyncio.CancelledError:
        logger.info("Stopped")


async def run_jobs(settings: Settings) -> None:
    """Run all jobs until cancelled."""
    redis = connect(settings.redis_url)
    consumer = f"{socket.gethostname()}-{os.getpid()}"
    try:
        await warn_of_eviction(redis)
        async with asyncio.TaskGroup() as jobs:
            jobs.create_task(
                active_alone(
                    settings,
                    "publisher",
                    lambda log: Publisher(log, EventStream(redis)).run(),
                )
            )
            # In every worker, so that its numbers are true whether it is active or stands by.
            jobs.create_task(
                kept_going(
                    settings,
                    lag_watch.NAME,
                    lambda log: LagWatch(log, EventStream(redis)).run(),
                )
            )
            jobs.create_task(
                active_alone(
                    settings,
                    daily_counts.NAME,
                    lambda log: Consumer(
                        DailyCounts(), log, ConsumerGroup(redis, daily_counts.NAME, consumer)
                    ).run(),
                )
            )
            jobs.create_task(
                active_alone(
                    settings,
                    housekeeping.NAME,
                    lambda log: Housekeeping(
                        log,
                        EventStream(redis),
                        max_letters=settings.dead_letter_max_per_project,
                        letter_days=settings.dead_letter_days,
                        commit_days=settings.commit_log_days,
                    ).run(),
                )
            )
    finally:
        await redis.aclose()


async def warn_of_eviction(redis: Redis) -> None:
    """Say so if Redis, when it is full, throws away the stream rather than refuse to grow."""
    try:
        policy = (await redis.config_get("maxmemory-policy")).get("maxmemory-policy")
    except REDIS_FAILURES:
        return  # absent, or a service that does not tell
    if policy not in (None, "noeviction"):
        logger.warning("Redis may evict the stream: set noeviction", extra={"policy": policy})


async def active_alone(settings: Settings, role: str, job: Job) -> None:
    """Run *job* for ever, in one process at a time; after a failure again from its beginning.

    The lock lives as long as the connection on which the job writes: who loses one loses both.
    """

    async def alone(log: CommitLog) -> None:
        while not await log.try_lock(role):
            await asyncio.sleep(_STANDBY_S)
        logger.info("Active", extra={"role": role})
        await job(log)

    await kept_going(settings, role, alone)


async def kept_going(settings: Settings, role: str, job: Job) -> None:
    """Run *job* for ever, on a connection of its own; after a failure again from its beginning."""
    while True:
        try:
            async with open_log(settings.database_url, settings.commit_timeout_s) as log:
                await job(log)
        except (*STORE_FAILURES, *REDIS_FAILURES) as exc:
            logger.warning("Interrupted", extra={"role": role, "reason": type(exc).__name__})
        except Exception:
            # The guard round a job: a fault of ours in one must not end the others.
            logger.exception("Job failed", extra={"role": role})
        await asyncio.sleep(_RETRY_S)

"""How far the publisher and the consumers are behind shows in the worker's /metrics."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from analytics_collector import metrics
from analytics_collector.adapters.postgres.lag import MAX_COMMITS, read_lags
from analytics_collector.adapters.redis.client import connect
from analytics_collector.adapters.redis.stream import EventStream
from analytics_collector.worker.lag_watch import LagWatch
from analytics_collector.worker.run import run_jobs


def told(name, **labels):
    return metrics.REGISTRY.get_sample_value(f"analytics_{name}", labels)


def commits_behind():
    """Return what is told of the publisher and of the consumer."""
    return [told("lag_commits", consumer=name) for name in ("publisher", "daily_counts")]


def oldest_waits():
    return [told("lag_seconds", consumer=name) for name in ("publisher", "daily_counts")]


@asynccontextmanager
async def watching(plant, redis=None):
    async with plant.log() as log:
        yield LagWatch(log, EventStream(redis or plant.redis))


def test_a_dead_worker_is_seen_from_what_waits(plant, run):
    """Nobody publishes or counts: commits and seconds grow."""

    async def scenario():
        async with watching(plant) as watch:
            await watch.measure()
            assert commits_behind() == [0, 0]
            assert oldest_waits() == [0, 0]
            for _ in range(3):
                await plant.commit()
            await plant.pool.execute("update commits set committed_at = now() - interval '90 s'")
            await watch.measure()
            assert commits_behind() == [3, 3]
            assert all(90 <= seconds < 100 for seconds in oldest_waits())

    run(scenario())


def test_a_dead_consumer_is_told_from_a_dead_publisher(plant, run):
    """What is published waits for the consumer alone."""

    async def scenario():
        await plant.commit()
        async with plant.log() as log, watching(plant) as watch:
            await plant.publish_all(plant.publisher(log))
            await plant.commit()
            await watch.measure()
            assert commits_behind() == [1, 2]
            assert told("stream_entries") == 1

    run(scenario())


def test_a_transaction_that_stays_open_shows_as_lag(plant, run):
    """It holds back all commits that came after it, and the publisher has to wait."""

    async def scenario():
        async with plant.log() as log, watching(plant) as watch, plant.pool.acquire() as other:
            await plant.publish_all(plant.publisher(log))
            async with other.transaction():
                await other.execute("select pg_current_xact_id()")
                await plant.commit()
                await plant.publish_all(plant.publisher(log))
                await watch.measure()
                assert commits_behind() == [1, 1]

    run(scenario())


def test_lags_are_told_while_redis_is_away(plant, run):
    """That is when they are wanted."""

    async def scenario():
        away = connect("redis://127.0.0.1:1/0")
        await plant.commit()
        async with watching(plant, away) as watch:
            await watch.measure()
        await away.aclose()
        assert commits_behind() == [1, 1]

    run(scenario())


def test_a_stream_of_another_database_is_no_progress(plant, run):
    """The publisher begins again where the slowest consumer is."""

    async def scenario():
        await plant.commit()
        async with plant.log() as log:
            stranger = (await log.after(await log.slowest_cursor(), 1))[0].cursor._replace(
                xid=2**60
            )
            lags = {lag.name: lag.commits for lag in await read_lags(log.connection, stranger)}
        assert lags == {"publisher": 1, "daily_counts": 1}

    run(scenario())


def test_counting_ends_somewhere(plant, run):
    """However far behind, it costs the same."""

    async def scenario():
        await plant.pool.execute(
            "insert into commits (commit_id, xid, event_count) "
            f"select n, '3', 0 from generate_series(1, {MAX_COMMITS + 5}) as n"
        )
        async with plant.log() as log:
            lags = await read_lags(log.connection, None)
        assert {lag.commits for lag in lags} == {MAX_COMMITS}

    run(scenario())


@pytest.mark.parametrize("workers", [1, 2])
def test_every_worker_tells_active_or_not(plant, run, ended, workers):
    """Measured beside the jobs, and the moment of it is told, too."""

    async def scenario():
        metrics.LAG_MEASURED.set(0)
        jobs = [asyncio.create_task(run_jobs(plant.settings)) for _ in range(workers)]
        async with ended(*jobs):
            await plant.commit()
            await plant.until_all_counted()

            async def measured():
                return bool(told("lag_measured_timestamp_seconds"))

            await plant.until(measured)

    run(scenario())
